//! Kubernetes and etcd in one static binary, built once from `e2e/controlplane`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::Recipe;
use crate::steps::Steps;

/// The sources: everything the binary depends on.
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];

/// Returns the binary's path, building it when the cache has none for these sources: some ten
/// minutes on two cores with nothing downloaded yet. Builders wait for one another.
pub fn build(steps: &Steps) -> Result<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("controlplane");
    let mut recipe = Vec::new();
    for name in SOURCES {
        let path = sources.join(name);
        recipe.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let module = fs::read_to_string(sources.join("go.mod"))?;
    let version = kubernetes_version(&module)
        .context("e2e/controlplane/go.mod requires no k8s.io/kubernetes")?;

    let what = format!("Kubernetes {version}");
    let recipe = Recipe {
        what: &what,
        name: "controlplane",
        sources: &recipe,
        files: &["controlplane"],
    };
    let room = recipe.fetch(steps, |draft| {
        steps.say(&format!(
            "building {what}: once for these sources, minutes when Go's cache is cold"
        ));
        steps.run(
            "building Kubernetes",
            Command::new("go")
                .args([
                    "build",
                    "-trimpath",
                    "-buildvcs=false",
                    "-ldflags",
                    &linker_flags(version),
                    "-o",
                ])
                .arg(draft.join("controlplane"))
                .arg(".")
                .env("CGO_ENABLED", "0")
                .current_dir(&sources),
        )?;
        Ok(())
    })?;
    Ok(room.join("controlplane"))
}

/// The version of Kubernetes a go.mod asks for, as `v1.35.4`.
fn kubernetes_version(module: &str) -> Option<&str> {
    module
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "))?
        .split_whitespace()
        .next()
}

/// Linker flags: no debug information, and the version the programs report.
fn linker_flags(version: &str) -> String {
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let package = "k8s.io/component-base/version";
    format!(
        "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor} \
         -X {package}.gitTreeState=clean"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_comes_from_the_module_that_is_built() {
        let module =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("controlplane/go.mod"))
                .unwrap();
        let version = kubernetes_version(&module).unwrap();
        assert!(version.starts_with("v1."), "{version}");
        let minor = version.split('.').nth(1).unwrap();
        assert!(linker_flags(version).contains(&format!("gitMinor={minor} ")));
    }

    #[test]
    fn a_module_without_kubernetes_has_no_version() {
        assert_eq!(
            kubernetes_version("module x\n\nreplace k8s.io/api => k8s.io/api v0.35.4\n"),
            None
        );
    }
}
