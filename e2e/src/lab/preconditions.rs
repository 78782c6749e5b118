//! What must be installed before a lab can be raised.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Commands and the Debian packages they come in.
const COMMANDS: [(&str, &str); 10] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("tcpdump", "tcpdump"),
    ("arping", "arping"),
    ("ndisc6", "ndisc6"),
    ("curl", "curl"),
    ("go", "golang-go (1.25 or newer)"),
];
/// Where distributions and people put the CNI plugins.
const PLUGIN_DIRECTORIES: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
/// The CNI plugins the pods' network is made of.
const PLUGINS: [&str; 3] = ["ptp", "host-local", "loopback"];

/// What is missing on this machine, one line each with the Debian package to install; empty when a
/// lab can be raised.
pub fn missing() -> Vec<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = env::split_paths(&path).collect();
    let found = |name: &str| {
        directories
            .iter()
            .any(|directory| directory.join(name).is_file())
    };
    let mut missing: Vec<String> = COMMANDS
        .iter()
        .filter(|(command, _)| !found(command))
        .map(|(command, package)| format!("command {command}: apt-get install {package}"))
        .collect();
    if cni_plugins().is_err() {
        missing.push(format!(
            "CNI plugins {} in one of {}: apt-get install containernetworking-plugins",
            PLUGINS.join(", "),
            PLUGIN_DIRECTORIES.join(", ")
        ));
    }
    if !is_root() {
        missing.push("root: network namespaces and containers need it".to_owned());
    }
    missing
}

/// Fails with everything that is [`missing`].
pub(super) fn check() -> Result<()> {
    let missing = missing();
    ensure!(
        missing.is_empty(),
        "the lab cannot be raised here. Missing:\n  {}",
        missing.join("\n  ")
    );
    Ok(())
}

/// The directory with the CNI plugins.
pub(super) fn cni_plugins() -> Result<PathBuf> {
    PLUGIN_DIRECTORIES
        .iter()
        .map(Path::new)
        .find(|directory| {
            PLUGINS
                .iter()
                .all(|plugin| directory.join(plugin).is_file())
        })
        .map(Path::to_path_buf)
        .context("no CNI plugins")
}

/// Whether this process runs as root: its own /proc entry belongs to its effective user.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
