//! MetalLB itself, built from its Go module: what FerroLB is compared with and swapped for.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, thread};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

use super::cache::Recipe;
use super::module::Module;
use crate::image::Image;
use crate::steps::Steps;

/// The module all of MetalLB is.
const MODULE: &str = "go.universe.tf/metallb";
/// Where the module has the manifest an operator applies, since there are custom resources.
const MANIFEST: &str = "config/manifests/metallb-native.yaml";
/// The program that asks MetalLB's election, laid beside its sources.
const OWNERS: &str = "owners_test.go";
/// No debug information, as in its own images.
const LINKER_FLAGS: &str = "-s -w";

/// A release of MetalLB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Its version, also the tag of its images.
    pub version: &'static str,
    /// What the Go checksum database says of it.
    sum: &'static str,
    /// Whether it has what came after the ConfigMap: its own manifest as we apply it, and the election our program asks.
    newest: bool,
}

/// The newest release: custom resources.
pub const NEWEST: Release = Release {
    version: "v0.16.1",
    sum: "h1:iVtjCslcUFMOEvuNeAyW2ygZxyW+6YjnNcEuCTOZezc=",
    newest: true,
};

/// What minikube's addon runs: a ConfigMap, Endpoints.
pub const MINIKUBE: Release = Release {
    version: "v0.9.6",
    sum: "h1:ylNx61bfBBNlFsBfxHpTSgtHQJ0j/TFnStW3NesXGc0=",
    newest: false,
};

/// A release of MetalLB, built.
#[derive(Debug, Clone)]
pub struct MetalLb {
    release: Release,
    room: PathBuf,
}

impl Release {
    /// The name of MetalLB's own image of `controller` or `speaker`.
    pub fn image(self, program: &str) -> String {
        format!("quay.io/metallb/{program}:{}", self.version)
    }

    /// Builds it, or finds it built: with nothing cached about four minutes on two cores for the newest, one for
    /// minikube's. The compiler steps back for everything else on the machine, so that it can run beside a lab.
    ///
    /// # Errors
    /// Its module cannot be had, is not the one we know, or does not build.
    pub fn build(self, steps: &Steps) -> Result<MetalLb> {
        let what = format!("MetalLB {}", self.version);
        let mut sources = format!("{} {} {LINKER_FLAGS}", self.version, self.sum).into_bytes();
        let mut files = vec!["controller", "speaker"];
        let owners = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("metallb")
            .join(OWNERS);
        let owners =
            fs::read(&owners).with_context(|| format!("cannot read {}", owners.display()))?;
        if self.newest {
            sources.extend(&owners);
            files.extend(["owners", "manifest.yaml"]);
        }
        let recipe = Recipe {
            what: &what,
            name: "metallb",
            sources: &sources,
            files: &files,
        };
        let room = recipe.fetch(steps, |draft| {
            steps.say(&format!(
                "building {what}: once, minutes when Go's cache is cold"
            ));
            let module = self.sources(steps)?;
            // A copy that is its own main module: so it is built with the very versions its go.mod names, and a file
            // may be added to it.
            let sources = draft.join("sources");
            copy(&module, &sources)?;
            for program in ["controller", "speaker"] {
                let package = format!("./{program}");
                compile(steps, &sources, &["build"], &package, &draft.join(program))?;
            }
            if self.newest {
                fs::copy(module.join(MANIFEST), draft.join("manifest.yaml"))
                    .with_context(|| format!("{what} has no {MANIFEST}"))?;
                fs::write(sources.join("speaker").join(OWNERS), &owners)?;
                // Compiled, not run.
                let program = draft.join("owners");
                compile(steps, &sources, &["test", "-c"], "./speaker", &program)?;
            }
            Ok(())
        })?;
        Ok(MetalLb {
            release: self,
            room,
        })
    }

    /// Its sources, where Go keeps them: nobody may write there.
    ///
    /// # Errors
    /// Its module cannot be had, or is not the one we know.
    pub fn sources(self, steps: &Steps) -> Result<PathBuf> {
        let module = Module {
            path: MODULE,
            version: self.version,
            sum: self.sum,
        };
        module.sources(steps)
    }
}

/// Copies a module's sources but for its own tests, which would need modules that nothing else does.
fn copy(module: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in
        fs::read_dir(module).with_context(|| format!("cannot list {}", module.display()))?
    {
        let entry = entry?;
        let (from, into) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&from, &into)?;
        } else if !from.to_string_lossy().ends_with("_test.go") {
            // Not fs::copy: the original is read-only, and its copy would be.
            fs::write(&into, fs::read(&from)?)
                .with_context(|| format!("cannot write {}", into.display()))?;
        }
    }
    Ok(())
}

/// Compiles one package to `program` by these words to `go`.
fn compile(
    steps: &Steps,
    sources: &Path,
    words: &[&str],
    package: &str,
    program: &Path,
) -> Result<()> {
    let mut command = Command::new("nice");
    command
        .arg("go")
        .args(words)
        .args([
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            LINKER_FLAGS,
            "-o",
        ])
        .arg(program)
        .arg(package)
        .env("CGO_ENABLED", "0")
        .current_dir(sources);
    steps.run(&format!("building MetalLB's {package}"), &mut command)?;
    Ok(())
}

impl MetalLb {
    /// Packs its images under the names its manifest uses, laid out and run as its own are, and returns the archives.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn images(&self) -> Result<Vec<PathBuf>> {
        super::pack(&["controller", "speaker"].map(|program| {
            Image::of_program(
                &self.release.image(program),
                &format!("/{program}"),
                &self.room.join(program),
            )
        }))
    }

    /// Its own manifest of the native mode, as released; only the newest has one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn manifest(&self) -> Result<String> {
        let path = self.room.join("manifest.yaml");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Asks MetalLB's own election which nodes would announce each address, given the nodes that live. One answer for
    /// each question, in order. Only the newest can be asked.
    ///
    /// # Errors
    /// It does not answer every question.
    pub fn announcers(&self, questions: &[(Vec<String>, String)]) -> Result<Vec<Vec<String>>> {
        let mut asked = Command::new(self.room.join("owners"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start MetalLB's election")?;
        let mut input = asked.stdin.take().context("no standard input")?;
        let text: Vec<String> = questions
            .iter()
            .map(|(nodes, address)| json!({"nodes": nodes, "address": address}).to_string())
            .collect();
        let text = text.join("\n");
        // Beside reading, or both sides could wait for the other to read.
        let writer = thread::spawn(move || input.write_all(text.as_bytes()));
        let output = asked.wait_with_output()?;
        writer
            .join()
            .map_err(|_| anyhow!("nobody wrote the questions"))??;
        ensure!(output.status.success(), "the election: {}", output.status);
        let answers: Vec<Vec<String>> = String::from_utf8(output.stdout)?
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        ensure!(
            answers.len() == questions.len(),
            "{} answers to {} questions",
            answers.len(),
            questions.len()
        );
        Ok(answers)
    }
}
