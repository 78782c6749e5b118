//! Static release binaries of this workspace, by cargo.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::repository;
use crate::steps::Steps;

/// Where cargo puts what it builds.
pub fn target_directory() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// Builds a package as static binaries by a profile of the workspace and returns each executable by its name.
/// `what` is named in the progress lines.
///
/// # Errors
/// Cargo fails.
pub fn build(
    steps: &Steps,
    what: &str,
    package: &str,
    profile: &str,
) -> Result<BTreeMap<String, PathBuf>> {
    let target = host_target()?;
    // The target is named although it is the host's: otherwise cargo would apply the flags to build
    // scripts and procedural macros too, which cannot be static.
    let output = steps.run(
        &format!("building {what}"),
        cargo()
            .args(["build", "--message-format", "json-render-diagnostics"])
            .args(["--target", &target, "-p", package, "--profile", profile])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            // Would take precedence when this process was itself started by cargo with flags.
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    Ok(executables(&output))
}

/// Builds a bench of a package with one of its features, as a release, and returns the program.
///
/// # Errors
/// Cargo fails.
pub fn bench(steps: &Steps, package: &str, feature: &str, name: &str) -> Result<PathBuf> {
    let output = steps.run(
        &format!("building the bench {name}"),
        cargo().args([
            "bench",
            "--no-run",
            "--message-format",
            "json-render-diagnostics",
            "-p",
            package,
            "--features",
            feature,
            "--bench",
            name,
        ]),
    )?;
    let built = executables(&output).remove(name);
    built.with_context(|| format!("cargo built no bench {name}"))
}

/// The executables named in cargo's JSON messages.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            let path = message.get("executable")?.as_str()?;
            let name = message.get("target")?.get("name")?.as_str()?;
            Some((name.to_owned(), PathBuf::from(path)))
        })
        .collect()
}

/// Cargo, in the repository's root.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository());
    command
}

/// The triple of this machine, as `x86_64-unknown-linux-gnu`.
fn host_target() -> Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .current_dir(repository())
        .output()
        .context("cannot run rustc")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .context("rustc -vV names no host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_cargos_messages() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"anyhow\"},\"executable\":null}\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"speaker\"},\"executable\":\"/t/speaker\"}\n",
            "{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        assert_eq!(
            executables(messages),
            BTreeMap::from([("speaker".to_owned(), PathBuf::from("/t/speaker"))])
        );
    }
}
