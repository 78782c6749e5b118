//! A host outside the cluster that answers for an address of the pool: event, condition, and the end of both.

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    deploy::PATIENCE,
    observe::service::{addresses, wait_event},
};
use serde_json::{Value, json};

use crate::world::World;

/// A host on the LAN that is no node.
const HOST: &str = "cp";
const ADDRESS: &str = "192.168.99.120";

pub fn a_foreign_holder_is_an_event_and_a_condition_until_it_is_gone(world: &World) -> Result<()> {
    world.configure(&[("custom-ip-space", &["192.168.99.120/32"])])?;
    world.echo("a", "n1")?;
    world.read(
        HOST,
        &[
            "ip",
            "address",
            "add",
            &format!("{ADDRESS}/32"),
            "dev",
            "eth0",
        ],
    )?;
    let seen = met(world);
    world.read(
        HOST,
        &[
            "ip",
            "address",
            "del",
            &format!("{ADDRESS}/32"),
            "dev",
            "eth0",
        ],
    )?;
    seen?;
    wait_event(
        world,
        "default",
        "Service",
        "a",
        "addressConflictEnded",
        ADDRESS,
    )?;
    world.owner(ADDRESS.parse::<std::net::IpAddr>()?)?;
    conditioned(world, "False", "no host")
}

fn met(world: &World) -> Result<()> {
    world.balancer("a", json!({}))?;
    world.wait("the address", PATIENCE, || {
        Ok(addresses(world, "a")? == [ADDRESS])
    })?;
    let mac = world.mac(HOST)?;
    wait_event(world, "default", "Service", "a", "addressConflict", &mac)?;
    conditioned(world, "True", &mac)
}

/// Waits for the condition with this status, whose message has these words.
fn conditioned(world: &World, status: &str, words: &str) -> Result<()> {
    world.wait(&format!("the condition with {words}"), PATIENCE, || {
        let service = world.service("a")?;
        let conditions = service
            .pointer("/status/conditions")
            .and_then(Value::as_array);
        let ours = conditions
            .into_iter()
            .flatten()
            .find(|one| one["type"] == "ferrolb.io/AddressConflict");
        let ours = ours.context("no condition")?;
        let message = ours["message"].as_str().unwrap_or_default();
        ensure!(
            ours["status"] == status && message.contains(words),
            "{ours}"
        );
        Ok(true)
    })
}
