//! The responder on a real segment: a veth pair between two network namespaces of the test's own. Needs root.

use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use ferrolb_runtime::ready::Ready;
use ferrolb_speaker_socket::{Inbox, PacketSocket};
use ferrolb_speaker_wire::{DropReason, MacAddr, filter, gratuitous, request};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{PULSE, Responder, deaf, start};
use crate::exclusions::Exclusions;
use crate::interfaces::{self, Interface, Interfaces};
use crate::metrics::Metrics;
use crate::table::{Announcements, Change, Table};

pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 240);
pub(super) const OTHER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 241);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(super) const NEAR: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xa);
pub(super) const FAR: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xb);
/// Only to catch a hang.
const SOON: Duration = Duration::from_mins(1);

type Job = Box<dyn FnOnce() + Send>;

/// A host in a network namespace of its own, which goes with it. Does one job after the other.
pub(super) struct Host {
    jobs: mpsc::Sender<Job>,
    /// The path of its namespace.
    namespace: String,
}

impl Host {
    fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (home, namespace) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            home.send(namespace_here()).unwrap();
            for job in queue {
                job();
            }
        });
        let namespace = namespace.recv().unwrap();
        Self { jobs, namespace }
    }

    /// Starts a job; what it returns may be awaited, or not.
    pub(super) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> {
        let (done, result) = oneshot::channel();
        let job = move || {
            let _nobody_waits = done.send(job());
        };
        self.jobs.send(Box::new(job)).unwrap();
        async { result.await.expect("the client's job failed") }
    }
}

/// The path of this thread's network namespace.
fn namespace_here() -> String {
    let thread = nix::unistd::gettid();
    format!("/proc/{}/task/{thread}/ns/net", std::process::id())
}

/// The node's side of the pair, and the client at the far end.
pub(super) struct Lab {
    pub(super) client: Host,
    pub(super) near: Interface,
}

/// Runs `test` on the node; both namespaces go with their threads.
pub(super) fn in_lab<F: Future<Output = ()>>(test: impl FnOnce(Lab) -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: a network namespace needs root");
        return;
    }
    let node = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let client = Host::new();
        // The pair goes with either namespace: a test that has no use for the client may drop it.
        let _stays = client.jobs.clone();
        ip(&format!(
            "link add name near address {NEAR} type veth peer name far address {FAR} netns {}",
            client.namespace
        ));
        ip("link set near up");
        let near = Interface {
            index: index("near"),
            name: "near".to_owned(),
            mac: NEAR,
            running: true,
            arp: true,
            ndp: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            client
                .run(|| {
                    ip("link set far up");
                    ip(&format!("addr add {CLIENT}/24 dev far"));
                    wait_for_carrier("far");
                })
                .await;
            wait_for_carrier("near");
            timeout(SOON, test(Lab { client, near }))
                .await
                .expect("the test hangs");
        });
    });
    if let Err(panic) = node.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(super) fn ip(arguments: &str) -> String {
    said("ip", arguments)
}

/// What a program said. Children inherit the namespace of the thread that starts them.
pub(super) fn said(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Until carrier has been noticed the kernel drops what is sent without a word.
fn wait_for_carrier(interface: &str) {
    while !ip(&format!("link show {interface}")).contains("state UP") {
        thread::sleep(Duration::from_millis(5));
    }
}

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

pub(super) fn index(name: &str) -> NonZeroU32 {
    NonZeroU32::new(nix::net::if_::if_nametoindex(name).unwrap()).unwrap()
}

/// A table that holds these addresses, and what is counted about them.
pub(super) fn table_of<A: Copy + Into<IpAddr>>(addresses: &[A]) -> (Table, Metrics) {
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let table = Table::default();
    hold(&table, &metrics, addresses);
    (table, metrics)
}

pub(super) fn hold<A: Copy + Into<IpAddr>>(table: &Table, metrics: &Metrics, addresses: &[A]) {
    let mut next = Announcements::clone(&table.load());
    let wanted: Vec<IpAddr> = addresses.iter().copied().map(Into::into).collect();
    let gone: Vec<IpAddr> = next
        .keys()
        .filter(|held| !wanted.contains(held))
        .copied()
        .collect();
    let mut changes = Vec::new();
    for address in gone {
        next.remove(&address);
        changes.push(Change::Released(address));
    }
    for address in wanted {
        if let Entry::Vacant(vacant) = next.entry(address) {
            let held = Arc::new(metrics.held(&address.to_string()));
            vacant.insert(held.clone());
            changes.push(Change::Taken(address, held));
        }
    }
    table.publish(next, changes);
}

/// A responder on the lab's interfaces as netlink tells them.
pub(super) struct Running {
    responder: Responder,
    stop: CancellationToken,
    pub(super) table: Table,
    pub(super) metrics: Metrics,
    interfaces: watch::Receiver<Interfaces>,
}

impl Running {
    pub(super) async fn start<A: Copy + Into<IpAddr>>(addresses: &[A]) -> Self {
        let (table, metrics) = table_of(addresses);
        let (found, mut interfaces) = watch::channel(Interfaces::new());
        let (_, excluded) = watch::channel(Exclusions::usual().unwrap());
        let (names, _) = watch::channel(None);
        tokio::spawn(interfaces::follow(excluded, found, names));
        let stop = CancellationToken::new();
        let responder = start(
            interfaces.clone(),
            table.clone(),
            metrics.wire.clone(),
            stop.clone(),
            Ready::new().pulse("responder", PULSE),
        )
        .unwrap();
        interfaces
            .wait_for(|found| found.values().any(|interface| interface.running))
            .await
            .unwrap();
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

/// Sends frames from the client and says what came back for them until the last of `questions` is answered.
pub(super) fn exchange(frames: &[Vec<u8>], last: Ipv4Addr) -> Vec<Ipv4Addr> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = PacketSocket::arp(index("far"), &filter::INCOMING_ARP).unwrap();
        socket.send(frames).await.unwrap();
        let (mut inbox, mut answered) = (Inbox::new(), Vec::new());
        while answered.last() != Some(&last) {
            socket.receive(&mut inbox).await.unwrap();
            for frame in inbox.frames() {
                let packet = ferrolb_speaker_wire::decode(&frame, FAR).unwrap();
                // Gratuitous frames go to everybody; answers to the one who asked.
                if frame.bytes[..6] == FAR.octets() {
                    answered.push(packet.sender_ip);
                }
            }
        }
        answered
    })
}

/// The first `count` frames heard after `ready` was told.
pub(super) fn listen(count: usize, ready: oneshot::Sender<()>) -> Vec<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = PacketSocket::arp(index("far"), &filter::INCOMING_ARP).unwrap();
        ready.send(()).unwrap();
        let (mut inbox, mut heard) = (Inbox::new(), Vec::new());
        while heard.len() < count {
            socket.receive(&mut inbox).await.unwrap();
            heard.extend(inbox.frames().map(|frame| frame.bytes.to_vec()));
        }
        heard
    })
}

pub(super) fn question(target: Ipv4Addr) -> Vec<u8> {
    request(target, CLIENT, FAR).to_vec()
}

#[test]
fn arping_and_a_kernels_neighbour_lookup_are_answered() {
    in_lab(|lab| async move {
        let running = Running::start(&[VIP]).await;
        let said = lab.client.run(|| arping(VIP, 5)).await;
        assert!(
            said.contains("from 02:00:00:00:00:0a (10.9.0.240)"),
            "{said}"
        );
        let neighbour = lab.client.run(|| {
            let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
            socket.send_to(b"anybody?", (VIP, 9)).unwrap();
            loop {
                let said = ip(&format!("neigh show {VIP} dev far"));
                if said.contains("lladdr") || said.contains("FAILED") {
                    return said;
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        let said = neighbour.await;
        assert!(said.contains("lladdr 02:00:00:00:00:0a"), "{said}");
        running
            .until(|metrics| metrics.held("10.9.0.240").responses.get() >= 2)
            .await;
        let held = running.metrics.held("10.9.0.240");
        assert_eq!(held.requests.get(), held.responses.get());
    });
}

#[test]
fn only_held_addresses_are_answered_and_probes_are() {
    in_lab(|lab| async move {
        let running = Running::start(&[VIP]).await;
        let probe = request(VIP, Ipv4Addr::UNSPECIFIED, FAR).to_vec();
        let frames = [question(OTHER), probe, question(CLIENT), question(VIP)];
        let answered = lab.client.run(move || exchange(&frames[..3], VIP)).await;
        assert_eq!(answered, [VIP]);
        hold(&running.table, &running.metrics, &[OTHER]);
        let frames = [question(VIP), question(OTHER)];
        let answered = lab.client.run(move || exchange(&frames, OTHER)).await;
        assert_eq!(answered, [OTHER]);
        assert_eq!(running.metrics.held("10.9.0.240").requests.get(), 1);
    });
}

#[test]
fn malformed_frames_are_counted_by_reason_and_answered_by_nobody() {
    in_lab(|lab| async move {
        let running = Running::start(&[VIP]).await;
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
        assert_eq!(answered, [VIP]);
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

#[test]
fn a_newly_taken_address_is_made_known_at_once_and_a_released_one_is_silent() {
    in_lab(|lab| async move {
        let running = Running::start::<Ipv4Addr>(&[]).await;
        let (ready, listening) = oneshot::channel();
        let heard = lab.client.run(|| listen(4, ready));
        listening.await.unwrap();
        hold(&running.table, &running.metrics, &[VIP]);
        // The same again must not start the rounds anew.
        hold(&running.table, &running.metrics, &[VIP]);
        let pair = gratuitous(VIP, NEAR).map(|frame| frame.to_vec());
        assert_eq!(heard.await, [pair.clone(), pair].concat());
        running
            .until(|metrics| metrics.held("10.9.0.240").gratuitous.get() >= 4)
            .await;
        hold(&running.table, &running.metrics, &[OTHER]);
        let (ready, listening) = oneshot::channel();
        let heard = lab.client.run(|| listen(4, ready));
        listening.await.unwrap();
        let pair = gratuitous(OTHER, NEAR).map(|frame| frame.to_vec());
        let later = heard.await;
        assert!(
            later.iter().all(|frame| pair.contains(frame)),
            "the released address is still made known"
        );
    });
}

/// Input: an interface that goes down and comes up with another hardware address, then one that appears.
/// Output: answers and gratuitous frames with the new address; the appearing one is answered on too.
#[test]
fn interfaces_come_and_go_and_change_their_address() {
    in_lab(|lab| async move {
        let mut running = Running::start(&[VIP]).await;
        ip("link set near down");
        running
            .interfaces
            .wait_for(Interfaces::is_empty)
            .await
            .unwrap();
        running
            .until(|metrics| metrics.wire.interfaces.get() == 0)
            .await;
        let moved = MacAddr::new(2, 0, 0, 0, 0, 0xc);
        ip(&format!("link set near address {moved}"));
        let (ready, listening) = oneshot::channel();
        let heard = lab.client.run(|| listen(2, ready));
        listening.await.unwrap();
        ip("link set near up");
        assert_eq!(
            heard.await,
            gratuitous(VIP, moved).map(|frame| frame.to_vec())
        );
        let said = lab.client.run(|| arping(VIP, 5)).await;
        assert!(said.contains("from 02:00:00:00:00:0c"), "{said}");
        ip("link add name more type veth peer name less");
        ip("link set more up");
        running
            .until(|metrics| metrics.wire.interfaces.get() == 2)
            .await;
        ip("link del more");
        running
            .until(|metrics| metrics.wire.interfaces.get() == 1)
            .await;
        // The index and what is known of the link that stayed.
        assert!(running.interfaces.borrow().contains_key(&lab.near.index));
    });
}

/// Input: an interface that was in another namespace and came back with the index, name and address it had, which is
/// noticed by its socket alone.
/// Output: answers as before.
#[test]
fn an_interface_that_was_away_is_heard_again() {
    in_lab(|lab| async move {
        let (table, metrics) = table_of(&[VIP]);
        let near = lab.near;
        let (_told, interfaces) = watch::channel(Interfaces::from([(near.index, near.clone())]));
        let stop = CancellationToken::new();
        let pulse = Ready::new().pulse("responder", PULSE);
        let wire = metrics.wire.clone();
        let responder = start(interfaces, table, wire, stop.clone(), pulse).unwrap();
        assert!(lab.client.run(|| arping(VIP, 5)).await.contains("from 02"));

        let (elsewhere, home) = (Host::new(), namespace_here());
        ip(&format!("link set near netns {}", elsewhere.namespace));
        let back = move || ip(&format!("link set near netns {home}"));
        elsewhere.run(back).await;
        ip("link set near up");
        assert_eq!(index("near"), near.index);
        assert!(ip("link show near").contains(&NEAR.to_string()));

        assert!(lab.client.run(|| arping(VIP, 20)).await.contains("from 02"));
        assert_eq!(metrics.wire.receive_errors.get(), 1);
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
        let (table, metrics) = table_of(&[VIP]);
        let (told, interfaces) = watch::channel(Interfaces::new());
        let deaf = deaf(interfaces.clone(), &metrics.wire);
        assert_eq!(deaf(), None, "there is nothing to hear on");
        let near = lab.near;
        told.send(Interfaces::from([(near.index, near)])).unwrap();
        assert!(deaf().is_some());
        let stop = CancellationToken::new();
        let pulse = Ready::new().pulse("responder", PULSE);
        let wire = metrics.wire.clone();
        let responder = start(interfaces, table, wire, stop.clone(), pulse).unwrap();
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
        let mut running = Running::start(&[VIP]).await;
        assert!(lab.client.run(|| arping(VIP, 5)).await.contains("from"));
        running.stop.cancel();
        running.responder.ended().await;
        assert!(running.responder.join());
        assert!(!lab.client.run(|| arping(VIP, 1)).await.contains("from 02"));
    });
}
