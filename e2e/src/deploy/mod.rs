//! FerroLB on a lab: exactly the files of `config/deploy`, applied as an operator applies them, its chart ([`chart`]), or
//! its images on MetalLB's own manifests ([`setup`]), configured by a ConfigMap or by custom resources ([`resources`]).
//! [`rights`] compares what the daemons may do with what they do.

pub mod chart;
pub mod metrics;
pub mod resources;
pub mod rights;
pub mod setup;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::Lab;

pub use setup::Setup;

/// The namespace every manifest uses.
pub const NAMESPACE: &str = "metallb-system";

/// How long anything may take that takes seconds: it only catches what hangs.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// The project's top folder.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// A folder or file of `config/deploy`.
pub fn manifests(name: &str) -> PathBuf {
    project().join("config/deploy").join(name)
}

/// Applies a folder with a `kustomization.yaml` (`base`, `overlays/configmap-era`).
///
/// # Errors
/// `kubectl` refuses it.
pub fn apply_kustomization(lab: &Lab, folder: &str) -> Result<()> {
    let path = manifests(folder);
    let path = path.to_str().context("a path that is no text")?;
    lab.kubectl(&["apply", "-k", path]).map(drop)
}

/// Waits until the controller and a speaker on every node are ready.
///
/// # Errors
/// They are not within [`PATIENCE`].
pub fn wait_ready(lab: &Lab) -> Result<()> {
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    for workload in ["deployment/controller", "daemonset/speaker"] {
        let words = ["-n", NAMESPACE, "rollout", "status", workload, &timeout];
        lab.kubectl(&words)?;
    }
    Ok(())
}

/// Puts `document` under the key `config` of the ConfigMap `config`.
///
/// # Errors
/// `kubectl` refuses it.
pub fn configure(lab: &Lab, document: &str) -> Result<()> {
    let object = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": NAMESPACE, "name": "config"},
        "data": {"config": document},
    });
    lab.apply(&object.to_string()).map(drop)
}

/// A document with one layer-2 pool an entry: its name and its address entries.
pub fn pools(pools: &[(&str, &[&str])]) -> String {
    let pools: Vec<_> = pools
        .iter()
        .map(|(name, addresses)| {
            serde_json::json!({"name": name, "protocol": "layer2", "addresses": addresses})
        })
        .collect();
    // JSON is YAML.
    serde_json::json!({ "address-pools": pools }).to_string()
}

/// The pod of the speaker on `node`.
///
/// # Errors
/// There is none.
pub fn speaker_pod(lab: &Lab, node: &str) -> Result<String> {
    one_pod(
        lab,
        &[
            "-l",
            "component=speaker",
            "--field-selector",
            &format!("spec.nodeName={node},status.phase=Running"),
        ],
    )
}

/// The controller's pod.
///
/// # Errors
/// There is none.
pub fn controller_pod(lab: &Lab) -> Result<String> {
    one_pod(
        lab,
        &[
            "-l",
            "component=controller",
            "--field-selector",
            "status.phase=Running",
        ],
    )
}

fn one_pod(lab: &Lab, selection: &[&str]) -> Result<String> {
    let mut words = vec!["-n", NAMESPACE, "get", "pods", "-o", "name"];
    words.extend(selection);
    let names = lab.kubectl(&words)?;
    let name = names.lines().next().context("no such pod")?;
    Ok(name.trim_start_matches("pod/").to_owned())
}

/// What a daemon's pod has logged since it started (`previous`: before its last restart).
///
/// # Errors
/// `kubectl` cannot get it.
pub fn log(lab: &Lab, pod: &str, previous: bool) -> Result<String> {
    let previous = format!("--previous={previous}");
    lab.kubectl(&["-n", NAMESPACE, "logs", pod, &previous])
}
