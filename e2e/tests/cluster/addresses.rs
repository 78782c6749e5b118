//! Which address a Service gets, keeps and loses.

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    deploy::{self, PATIENCE},
    observe::service::{self, addresses, stays_without, wait_event},
};
use serde_json::json;

use crate::world::{CLASSIC, INSIDER_ADDRESS, World};

pub fn first_of_a_masked_cidr(world: &World) -> Result<()> {
    // .100/28 is the block of .96 to .111; MetalLB starts at its network address.
    ensure!(world.balanced("a", json!({}))?.to_string() == "192.168.99.96");
    ensure!(world.balanced("b", json!({}))?.to_string() == "192.168.99.97");
    wait_event(
        world,
        "default",
        "Service",
        "a",
        "IPAllocated",
        "Assigned IP [\"192.168.99.96\"]",
    )
}

pub fn first_of_a_range(world: &World) -> Result<()> {
    world.configure(&[("range", &["192.168.99.121-192.168.99.123"])])?;
    for (name, expected) in [
        ("a", "192.168.99.121"),
        ("b", "192.168.99.122"),
        ("c", "192.168.99.123"),
    ] {
        ensure!(
            world.balanced(name, json!({}))?.to_string() == expected,
            "{name}"
        );
    }
    Ok(())
}

pub fn two_pools_in_order(world: &World) -> Result<()> {
    world.configure(&[
        ("second-by-name", &["192.168.99.120/32"]),
        ("first-by-name", &["192.168.99.96/31"]),
    ])?;
    for (name, expected) in [
        ("a", "192.168.99.120"),
        ("b", "192.168.99.96"),
        ("c", "192.168.99.97"),
    ] {
        let address = world.balanced(name, json!({}))?;
        ensure!(address.to_string() == expected, "{name} got {address}");
    }
    Ok(())
}

pub fn requested_address_granted_and_refused(world: &World) -> Result<()> {
    let granted = world.balanced("granted", json!({"loadBalancerIP": "192.168.99.105"}))?;
    ensure!(granted.to_string() == "192.168.99.105");
    world.balancer("outside", json!({"loadBalancerIP": "192.168.99.150"}))?;
    wait_event(
        world,
        "default",
        "Service",
        "outside",
        "AllocationFailed",
        "[\"192.168.99.150\"] is not allowed in config",
    )?;
    world.balancer("taken", json!({"loadBalancerIP": "192.168.99.105"}))?;
    wait_event(
        world,
        "default",
        "Service",
        "taken",
        "AllocationFailed",
        "address also in use by default/granted",
    )?;
    ensure!(stays_without(world, "outside")? && stays_without(world, "taken")?);
    Ok(())
}

pub fn exhausted_pool_serves_the_waiting_when_freed(world: &World) -> Result<()> {
    world.configure(&[("tiny", &["192.168.99.120-192.168.99.121"])])?;
    world.balanced("a", json!({}))?;
    world.balanced("b", json!({}))?;
    world.balancer("waiting", json!({}))?;
    wait_event(
        world,
        "default",
        "Service",
        "waiting",
        "AllocationFailed",
        "no available IPs",
    )?;
    ensure!(stays_without(world, "waiting")?);
    world.kubectl(&["delete", "service", "a"])?;
    ensure!(service::address(world, "waiting")? == "192.168.99.120");
    Ok(())
}

pub fn deletion_frees(world: &World) -> Result<()> {
    world.balanced("a", json!({}))?;
    world.balanced("b", json!({}))?;
    world.kubectl(&["delete", "service", "a"])?;
    ensure!(
        world.balanced("c", json!({}))?.to_string() == "192.168.99.96",
        "the freed address is the lowest"
    );
    Ok(())
}

pub fn change_of_type_clears(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    world.owner(address)?;
    world.kubectl(&[
        "patch",
        "service",
        "a",
        "-p",
        r#"{"spec":{"type":"ClusterIP"}}"#,
    ])?;
    world.wait("the status to be empty", PATIENCE, || {
        Ok(addresses(world, "a")?.is_empty())
    })?;
    world.silence(address)?;
    ensure!(
        world.balanced("b", json!({}))? == address,
        "the address is free again"
    );
    Ok(())
}

pub fn survives_a_killed_controller(world: &World) -> Result<()> {
    let kept: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| world.balanced(name, json!({})))
        .collect::<Result<_>>()?;
    // A hole below, which a controller that forgot would fill with one of the three.
    world.kubectl(&["delete", "service", "a"])?;
    let pod = deploy::controller_pod(world)?;
    world.kill_container(&pod, "controller")?;
    for (name, address) in ["b", "c"].iter().zip(kept.iter().skip(1)) {
        ensure!(
            addresses(world, name)? == [address.to_string()],
            "{name} changed"
        );
    }
    ensure!(
        Some(&world.balanced("d", json!({}))?) == kept.first(),
        "the lowest free address is given"
    );
    for (name, address) in ["b", "c"].iter().zip(kept.iter().skip(1)) {
        ensure!(
            addresses(world, name)? == [address.to_string()],
            "{name} changed"
        );
    }
    Ok(())
}

pub fn survives_an_api_server_restart(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let a = world.balanced("a", json!({}))?;
    let owner = world.owner(a)?;
    world.apiserver_kill()?;
    // Nothing on the wire depends on the API server.
    ensure!(world.owner(a)? == owner);
    world.fetch(a)?;
    world.apiserver_start()?;
    ensure!(addresses(world, "a")? == [a.to_string()]);
    // Both daemons are back at work: a new Service gets the next address and is answered for.
    world.echo("b", "n2")?;
    let b = world.balanced("b", json!({}))?;
    ensure!(b.to_string() == "192.168.99.97", "got {b}");
    world.owner(b)?;
    ensure!(world.owner(a)? == owner);
    Ok(())
}

pub fn a_nodes_own_address_is_never_given(world: &World) -> Result<()> {
    world.configure(&[("custom-ip-space", &[CLASSIC])])?;
    world.balancer(
        "greedy",
        json!({"loadBalancerIP": INSIDER_ADDRESS.to_string()}),
    )?;
    wait_event(
        world,
        "default",
        "Service",
        "greedy",
        "AllocationFailed",
        "n3",
    )?;
    // .96 to .99, then over the node's .100.
    for last in [96, 97, 98, 99, 101] {
        let address = world.balanced(&format!("s{last}"), json!({}))?;
        ensure!(address.octets().last() == Some(&last), "got {address}");
    }
    ensure!(addresses(world, "greedy")?.is_empty());
    Ok(())
}
