//! NDP on a real segment, as the ARP tests: what the client's kernel makes of it, and what is on the wire. Needs root.

use std::fs;
use std::net::{Ipv6Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use ferrolb_speaker_socket::{Inbox, PacketSocket};
use ferrolb_speaker_wire::filter::INCOMING_SOLICITATIONS;
use ferrolb_speaker_wire::{DropReason, probe, solicit};
use tokio::time::timeout;

use super::tests::{AGAIN, Running, hold};
use crate::interface::Interface;
use crate::lab::{FAR, NEAR, in_lab, index, ip, said};

const VIP: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x240);
/// Shares its group with `VIP`.
const ALIKE: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0x100, 0x240);
const OTHER: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x241);
const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);

impl Running {
    /// Starts on an interface where NDP is spoken, and waits until the near end listens for solicitations.
    async fn with_vip(near: &Interface, addresses: &[Ipv6Addr]) -> Self {
        let near = Interface {
            // Not looked at by who answers.
            ndp: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa)),
            ..near.clone()
        };
        let running = Self::start(&near, addresses).await;
        // Protocol and interface of every packet socket of this namespace.
        let listens = |line: &str| {
            let mut columns = line.split_whitespace().skip(3);
            columns.next() == Some("86dd")
                && columns.next() == Some(index("near").to_string().as_str())
        };
        let sockets = || fs::read_to_string("/proc/thread-self/net/packet").unwrap();
        while !sockets().lines().any(listens) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running
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

/// Sends frames from the client and says which addresses were answered, to it alone, until `last` was; the last
/// frame is sent again while it is not.
fn exchange(frames: &[Vec<u8>], last: Ipv6Addr) -> Vec<Ipv6Addr> {
    hearing(async |socket| {
        socket.send(frames).await.unwrap();
        let (mut inbox, mut answered) = (Inbox::new(), Vec::new());
        while answered.last() != Some(&last) {
            if timeout(AGAIN, socket.receive(&mut inbox)).await.is_err() {
                socket.send(&frames[frames.len() - 1..]).await.unwrap();
                continue;
            }
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

#[test]
fn ndisc6_and_a_kernels_neighbour_lookup_are_answered() {
    in_lab(|lab| async move {
        let running = Running::with_vip(&lab.near, &[VIP]).await;
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
            .until(|metrics| {
                let held = metrics.of(VIP);
                held.responses() >= 2 && held.requests() == held.responses()
            })
            .await;
    });
}

/// Input: a client that gives itself the held address.
/// Output: its duplicate address detection fails.
#[test]
fn a_host_that_wants_the_address_is_told_that_it_is_taken() {
    in_lab(|lab| async move {
        let running = Running::with_vip(&lab.near, &[VIP]).await;
        let client = lab.client.run(|| {
            ip(&format!("addr add {VIP}/64 dev far"));
            until_shown("-6 addr show dev far", "dadfailed");
        });
        client.await;
        // An answer is counted after it was sent.
        running
            .until(|metrics| metrics.of(VIP).responses() >= 1)
            .await;
    });
}

#[test]
fn only_held_addresses_are_answered() {
    in_lab(|lab| async move {
        let running = Running::with_vip(&lab.near, &[VIP]).await;
        let frames = [question(OTHER), question(ALIKE), question(VIP)];
        let answered = lab.client.run(move || exchange(&frames, VIP)).await;
        assert_eq!(answered, [VIP]);
        hold(&running.table, &running.metrics, &[OTHER]);
        let frames = [question(VIP), question(OTHER)];
        let answered = lab.client.run(move || exchange(&frames, OTHER)).await;
        assert_eq!(answered, [OTHER]);
        assert_eq!(running.metrics.of(VIP).requests(), 1);
    });
}

#[test]
fn malformed_solicitations_are_counted_by_reason_and_answered_by_nobody() {
    in_lab(|lab| async move {
        let running = Running::with_vip(&lab.near, &[VIP]).await;
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
