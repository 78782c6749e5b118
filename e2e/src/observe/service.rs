//! Services of `type: LoadBalancer` as an operator makes and reads them.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{Lab, deploy::PATIENCE};

/// A Service of `type: LoadBalancer` in `default` with one TCP port 80 to 8080 and the selector
/// `app: <name>`, under `labels`; `spec` is merged into its spec.
pub fn balancer(name: &str, labels: &Value, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    });
    if let (Some(into), Some(from)) = (
        object.pointer_mut("/spec").and_then(Value::as_object_mut),
        spec.as_object(),
    ) {
        into.extend(from.clone());
    }
    object
}

/// `status.loadBalancer.ingress[].ip` of a Service in `default`, in order.
///
/// # Errors
/// There is no such Service.
pub fn addresses(lab: &Lab, name: &str) -> Result<Vec<String>> {
    let path = "jsonpath={.status.loadBalancer.ingress[*].ip}";
    let text = lab.kubectl(&["get", "service", name, "-o", path])?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Waits for a Service to have an address and returns the first one.
///
/// # Errors
/// It has none within [`PATIENCE`].
pub fn address(lab: &Lab, name: &str) -> Result<String> {
    lab.wait_for(&format!("an address of Service {name}"), PATIENCE, || {
        Ok(addresses(lab, name)?.into_iter().next())
    })
}

/// Whether a Service stays without an address for as long as a decision could take many times over.
///
/// # Errors
/// There is no such Service.
pub fn stays_without(lab: &Lab, name: &str) -> Result<bool> {
    for _ in 0..10 {
        if !addresses(lab, name)?.is_empty() {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(true)
}

/// The events about an object: reason and message of each, oldest first.
///
/// # Errors
/// `kubectl` cannot list them.
pub fn events(lab: &Lab, namespace: &str, kind: &str, name: &str) -> Result<Vec<(String, String)>> {
    let selector = format!("involvedObject.kind={kind},involvedObject.name={name}");
    let words = [
        "-n",
        namespace,
        "get",
        "events",
        "--field-selector",
        &selector,
        "-o",
        "json",
    ];
    let list: Value = serde_json::from_str(&lab.kubectl(&words)?)?;
    let mut events: Vec<_> = list
        .get("items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|event| {
            let text = |key: &str| {
                event
                    .get(key)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            (text("firstTimestamp"), text("reason"), text("message"))
        })
        .collect();
    events.sort();
    Ok(events
        .into_iter()
        .map(|(_, reason, message)| (reason, message))
        .collect())
}

/// Waits for an event with `reason` whose message contains `words`.
///
/// # Errors
/// There is none within [`PATIENCE`].
pub fn wait_event(
    lab: &Lab,
    namespace: &str,
    kind: &str,
    name: &str,
    reason: &str,
    words: &str,
) -> Result<()> {
    lab.wait_for(
        &format!("the event {reason} ({words}) of {kind} {name}"),
        PATIENCE,
        || {
            let events = events(lab, namespace, kind, name)?;
            let found = events
                .iter()
                .any(|(is, message)| is == reason && message.contains(words));
            anyhow::ensure!(found, "so far: {events:?}");
            Ok(Some(()))
        },
    )
}
