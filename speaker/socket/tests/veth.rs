//! Real frames over a veth pair in a network namespace of the test's own. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ferrolb_speaker_socket::{BATCH, Groups, Inbox, PacketSocket};
use ferrolb_speaker_wire::filter::{INCOMING_ARP, INCOMING_SOLICITATIONS};
use ferrolb_speaker_wire::{ArpFrame, Delivery, MacAddr, request, solicit};
use nix::sched::{CloneFlags, unshare};
use tokio::time::timeout;

const A: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xa);
const B: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xb);
/// Only to catch a hang.
const SOON: Duration = Duration::from_secs(20);

/// Runs `test` in a fresh namespace with the pair near/far; the namespace goes with the thread.
fn in_lab<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: a network namespace needs root");
        return;
    }
    let lab = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add name near type veth peer name far");
        for (name, mac) in [("near", A), ("far", B)] {
            ip(&format!("link set {name} address {mac} up"));
        }
        // Until carrier has been noticed the kernel drops what is sent.
        while ip("-br link show up").matches(" UP ").count() < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { timeout(SOON, test()).await.expect("the test hangs") });
    });
    if let Err(panic) = lab.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) -> String {
    said("ip", arguments)
}

/// Children inherit the namespace of the thread that starts them.
fn said(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn open(name: &str) -> PacketSocket {
    let index = nix::net::if_::if_nametoindex(name).unwrap();
    PacketSocket::arp(NonZeroU32::new(index).unwrap(), &INCOMING_ARP).unwrap()
}

fn open_ndp(name: &str) -> PacketSocket {
    let index = nix::net::if_::if_nametoindex(name).unwrap();
    PacketSocket::ndp(NonZeroU32::new(index).unwrap(), &INCOMING_SOLICITATIONS).unwrap()
}

fn address(last: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfd99_u128 << 112 | u128::from(last))
}

fn question(last: u8) -> ArpFrame {
    request([10, 0, 0, last].into(), [10, 0, 0, 1].into(), A)
}

#[test]
fn frames_arrive_whole_in_order_and_in_batches() {
    in_lab(|| async {
        let (a, b) = (open("near"), open("far"));
        let sent: Vec<ArpFrame> = (0..200).map(question).collect();
        a.send(&sent).await.unwrap();
        let (mut inbox, mut received, mut largest) = (Inbox::new(), Vec::new(), 0);
        while received.len() < sent.len() {
            b.receive(&mut inbox).await.unwrap();
            largest = largest.max(inbox.frames().len());
            for frame in inbox.frames() {
                assert_eq!((frame.delivery, frame.vlan), (Delivery::Broadcast, None));
                received.push(frame.bytes.to_vec());
            }
        }
        assert_eq!(received, sent);
        assert_eq!(largest, BATCH);
        assert_eq!(b.take_kernel_drops().unwrap(), 0);
    });
}

#[test]
fn kernel_filter_keeps_out_other_protocols_and_our_own_frames() {
    in_lab(|| async {
        let (a, b) = (open("near"), open("far"));
        let mut ip = question(1);
        ip[12..14].copy_from_slice(&[0x08, 0x00]);
        b.send(&[question(7)]).await.unwrap();
        a.send(&[ip, question(2)]).await.unwrap();
        let mut inbox = Inbox::new();
        b.receive(&mut inbox).await.unwrap();
        let first: Vec<_> = inbox.frames().map(|frame| frame.bytes.to_vec()).collect();
        assert_eq!(first, [question(2)]);
    });
}

#[test]
fn unicast_foreign_and_short_frames_are_told_apart() {
    in_lab(|| async {
        let (a, b) = (open("near"), open("far"));
        ip("link set far promisc on");
        let mut to_b = question(1);
        to_b[..6].copy_from_slice(&B.octets());
        let mut to_other = question(2);
        to_other[5] = 0;
        to_other[0] = 2;
        let frames: [&[u8]; 3] = [&to_b, &to_other, &question(3)[..20]];
        a.send(&frames).await.unwrap();
        let (mut inbox, mut seen) = (Inbox::new(), Vec::new());
        while seen.len() < 3 {
            b.receive(&mut inbox).await.unwrap();
            seen.extend(
                inbox
                    .frames()
                    .map(|frame| (frame.delivery, frame.bytes.len())),
            );
        }
        assert_eq!(
            seen,
            [
                (Delivery::Host, 60),
                (Delivery::OtherHost, 60),
                (Delivery::Broadcast, 20)
            ]
        );
    });
}

/// Input: a broadcast ARP request with an 802.1Q tag, VLAN 7, from a peer, and one with VLAN 0 and a priority.
/// Output: the first is marked either by a reported tag or as somebody else's; the second is an ordinary broadcast.
#[test]
fn a_tagged_frame_shows_its_tag_or_a_contradiction() {
    in_lab(|| async {
        let (a, b) = (open("near"), open("far"));
        let tagged = |tag: [u8; 2]| {
            let plain = question(1);
            [&plain[..12], &[0x81, 0x00], &tag, &plain[12..]].concat()
        };
        a.send(&[tagged([0, 7]), tagged([0xe0, 0])]).await.unwrap();
        let (mut inbox, mut seen) = (Inbox::new(), Vec::new());
        while seen.len() < 2 {
            b.receive(&mut inbox).await.unwrap();
            for frame in inbox.frames() {
                seen.push(ferrolb_speaker_wire::decode(&frame, B).map(|packet| packet.target_ip));
            }
        }
        assert_eq!(seen[0], Err(ferrolb_speaker_wire::DropReason::VlanTagged));
        assert_eq!(seen[1], Ok([10, 0, 0, 1].into()));
    });
}

#[test]
fn an_interface_that_goes_down_is_an_error_once_and_heard_again_after() {
    in_lab(|| async {
        let (a, b) = (open("near"), open("far"));
        ip("link set far down");
        let mut inbox = Inbox::new();
        let error = b.receive(&mut inbox).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
        assert!(b.send(&[question(1)]).await.is_err());
        ip("link set far up");
        a.send(&[question(3)]).await.unwrap();
        b.receive(&mut inbox).await.unwrap();
        assert_eq!(inbox.frames().len(), 1);
    });
}

/// Input: an interface whose queue has no room, and has some later.
/// Output: every frame, in order.
#[test]
fn a_full_queue_is_waited_for() {
    in_lab(|| async {
        let (a, b) = (open("near"), open("far"));
        said("tc", "qdisc add dev near root pfifo limit 0");
        assert_eq!(
            a.send(&[question(9)])
                .await
                .unwrap_err()
                .cause
                .raw_os_error(),
            Some(libc::ENOBUFS)
        );
        let sent: Vec<ArpFrame> = (0..3).map(question).collect();
        let mut told = Vec::new();
        let (result, ()) = tokio::join!(
            a.send_patiently(&sent, SOON, |position| told.push(position)),
            async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                said("tc", "qdisc del dev near root");
            }
        );
        result.unwrap();
        assert_eq!(told, [0, 1, 2]);
        let (mut inbox, mut received) = (Inbox::new(), Vec::new());
        while received.len() < sent.len() {
            b.receive(&mut inbox).await.unwrap();
            received.extend(inbox.frames().map(|frame| frame.bytes.to_vec()));
        }
        assert_eq!(received, sent);
    });
}

/// Input: a queue that never has room for the long ones among the frames.
/// Output: all others, and which they were.
#[test]
fn a_frame_refused_for_too_long_is_skipped() {
    in_lab(|| async {
        let (a, b) = (open("near"), open("far"));
        said("tc", "qdisc add dev near root bfifo limit 100");
        let long = [question(0).to_vec(), vec![0; 100]].concat();
        let frames = [
            question(1).to_vec(),
            long.clone(),
            question(2).to_vec(),
            long.clone(),
            long,
            question(3).to_vec(),
        ];
        let mut told = Vec::new();
        let error = a
            .send_patiently(&frames, Duration::from_millis(5), |at| told.push(at))
            .await
            .unwrap_err();
        assert_eq!(error.cause.raw_os_error(), Some(libc::ENOBUFS));
        assert_eq!((error.sent, told), (3, vec![0, 2, 5]));
        let (mut inbox, mut received) = (Inbox::new(), Vec::new());
        while received.len() < 3 {
            b.receive(&mut inbox).await.unwrap();
            received.extend(inbox.frames().map(|frame| frame.bytes.to_vec()));
        }
        assert_eq!(received, [question(1), question(2), question(3)]);
    });
}

#[test]
fn an_overflowing_queue_is_counted() {
    in_lab(|| async {
        let (a, b) = (open("near"), open("far"));
        let many = vec![question(1); 5000];
        a.send(&many).await.unwrap();
        assert!(b.take_kernel_drops().unwrap() > 0);
        assert_eq!(b.take_kernel_drops().unwrap(), 0, "reading takes the count");
    });
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    in_lab(|| async {
        let error = PacketSocket::arp(NonZeroU32::new(4711).unwrap(), &INCOMING_ARP).unwrap_err();
        assert!(error.to_string().contains("interface 4711"), "{error}");
    });
}

/// Input: two addresses that share a group, taken and released one after the other.
/// Output: the interface and the kernel's own membership follow the last that needs the group, or the owner's end.
#[test]
fn a_group_is_joined_while_an_address_needs_it() {
    in_lab(|| async {
        let socket = Arc::new(open_ndp("far"));
        let mut groups = Groups::new(socket.clone());
        let (held, alike) = (address(1), address(1 << 24 | 1));
        // Both the packet socket and the kernel's IPv6 have joined: two users of one hardware address.
        let joined = || {
            let shown = ip("maddr show dev far");
            let frames = shown.contains("link  33:33:ff:00:00:01 users 2");
            assert_eq!(frames, shown.contains("33:33:ff:00:00:01"), "{shown}");
            assert_eq!(frames, shown.contains("ff02::1:ff00:1"), "{shown}");
            frames
        };
        groups.take(held).unwrap();
        groups.take(alike).unwrap();
        assert!(joined());
        groups.release(held);
        assert!(joined());
        groups.release(alike);
        assert!(!joined());
        groups.take(held).unwrap();
        assert!(joined());
        drop((groups, socket));
        assert!(!joined());
    });
}

#[test]
fn solicitations_arrive_and_other_ipv6_does_not() {
    in_lab(|| async {
        let (a, b) = (open_ndp("near"), open_ndp("far"));
        let asked = solicit(address(1), address(9), A);
        let mut advertised = asked;
        advertised[54] = 136;
        a.send(&[advertised, asked]).await.unwrap();
        let (mut inbox, mut seen) = (Inbox::new(), Vec::new());
        while seen.last() != Some(&asked.to_vec()) {
            b.receive(&mut inbox).await.unwrap();
            // The kernel's own questions, whether its link-local address is free, come from nobody.
            let frames = inbox.frames().map(|frame| frame.bytes.to_vec());
            seen.extend(frames.filter(|frame| frame[22..38] != [0; 16]));
        }
        assert_eq!(seen, [asked.to_vec()]);
    });
}

/// Input: frames that wait for a while before they are taken, and others that do not.
/// Output: each has the time the kernel received it at, not the time it was taken at.
#[test]
fn every_frame_tells_when_it_was_received() {
    in_lab(|| async {
        let (a, b) = (open("near"), open("far"));
        let waited = Duration::from_millis(300);
        let mut inbox = Inbox::new();
        // Some time after the first socket asked for it the kernel begins to note when frames come in.
        for _ in 0..100 {
            let before = SystemTime::now();
            a.send(&[question(1)]).await.unwrap();
            let sent = SystemTime::now();
            tokio::time::sleep(Duration::from_millis(50)).await;
            b.receive(&mut inbox).await.unwrap();
            if inbox
                .received()
                .all(|received| received.at.is_some_and(|at| before <= at && at <= sent))
            {
                break;
            }
        }
        let before = SystemTime::now();
        a.send(&[question(1), question(2)]).await.unwrap();
        let sent = SystemTime::now();
        tokio::time::sleep(waited).await;
        b.receive(&mut inbox).await.unwrap();
        let now = SystemTime::now();
        assert_eq!(inbox.received().len(), 2);
        for received in inbox.received() {
            let at = received.at.unwrap();
            assert!(before <= at && at <= sent, "{before:?} {at:?} {sent:?}");
            assert!(received.age(now) >= waited, "{:?}", received.age(now));
            // The clock was set back.
            assert_eq!(received.age(before - waited), Duration::ZERO);
        }
        // The same slots hold other frames now.
        let before = SystemTime::now();
        a.send(&[question(3)]).await.unwrap();
        b.receive(&mut inbox).await.unwrap();
        let all: Vec<_> = inbox.received().map(|received| received.at).collect();
        assert!(matches!(all[..], [Some(at)] if at >= before), "{all:?}");
    });
}

/// Input: more groups than the kernel lets one socket remember.
/// Output: all are joined, and all are left.
#[test]
fn many_groups_are_joined_with_several_sockets() {
    in_lab(|| async {
        let mut groups = Groups::new(Arc::new(open_ndp("far")));
        let joined = || ip("-6 maddr show dev far").matches("ff02::1:ff").count();
        let before = joined();
        // 128 KiB, the largest default there is, hold less than 3000.
        let many = 0x10_0000..0x10_0000 + 4000;
        for last in many.clone() {
            groups.take(address(last)).unwrap();
        }
        assert_eq!(joined(), before + 4000);
        groups.join_missing().unwrap();
        for last in many {
            groups.release(address(last));
        }
        assert_eq!(joined(), before);
    });
}

/// Input: addresses planned, of which one is released before its turn, and one shares a group with another.
/// Output: each step joins as many groups as it is asked to, and none that nobody needs.
#[test]
fn planned_groups_are_joined_a_few_at_a_time() {
    in_lab(|| async {
        let mut groups = Groups::new(Arc::new(open_ndp("far")));
        let joined = || ip("-6 maddr show dev far").matches("ff02::1:ff").count();
        let before = joined();
        let all = [1, 2, 3, 4, 1 << 24 | 4, 5];
        for last in all {
            groups.plan(address(last));
        }
        assert_eq!(joined(), before);
        groups.release(address(2));
        groups.release(address(4));
        for (left, all) in [
            (3, before + 1),
            (1, before + 3),
            (0, before + 4),
            (0, before + 4),
        ] {
            let (planned, result) = groups.join_planned(2);
            result.unwrap();
            assert_eq!((planned, joined()), (left, all));
        }
        for last in [1, 3, 1 << 24 | 4, 5] {
            groups.release(address(last));
        }
        assert_eq!(joined(), before);
    });
}

/// Input: an interface whose frames are too short for IPv6, so that the kernel can report nothing, and later are not.
/// Output: frames are let through at once, and the report follows when it is tried again.
#[test]
fn what_could_not_be_joined_is_joined_later() {
    in_lab(|| async {
        ip("link set far mtu 1000");
        let mut groups = Groups::new(Arc::new(open_ndp("far")));
        groups.take(address(1)).unwrap_err();
        groups.join_missing().unwrap_err();
        let shown = ip("maddr show dev far");
        assert!(
            shown.contains("33:33:ff:00:00:01") && !shown.contains("ff02::1:ff00:1"),
            "{shown}"
        );
        ip("link set far mtu 1500");
        groups.join_missing().unwrap();
        assert!(ip("maddr show dev far").contains("ff02::1:ff00:1"));
    });
}
