//! Kubernetes and etcd in one static binary, built from `e2e/controlplane` once and kept in the
//! user's cache under a hash of its sources, so that a fresh clone finds it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, io};

use anyhow::{Context, Result, ensure};

use crate::image::hex;
use crate::steps::{SIGN_OF_LIFE, Steps};

/// The sources: everything the binary depends on.
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];

/// Returns the binary's path, building it when the cache has none for these sources: some ten
/// minutes on two cores with nothing downloaded yet. Builders wait for one another.
pub fn build(steps: &Steps) -> Result<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("controlplane");
    let mut recipe = env::consts::ARCH.as_bytes().to_vec();
    for name in SOURCES {
        let path = sources.join(name);
        recipe.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let module = fs::read_to_string(sources.join("go.mod"))?;
    let version = kubernetes_version(&module)
        .context("e2e/controlplane/go.mod requires no k8s.io/kubernetes")?;

    let hash = hex(&recipe).split_at(16).0.to_owned();
    let cache = cache_directory()?;
    let room = cache.join(format!("controlplane-{hash}"));
    let binary = room.join("controlplane");
    if binary.exists() {
        return Ok(binary);
    }
    fs::create_dir_all(&room).with_context(|| format!("cannot make {}", room.display()))?;
    let lock = fs::File::create(cache.join(format!("controlplane-{hash}.lock")))?;
    wait_for_lock(steps, &lock)?;
    if binary.exists() {
        return Ok(binary);
    }
    steps.say(&format!(
        "building Kubernetes {version}: once for these sources, minutes when Go's cache is cold"
    ));
    // A builder that was killed may have left its compiler running: everyone has their own draft.
    for entry in fs::read_dir(&room)?.flatten() {
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "part")
        {
            // One that is gone already is as good.
            let _ = fs::remove_file(entry.path());
        }
    }
    let draft = room.join(format!("{}.part", std::process::id()));
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
            .arg(&draft)
            .arg(".")
            .env("CGO_ENABLED", "0")
            .current_dir(&sources),
    )?;
    fs::rename(&draft, &binary).with_context(|| format!("cannot make {}", binary.display()))?;
    Ok(binary)
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

/// `${XDG_CACHE_HOME:-$HOME/.cache}/ferrolb`.
fn cache_directory() -> Result<PathBuf> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    let cache = cache
        .context("neither XDG_CACHE_HOME nor HOME names an absolute directory for the cache")?;
    Ok(cache.join("ferrolb"))
}

/// Waits until no other process builds the same binary; the lock ends with the open file.
fn wait_for_lock(steps: &Steps, lock: &fs::File) -> Result<()> {
    let mut shown = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => {
                ensure!(
                    error.kind() == io::ErrorKind::Interrupted,
                    "cannot lock the cache: {error}"
                );
            }
        }
        if shown.elapsed() >= SIGN_OF_LIFE {
            shown = Instant::now();
            steps.say("waiting: another process is building Kubernetes");
        }
        thread::sleep(Duration::from_millis(200));
    }
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
