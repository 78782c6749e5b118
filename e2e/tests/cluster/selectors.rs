//! Which node answers for which Service: the selectors of L2Advertisements.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    deploy::PATIENCE,
    observe::{answerers, service},
};
use serde_json::{Value, json};

use crate::world::{CLIENT, World};

/// A selector of nodes by their names.
fn named(nodes: &[&str]) -> Value {
    json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]}])
}

/// The nodes but one.
fn others(world: &World, node: &str) -> Vec<String> {
    let mut nodes = world.nodes();
    nodes.retain(|other| other != node);
    nodes
}

pub fn the_announcer_follows_the_node_selector(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    for node in world.nodes() {
        world.create(
            "L2Advertisement",
            "all",
            json!({"nodeSelectors": named(&[&node]), "interfaces": ["eth0"]}),
        )?;
        world.answers(&node, address)?;
        world.said_of("a", &node)?;
    }
    // Nobody has the label, then one node has it.
    let labelled = json!({"nodeSelectors": [{"matchLabels": {"e2e-announces": "yes"}}]});
    world.create("L2Advertisement", "all", labelled)?;
    world.silence(address)?;
    world.with_label("n2", "e2e-announces=yes", || {
        world.answers("n2", address)?;
        world.fetch(address).map(drop)
    })?;
    world.silence(address)
}

pub fn several_advertisements_select_nodes(world: &World) -> Result<()> {
    world.clear_configuration()?;
    let pools = [
        ("first", "192.168.99.120/32"),
        ("second", "192.168.99.121/32"),
    ];
    for (name, addresses) in pools {
        world.create("IPAddressPool", name, json!({"addresses": [addresses]}))?;
    }
    // One node for the first pool by two advertisements that say the same, another for the second.
    for (name, pool, node) in [
        ("a", "first", "n2"),
        ("b", "first", "n2"),
        ("c", "second", "n3"),
    ] {
        let spec = json!({"ipAddressPools": [pool], "nodeSelectors": named(&[node])});
        world.create("L2Advertisement", name, spec)?;
    }
    for (name, pool) in [("a", "first"), ("b", "second")] {
        world.echo(name, "n1")?;
        let asked = json!({"metallb.io/address-pool": pool});
        world.dressed(name, json!({}), asked, json!({}))?;
    }
    world.gets("a", &["192.168.99.120"])?;
    world.gets("b", &["192.168.99.121"])?;
    world.answers("n2", [192, 168, 99, 120])?;
    world.answers("n3", [192, 168, 99, 121])?;
    // Two advertisements with different nodes: exactly one of these.
    world.create(
        "L2Advertisement",
        "b",
        json!({"ipAddressPools": ["first"], "nodeSelectors": named(&["n1"])}),
    )?;
    world.delete("L2Advertisement", "c")?;
    world.silence([192, 168, 99, 121])?;
    let owner = world.owner([192, 168, 99, 120])?;
    ensure!(
        owner == "n1" || owner == "n2",
        "answered by {owner}, which no advertisement selects"
    );
    for (name, node) in [("a", "n2"), ("b", "n1")] {
        if owner == node {
            world.delete("L2Advertisement", name)?;
            world.wait("the other of the two nodes to answer", PATIENCE, || {
                let heard = answerers(world, CLIENT, [192, 168, 99, 120])?;
                Ok(heard.len() == 1 && !heard.contains(node))
            })?;
        }
    }
    Ok(())
}

pub fn service_selectors_choose_services(world: &World) -> Result<()> {
    world.configure(&[
        ("advertised", &["192.168.99.120/30"]),
        ("other", &["192.168.99.124/30"]),
    ])?;
    // A pool and a Service's label, one of two.
    world.create(
        "L2Advertisement",
        "all",
        json!({
            "ipAddressPools": ["advertised"],
            "serviceSelectors": [
                {"matchLabels": {"tier": "gold"}},
                {"matchExpressions": [{"key": "also", "operator": "Exists"}]},
            ],
        }),
    )?;
    world.echo("app", "n1")?;
    let make = |name: &str, labels: Value, address: &str| {
        let spec = json!({"selector": {"app": "app"}, "loadBalancerIP": address});
        world.dressed(name, labels, json!({}), spec)?;
        world.gets(name, &[address])
    };
    // Those without a share first: what comes later is answered for when speakers have seen them.
    make("unlabelled", json!({"tier": "tin"}), "192.168.99.120")?;
    make("elsewhere", json!({"tier": "gold"}), "192.168.99.124")?;
    make("gold", json!({"tier": "gold"}), "192.168.99.121")?;
    make("also", json!({"also": "this"}), "192.168.99.122")?;
    for last in [121, 122] {
        world.owner([192, 168, 99, last])?;
    }
    for (name, last) in [("unlabelled", 120), ("elsewhere", 124)] {
        never_announced(world, name, [192, 168, 99, last].into())?;
    }
    // Labels come and go.
    world.patch(
        "unlabelled",
        &json!({"metadata": {"labels": {"tier": "gold"}}}),
    )?;
    world.owner([192, 168, 99, 120])?;
    world.patch("gold", &json!({"metadata": {"labels": {"tier": null}}}))?;
    world.silence([192, 168, 99, 121])?;
    world.patch("gold", &json!({"metadata": {"labels": {"also": "that"}}}))?;
    world.owner([192, 168, 99, 121]).map(drop)
}

pub fn service_selectors_and_node_selectors_go_together(world: &World) -> Result<()> {
    for (name, node, colour) in [("all", "n1", "blue"), ("more", "n2", "red")] {
        world.create(
            "L2Advertisement",
            name,
            json!({
                "nodeSelectors": named(&[node]),
                "serviceSelectors": [{"matchLabels": {"colour": colour}}],
            }),
        )?;
    }
    world.echo("app", "n3")?;
    for (name, colour) in [("grey", "grey"), ("blue", "blue"), ("red", "red")] {
        let spec = json!({"selector": {"app": "app"}});
        world.dressed(name, json!({"colour": colour}), json!({}), spec)?;
    }
    let address = |name: &str| -> Result<Ipv4Addr> { Ok(service::address(world, name)?.parse()?) };
    world.answers("n1", address("blue")?)?;
    world.answers("n2", address("red")?)?;
    never_announced(world, "grey", address("grey")?)?;
    // Selected by both, one of their nodes has it.
    for name in ["all", "more"] {
        let node = if name == "all" { "n1" } else { "n2" };
        world.create(
            "L2Advertisement",
            name,
            json!({
                "nodeSelectors": named(&[node]),
                "serviceSelectors": [{"matchLabels": {"colour": "grey"}}],
            }),
        )?;
    }
    let owner = world.owner(address("grey")?)?;
    ensure!(owner == "n1" || owner == "n2", "answered by {owner}");
    world.silence(address("blue")?)
}

/// Fails where anybody answers for a Service or says so, for as long as a decision could take many times over.
fn never_announced(world: &World, name: &str, address: Ipv4Addr) -> Result<()> {
    for _ in 0..2 {
        let heard = answerers(world, CLIENT, address)?;
        ensure!(heard.is_empty(), "{name} is answered for by {heard:?}");
    }
    let events = service::events(world, "default", "Service", name)?;
    let said = events.iter().any(|(reason, _)| reason == "nodeAssigned");
    ensure!(!said, "{name}: {events:?}");
    Ok(())
}

/// An advertisement's field that MetalLB's definitions have only since after 0.16.
pub fn preferred_nodes(world: &World) -> Result<()> {
    if !world.setup()?.is_ferrolb() {
        eprintln!("not a question to MetalLB 0.16");
        return Ok(());
    }
    let definition = ["customresourcedefinition", "l2advertisements.metallb.io"];
    let path =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/preferredNodeSelectors";
    let change = |change: Value| {
        let change = json!([change]).to_string();
        world.kubectl(&[&["patch"][..], &definition, &["--type=json", "-p", &change]].concat())
    };
    let schema = json!({
        "type": "array",
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    });
    change(json!({"op": "add", "path": path, "value": schema}))?;
    let result = prefer(world);
    change(json!({"op": "remove", "path": path}))?;
    result
}

/// Changes an advertisement to these preferences besides what else it says.
fn advertise(world: &World, name: &str, preferences: &[(&str, u8)], others: &Value) -> Result<()> {
    let preferences: Vec<_> = preferences
        .iter()
        .map(|(node, weight)| {
            json!({"weight": weight, "preference": {"matchLabels": {"kubernetes.io/hostname": node}}})
        })
        .collect();
    let mut spec = json!({"preferredNodeSelectors": preferences});
    if let (Some(fields), Some(others)) = (spec.as_object_mut(), others.as_object()) {
        fields.extend(others.clone());
    }
    world.wait("the API server to know the field", PATIENCE, || {
        world.create("L2Advertisement", name, spec.clone())?;
        let object = world.object("L2Advertisement", name)?;
        Ok(object.pointer("/spec/preferredNodeSelectors").is_some())
    })
}

/// Fails where the node does not go on answering for as long as a decision could take many times over.
fn stays(world: &World, node: &str, address: Ipv4Addr) -> Result<()> {
    world.answers(node, address)?;
    std::thread::sleep(Duration::from_secs(1));
    let heard = answerers(world, CLIENT, address)?;
    ensure!(heard == BTreeSet::from([node.to_owned()]), "{heard:?}");
    Ok(())
}

fn prefer(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    let base = world.owner(address)?;
    let rest = others(world, &base);
    let (one, two) = (
        rest.first().context("no second node")?,
        rest.last().context("no third node")?,
    );
    // Nobody has the label; then a node has it, is excluded, is back, has it no more.
    let label = "e2e-preferred=yes";
    world.wait("the API server to know the field", PATIENCE, || {
        let preference = json!({"matchLabels": {"e2e-preferred": "yes"}});
        let spec = json!({"preferredNodeSelectors": [{"weight": 100, "preference": preference}]});
        world.create("L2Advertisement", "all", spec)?;
        let object = world.object("L2Advertisement", "all")?;
        Ok(object.pointer("/spec/preferredNodeSelectors").is_some())
    })?;
    stays(world, &base, address)?;
    world.with_label(one, label, || {
        world.answers(one, address)?;
        let exclude = "node.kubernetes.io/exclude-from-external-load-balancers=";
        world.with_label(one, exclude, || world.answers(&base, address))?;
        world.answers(one, address)
    })?;
    world.answers(&base, address)?;
    // The advertisement changes.
    let none = json!({});
    advertise(world, "all", &[(two, 1)], &none)?;
    world.answers(two, address)?;
    // A preference does not stand above a selection.
    let selected = json!({"nodeSelectors": named(&[&base])});
    advertise(world, "all", &[(two, 100)], &selected)?;
    world.answers(&base, address)?;
    // Weights of one node add up over advertisements.
    advertise(world, "all", &[(one, 60), (two, 70)], &none)?;
    world.answers(two, address)?;
    advertise(world, "more", &[(one, 50)], &none)?;
    world.answers(one, address)?;
    // What a Service is not selected for does not count for it.
    let gold = json!({"serviceSelectors": [{"matchLabels": {"tier": "gold"}}]});
    advertise(world, "more", &[(one, 50)], &gold)?;
    world.answers(two, address)?;
    world.patch("a", &json!({"metadata": {"labels": {"tier": "gold"}}}))?;
    world.answers(one, address)
}
