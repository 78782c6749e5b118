//! NDP on a real segment, as the ARP tests: what the client's kernel makes of it, and what is on the wire. Needs root.

use std::net::{Ipv6Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use ferrolb_speaker_socket::{Inbox, PacketSocket};
use ferrolb_speaker_wire::filter::INCOMING_SOLICITATIONS;
use ferrolb_speaker_wire::{DropReason, probe, solicit, solicited_node, unsolicited};
use tokio::sync::oneshot;

use super::tests::{FAR, NEAR, Running, hold, in_lab, index, ip, said};

pub(super) const VIP: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x240);
/// Shares its group with `VIP`.
const ALIKE: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0x100, 0x240);
const OTHER: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x241);
const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);

impl Running {
    /// Starts, and waits until the link-local address is there and the group of `VIP`, which must be held, is joined.
    pub(super) async fn with_vip(addresses: &[Ipv6Addr]) -> Self {
        let running = Self::start(addresses).await;
        until_joined(true).await;
        running
    }
}

/// Waits until the near end is a member of the group of `VIP`, or no longer.
pub(super) async fn until_joined(joined: bool) {
    let group = solicited_node(VIP).to_string();
    while ip("-6 maddr show dev near").contains(&group) != joined {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Polls, on the client, until the kernel shows `wanted` in what `arguments` ask it for.
fn until_shown(arguments: &str, wanted: &str) {
    while !ip(arguments).contains(wanted) {
        thread::sleep(Duration::from_millis(10));
    }
}

fn question(target: Ipv6Addr) -> Vec<u8> {
    solicit(target, CLIENT, FAR).to_vec()
}

/// Hears the client's incoming advertisements: `work` with a socket that does.
fn hearing<T>(work: impl AsyncFnOnce(PacketSocket) -> T) -> T {
    let advertisements = INCOMING_SOLICITATIONS.map(|mut step| {
        if step.k == 135 {
            step.k = 136;
        }
        step
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(async { work(PacketSocket::ndp(index("far"), &advertisements).unwrap()).await })
}

/// Sends frames from the client and says which addresses were answered, to it alone, until `last` was.
fn exchange(frames: &[Vec<u8>], last: Ipv6Addr) -> Vec<Ipv6Addr> {
    hearing(async |socket| {
        socket.send(frames).await.unwrap();
        let (mut inbox, mut answered) = (Inbox::new(), Vec::new());
        while answered.last() != Some(&last) {
            socket.receive(&mut inbox).await.unwrap();
            for frame in inbox.frames() {
                if frame.bytes[..6] == FAR.octets() {
                    let target = <[u8; 16]>::try_from(&frame.bytes[62..78]).unwrap();
                    answered.push(Ipv6Addr::from(target));
                }
            }
        }
        answered
    })
}

/// The first `count` advertisements heard after `ready` was told.
fn listen(count: usize, ready: oneshot::Sender<()>) -> Vec<Vec<u8>> {
    hearing(async |socket| {
        ready.send(()).unwrap();
        let (mut inbox, mut heard) = (Inbox::new(), Vec::new());
        while heard.len() < count {
            socket.receive(&mut inbox).await.unwrap();
            heard.extend(inbox.frames().map(|frame| frame.bytes.to_vec()));
        }
        heard
    })
}

#[test]
fn ndisc6_and_a_kernels_neighbour_lookup_are_answered() {
    in_lab(|lab| async move {
        let running = Running::with_vip(&[VIP]).await;
        let asked = lab.client.run(|| {
            ip(&format!("addr add {CLIENT}/64 dev far nodad"));
            said("ndisc6", &format!("-1 -r 5 -s {CLIENT} {VIP} far"))
        });
        let answer = asked.await;
        assert!(answer.contains("02:00:00:00:00:0A"), "{answer}");
        let neighbour = lab.client.run(|| {
            ip("neigh flush dev far");
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
        let neighbour = neighbour.await;
        assert!(
            neighbour.contains("lladdr 02:00:00:00:00:0a"),
            "{neighbour}"
        );
        running
            .until(|metrics| metrics.held(&VIP.to_string()).responses.get() >= 2)
            .await;
        let held = running.metrics.held(&VIP.to_string());
        assert_eq!(held.requests.get(), held.responses.get());
    });
}

/// Input: a client that gives itself the held address.
/// Output: its duplicate address detection fails.
#[test]
fn a_host_that_wants_the_address_is_told_that_it_is_taken() {
    in_lab(|lab| async move {
        let running = Running::with_vip(&[VIP]).await;
        let client = lab.client.run(|| {
            ip(&format!("addr add {VIP}/64 dev far"));
            until_shown("-6 addr show dev far", "dadfailed");
        });
        client.await;
        assert!(running.metrics.held(&VIP.to_string()).responses.get() >= 1);
    });
}

#[test]
fn only_held_addresses_are_answered() {
    in_lab(|lab| async move {
        let running = Running::with_vip(&[VIP]).await;
        let frames = [question(OTHER), question(ALIKE), question(VIP)];
        let answered = lab.client.run(move || exchange(&frames, VIP)).await;
        assert_eq!(answered, [VIP]);
        hold(&running.table, &running.metrics, &[OTHER]);
        let frames = [question(VIP), question(OTHER)];
        let answered = lab.client.run(move || exchange(&frames, OTHER)).await;
        assert_eq!(answered, [OTHER]);
        assert_eq!(running.metrics.held(&VIP.to_string()).requests.get(), 1);
    });
}

#[test]
fn malformed_solicitations_are_counted_by_reason_and_answered_by_nobody() {
    in_lab(|lab| async move {
        let running = Running::with_vip(&[VIP]).await;
        let changed = |offset: usize, bytes: &[u8]| {
            let mut frame = question(VIP);
            frame[offset..offset + bytes.len()].copy_from_slice(bytes);
            frame
        };
        // One less in a word of the message is one more in its checksum.
        let zero_length = |mut frame: Vec<u8>| {
            frame[79] -= 1;
            let sum = u16::from_be_bytes([frame[56], frame[57]]) + 1;
            frame[56..58].copy_from_slice(&sum.to_be_bytes());
            frame
        };
        let cases = [
            (DropReason::NdpHopLimit, changed(21, &[64])),
            (DropReason::NdpChecksum, changed(57, &[0x5a])),
            (DropReason::NdpOptionLength, zero_length(question(VIP))),
            (
                DropReason::NdpOptionLength,
                zero_length(probe(VIP, [7; 6], FAR).to_vec()),
            ),
            (DropReason::NdpPayloadLength, changed(19, &[33])),
            (DropReason::NdpPayloadLength, question(VIP)[..80].to_vec()),
            (DropReason::NdpVersion, changed(14, &[0x45])),
            (DropReason::Destination, changed(5, &[9])),
            (DropReason::OwnSender, changed(6, &NEAR.octets())),
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

/// Input: a neighbour that believes the address elsewhere when it is taken.
/// Output: one frame a round, the neighbour's belief put right by the first, and nothing after the release.
#[test]
fn a_newly_taken_address_is_made_known_and_replaces_what_neighbours_believe() {
    in_lab(|lab| async move {
        let running = Running::with_vip(&[VIP, OTHER]).await;
        hold(&running.table, &running.metrics, &[OTHER]);
        until_joined(false).await;
        let before = running.metrics.held(&VIP.to_string()).gratuitous.get();
        let believed = lab.client.run(|| {
            ip(&format!(
                "neigh replace {VIP} lladdr 02:00:00:00:00:99 dev far nud stale"
            ));
        });
        believed.await;
        hold(&running.table, &running.metrics, &[VIP]);
        let learnt = || until_shown(&format!("neigh show {VIP} dev far"), "02:00:00:00:00:0a");
        lab.client.run(learnt).await;
        let (ready, listening) = oneshot::channel();
        let heard = lab.client.run(|| listen(1, ready));
        listening.await.unwrap();
        assert_eq!(heard.await, [unsolicited(VIP, NEAR).to_vec()]);
        running
            .until(|metrics| metrics.held(&VIP.to_string()).gratuitous.get() >= before + 2)
            .await;
        hold(&running.table, &running.metrics, &[OTHER]);
        let (ready, listening) = oneshot::channel();
        let heard = lab.client.run(|| listen(2, ready));
        listening.await.unwrap();
        let later = heard.await;
        assert!(
            later.iter().all(|frame| *frame == unsolicited(OTHER, NEAR)),
            "the released address is still made known"
        );
    });
}

#[test]
fn groups_follow_the_table_and_the_link_local_address() {
    in_lab(|_lab| async move {
        let running = Running::with_vip(&[VIP, ALIKE]).await;
        hold(&running.table, &running.metrics, &[ALIKE, OTHER]);
        let other = solicited_node(OTHER).to_string();
        while !ip("-6 maddr show dev near").contains(&other) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The address that stays needs the group still.
        until_joined(true).await;
        hold(&running.table, &running.metrics, &[OTHER]);
        until_joined(false).await;
        hold(&running.table, &running.metrics, &[VIP]);
        until_joined(true).await;
        ip("-6 addr flush dev near");
        until_joined(false).await;
        ip("addr add fe80::5/64 dev near");
        until_joined(true).await;
        assert_eq!(running.metrics.wire.interfaces.get(), 1);
    });
}
