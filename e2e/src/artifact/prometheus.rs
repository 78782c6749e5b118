//! Prometheus itself, out of Debian's package: the package is unpacked, not installed, for installing it would start a
//! server on the machine of who runs the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::Recipe;
use crate::steps::Steps;

/// Debian's package; both programs need libc alone.
const PACKAGE: &str = "prometheus";
/// The server, and the tool that checks and tests rules.
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// Prometheus, ready to run.
#[derive(Debug, Clone)]
pub struct Prometheus {
    room: PathBuf,
}

impl Prometheus {
    /// Unpacks the package, or finds it unpacked: a download of 20 MB.
    ///
    /// # Errors
    /// Debian's archive cannot be had.
    pub fn fetch(steps: &Steps) -> Result<Self> {
        let recipe = Recipe {
            what: "Prometheus",
            name: PACKAGE,
            sources: PACKAGE.as_bytes(),
            files: &PROGRAMS,
        };
        let room = recipe.fetch(steps, |draft| {
            if download(steps, draft).is_err() {
                // The lists of packages are old, or were never there.
                let mut update = Command::new("apt-get");
                update.args(["update", "-q"]);
                steps.run("apt-get update", &mut update)?;
                download(steps, draft)?;
            }
            let package = fs::read_dir(draft)?
                .flatten()
                .map(|entry| entry.path())
                .find(|path| path.extension().is_some_and(|kind| kind == "deb"))
                .context("apt-get downloaded no package")?;
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(&package).arg(draft.join("package"));
            steps.run("unpacking Prometheus", &mut unpack)?;
            for program in PROGRAMS {
                fs::rename(
                    draft.join("package/usr/bin").join(program),
                    draft.join(program),
                )
                .with_context(|| format!("Debian's {PACKAGE} has no {program}"))?;
            }
            Ok(())
        })?;
        Ok(Self { room })
    }

    /// The server, not started: it takes its configuration from this file, keeps its data there and answers on this
    /// address and port.
    pub fn server(&self, configuration: &Path, data: &Path, listen: &str) -> Command {
        let mut command = Command::new(self.room.join("prometheus"));
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={listen}"))
            .arg("--log.level=warn");
        command
    }

    /// The tool, without arguments.
    pub fn promtool(&self) -> Command {
        Command::new(self.room.join("promtool"))
    }
}

fn download(steps: &Steps, room: &Path) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        // It would warn that its own user cannot write here.
        .args(["-o", "APT::Sandbox::User=root", "download", PACKAGE])
        .current_dir(room);
    steps
        .run("downloading Debian's package of Prometheus", &mut command)
        .map(drop)
}
