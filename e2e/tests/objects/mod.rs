//! Kubernetes objects out of YAML, for the tests of what we ship.

use anyhow::{Result, anyhow};
use serde_json::Value;

/// The objects of a YAML text with any number of documents; empty ones left out.
///
/// # Errors
/// It is no YAML.
pub fn objects(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| anyhow!("no YAML: {error}"))?;
    Ok(documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect())
}

/// The object of this kind and name.
///
/// # Errors
/// There is none, or more than one.
pub fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let wanted = |object: &&Value| {
        object.get("kind").and_then(Value::as_str) == Some(kind)
            && object.pointer("/metadata/name").and_then(Value::as_str) == Some(name)
    };
    let mut found = objects.iter().filter(wanted);
    match (found.next(), found.next()) {
        (Some(object), None) => Ok(object),
        (first, _) => Err(anyhow!(
            "{} objects {kind} {name}",
            if first.is_some() { "several" } else { "no" }
        )),
    }
}
