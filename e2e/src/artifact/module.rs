//! Go modules as others released them, known by their checksums.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::steps::Steps;

/// A release of a Go module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// Its path: `helm.sh/helm/v4`.
    pub path: &'static str,
    /// Its version: `v4.3.1`.
    pub version: &'static str,
    /// What the Go checksum database says of it: `h1:` and a hash.
    pub sum: &'static str,
}

impl Module {
    /// Downloads it, or finds it downloaded, and returns where Go keeps its files, which nobody may write to.
    ///
    /// # Errors
    /// It cannot be had, or is not the one we know.
    pub fn sources(self, steps: &Steps) -> Result<PathBuf> {
        let Self { path, version, sum } = self;
        let answer = steps.run(
            &format!("downloading {path} {version}"),
            Command::new("go")
                .args(["mod", "download", "-json"])
                .arg(format!("{path}@{version}"))
                // Outside of every module, so that none of them has a say.
                .current_dir(env::temp_dir()),
        )?;
        let answer: Value = serde_json::from_str(&answer)?;
        let told = |key: &str| answer.get(key).and_then(Value::as_str);
        ensure!(
            told("Sum") == Some(sum),
            "{path} {version} is not what it was: its checksum is {:?}",
            told("Sum")
        );
        told("Dir")
            .map(PathBuf::from)
            .context("go names no directory of the module")
    }
}
