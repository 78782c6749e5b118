//! The responder on a real segment: a veth pair between two network namespaces of the test's own. Needs root.

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ferrolb_speaker_arbiter::{Key, Kind, NodeId};
use ferrolb_speaker_socket::{Inbox, PacketSocket};
use ferrolb_speaker_wire::{DropReason, MacAddr, Station, filter, request};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Responder, deaf, start};
use crate::interface::{Interface, Interfaces};
use crate::lab::{CLIENT, FAR, Host, NEAR, OTHER, VIP, in_lab, index, ip, namespace_here};
use crate::metrics::{AddressMetrics, Counters, WireMetrics};
use crate::table::{Held, Table, Tables};

/// From one question that nobody answers to the next.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// What arping says; it asks at most `count` times, a second apart, and stops at the first answer.
pub(super) fn arping(address: Ipv4Addr, count: u8) -> String {
    let output = Command::new("arping")
        .args([
            "-i",
            "far",
            "-c",
            &count.to_string(),
            "-C",
            "1",
            &address.to_string(),
        ])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What the client's kernel finds out about `VIP`.
fn neighbour() -> String {
    let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
    socket.send_to(b"anybody?", (VIP, 9)).unwrap();
    loop {
        let said = ip(&format!("neigh show {VIP} dev far"));
        if said.contains("lladdr") || said.contains("FAILED") {
            return said;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// All that answering counts.
#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) wire: WireMetrics,
    addresses: AddressMetrics,
}

impl Metrics {
    fn new() -> Self {
        let registry = prometheus::Registry::new();
        Self {
            wire: WireMetrics::new(&registry).unwrap(),
            addresses: AddressMetrics::new(&registry).unwrap(),
        }
    }

    /// Those of one address.
    pub(super) fn of(&self, address: impl Into<IpAddr>) -> Arc<Counters> {
        self.addresses.of(address.into())
    }
}

/// The near end's table holds `addresses`.
pub(super) fn tables_of<A: Copy + Into<IpAddr>>(addresses: &[A]) -> (Tables, Metrics) {
    let metrics = Metrics::new();
    let tables = Tables::default();
    hold(&tables.of(index("near")), &metrics, addresses);
    (tables, metrics)
}

pub(super) fn hold<A: Copy + Into<IpAddr>>(table: &Table, metrics: &Metrics, addresses: &[A]) {
    table.clear();
    for address in addresses {
        let address: IpAddr = (*address).into();
        let counters = metrics.of(address);
        table.insert(address, Held { at: None, counters });
    }
}

pub(super) fn key() -> Key {
    Key::new(b"secret").unwrap()
}

/// A responder on the near end.
pub(super) struct Running {
    responder: Responder,
    stop: CancellationToken,
    /// That of the near end.
    pub(super) table: Table,
    pub(super) metrics: Metrics,
    interfaces: watch::Sender<Interfaces>,
}

impl Running {
    /// The near end's table holds `addresses`.
    pub(super) async fn start<A: Copy + Into<IpAddr>>(near: &Interface, addresses: &[A]) -> Self {
        let (tables, metrics) = tables_of(addresses);
        let (interfaces, told) = watch::channel(among([near]));
        let stop = CancellationToken::new();
        let wire = metrics.wire.clone();
        let table = tables.of(near.index);
        let responder = start(told, tables, key(), wire, stop.clone(), pending()).unwrap();
        let running = Self {
            responder,
            stop,
            table,
            metrics,
            interfaces,
        };
        running
            .until(|metrics| metrics.wire.interfaces.get() == 1)
            .await;
        running
    }

    /// Waits until the counters are so.
    pub(super) async fn until(&self, so: impl Fn(&Metrics) -> bool) {
        while !so(&self.metrics) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn among<'a>(interfaces: impl IntoIterator<Item = &'a Interface>) -> Interfaces {
    let all = interfaces.into_iter().cloned();
    all.map(|one| (one.index, one)).collect()
}

/// Sends frames from the client; the near end has received them when it returns.
pub(super) fn deliver(frames: &[Vec<u8>]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = PacketSocket::arp(index("far"), &filter::INCOMING_ARP).unwrap();
        socket.send(frames).await.unwrap();
    });
}

/// Sends frames from the client and says what came back for them until the last of `questions` is answered, with the
/// hardware address each is said to be at. The last is asked again while nobody answers it: a question that waited is
/// left alone.
fn exchange(questions: &[Vec<u8>], last: Ipv4Addr) -> Vec<(Ipv4Addr, MacAddr)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = PacketSocket::arp(index("far"), &filter::INCOMING_ARP).unwrap();
        socket.send(questions).await.unwrap();
        let (mut inbox, mut answered) = (Inbox::new(), Vec::new());
        while answered.last().is_none_or(|(address, _)| *address != last) {
            if timeout(AGAIN, socket.receive(&mut inbox)).await.is_err() {
                socket
                    .send(&questions[questions.len() - 1..])
                    .await
                    .unwrap();
                continue;
            }
            for frame in inbox.frames() {
                let packet = ferrolb_speaker_wire::decode(&frame, FAR).unwrap();
                answered.push((packet.sender_ip, packet.sender_mac));
            }
        }
        answered
    })
}

/// The addresses among them.
fn addresses(answered: Vec<(Ipv4Addr, MacAddr)>) -> Vec<Ipv4Addr> {
    answered.into_iter().map(|(address, _)| address).collect()
}

pub(super) fn question(target: Ipv4Addr) -> Vec<u8> {
    request(target, CLIENT, FAR).to_vec()
}

#[test]
fn arping_and_a_kernels_neighbour_lookup_are_answered() {
    in_lab(|lab| async move {
        let running = Running::start(&lab.near, &[VIP]).await;
        let said = lab.client.run(|| arping(VIP, 5)).await;
        assert!(
            said.contains("from 02:00:00:00:00:0a (10.9.0.240)"),
            "{said}"
        );
        let said = lab.client.run(neighbour).await;
        assert!(said.contains("lladdr 02:00:00:00:00:0a"), "{said}");
        running
            .until(|metrics| {
                let held = metrics.of(VIP);
                held.responses() >= 2 && held.requests() == held.responses()
            })
            .await;
    });
}

#[test]
fn only_held_addresses_are_answered_and_probes_are() {
    in_lab(|lab| async move {
        let running = Running::start(&lab.near, &[VIP]).await;
        let probe = request(VIP, Ipv4Addr::UNSPECIFIED, FAR).to_vec();
        let frames = [question(OTHER), question(CLIENT), probe];
        let answered = lab.client.run(move || exchange(&frames, VIP)).await;
        assert_eq!(addresses(answered), [VIP]);
        hold(&running.table, &running.metrics, &[OTHER]);
        let frames = [question(VIP), question(OTHER)];
        let answered = lab.client.run(move || exchange(&frames, OTHER)).await;
        assert_eq!(addresses(answered), [OTHER]);
        assert_eq!(running.metrics.of(VIP).requests(), 1);
    });
}

#[test]
fn malformed_frames_are_counted_by_reason_and_answered_by_nobody() {
    in_lab(|lab| async move {
        let running = Running::start(&lab.near, &[VIP]).await;
        let changed = |offset: usize, bytes: &[u8]| {
            let mut frame = question(VIP);
            frame[offset..offset + bytes.len()].copy_from_slice(bytes);
            frame
        };
        let tagged = [&question(VIP)[..12], &[0x81, 0, 0, 7], &question(VIP)[12..]].concat();
        let cases = [
            (DropReason::Truncated, question(VIP)[..41].to_vec()),
            (DropReason::VlanTagged, tagged),
            (DropReason::HardwareType, changed(14, &[0, 6])),
            (DropReason::ProtocolType, changed(16, &[0x86, 0xdd])),
            (DropReason::HardwareLength, changed(18, &[8])),
            (DropReason::ProtocolLength, changed(19, &[16])),
            (DropReason::Operation, changed(20, &[0, 9])),
            (
                DropReason::BroadcastOrMulticastSender,
                changed(6, &[0xff; 6]),
            ),
            (
                DropReason::BroadcastOrMulticastSender,
                changed(22, &[0xff; 6]),
            ),
            (DropReason::ZeroSenderMac, changed(22, &[0; 6])),
            (DropReason::OwnSender, changed(22, &NEAR.octets())),
        ];
        let mut frames: Vec<Vec<u8>> = cases.iter().map(|(_, frame)| frame.clone()).collect();
        // Answered last: then all before it have been dealt with.
        frames.push(question(VIP));
        let answered = lab.client.run(move || exchange(&frames, VIP)).await;
        assert_eq!(addresses(answered), [VIP]);
        for reason in DropReason::ALL {
            let sent = cases
                .iter()
                .filter(|(expected, _)| *expected == reason)
                .count();
            assert_eq!(
                running.metrics.wire.drops(reason),
                sent as u64,
                "{}",
                reason.label()
            );
        }
    });
}

/// Input: an address that is being handed over, and one that is not.
/// Output: the hardware address of the node that takes it over, and our own.
#[test]
fn an_address_that_is_handed_over_is_answered_with_the_other_nodes_hardware_address() {
    in_lab(|lab| async move {
        let running = Running::start(&lab.near, &[VIP, OTHER]).await;
        let heir = MacAddr::new(2, 0, 0, 0, 0, 0xc);
        let ceded = Held {
            at: Some(heir),
            counters: running.metrics.of(VIP),
        };
        running.table.insert(VIP.into(), ceded);
        let frames = [question(VIP), question(OTHER)];
        let answered = lab.client.run(move || exchange(&frames, OTHER)).await;
        assert_eq!(answered, [(VIP, heir), (OTHER, NEAR)]);
        let said = lab.client.run(neighbour).await;
        assert!(said.contains("lladdr 02:00:00:00:00:0c"), "{said}");
    });
}

/// Input: a question while nothing is to be answered, then one when that is over.
/// Output: the second alone is answered and counted.
#[test]
fn a_muted_table_answers_nothing() {
    in_lab(|lab| async move {
        let running = Running::start(&lab.near, &[VIP, OTHER]).await;
        running.table.mute(true);
        assert!(!lab.client.run(|| arping(VIP, 1)).await.contains("from 02"));
        running.table.mute(false);
        let frames = [question(OTHER)];
        let answered = lab.client.run(move || exchange(&frames, OTHER)).await;
        assert_eq!(addresses(answered), [OTHER]);
        assert_eq!(running.metrics.of(VIP).requests(), 0);
    });
}

/// Input: questions with a tag: of a speaker, with another key, for another address; and one without.
/// Output: answers to all but the first, which is the arbiter's to answer.
#[test]
fn a_speakers_question_is_not_answered_here() {
    in_lab(|lab| async move {
        let running = Running::start(&lab.near, &[VIP, OTHER]).await;
        let client = Station {
            mac: FAR,
            link_local: None,
        };
        let tagged = |key: &Key, about: Ipv4Addr, address: Ipv4Addr| {
            let frame = ferrolb_speaker_arbiter::Frame {
                kind: Kind::Ask,
                hearing: true,
                sender: NodeId::of("other"),
                subject: NodeId::NOBODY,
                nonce: 1,
                address: about.into(),
            };
            let tag = key.tag(&frame);
            let frame = ferrolb_speaker_wire::question(address.into(), None, &client, Some(&tag));
            frame.as_ref().to_vec()
        };
        let frames = [
            tagged(&key(), VIP, VIP),
            tagged(&Key::new(b"another").unwrap(), VIP, VIP),
            tagged(&key(), OTHER, VIP),
            question(OTHER),
        ];
        let answered = lab.client.run(move || exchange(&frames, OTHER)).await;
        assert_eq!(addresses(answered), [VIP, VIP, OTHER]);
        assert_eq!(running.metrics.of(VIP).requests(), 2);
    });
}

/// Input: an interface that goes down and comes up with another hardware address, then one that appears.
/// Output: answers with the new address; the appearing one is answered on too.
#[test]
fn interfaces_come_and_go_and_change_their_address() {
    in_lab(|lab| async move {
        let running = Running::start(&lab.near, &[VIP]).await;
        ip("link set near down");
        running.interfaces.send_replace(Interfaces::new());
        running
            .until(|metrics| metrics.wire.interfaces.get() == 0)
            .await;
        ip("link set near address 02:00:00:00:00:0c");
        ip("link set near up");
        let near = Interface {
            mac: MacAddr::new(2, 0, 0, 0, 0, 0xc),
            ..lab.near
        };
        running.interfaces.send_replace(among([&near]));
        let said = lab.client.run(|| arping(VIP, 5)).await;
        assert!(said.contains("from 02:00:00:00:00:0c"), "{said}");
        ip("link add name more type veth peer name less");
        ip("link set more up");
        let more = Interface {
            index: index("more"),
            name: "more".to_owned(),
            ..near.clone()
        };
        running.interfaces.send_replace(among([&near, &more]));
        running
            .until(|metrics| metrics.wire.interfaces.get() == 2)
            .await;
        ip("link del more");
        running.interfaces.send_replace(among([&near]));
        running
            .until(|metrics| metrics.wire.interfaces.get() == 1)
            .await;
        let said = lab.client.run(|| arping(VIP, 5)).await;
        assert!(said.contains("from 02:00:00:00:00:0c"), "{said}");
    });
}

/// Input: an interface that was in another namespace and came back with the index, name and address it had, which is
/// noticed by its socket alone.
/// Output: answers as before.
#[test]
fn an_interface_that_was_away_is_heard_again() {
    in_lab(|lab| async move {
        let (tables, metrics) = tables_of(&[VIP]);
        let near = lab.near;
        let (_told, interfaces) = watch::channel(Interfaces::from([(near.index, near.clone())]));
        let stop = CancellationToken::new();
        let wire = metrics.wire.clone();
        let responder = start(interfaces, tables, key(), wire, stop.clone(), pending()).unwrap();
        assert!(lab.client.run(|| arping(VIP, 5)).await.contains("from 02"));

        let (elsewhere, home) = (Host::new(), namespace_here());
        ip(&format!("link set near netns {}", elsewhere.namespace));
        let back = move || ip(&format!("link set near netns {home}"));
        elsewhere.run(back).await;
        ip("link set near up");
        assert_eq!(index("near"), near.index);
        assert!(ip("link show near").contains(&NEAR.to_string()));

        assert!(lab.client.run(|| arping(VIP, 20)).await.contains("from 02"));
        // Once more if it was opened anew while it was still down.
        assert!(metrics.wire.receive_errors.get() >= 1);
        assert_eq!(metrics.wire.restarts.get(), 0);
        stop.cancel();
        assert!(responder.join());
    });
}

/// Input: no interface; one without a socket; one with a socket.
/// Output: deaf in the middle alone.
#[test]
fn a_responder_is_deaf_while_no_interface_has_a_socket() {
    in_lab(|lab| async move {
        let (tables, metrics) = tables_of(&[VIP]);
        let (told, interfaces) = watch::channel(Interfaces::new());
        let deaf = deaf(interfaces.clone(), &metrics.wire);
        assert_eq!(deaf(), None, "there is nothing to hear on");
        let near = lab.near;
        told.send(Interfaces::from([(near.index, near)])).unwrap();
        assert!(deaf().is_some());
        let stop = CancellationToken::new();
        let wire = metrics.wire.clone();
        let responder = start(interfaces, tables, key(), wire, stop.clone(), pending()).unwrap();
        while metrics.wire.interfaces.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(deaf(), None);
        stop.cancel();
        assert!(responder.join());
    });
}

#[test]
fn a_stopped_responder_ends_and_is_silent() {
    in_lab(|lab| async move {
        let mut running = Running::start(&lab.near, &[VIP]).await;
        assert!(lab.client.run(|| arping(VIP, 5)).await.contains("from"));
        running.stop.cancel();
        running.responder.ended().await;
        assert!(running.responder.join());
        assert!(!lab.client.run(|| arping(VIP, 1)).await.contains("from 02"));
    });
}
