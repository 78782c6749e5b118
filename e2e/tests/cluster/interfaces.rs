//! Which interface is answered on, on nodes with two.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use ferrolb_e2e::{
    deploy::PATIENCE,
    lab::SECOND,
    observe::{arp, service},
};
use serde_json::{Value, json};

use crate::world::{CLIENT, World};

/// The address every test here asks for: the first of the classic pool.
const ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 168, 99, 96);

pub fn only_selected_interfaces_answer(world: &World) -> Result<()> {
    on_two_lans(world, || {
        world.echo("a", "n1")?;
        ensure!(world.balanced("a", json!({}))? == ADDRESS);
        // An advertisement without interfaces: all of them.
        answered_on(world, &["eth0", SECOND])?;
        advertise(world, "all", json!([SECOND]))?;
        answered_on(world, &[SECOND])?;
        status_names(world, &[SECOND])?;
        advertise(world, "all", json!(["eth0"]))?;
        answered_on(world, &["eth0"])?;
        status_names(world, &["eth0"])?;
        // Two advertisements of one pool: the interfaces of both.
        advertise(world, "more", json!([SECOND]))?;
        answered_on(world, &["eth0", SECOND])
    })
}

pub fn an_interface_nobody_has_is_said(world: &World) -> Result<()> {
    advertise(world, "all", json!(["foo"]))?;
    world.echo("a", "n1")?;
    ensure!(world.balanced("a", json!({}))? == ADDRESS);
    let words =
        "the interfaces specified by LB IP \"192.168.99.96\" doesn't exist in assigned node";
    service::wait_event(world, "default", "Service", "a", "announceFailed", words)?;
    world.silence(ADDRESS)?;
    advertise(world, "all", json!(["foo", "eth0"]))?;
    world.owner(ADDRESS).map(drop)
}

/// MetalLB goes on answering where it did.
pub fn an_announced_address_leaves_an_interface_for_none(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    ensure!(world.balanced("a", json!({}))? == ADDRESS);
    world.owner(ADDRESS)?;
    advertise(world, "all", json!(["foo"]))?;
    world.silence(ADDRESS)?;
    advertise(world, "all", json!([]))?;
    world.owner(ADDRESS).map(drop)
}

/// Gives the lab a second LAN for as long as `test` takes.
fn on_two_lans(world: &World, test: impl FnOnce() -> Result<()>) -> Result<()> {
    world.add_segment()?;
    let result = test();
    world.remove_segment()?;
    result
}

fn advertise(world: &World, name: &str, interfaces: Value) -> Result<()> {
    world.create("L2Advertisement", name, json!({"interfaces": interfaces}))
}

/// Waits until one node, the same on all of these interfaces, answers there and nobody anywhere else.
fn answered_on(world: &World, interfaces: &[&str]) -> Result<()> {
    world.wait(
        &format!("answers on {interfaces:?} alone"),
        PATIENCE,
        || {
            let mut by = BTreeSet::new();
            for interface in ["eth0", SECOND] {
                let answerers = arp::answerers_on(world, CLIENT, interface, ADDRESS)?;
                let expected = usize::from(interfaces.contains(&interface));
                ensure!(answerers.len() == expected, "{interface}: {answerers:?}");
                by.extend(answerers);
            }
            ensure!(by.len() == 1, "answered by {by:?}");
            Ok(true)
        },
    )
}

/// Waits until the Service's status object names exactly these interfaces.
fn status_names(world: &World, interfaces: &[&str]) -> Result<()> {
    let expected: Vec<_> = interfaces
        .iter()
        .map(|name| json!({"name": name}))
        .collect();
    world.wait("the status to name the interfaces", PATIENCE, || {
        let statuses = world.objects("servicel2statuses")?;
        let named = statuses
            .iter()
            .map(|status| status.pointer("/status/interfaces"));
        let named: Vec<_> = named.collect();
        ensure!(named == [Some(&json!(expected))], "{named:?}");
        Ok(true)
    })
}
