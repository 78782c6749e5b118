//! What the daemons write for the operator to read: ServiceL2Status and ConfigurationState.

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::deploy::PATIENCE;
use serde_json::{Value, json};

use crate::{resources::name, world::World};

pub fn a_services_status_names_its_node(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    let owner = world.owner(address)?;
    let status = world.wait_for("one status of Service a", PATIENCE, || {
        let mut statuses = world.objects("servicel2statuses")?;
        ensure!(statuses.len() == 1, "{statuses:?}");
        let status = statuses.pop().context("none")?;
        ensure!(status.pointer("/status/node").is_some(), "{status}");
        Ok(Some(status))
    })?;
    for (pointer, expected) in [
        ("/status/node", owner.as_str()),
        ("/status/serviceName", "a"),
        ("/status/serviceNamespace", "default"),
        ("/metadata/labels/metallb.io~1node", owner.as_str()),
        ("/metadata/labels/metallb.io~1service-name", "a"),
        ("/metadata/labels/metallb.io~1service-namespace", "default"),
        ("/metadata/ownerReferences/0/kind", "Pod"),
    ] {
        let value = status.pointer(pointer).and_then(Value::as_str);
        ensure!(value == Some(expected), "{pointer} is {value:?}");
    }
    ensure!(name(&status).starts_with("l2-"), "{}", name(&status));
    // Another node must announce it: the status follows.
    world.create(
        "L2Advertisement",
        "all",
        json!({"nodeSelectors": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [owner]},
        ]}]}),
    )?;
    world.wait("the status to follow", PATIENCE, || {
        let statuses = world.objects("servicel2statuses")?;
        let nodes: Vec<_> = statuses
            .iter()
            .filter_map(|status| status.pointer("/status/node")?.as_str())
            .collect();
        let heir = world.owner(address)?;
        ensure!(
            nodes == [heir.as_str()] && heir != owner,
            "{nodes:?}, answered by {heir}"
        );
        Ok(true)
    })?;
    world.kubectl(&["delete", "service", "a"])?;
    world.wait("the status to go with its Service", PATIENCE, || {
        Ok(world.objects("servicel2statuses")?.is_empty())
    })
}

pub fn every_daemon_says_what_it_makes_of_the_configuration(world: &World) -> Result<()> {
    all_are(world, "Valid", "")?;
    without_webhooks(world, || {
        let overlapping = json!({"addresses": ["192.168.99.110-192.168.99.115"]});
        world.create("IPAddressPool", "overlapping", overlapping)?;
        all_are(world, "Invalid", "overlaps with")?;
        // Deleted by hand, they are written again.
        world.kubectl(&[
            "-n",
            "metallb-system",
            "delete",
            "configurationstates.metallb.io",
            "--all",
        ])?;
        all_are(world, "Invalid", "overlaps with")
    })?;
    world.delete("IPAddressPool", "overlapping")?;
    all_are(world, "Valid", "")
}

/// Takes the webhooks away for as long as `test` takes: they would refuse what it is about.
fn without_webhooks(world: &World, test: impl FnOnce() -> Result<()>) -> Result<()> {
    let webhooks = [
        "validatingwebhookconfiguration",
        "metallb-webhook-configuration",
    ];
    let mut kept: Value =
        serde_json::from_str(&world.kubectl(&[&["get", "-o", "json"][..], &webhooks].concat())?)?;
    let metadata = kept.get_mut("metadata").and_then(Value::as_object_mut);
    metadata
        .context("no metadata")?
        .retain(|field, _| field == "name");
    world.kubectl(&[&["delete"][..], &webhooks].concat())?;
    let result = test();
    world.apply(&kept.to_string())?;
    result
}

fn all_are(world: &World, result: &str, words: &str) -> Result<()> {
    let speakers = world
        .nodes()
        .into_iter()
        .map(|node| format!("speaker-{node}"));
    for daemon in speakers.chain(["controller".to_owned()]) {
        is(world, &daemon, result, words)?;
    }
    Ok(())
}

/// Waits until a daemon's state has this result, and a summary with these words or, without any, none.
fn is(world: &World, daemon: &str, result: &str, words: &str) -> Result<()> {
    world.wait(&format!("{daemon} to be {result}"), PATIENCE, || {
        let state = world.object("configurationstates", daemon)?;
        let text = |key: &str| {
            let value = state.pointer(&format!("/status/{key}"));
            value.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (is, summary) = (text("result"), text("errorSummary"));
        ensure!(
            is == result && summary.contains(words) && summary.is_empty() == words.is_empty(),
            "{is}: {summary:?}"
        );
        Ok(true)
    })
}
