//! Who answers when a node, a speaker or an endpoint comes and goes.

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    deploy::{self, NAMESPACE, PATIENCE},
    observe::{arp, service, sole_answerer},
};
use serde_json::json;

use crate::world::{CLIENT, World};

pub fn local_traffic_policy_follows_the_endpoints(world: &World) -> Result<()> {
    let address = world.balanced("local", json!({"externalTrafficPolicy": "Local"}))?;
    world.silence(address)?;
    world.echo("local", "n2")?;
    ensure!(world.owner(address)? == "n2", "only n2 has an endpoint");
    service::wait_event(
        world,
        "default",
        "Service",
        "local",
        "nodeAssigned",
        "announcing from node \"n2\"",
    )?;
    let body = world.fetch(address)?;
    ensure!(
        body.contains(&world.address(CLIENT)?.to_string()),
        "the client's address is kept: {body}"
    );

    world.echo("local", "n1")?;
    world.kubectl(&["delete", "pod", "local-n2", "--grace-period=1"])?;
    world.wait(
        "n1, the only node with an endpoint left, to answer",
        PATIENCE,
        || {
            let answerers = arp::answerers(world, CLIENT, address)?;
            ensure!(answerers.iter().eq(["n1"]), "answered by {answerers:?}");
            Ok(true)
        },
    )?;
    world.kubectl(&["delete", "pod", "local-n1", "--grace-period=1"])?;
    world.silence(address)
}

pub fn speaker_killed_in_place_answers_again(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    let owner = world.owner(address)?;
    let pod = deploy::speaker_pod(world, &owner)?;
    let watch = arp::Watch::start(world, CLIENT, address)?;
    world.kill_container(&pod, "speaker")?;
    world.wait("one answer again", PATIENCE, || {
        let answerers = arp::answerers(world, CLIENT, address)?;
        ensure!(answerers.len() == 1, "answered by {answerers:?}");
        Ok(true)
    })?;
    let replies = watch.stop(world)?;
    eprintln!(
        "speaker killed in place: longest gap between answers {:.0} ms, answered by {:?}",
        arp::longest_gap(&replies) * 1000.0,
        arp::turns(&replies)
    );
    Ok(())
}

pub fn speaker_gone_another_node_answers(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    let owner = world.owner(address)?;
    let pod = deploy::speaker_pod(world, &owner)?;
    // A taint the DaemonSet does not tolerate: the pod that goes is not followed by another.
    world.kubectl(&["taint", "node", &owner, "e2e=away:NoSchedule"])?;
    let watch = arp::Watch::start(world, CLIENT, address)?;
    world.kubectl(&["-n", NAMESPACE, "delete", "pod", &pod])?;
    let result = sole_answerer(world, CLIENT, address, &[&owner]);
    let replies = watch.stop(world)?;
    world.kubectl(&["taint", "node", &owner, "e2e:NoSchedule-"])?;
    deploy::wait_ready(world)?;
    let heir = result?;
    ensure!(
        arp::turns(&replies).first() == Some(&owner) && arp::turns(&replies).last() == Some(&heir),
        "answered in turn by {:?}",
        arp::turns(&replies)
    );
    eprintln!(
        "speaker gone: {owner} -> {heir}, longest gap between answers {:.0} ms, turns {:?}",
        arp::longest_gap(&replies) * 1000.0,
        arp::turns(&replies)
    );
    world.fetch(address)?;
    Ok(())
}

pub fn node_unplugged_another_node_answers(world: &World) -> Result<()> {
    let address = world.balanced("a", json!({}))?;
    // Endpoints everywhere: the Service must not lose its last one with the node.
    for node in world.nodes() {
        world.echo("a", &node)?;
    }
    let owner = world.owner(address)?;
    let watch = arp::Watch::start(world, CLIENT, address)?;
    world.unplug(&owner)?;
    let result = sole_answerer(world, CLIENT, address, &[&owner]);
    let replies = watch.stop(world)?;
    world.plug(&owner)?;
    world.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "nodes",
        "--all",
        "--timeout=180s",
    ])?;
    deploy::wait_ready(world)?;
    let heir = result?;
    ensure!(
        arp::turns(&replies) == [owner.clone(), heir.clone()],
        "answered in turn by {:?}",
        arp::turns(&replies)
    );
    eprintln!(
        "node unplugged: {owner} -> {heir}, longest gap between answers {:.1} s, turns {:?}",
        arp::longest_gap(&replies),
        arp::turns(&replies)
    );
    // Back together there is one answerer again.
    world.owner(address)?;
    Ok(())
}
