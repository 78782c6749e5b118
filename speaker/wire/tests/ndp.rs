//! Our NDP decoder and encoder against arbitrary bytes and against two other codecs, etherparse's and pnet's.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::Ipv6Addr;
use std::path::Path;

use ferrolb_speaker_wire::{
    Delivery, DropReason, Frame, MacAddr, NDP_FRAME_LEN, Solicitation, advertise, decode_ndp,
    multicast_mac, probe, solicit, solicited_node, unsolicited,
};
use pnet::packet::Packet;
use pnet::packet::ethernet::EthernetPacket;
use pnet::packet::icmpv6::ndp::{NdpOptionTypes, NeighborAdvertPacket, NeighborSolicitPacket};
use pnet::packet::icmpv6::{Icmpv6Packet, checksum};
use pnet::packet::ipv6::Ipv6Packet;
use proptest::prelude::*;

const US: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

fn decode(bytes: &[u8], delivery: Delivery) -> Result<Solicitation, DropReason> {
    let vlan = None;
    decode_ndp(
        &Frame {
            bytes,
            delivery,
            vlan,
        },
        US,
    )
}

/// An address one station may have.
fn unicast() -> impl Strategy<Value = Ipv6Addr> {
    any::<[u8; 15]>().prop_map(|rest| {
        let mut octets = [0xfd; 16];
        octets[1..].copy_from_slice(&rest);
        octets.into()
    })
}

/// A hardware address one station may have, other than ours.
fn station_mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 5]>().prop_map(|[b, c, d, e, f]| MacAddr::new(0x52, b, c, d, e, f))
}

fn question() -> impl Strategy<Value = [u8; NDP_FRAME_LEN]> {
    prop_oneof![
        (unicast(), unicast(), station_mac())
            .prop_map(|(target, from, mac)| solicit(target, from, mac)),
        (unicast(), any::<[u8; 6]>(), station_mac())
            .prop_map(|(target, nonce, mac)| probe(target, nonce, mac)),
    ]
}

/// A well-formed question with up to three bytes changed, other options and the end cut off somewhere, mostly with a sum
/// that is right all the same: near enough to a good frame for every check to be reached.
fn nearly_good_frame() -> impl Strategy<Value = Vec<u8>> {
    (
        question(),
        prop::collection::vec((0..NDP_FRAME_LEN, any::<u8>()), 0..4),
        prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..40),
        prop_oneof![3 => Just(usize::MAX), 1 => 0..NDP_FRAME_LEN],
        prop::bool::weighted(0.8),
    )
        .prop_map(|(question, changes, options, length, seal)| {
            let mut bytes = [&question[..], &options].concat();
            bytes.truncate(length);
            for (offset, value) in changes {
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte = value;
                }
            }
            if seal && bytes.len() >= 58 {
                let length = u16::try_from(bytes.len() - 54).unwrap();
                bytes[18..20].copy_from_slice(&length.to_be_bytes());
                let sum = pnet_sum(&bytes).unwrap();
                bytes[56..58].copy_from_slice(&sum.to_be_bytes());
            }
            bytes
        })
}

/// What pnet says the checksum should be.
fn pnet_sum(bytes: &[u8]) -> Option<u16> {
    let ip = Ipv6Packet::new(bytes.get(14..)?)?;
    let message = Icmpv6Packet::new(ip.payload())?;
    Some(checksum(&message, &ip.get_source(), &ip.get_destination()))
}

/// What etherparse finds in a solicitation or advertisement whose checksum it calls right: source, destination, hop
/// limit, type, flags, target.
fn through_etherparse(bytes: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr, u8, u8, u8, Ipv6Addr)> {
    let sliced = etherparse::SlicedPacket::from_ethernet(bytes).ok()?;
    let Some(etherparse::NetSlice::Ipv6(ip)) = &sliced.net else {
        return None;
    };
    let Some(etherparse::TransportSlice::Icmpv6(message)) = &sliced.transport else {
        return None;
    };
    let header = ip.header();
    if !message.is_checksum_valid(header.source(), header.destination()) || message.code_u8() != 0 {
        return None;
    }
    let body = message.slice();
    Some((
        header.source().into(),
        header.destination().into(),
        header.hop_limit(),
        message.type_u8(),
        *body.get(4)?,
        <[u8; 16]>::try_from(body.get(8..24)?).ok()?.into(),
    ))
}

fn agrees(bytes: &[u8], asked: &Solicitation) -> Result<(), TestCaseError> {
    let (source, destination, hop_limit, kind, _, target) = through_etherparse(bytes).unwrap();
    prop_assert_eq!(
        (source, target, hop_limit, kind),
        (asked.source, asked.target, 255, 135)
    );
    let ethernet = EthernetPacket::new(bytes).unwrap();
    prop_assert!(
        ethernet.get_destination() == US
            || ethernet.get_destination() == multicast_mac(destination)
    );
    let ip = Ipv6Packet::new(ethernet.payload()).unwrap();
    let message = NeighborSolicitPacket::new(ip.payload()).unwrap();
    prop_assert_eq!(message.get_target_addr().octets(), asked.target.octets());
    // Its walk over options overflows on long ones, so it is shown only what we have walked.
    let mut options = message.get_options_iter();
    let named = options.find(|option| option.get_option_type() == NdpOptionTypes::SourceLLAddr);
    let expected = named.map_or(ethernet.get_source(), |option| {
        let bytes = <[u8; 6]>::try_from(option.payload()).unwrap();
        MacAddr::from(bytes)
    });
    prop_assert_eq!(expected, asked.source_mac);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        vlan in any::<Option<u16>>(),
    ) {
        let refused = decode_ndp(&Frame { bytes: &bytes, delivery: Delivery::Multicast, vlan }, US);
        // Arbitrary bytes have no right checksum.
        prop_assert!(refused.is_err());
    }

    #[test]
    fn what_we_accept_etherparse_and_pnet_read_alike(bytes in nearly_good_frame()) {
        if let Ok(asked) = decode(&bytes, Delivery::Multicast) {
            agrees(&bytes, &asked)?;
            prop_assert!(!asked.source_mac.is_multicast() && asked.source_mac != US);
        }
    }

    #[test]
    fn a_good_question_is_accepted_and_cut_or_corrupted_is_not(
        question in question(), cut in 0..NDP_FRAME_LEN, bit in 22 * 8..NDP_FRAME_LEN * 8,
    ) {
        let asked = decode(&question, Delivery::Multicast).unwrap();
        agrees(&question, &asked)?;
        prop_assert!(decode(&question[..cut], Delivery::Multicast).is_err());
        let mut corrupted = question;
        corrupted[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(decode(&corrupted, Delivery::Multicast), Err(DropReason::NdpChecksum));
    }

    #[test]
    fn answers_are_read_alike_everywhere(question in question()) {
        let asked = decode(&question, Delivery::Multicast).unwrap();
        let (to, to_mac, flags) = if asked.source.is_unspecified() {
            let all = "ff02::1".parse().unwrap();
            (all, multicast_mac(all), 0x20)
        } else {
            (asked.source, asked.source_mac, 0x60)
        };
        let answer = advertise(&asked, US);
        prop_assert_eq!(through_etherparse(&answer), Some((asked.target, to, 255, 136, flags, asked.target)));
        let ethernet = EthernetPacket::new(&answer).unwrap();
        prop_assert_eq!((ethernet.get_destination(), ethernet.get_source()), (to_mac, US));
        let ip = Ipv6Packet::new(ethernet.payload()).unwrap();
        prop_assert_eq!(pnet_sum(&answer), Icmpv6Packet::new(ip.payload()).map(|packet| packet.get_checksum()));
        let message = NeighborAdvertPacket::new(ip.payload()).unwrap();
        let options = message.get_options();
        prop_assert_eq!(options.len(), 1);
        prop_assert_eq!(options[0].option_type, NdpOptionTypes::TargetLLAddr);
        prop_assert_eq!(&options[0].data, &US.octets());
        prop_assert!(decode(&answer, Delivery::Multicast).is_err());
    }

    #[test]
    fn unasked_and_groups_are_right_for_every_address(address in unicast()) {
        let frame = unsolicited(address, US);
        let (source, destination, hop_limit, kind, flags, target) = through_etherparse(&frame).unwrap();
        prop_assert_eq!((source, target, hop_limit, kind, flags), (address, address, 255, 136, 0x20));
        prop_assert_eq!(destination, Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
        let group = solicited_node(address).octets();
        prop_assert_eq!(&group[..13], &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]);
        prop_assert_eq!(&group[13..], &address.octets()[13..]);
    }
}

/// Input: every file under `fuzz/corpus/ndp`, named `<expected label or "ok">[-<note>].bin`.
/// Output: that verdict.
#[test]
fn the_committed_corpus_replays() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/ndp");
    let mut missing: Vec<&str> = DropReason::ALL.map(DropReason::label).into();
    missing.retain(|label| label.starts_with("ndp_"));
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let expected = name.split('-').next().unwrap();
        let verdict = decode(&bytes, Delivery::Multicast).map_or_else(DropReason::label, |_| "ok");
        assert_eq!(verdict, expected, "{name}");
        missing.retain(|label| *label != verdict);
    }
    assert!(missing.is_empty(), "no example of {missing:?}");
}
