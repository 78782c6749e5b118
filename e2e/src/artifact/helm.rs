//! Helm, built from its Go module: what installs charts, ours and those of others.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::cache::Recipe;
use super::module::Module;
use crate::steps::Steps;

/// The newest stable release. Charts of `apiVersion: v2`, ours among them, are what Helm 3 installs too.
const HELM: Module = Module {
    path: "helm.sh/helm/v4",
    version: "v4.3.1",
    sum: "h1:UndCoLe9UPmNoL7IvWzaUXveL7T5t/ijoorEmgJdI9g=",
};

/// Returns the path of the program `helm`, building it when the cache has none: minutes on two cores when Go's cache
/// is cold. The compiler steps back for everything else on the machine.
///
/// # Errors
/// Its module cannot be had, is not the one we know, or does not build.
pub fn helm(steps: &Steps) -> Result<PathBuf> {
    let Module { path, version, sum } = HELM;
    let what = format!("Helm {version}");
    // No debug information, and the version it tells.
    let flags = format!("-s -w -X {path}/internal/version.version={version}");
    let sources = format!("{path} {version} {sum} {flags}");
    let recipe = Recipe {
        what: &what,
        name: "helm",
        sources: sources.as_bytes(),
        files: &["helm"],
    };
    let room = recipe.fetch(steps, |draft| {
        steps.say(&format!(
            "building {what}: once, minutes when Go's cache is cold"
        ));
        HELM.sources(steps)?;
        let mut command = Command::new("nice");
        command
            .args(["go", "install", "-trimpath", "-buildvcs=false", "-ldflags"])
            .arg(&flags)
            .arg(format!("{path}/cmd/helm@{version}"))
            .env("CGO_ENABLED", "0")
            .env("GOBIN", draft)
            .current_dir(draft);
        steps.run(&format!("building {what}"), &mut command)?;
        Ok(())
    })?;
    Ok(room.join("helm"))
}
