//! MetalLB's custom resources, as an operator makes and reads them.

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use super::{NAMESPACE, PATIENCE};
use crate::Lab;

/// Every kind an operator writes, by its plural.
pub const CONFIGURATION: [&str; 6] = [
    "ipaddresspools",
    "l2advertisements",
    "bgpadvertisements",
    "bgppeers",
    "bfdprofiles",
    "communities",
];

/// An object of MetalLB's group in [`NAMESPACE`]; `kind` is as in `IPAddressPool`.
pub fn object(kind: &str, name: &str, spec: &Value) -> Value {
    let version = if kind == "BGPPeer" {
        "v1beta2"
    } else {
        "v1beta1"
    };
    json!({
        "apiVersion": format!("metallb.io/{version}"),
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    })
}

/// Applies an object. A webhook that nobody serves yet is waited for; what refuses the object is the error.
///
/// # Errors
/// The API server or a webhook refuses the object, or no webhook answers within [`PATIENCE`].
pub fn submit(lab: &Lab, object: &Value) -> Result<()> {
    let text = object.to_string();
    lab.wait_for("a webhook's verdict", PATIENCE, || match lab.apply(&text) {
        Ok(_) => Ok(Some(Ok(()))),
        // The API server's words for a webhook it cannot reach; those of a refusal are "denied the request".
        Err(error) if format!("{error:#}").contains("failed calling webhook") => Err(error),
        Err(error) => Ok(Some(Err(error))),
    })?
}

/// Applies an object that must be refused and returns what the refusal says.
///
/// # Errors
/// It is accepted.
pub fn refusal(lab: &Lab, object: &Value) -> Result<String> {
    match submit(lab, object) {
        Ok(()) => bail!("accepted: {object}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// One object of [`NAMESPACE`], whole; `kind` in any form kubectl takes.
///
/// # Errors
/// There is no such object.
pub fn get(lab: &Lab, kind: &str, name: &str) -> Result<Value> {
    let words = ["-n", NAMESPACE, "get", &qualified(kind), name, "-o", "json"];
    Ok(serde_json::from_str(&lab.kubectl(&words)?)?)
}

/// All objects of a kind in [`NAMESPACE`].
///
/// # Errors
/// The kind is not known.
pub fn list(lab: &Lab, kind: &str) -> Result<Vec<Value>> {
    let words = ["-n", NAMESPACE, "get", &qualified(kind), "-o", "json"];
    let mut list: Value = serde_json::from_str(&lab.kubectl(&words)?)?;
    match list.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(anyhow!("kubectl shows no list of {kind}")),
    }
}

/// Deletes one object of [`NAMESPACE`].
///
/// # Errors
/// There is no such object.
pub fn delete(lab: &Lab, kind: &str, name: &str) -> Result<()> {
    lab.kubectl(&["-n", NAMESPACE, "delete", &qualified(kind), name])
        .map(drop)
}

/// Deletes everything an operator has written.
///
/// # Errors
/// `kubectl` refuses.
pub fn clear(lab: &Lab) -> Result<()> {
    let kinds = CONFIGURATION.map(qualified).join(",");
    lab.kubectl(&["-n", NAMESPACE, "delete", &kinds, "--all"])
        .map(drop)
}

/// A kind with its group: other groups may have kinds of the same name.
fn qualified(kind: &str) -> String {
    format!("{}.metallb.io", kind.to_ascii_lowercase())
}
