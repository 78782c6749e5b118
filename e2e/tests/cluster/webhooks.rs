//! What the API server refuses because a webhook says so: MetalLB's own words, whoever serves the webhook.

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::deploy::resources;
use serde_json::{Value, json};

use crate::world::World;

pub fn bad_pools_are_refused(world: &World) -> Result<()> {
    let pool = |addresses: &str| json!({"addresses": [addresses]});
    world.create("IPAddressPool", "first", pool("203.0.113.1-203.0.113.100"))?;
    world.create("IPAddressPool", "second", pool("203.0.113.128/28"))?;
    for (name, spec, words) in [
        (
            "third",
            pool("203.0.113.15-203.0.113.20"),
            "overlaps with already defined CIDR",
        ),
        // A change is judged like a new one.
        (
            "second",
            pool("203.0.113.0/24"),
            "overlaps with already defined CIDR",
        ),
        ("third", pool("203.0.113.300/32"), "invalid CIDR"),
        (
            "third",
            pool("203.0.113.210-203.0.113.200"),
            "is after the end IP",
        ),
        (
            "third",
            json!({"addresses": []}),
            "pool has no prefixes defined",
        ),
        (
            "third",
            json!({"addresses": ["198.51.100.0/24"], "serviceAllocation": {"namespaces": ["a", "a"]}}),
            "duplicate definition in namespaces field",
        ),
    ] {
        let said = world.refused("IPAddressPool", name, spec)?;
        ensure!(denied(&said, words), "{name}, {words}: {said}");
    }
    // Nothing of it is there, and a good change still is taken.
    let second = world.object("IPAddressPool", "second")?;
    let addresses = second.pointer("/spec/addresses").context("no addresses")?;
    ensure!(*addresses == json!(["203.0.113.128/28"]), "{addresses}");
    world.create("IPAddressPool", "second", pool("203.0.113.128/27"))
}

pub fn bad_advertisements_are_refused(world: &World) -> Result<()> {
    for (spec, words) in [
        (
            json!({"ipAddressPools": ["a", "a"]}),
            "duplicate definition of ipAddressPools",
        ),
        (
            json!({"nodeSelectors": [{"matchLabels": {"a": "b"}}, {"matchLabels": {"a": "b"}}]}),
            "duplicate definition of nodeSelectors",
        ),
        (
            json!({"nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "Odd", "values": ["b"]}]}]}),
            "is not a valid label selector operator",
        ),
    ] {
        let said = world.refused("L2Advertisement", "bad", spec)?;
        ensure!(denied(&said, words), "{words}: {said}");
    }
    Ok(())
}

/// BGP is not spoken, but who has its objects must be able to keep them as with MetalLB.
pub fn bad_bgp_objects_are_refused(world: &World) -> Result<()> {
    world.create(
        "IPAddressPool",
        "small",
        json!({"addresses": ["203.0.113.0/28"]}),
    )?;
    let community = |value: &str| json!({"communities": [{"name": "any", "value": value}]});
    let peer = |address: &str| json!({"myASN": 64500, "peerASN": 64501, "peerAddress": address});
    for (kind, spec, words) in [
        (
            "BGPAdvertisement",
            json!({"aggregationLength": 26, "ipAddressPools": ["small"]}),
            "invalid aggregation length 26: prefix 28 in this pool is more specific than the aggregation length for \
             addresses 203.0.113.0/28",
        ),
        ("BGPPeer", peer("1.1.1"), "invalid BGPPeer address"),
        (
            "Community",
            community("99999999:1"),
            "invalid community value: invalid section",
        ),
        (
            "Community",
            community("lar:123:9999:123"),
            "expected community to be of format large",
        ),
        (
            "BGPAdvertisement",
            json!({"communities": ["1:2", "1:2"]}),
            "duplicate definition of community",
        ),
    ] {
        let said = world.refused(kind, "bad", spec)?;
        ensure!(denied(&said, words), "{kind}, {words}: {said}");
    }
    // Good ones are kept, and what a peer uses is not deleted.
    world.create("BFDProfile", "used", json!({"receiveInterval": 100}))?;
    let mut using = peer("192.0.2.1");
    if let Some(fields) = using.as_object_mut() {
        fields.insert("bfdProfile".to_owned(), json!("used"));
    }
    world.create("BGPPeer", "using", using)?;
    let said = match world.delete("BFDProfile", "used") {
        Ok(()) => anyhow::bail!("a profile in use was deleted"),
        Err(error) => format!("{error:#}"),
    };
    ensure!(
        denied(
            &said,
            "failed to delete BFDProfile used, used by BGPPeer using"
        ),
        "{said}"
    );
    world.delete("BGPPeer", "using")?;
    world.delete("BFDProfile", "used")
}

pub fn other_namespaces_are_refused(world: &World) -> Result<()> {
    for (kind, spec) in [
        ("BFDProfile", json!({})),
        ("IPAddressPool", json!({"addresses": ["203.0.113.0/28"]})),
        (
            "BGPPeer",
            json!({"myASN": 64500, "peerASN": 64501, "peerAddress": "192.0.2.1"}),
        ),
        ("BGPAdvertisement", json!({})),
        ("L2Advertisement", json!({})),
        ("Community", json!({"communities": []})),
    ] {
        let mut object = resources::object(kind, "elsewhere", &spec);
        let namespace = object.pointer_mut("/metadata/namespace");
        *namespace.context("no namespace")? = Value::from("default");
        let said = resources::refusal(world, &object)?;
        let words = "resource must be created in metallb-system namespace";
        ensure!(denied(&said, words), "{kind}: {said}");
    }
    Ok(())
}

fn denied(said: &str, words: &str) -> bool {
    said.contains("denied the request") && said.contains(words)
}
