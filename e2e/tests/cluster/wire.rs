//! ARP and NDP as the LAN sees them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    deploy::{self, NAMESPACE, PATIENCE},
    observe::{arp, http, ndp, service},
};
use ferrolb_speaker_socket::PacketSocket;
use ferrolb_speaker_wire::filter;
use serde_json::json;

use crate::world::{CLASSIC, CLIENT, World};

/// An address no host has, to ask from: a bad frame must not spoil what the nodes' kernels know of a host.
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 168, 99, 60);

pub fn one_node_answers_arping_and_the_kernel(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    let owner = world.owner(address)?;
    ensure!(world.nodes().contains(&owner), "{owner} is no node");
    world.fetch(address)?;
    // The client's kernel holds what it learnt by its own question.
    let neighbour = world.neighbour(CLIENT, &address.to_string())?;
    ensure!(
        neighbour == Some(world.mac(&owner)?),
        "the kernel holds {neighbour:?}"
    );
    let metrics = world.speaker_metrics(&owner)?;
    for name in ["requests_received", "responses_sent", "gratuitous_sent"] {
        let series = format!("metallb_layer2_{name}{{ip=\"{address}\"}}");
        ensure!(
            http::series(&metrics, &series) > Some(0.0),
            "{series} in {metrics}"
        );
    }
    let announced = format!(
        "metallb_speaker_announced{{ip=\"{address}\",node=\"{owner}\",protocol=\"layer2\",service=\"default/a\"}}"
    );
    ensure!(
        http::series(&metrics, &announced) == Some(1.0),
        "{announced} in {metrics}"
    );
    Ok(())
}

pub fn nobody_answers_for_what_is_not_held(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let held = world.balanced("a", json!({}))?;
    world.owner(held)?;
    for free in ["192.168.99.97", "192.168.99.111", "192.168.99.200"] {
        let answerers = arp::answerers(world, CLIENT, free.parse()?)?;
        ensure!(answerers.is_empty(), "{free} is answered by {answerers:?}");
    }
    Ok(())
}

pub fn http_through_the_address(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    world.echo("a", "n2")?;
    let address = world.balanced("a", json!({}))?;
    let mut served_by = std::collections::BTreeSet::new();
    world.wait(
        "both pods to be reached through the address",
        PATIENCE,
        || {
            let body = world.fetch(address)?;
            served_by.extend(
                body.lines()
                    .filter(|line| line.contains("node"))
                    .map(str::to_owned),
            );
            Ok(served_by.len() == 2)
        },
    )
}

pub fn bad_frames_are_dropped_and_counted(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    let owner = world.owner(address)?;
    let pod = deploy::speaker_pod(world, &owner)?;
    let before = world.speaker_metrics(&owner)?;
    let process = world.container_pid(NAMESPACE, &pod, "speaker")?;

    let good = request(&world.mac(CLIENT)?, NOBODY, address)?;
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("truncated", good.get(..30).unwrap_or_default().to_vec()),
        ("hardware_type", with(&good, 14, &[0, 6])),
        ("protocol_type", with(&good, 16, &[0x86, 0xdd])),
        ("hardware_length", with(&good, 18, &[5])),
        ("protocol_length", with(&good, 19, &[16])),
        ("operation", with(&good, 20, &[0, 9])),
        ("broadcast_or_multicast_sender", with(&good, 22, &[0xff; 6])),
        ("zero_sender_mac", with(&good, 22, &[0; 6])),
        ("vlan_tagged", tagged(&good, 5)),
    ];
    let capture = world.capture(
        CLIENT,
        &[&format!("arp and arp[6:2] = 2 and src host {address}")],
    )?;
    let frames: Vec<_> = bad.iter().map(|(_, frame)| frame.clone()).collect();
    send(world, &frames)?;
    let count = |metrics: &str, reason: &str| {
        let series = format!("ferrolb_layer2_frames_dropped_total{{reason=\"{reason}\"}}");
        http::series(metrics, &series).unwrap_or_default()
    };
    for (reason, _) in &bad {
        world.wait(&format!("{reason} to be counted"), PATIENCE, || {
            let now = world.speaker_metrics(&owner)?;
            Ok(count(&now, reason) > count(&before, reason))
        })?;
    }
    // Gratuitous rounds of the young address may be in the capture; a reply to somebody may not.
    let answers = capture.stop()?;
    let unicast: Vec<_> = answers
        .iter()
        .filter(|line| line.contains("Reply") && !line.contains("> ff:ff:ff:ff:ff:ff"))
        .collect();
    ensure!(unicast.is_empty(), "answered: {unicast:?}");
    // The same process is still there, and the same frame, sound, is answered.
    ensure!(
        world.container_pid(NAMESPACE, &pod, "speaker")? == process,
        "the speaker was restarted"
    );
    let capture = world.capture(
        CLIENT,
        &[&format!("arp and arp[6:2] = 2 and src host {address}")],
    )?;
    send(world, &[good])?;
    std::thread::sleep(Duration::from_millis(500));
    let answers = capture.stop()?;
    ensure!(
        answers
            .iter()
            .any(|line| line.contains("Reply") && !line.contains("> ff:ff:ff:ff:ff:ff")),
        "no answer to a sound question"
    );
    Ok(())
}

pub fn ipv6_is_answered(world: &World) -> Result<()> {
    world.configure(&[("custom-ip-space", &[CLASSIC, "fd99::1:0/124"])])?;
    world.echo("six", "n1")?;
    world.echo("dual", "n2")?;
    world.balancer(
        "six",
        json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}),
    )?;
    let address: Ipv6Addr = service::address(world, "six")?.parse()?;
    ensure!(
        (0xfd99 << 112 | 0x1_0000..=0xfd99 << 112 | 0x1_000f).contains(&address.to_bits()),
        "{address} is not of the pool"
    );
    let owner = world.owner(address)?;
    ensure!(world.nodes().contains(&owner), "{owner} is no node");
    let body = world.fetch(address)?;
    ensure!(body.contains("n1"), "served by another pod: {body}");
    // The client's kernel holds what it learnt by its own question.
    let neighbour = world.neighbour(CLIENT, &address.to_string())?;
    ensure!(
        neighbour == Some(world.mac(&owner)?),
        "the kernel holds {neighbour:?}"
    );
    let metrics = world.speaker_metrics(&owner)?;
    for name in ["requests_received", "responses_sent", "gratuitous_sent"] {
        let series = format!("metallb_layer2_{name}{{ip=\"{address}\"}}");
        ensure!(
            http::series(&metrics, &series) > Some(0.0),
            "{series} in {metrics}"
        );
    }

    world.balancer(
        "dual",
        json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}),
    )?;
    let both = world.wait_for("both addresses of Service dual", PATIENCE, || {
        let both = service::addresses(world, "dual")?;
        Ok((both.len() == 2).then_some(both))
    })?;
    let mut owners = Vec::new();
    for text in &both {
        let address: IpAddr = text.parse()?;
        owners.push(world.owner(address)?);
        world.fetch(address)?;
    }
    ensure!(
        owners.first() == owners.last(),
        "{both:?} are answered by {owners:?}"
    );
    // What the pool has and nobody holds.
    let free = "fd99::1:f".parse()?;
    let answerers = ndp::answerers(world, CLIENT, free)?;
    ensure!(answerers.is_empty(), "{free} is answered by {answerers:?}");
    // Gone with its Service.
    world.kubectl(&["delete", "service", "six"])?;
    world.wait(&format!("silence for {address}"), PATIENCE, || {
        Ok(ndp::answerers(world, CLIENT, address)?.is_empty())
    })
}

/// A sound ARP request (RFC 826) for `target`, 42 bytes.
fn request(mac: &str, sender: Ipv4Addr, target: Ipv4Addr) -> Result<Vec<u8>> {
    let mac = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).context("not a MAC"))
        .collect::<Result<Vec<_>>>()?;
    let mut frame = vec![0xff; 6];
    frame.extend(&mac);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    frame.extend(&mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    Ok(frame)
}

fn with(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.splice(at..at + bytes.len(), bytes.iter().copied());
    frame
}

/// The frame with an 802.1Q tag after its MACs.
fn tagged(frame: &[u8], vlan: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.splice(12..12, [0x81, 0x00, 0, vlan]);
    frame
}

fn send(world: &World, frames: &[Vec<u8>]) -> Result<()> {
    world.within(CLIENT, || {
        let index = nix::net::if_::if_nametoindex("eth0")?;
        let index = NonZeroU32::new(index).context("no eth0")?;
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?
            .block_on(async {
                PacketSocket::arp(index, &filter::INCOMING_ARP)?
                    .send(frames)
                    .await?;
                Ok(())
            })
    })
}
