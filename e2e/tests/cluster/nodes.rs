//! Nodes that must not answer, and nodes that come back.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    deploy::{self, NAMESPACE},
    observe::sole_answerer,
};
use serde_json::json;

use crate::world::{CLIENT, World};

/// A Service with endpoints on every node, announced: its address and its owner.
fn announced(world: &World) -> Result<(Ipv4Addr, String)> {
    for node in world.nodes() {
        world.echo("a", &node)?;
    }
    let address = world.balanced("a", json!({}))?;
    let owner = world.owner(address)?;
    world.said_of("a", &owner)?;
    Ok((address, owner))
}

pub fn network_unavailable_moves_and_returns(world: &World) -> Result<()> {
    let (address, owner) = announced(world)?;
    let unavailable = |status: &str| {
        let patch = json!({"status": {"conditions": [{
            "type": "NetworkUnavailable", "status": status, "reason": "Test", "message": "said by a test",
        }]}});
        let patch = patch.to_string();
        world.kubectl(&[
            "patch",
            "node",
            &owner,
            "--subresource=status",
            "--type=strategic",
            "-p",
            &patch,
        ])
    };
    unavailable("True")?;
    let moved = heir(world, address, &owner);
    unavailable("False")?;
    moved?;
    world.answers(&owner, address)
}

pub fn the_exclude_label_moves_and_returns(world: &World) -> Result<()> {
    let (address, owner) = announced(world)?;
    let label = "node.kubernetes.io/exclude-from-external-load-balancers=";
    world.with_label(&owner, label, || heir(world, address, &owner))?;
    world.answers(&owner, address)
}

pub fn a_node_without_a_speaker_moves_and_returns(world: &World) -> Result<()> {
    let (address, owner) = announced(world)?;
    let pod = deploy::speaker_pod(world, &owner)?;
    // A taint the DaemonSet does not tolerate: the pod that goes is not followed by another.
    world.kubectl(&["taint", "node", &owner, "e2e=away:NoSchedule"])?;
    let moved = world
        .kubectl(&["-n", NAMESPACE, "delete", "pod", &pod])
        .and_then(|_| heir(world, address, &owner));
    world.kubectl(&["taint", "node", &owner, "e2e:NoSchedule-"])?;
    moved?;
    world.answers(&owner, address)?;
    deploy::wait_ready(world)
}

/// Waits until another node than `gone` answers, and says so, and serves.
fn heir(world: &World, address: Ipv4Addr, gone: &str) -> Result<()> {
    let heir = sole_answerer(world, CLIENT, address, &[gone])?;
    ensure!(world.nodes().contains(&heir), "{heir} is no node");
    world.said_of("a", &heir)?;
    world.fetch(address).map(drop)
}
