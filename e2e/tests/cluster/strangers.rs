//! A host outside the cluster that answers for an address of the pool: event, condition, the end of both, and, where that is
//! wanted, another address.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    deploy::{self, NAMESPACE, PATIENCE},
    observe::service::{addresses, wait_event},
};
use serde_json::{Value, json};

use crate::world::World;

/// A host on the LAN that is no node.
const HOST: &str = "cp";
const ADDRESS: &str = "192.168.99.120";
const NEXT: &str = "192.168.99.121";

pub fn a_foreign_holder_is_an_event_and_a_condition_until_it_is_gone(world: &World) -> Result<()> {
    world.configure(&[("custom-ip-space", &["192.168.99.120/32"])])?;
    world.echo("a", "n1")?;
    while_taken(world, || {
        assigned(world, "a", ADDRESS)?;
        let mac = world.mac(HOST)?;
        wait_event(world, "default", "Service", "a", "addressConflict", &mac)?;
        conditioned(world, "True", &mac)
    })?;
    wait_event(
        world,
        "default",
        "Service",
        "a",
        "addressConflictEnded",
        ADDRESS,
    )?;
    world.owner(ADDRESS.parse::<IpAddr>()?)?;
    conditioned(world, "False", "no host")
}

/// The kernel of a host that takes an address says nothing by itself, and answers whoever asks.
pub fn a_foreign_holder_that_claims_nothing_is_found_while_the_address_is_held(
    world: &World,
) -> Result<()> {
    world.configure(&[("custom-ip-space", &["192.168.99.120/32"])])?;
    world.echo("a", "n1")?;
    assigned(world, "a", ADDRESS)?;
    world.owner(ADDRESS.parse::<IpAddr>()?)?;
    while_taken(world, || {
        let mac = world.mac(HOST)?;
        wait_event(world, "default", "Service", "a", "addressConflict", &mac)?;
        conditioned(world, "True", &mac)?;
        let tellers = tellers(world)?;
        ensure!(tellers.len() == 1, "told of by {tellers:?}");
        Ok(())
    })?;
    conditioned(world, "False", "no host")
}

pub fn a_service_leaves_a_foreign_holder_for_another_address(world: &World) -> Result<()> {
    world.configure(&[("custom-ip-space", &["192.168.99.120/30"])])?;
    world.echo("a", "n1")?;
    on_conflict(world, "FERROLB_ON_CONFLICT=reassign")?;
    let left = while_taken(world, || {
        world.balancer("a", json!({}))?;
        let mac = world.mac(HOST)?;
        let words = format!("from [\"{ADDRESS}\"] to [\"{NEXT}\"]: the host {mac}");
        wait_event(
            world,
            "default",
            "Service",
            "a",
            "AddressReassigned",
            &words,
        )?;
        assigned(world, "a", NEXT)?;
        world.owner(NEXT.parse::<IpAddr>()?)?;
        world.fetch(NEXT.parse::<IpAddr>()?)?;
        // It is the lowest, and the last to be given.
        assigned(world, "b", "192.168.99.122")
    });
    on_conflict(world, "FERROLB_ON_CONFLICT-")?;
    left
}

/// Does something while the host has the address.
fn while_taken(world: &World, during: impl FnOnce() -> Result<()>) -> Result<()> {
    let address = format!("{ADDRESS}/32");
    let change = |what| world.read(HOST, &["ip", "address", what, &address, "dev", "eth0"]);
    change("add")?;
    let done = during();
    change("del")?;
    done
}

/// Sets or unsets a variable of the controller, and waits for the one that has it so.
fn on_conflict(world: &World, variable: &str) -> Result<()> {
    world.kubectl(&[
        "-n",
        NAMESPACE,
        "set",
        "env",
        "deployment/controller",
        variable,
    ])?;
    deploy::wait_ready(world)
}

/// Makes a Service, and waits until it has this address.
fn assigned(world: &World, name: &str, address: &str) -> Result<()> {
    world.balancer(name, json!({}))?;
    world.wait(&format!("{address} for {name}"), PATIENCE, || {
        let seen = addresses(world, name)?;
        ensure!(seen == [address], "{seen:?}");
        Ok(true)
    })
}

/// The nodes whose speakers wrote events of the conflict.
fn tellers(world: &World) -> Result<BTreeSet<String>> {
    let events: Value = serde_json::from_str(&world.kubectl(&["get", "events", "-o", "json"])?)?;
    let events = events.pointer("/items").and_then(Value::as_array);
    let told = events.context("no list")?.iter();
    let told = told.filter(|event| event["reason"] == "addressConflict");
    let told = told.filter_map(|event| event["message"].as_str()?.split("of node ").nth(1));
    Ok(told
        .filter_map(|rest| Some(rest.split(';').next()?.to_owned()))
        .collect())
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
