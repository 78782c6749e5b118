//! Our ARP decoder against arbitrary bytes and against two other codecs, pnet's and etherparse's.

use std::net::Ipv4Addr;
use std::path::Path;

use ferrolb_speaker_wire::{
    ArpPacket, Delivery, DropReason, FRAME_LEN, Frame, MacAddr, Operation, decode, gratuitous,
    reply, request,
};
use pnet::packet::Packet;
use pnet::packet::arp::ArpPacket as PnetArp;
use pnet::packet::ethernet::EthernetPacket;
use proptest::prelude::*;

const US: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

fn arbitrary_mac() -> impl Strategy<Value = MacAddr> {
    prop_oneof![
        4 => any::<[u8; 6]>().prop_map(MacAddr::from),
        2 => Just(MacAddr::broadcast()),
        1 => Just(US),
        1 => Just(MacAddr::zero()),
    ]
}

/// A hardware address one station may have, other than ours.
fn station_mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 5]>().prop_map(|[b, c, d, e, f]| MacAddr::new(0x52, b, c, d, e, f))
}

fn arbitrary_delivery() -> impl Strategy<Value = Delivery> {
    prop_oneof![
        4 => Just(Delivery::Broadcast),
        2 => Just(Delivery::Host),
        1 => Just(Delivery::Multicast),
        1 => Just(Delivery::OtherHost),
        1 => Just(Delivery::Outgoing),
    ]
}

/// A well-formed request with up to three bytes changed and the end cut off somewhere: near enough to a good frame for
/// every check to be reached.
fn nearly_good_frame() -> impl Strategy<Value = Vec<u8>> {
    (
        any::<[u8; 4]>(),
        any::<[u8; 4]>(),
        arbitrary_mac(),
        prop::collection::vec((0..FRAME_LEN, any::<u8>()), 0..4),
        prop_oneof![3 => Just(FRAME_LEN), 1 => 0..FRAME_LEN],
    )
        .prop_map(|(target, sender, mac, changes, length)| {
            let mut bytes = request(target.into(), sender.into(), mac).to_vec();
            for (offset, value) in changes {
                bytes.splice(offset..=offset, [value]);
            }
            bytes.truncate(length);
            bytes
        })
}

/// Reads the same fields through pnet's views, which check nothing but the length.
fn through_pnet(bytes: &[u8]) -> Option<(ArpPacket, u16, u16, u8, u8)> {
    let ethernet = EthernetPacket::new(bytes)?;
    let arp = PnetArp::new(ethernet.payload())?;
    let operation = match arp.get_operation().0 {
        1 => Operation::Request,
        2 => Operation::Reply,
        _ => return None,
    };
    let packet = ArpPacket {
        operation,
        sender_mac: arp.get_sender_hw_addr(),
        sender_ip: arp.get_sender_proto_addr().octets().into(),
        target_mac: arp.get_target_hw_addr(),
        target_ip: arp.get_target_proto_addr().octets().into(),
    };
    let (hardware, protocol) = (arp.get_hardware_type().0, arp.get_protocol_type().0);
    Some((
        packet,
        hardware,
        protocol,
        arp.get_hw_addr_len(),
        arp.get_proto_addr_len(),
    ))
}

/// Sender hardware and protocol address, target hardware and protocol address, operation.
type Fields = ([u8; 6], [u8; 4], [u8; 6], [u8; 4], u16);

/// Whether etherparse reads the frame as ARP for IPv4 over Ethernet, and what it finds there.
fn through_etherparse(bytes: &[u8]) -> Option<Fields> {
    let sliced = etherparse::SlicedPacket::from_ethernet(bytes).ok()?;
    let Some(etherparse::NetSlice::Arp(arp)) = sliced.net else {
        return None;
    };
    let arp = arp.to_packet().try_eth_ipv4().ok()?;
    let operation = arp.operation.0;
    Some((
        arp.sender_mac,
        arp.sender_ipv4,
        arp.target_mac,
        arp.target_ipv4,
        operation,
    ))
}

fn agrees(bytes: &[u8], delivery: Delivery) -> Result<(), TestCaseError> {
    let Ok(packet) = decode(
        &Frame {
            bytes,
            delivery,
            vlan: None,
        },
        US,
    ) else {
        return Ok(());
    };
    prop_assert_eq!(through_pnet(bytes), Some((packet, 1, 0x0800, 6, 4)));
    prop_assert_eq!(
        through_etherparse(bytes),
        Some((
            packet.sender_mac.octets(),
            packet.sender_ip.octets(),
            packet.target_mac.octets(),
            packet.target_ip.octets(),
            if packet.operation == Operation::Request {
                1
            } else {
                2
            },
        ))
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        delivery in arbitrary_delivery(),
        vlan in any::<Option<u16>>(),
    ) {
        if let Ok(packet) = decode(&Frame { bytes: &bytes, delivery, vlan }, US) {
            prop_assert!(!packet.sender_mac.is_multicast() && packet.sender_mac != US);
        }
    }

    #[test]
    fn what_we_accept_pnet_and_etherparse_read_alike(bytes in nearly_good_frame(), delivery in arbitrary_delivery()) {
        agrees(&bytes, delivery)?;
    }

    #[test]
    fn a_good_request_is_accepted_and_its_reply_reads_back(
        target in any::<[u8; 4]>(), sender in any::<[u8; 4]>(), peer in station_mac(),
    ) {
        let bytes = request(target.into(), sender.into(), peer);
        let asked = decode(&Frame { bytes: &bytes, delivery: Delivery::Broadcast, vlan: None }, US).unwrap();
        let answer = reply(&asked, US);
        let heard = decode(&Frame { bytes: &answer, delivery: Delivery::Host, vlan: None }, peer).unwrap();
        prop_assert_eq!(heard, ArpPacket {
            operation: Operation::Reply,
            sender_mac: US,
            sender_ip: Ipv4Addr::from(target),
            target_mac: peer,
            target_ip: Ipv4Addr::from(sender),
        });
    }

    #[test]
    fn gratuitous_frames_read_alike_everywhere(address in any::<[u8; 4]>(), us in station_mac()) {
        for frame in gratuitous(address.into(), us) {
            agrees(&frame, Delivery::Broadcast)?;
            let heard = decode(&Frame { bytes: &frame, delivery: Delivery::Broadcast, vlan: None }, US);
            prop_assert!(heard.is_ok());
        }
    }

    #[test]
    fn a_reported_vlan_is_always_refused(bytes in nearly_good_frame(), id in 1_u16..4096, priority in 0_u16..16) {
        prop_assume!(bytes.len() >= 14);
        let frame = Frame { bytes: &bytes, delivery: Delivery::Broadcast, vlan: Some(priority << 12 | id) };
        prop_assert_eq!(decode(&frame, US), Err(DropReason::VlanTagged));
    }
}

/// Input: every file under `fuzz/corpus/arp`, named `<expected label or "ok">[-<note>].bin`.
/// Output: that verdict.
#[test]
fn the_committed_corpus_replays() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/arp");
    let mut replayed = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let expected = name.split('-').next().unwrap();
        let verdict = decode(
            &Frame {
                bytes: &bytes,
                delivery: Delivery::Broadcast,
                vlan: None,
            },
            US,
        );
        assert_eq!(
            verdict.map_or_else(DropReason::label, |_| "ok"),
            expected,
            "{name}"
        );
        replayed += 1;
    }
    assert!(replayed >= 10, "only {replayed} files");
}
