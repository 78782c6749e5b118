//! FerroLB's own images, laid out as the Dockerfile does: one program under the names it is chosen by, and three images
//! of it that differ in what is started, and by whom.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{NOBODY, binaries, pack};
use crate::image::Image;
use crate::steps::Steps;

/// The package and program all three are made of.
const PACKAGE: &str = "ferrolb-image";
/// What the program is called in its layer, and started as in the image for both daemons.
const PROGRAM: &str = "/ferrolb";
/// What the C library's allocator is told (docs/images.md).
const ENVIRONMENT: &[(&str, &str)] = &[(
    "GLIBC_TUNABLES",
    "glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=131072",
)];
/// The daemons, each a further name of the program.
const DAEMONS: [&str; 2] = ["controller", "speaker"];

/// The name of an image of FerroLB: `program` is `controller`, `speaker`, or `ferrolb` for the one that is either.
pub fn ferrolb_image(program: &str) -> String {
    format!("docker.io/ferrolb/{program}:{}", env!("CARGO_PKG_VERSION"))
}

/// Builds and packs FerroLB's own images and returns the archives: those of `controller`, `speaker` and `ferrolb`.
///
/// # Errors
/// Cargo fails, or an archive cannot be written.
pub fn ferrolb_images(steps: &Steps) -> Result<Vec<PathBuf>> {
    pack(&images(&ferrolb_program(steps)?))
}

/// Builds the one program of the images and returns it: called `ferrolb`, it is the operator's tool as well.
/// `FERROLB_PROFILE` in the environment is cargo's profile: `release` if it is not set, or `dist` as the Dockerfile has.
///
/// # Errors
/// Cargo fails.
pub fn ferrolb_program(steps: &Steps) -> Result<PathBuf> {
    let profile = env::var("FERROLB_PROFILE").unwrap_or_default();
    let profile = Some(profile.as_str()).filter(|profile| !profile.is_empty());
    let mut built = binaries::build(steps, "FerroLB", PACKAGE, profile.unwrap_or("release"))?;
    built
        .remove(PACKAGE)
        .with_context(|| format!("cargo built no {PACKAGE}"))
}

/// The three images of `program`.
fn images(program: &Path) -> [Image; 3] {
    let all = |name: &str| {
        let image = Image::of_program(&ferrolb_image(name), PROGRAM, program);
        let image = image.environment(ENVIRONMENT);
        DAEMONS
            .iter()
            .fold(image, |image, daemon| {
                image.link(&format!("/{daemon}"), PROGRAM.trim_start_matches('/'))
            })
            .started_as(&format!("/{name}"))
    };
    [
        all("controller").user(NOBODY),
        all("speaker"),
        all("ferrolb"),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    /// What the lines of a stage say, by their first word.
    type Stage = BTreeMap<String, Vec<String>>;

    /// The Dockerfile's stages by their names, each with what it inherits from a stage before it.
    fn stages() -> BTreeMap<String, Stage> {
        let text = fs::read_to_string(super::super::repository().join("Dockerfile")).unwrap();
        let text = text.replace("\\\n", " ");
        let mut stages: BTreeMap<String, Stage> = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((word, rest)) = line.trim().split_once(' ') else {
                continue;
            };
            let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
            if word == "FROM" {
                let (base, name) = rest.split_once(" AS ").unwrap();
                current = name.to_owned();
                let inherited = stages.get(base).cloned().unwrap_or_default();
                stages.insert(current.clone(), inherited);
            }
            let stage = stages.entry(current.clone()).or_default();
            stage.entry(word.to_owned()).or_default().push(rest);
        }
        stages
    }

    #[test]
    fn the_dockerfile_makes_the_same_images() {
        let stages = stages();
        for image in images(Path::new("/dev/null")) {
            let name = image.name.trim_start_matches("docker.io/ferrolb/");
            let stage = &stages[name.split_once(':').unwrap().0];
            let entrypoint = serde_json::to_string(&image.entrypoint).unwrap();
            assert_eq!(stage["ENTRYPOINT"], [entrypoint], "{name}");
            let variables = ENVIRONMENT.iter();
            let variables: Vec<_> = variables.map(|(k, v)| format!("{k}={v}")).collect();
            assert_eq!(stage["ENV"], variables, "{name}");
            let user = stage.get("USER").map(|lines| lines.join(" "));
            let expected = image.user.map(|user| format!("{user}:{user}"));
            assert_eq!(user, expected, "{name}");
            let copied = ["--from=build /out/ /".to_owned()];
            assert_eq!(stage["COPY"], copied, "one layer, the same in all: {name}");
        }
        // What is built where no target is named.
        let text = fs::read_to_string(super::super::repository().join("Dockerfile")).unwrap();
        let last = text.lines().rfind(|line| line.starts_with("FROM "));
        assert_eq!(last, Some("FROM program AS ferrolb"));
    }

    #[test]
    fn the_dockerfile_builds_what_is_built_here() {
        let stages = stages();
        let run = stages["build"]["RUN"].join(" ");
        let built = format!("--profile dist --target \"$triple\" -p {PACKAGE} ");
        assert!(run.contains(&built), "{run}");
        for (path, target) in &images(Path::new("/dev/null"))[0].links {
            assert!(
                run.contains(&format!("ln -s {target} /out{path}")),
                "{path}"
            );
        }
        let toolchain = super::super::repository().join("rust-toolchain.toml");
        let toolchain = fs::read_to_string(toolchain).unwrap();
        let channel = toolchain
            .lines()
            .find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'))
            .unwrap();
        let builder = &stages[""]["ARG"][0];
        assert!(builder.contains(&format!(":{channel}-")), "{builder}");
        let version = format!("image.version=\"{}\"", env!("CARGO_PKG_VERSION"));
        assert!(stages["program"]["LABEL"].join(" ").contains(&version));
    }
}
