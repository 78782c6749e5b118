//! Never two answerers where one can be had: gossip blocked, the LAN split and healed, a speaker stopped and resumed, a
//! planned move. How fast things are is measured by `make bench-failover`; here nothing depends on it.

use std::{collections::BTreeSet, net::Ipv4Addr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    deploy::{self, NAMESPACE, PATIENCE},
    lab::Signal,
    observe::{
        prober::{Prober, now, parse_mac},
        trace::{Mac, Trace},
    },
};
use serde_json::json;

use crate::world::{CLIENT, World};

/// A host on the LAN that is neither a node nor the client; the API server is there.
const API: &str = "cp";
/// The port the speakers gossip on.
const GOSSIP: u16 = 7946;
/// How often is asked where a second answerer would stay.
const OFTEN: Duration = Duration::from_millis(20);
/// How often is asked where a second answerer would be seen for milliseconds only.
const ALWAYS: Duration = Duration::from_millis(1);
/// Who goes by gossip alone has declared every other node dead by then, one after the other.
const GOSSIP_GIVES_UP: Duration = Duration::from_secs(15);
/// Who answers for so long has settled.
const SETTLED: Duration = Duration::from_secs(2);

pub fn gossip_blocked_on_a_healthy_lan_one_answers(world: &World) -> Result<()> {
    let (address, owner) = owned(world)?;
    let nodes = world.nodes();
    let prober = asking(world, address, OFTEN)?;
    let blocked = nodes
        .iter()
        .try_for_each(|node| world.block_port(node, GOSSIP));
    thread::sleep(GOSSIP_GIVES_UP);
    for node in &nodes {
        // One that was not blocked cannot be opened.
        let _ = world.open_port(node, GOSSIP);
    }
    let trace = only(prober, address)?;
    blocked?;
    let names = turns(world, &trace)?;
    ensure!(names == [owner], "answered in turn by {names:?}");
    Ok(())
}

pub fn lan_split_off_from_the_api_server_one_on_each_side(world: &World) -> Result<()> {
    let (address, owner) = owned(world)?;
    split(world, address, &owner, &[&owner, CLIENT])
}

pub fn lan_split_with_the_api_server_at_the_owner_one_on_each_side(world: &World) -> Result<()> {
    let (address, owner) = owned(world)?;
    let nodes = world.nodes();
    let mut away: Vec<&str> = nodes.iter().map(String::as_str).collect();
    away.retain(|node| *node != owner);
    away.push(CLIENT);
    split(world, address, &owner, &away)
}

/// Puts the hosts `away`, the client among them, on a switch of their own, and asks on both sides.
fn split(world: &World, address: Ipv4Addr, owner: &str, away: &[&str]) -> Result<()> {
    let inside: BTreeSet<_> = world
        .nodes()
        .into_iter()
        .filter(|node| away.contains(&node.as_str()))
        .collect();
    let here = asking(world, address, OFTEN)?;
    let there = Prober::start(world, API, &[address], OFTEN)?;
    world.partition(away)?;
    let split = now();
    let sides = world.wait_for("one answer on each side", PATIENCE, || {
        let side = |prober: &Prober| {
            let trace = prober.look(address);
            settled(world, &trace, split)?.context("not one that stays")
        };
        Ok(Some((side(&here)?, side(&there)?)))
    });
    world.rejoin()?;
    let healed = now();
    let (client_side, api_side) = sides?;
    ensure!(
        inside.contains(&client_side) && !inside.contains(&api_side),
        "{client_side} answers the client's side {inside:?}, {api_side} the other"
    );
    ensure!(
        [&client_side, &api_side].contains(&&owner.to_owned()),
        "{owner} was cut off from nobody that asks, and answers no longer"
    );
    let last = world.wait_for("one answer after healing", PATIENCE, || {
        settled(world, &here.look(address), healed)
    })?;
    there.stop()?;
    let trace = only(here, address)?;
    let quarrel = trace.handovers(&(healed..Duration::MAX));
    let end = quarrel.last().map(|last| last.at + last.overlap);
    eprintln!(
        "split: {client_side} and {api_side}; one again, {last}, {:.0} ms after healing",
        end.map_or(0.0, |end| end.saturating_sub(healed).as_secs_f64() * 1000.0)
    );
    Ok(())
}

pub fn a_stopped_speaker_that_goes_on_stays_silent(world: &World) -> Result<()> {
    let (address, owner) = owned(world)?;
    let pod = deploy::speaker_pod(world, &owner)?;
    let speaker = world.container_pid(NAMESPACE, &pod, "speaker")?;
    let prober = asking(world, address, OFTEN)?;
    world.kill(speaker, Signal::SIGSTOP)?;
    let stopped = now();
    let heir = world.wait_for("another node to answer", PATIENCE, || {
        settled(world, &prober.look(address), stopped)
    });
    world.kill(speaker, Signal::SIGCONT)?;
    thread::sleep(SETTLED * 2);
    let trace = only(prober, address)?;
    let names = turns(world, &trace)?;
    let heir = heir?;
    ensure!(
        names == [owner, heir],
        "answered in turn by {names:?} in {:?}",
        trace.handovers(&(stopped..Duration::MAX))
    );
    Ok(())
}

pub fn a_deleted_speaker_hands_over_once(world: &World) -> Result<()> {
    let (address, owner) = owned(world)?;
    let pod = deploy::speaker_pod(world, &owner)?;
    let prober = asking(world, address, ALWAYS)?;
    let asked = now();
    world.kubectl(&["-n", NAMESPACE, "delete", "pod", &pod, "--wait=false"])?;
    let heir = world.wait_for("another node to answer", PATIENCE, || {
        let heir = settled(world, &prober.look(address), asked)?;
        Ok(heir.filter(|heir| *heir != owner))
    });
    let trace = only(prober, address)?;
    deploy::wait_ready(world)?;
    let (heir, names) = (heir?, turns(world, &trace)?);
    eprintln!(
        "planned move {owner} -> {heir}: the longest wait for an answer was {:.1} ms",
        trace.longest_wait(&(asked..now())).as_secs_f64() * 1000.0
    );
    ensure!(
        names == [owner, heir],
        "the hardware address in the answers changed {} times: {:?}",
        names.len() - 1,
        trace.handovers(&(asked..Duration::MAX))
    );
    Ok(())
}

/// An address and the node that answers for it. Endpoints everywhere: it must not lose its last one with a node.
fn owned(world: &World) -> Result<(Ipv4Addr, String)> {
    for node in world.nodes() {
        world.echo("a", &node)?;
    }
    let address = world.balanced("a", json!({}))?;
    Ok((address, world.owner(address)?))
}

/// A prober that has had an answer: what comes is compared with who answered before.
fn asking(world: &World, address: Ipv4Addr, every: Duration) -> Result<Prober> {
    let prober = Prober::start(world, CLIENT, &[address], every)?;
    world.wait_for("a first answer", PATIENCE, || {
        let answered = !prober.look(address).answers.is_empty();
        Ok(answered.then_some(()))
    })?;
    Ok(prober)
}

/// The end of a prober of one address.
fn only(prober: Prober, address: Ipv4Addr) -> Result<Trace> {
    let mut traces = prober.stop()?;
    traces.remove(&address).context("no trace")
}

/// The one node that has answered since `moment`, at the end for two seconds without a break; `None` before that.
fn settled(world: &World, trace: &Trace, moment: Duration) -> Result<Option<String>> {
    let end = now();
    let begin = end.saturating_sub(SETTLED);
    if begin < moment {
        return Ok(None);
    }
    let first = trace.answers.partition_point(|answer| answer.at < begin);
    let answers = trace.answers.get(first..).unwrap_or_default();
    let macs: BTreeSet<Mac> = answers.iter().map(|answer| answer.from).collect();
    let covered = trace.longest_wait(&(begin..end)) < SETTLED / 2;
    match (covered, macs.first()) {
        (true, Some(mac)) if macs.len() == 1 => name(world, *mac).map(Some),
        _ => Ok(None),
    }
}

fn turns(world: &World, trace: &Trace) -> Result<Vec<String>> {
    let turns = trace.turns();
    turns.into_iter().map(|mac| name(world, mac)).collect()
}

fn name(world: &World, mac: Mac) -> Result<String> {
    for host in world.hosts() {
        if parse_mac(&host.mac)? == mac {
            return Ok(host.name);
        }
    }
    Ok(format!("{mac:02x?}"))
}
