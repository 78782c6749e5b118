//! Tagged frames of both protocols, against arbitrary contents and against other codecs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, Ipv6Addr};

use ferrolb_speaker_wire::{
    Delivery, DropReason, Frame, FrameBuf, MacAddr, Message, Said, Station, Tag, announcement,
    answer, decode, decode_ndp, multicast_mac, question, solicited_node,
};
use pnet::packet::Packet;
use pnet::packet::ethernet::EthernetPacket;
use pnet::packet::icmpv6::{Icmpv6Packet, checksum};
use pnet::packet::ipv6::Ipv6Packet;
use proptest::prelude::*;

const US: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

fn frame(bytes: &[u8]) -> Frame<'_> {
    Frame {
        bytes,
        delivery: Delivery::Multicast,
        vlan: None,
    }
}

/// As its Ethernet type says.
fn read(bytes: &[u8], us: MacAddr) -> Result<Message<'_>, DropReason> {
    if bytes.get(12) == Some(&8) {
        Message::arp(&frame(bytes), us)
    } else {
        Message::ndp(&frame(bytes), us)
    }
}

/// An address one station may have.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 3]>().prop_map(|[b, c, d]| [10, b, c, d].into()),
        any::<[u8; 15]>().prop_map(|rest| {
            let mut octets = [0xfd; 16];
            octets[1..].copy_from_slice(&rest);
            octets.into()
        })
    ]
}

fn link_local() -> impl Strategy<Value = Ipv6Addr> {
    any::<u64>().prop_map(|id| Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(id)))
}

/// A hardware address one station may have, other than ours.
fn station_mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 5]>().prop_map(|[b, c, d, e, f]| MacAddr::new(0x52, b, c, d, e, f))
}

fn station() -> impl Strategy<Value = Station> {
    (station_mac(), prop::option::of(link_local()))
        .prop_map(|(mac, link_local)| Station { mac, link_local })
}

/// One of the frames built here, for us or for all, and what it is about.
fn built() -> impl Strategy<Value = (FrameBuf, IpAddr, Station, Option<Tag>)> {
    let choice = (0..4, any::<bool>(), prop::option::of(address()));
    (choice, address(), station(), any::<Option<Tag>>()).prop_map(
        |((form, alone, asker), address, from, tag)| {
            let to = alone.then_some(US);
            let frame = match form {
                0 => Some(question(address, to, &from, tag.as_ref())),
                1 => Some(answer(address, US, asker, &from, tag.as_ref())),
                2 => announcement(address, to, &from, tag.as_ref()).next(),
                _ => announcement(address, to, &from, tag.as_ref()).last(),
            };
            (frame.unwrap(), address, from, tag)
        },
    )
}

/// A frame built here with up to three bytes changed, more options and the end cut off somewhere, mostly with a sum that
/// is right all the same.
fn nearly_good() -> impl Strategy<Value = Vec<u8>> {
    (
        built(),
        prop::collection::vec((0..110_usize, any::<u8>()), 0..4),
        prop::collection::vec(prop_oneof![0_u8..4, Just(14), any::<u8>()], 0..48),
        prop_oneof![3 => Just(usize::MAX), 1 => 0..110_usize],
        prop::bool::weighted(0.8),
    )
        .prop_map(|((frame, ..), changes, more, length, seal)| {
            let mut bytes = [frame.as_slice(), &more].concat();
            bytes.truncate(length);
            for (offset, value) in changes {
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte = value;
                }
            }
            if seal && bytes.len() >= 58 && bytes[12] == 0x86 {
                let length = u16::try_from(bytes.len() - 54).unwrap();
                bytes[18..20].copy_from_slice(&length.to_be_bytes());
                if let Some(sum) = pnet_sum(&bytes) {
                    bytes[56..58].copy_from_slice(&sum.to_be_bytes());
                }
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

/// The first option of this type and length after a Neighbour Discovery message's 24 bytes, header included.
fn option(bytes: &[u8], kind: u8, units: u8) -> Option<&[u8]> {
    let mut rest = bytes;
    while let [this, count, ..] = *rest {
        let (option, after) = rest.split_at(usize::from(count) * 8);
        if (this, count) == (kind, units) {
            return Some(option);
        }
        rest = after;
    }
    None
}

/// What we read from an NDP frame stands where etherparse finds it.
fn agrees(bytes: &[u8], heard: &Message<'_>) -> Result<(), TestCaseError> {
    let sliced = etherparse::SlicedPacket::from_ethernet(bytes).unwrap();
    if let Said::Arp(packet) = heard.said {
        let Some(etherparse::NetSlice::Arp(arp)) = sliced.net else {
            return Err(TestCaseError::fail("no ARP"));
        };
        let arp = arp.to_packet().try_eth_ipv4().unwrap();
        prop_assert_eq!(arp.sender_mac, packet.sender_mac.octets());
        prop_assert_eq!(arp.sender_ipv4, packet.sender_ip.octets());
        prop_assert_eq!(arp.target_ipv4, packet.target_ip.octets());
        let padding = bytes.get(42..60);
        prop_assert_eq!(padding, heard.tag.map(|tag| &tag[..]));
        return Ok(());
    }
    let Some(etherparse::NetSlice::Ipv6(ip)) = &sliced.net else {
        return Err(TestCaseError::fail("no IPv6"));
    };
    let Some(etherparse::TransportSlice::Icmpv6(icmp)) = &sliced.transport else {
        return Err(TestCaseError::fail("no ICMPv6"));
    };
    let header = ip.header();
    prop_assert!(icmp.is_checksum_valid(header.source(), header.destination()));
    prop_assert_eq!((header.hop_limit(), icmp.code_u8()), (255, 0));
    let body = icmp.slice();
    let IpAddr::V6(about) = heard.about() else {
        return Err(TestCaseError::fail("not IPv6"));
    };
    prop_assert_eq!(&body[8..24], about.octets());
    let options = &body[24..];
    let ethernet = EthernetPacket::new(bytes).unwrap();
    let (kind, link_layer, source) = match heard.said {
        Said::Solicitation(asked) => (135, 1, asked.source),
        Said::Advertisement(said) => {
            let flags = body[4] & 0xe0;
            let expected = u8::from(said.router) << 7
                | u8::from(said.solicited) << 6
                | u8::from(said.overriding) << 5;
            prop_assert_eq!(flags, expected);
            let to: Ipv6Addr = header.destination().into();
            prop_assert!(!(said.solicited && to.is_multicast()));
            prop_assert!(!said.source.is_unspecified());
            (136, 2, said.source)
        }
        Said::Arp(_) => unreachable!(),
    };
    prop_assert_eq!((icmp.type_u8(), header.source()), (kind, source.octets()));
    let named = option(options, link_layer, 1).map_or(ethernet.get_source(), |option| {
        MacAddr::from(<[u8; 6]>::try_from(&option[2..]).unwrap())
    });
    prop_assert_eq!(named, heard.sender());
    let tag = option(options, 14, 3).map(|option| &option[2..20]);
    prop_assert_eq!(tag, heard.tag.map(|tag| &tag[..]));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_built_is_read_alike_everywhere((frame, about, from, tag) in built()) {
        let bytes = frame.as_slice();
        let heard = read(bytes, US).unwrap();
        prop_assert_eq!((heard.about(), heard.sender(), heard.source), (about, from.mac, from.mac));
        prop_assert_eq!(heard.destination, frame.destination());
        // Padding without a tag is zeros; an option that is not there is not.
        let zeros = about.is_ipv4().then_some([0; 18]);
        prop_assert_eq!(heard.tag.copied(), tag.or(zeros));
        agrees(bytes, &heard)?;
        // Nobody is told where anything but the address is, or the one who asks.
        if let Some(location) = heard.location() {
            let me = from.link_local.map(IpAddr::from);
            prop_assert!(location.address == about || heard.asked().is_some() && Some(location.address) == me);
            prop_assert_eq!(location.mac, from.mac);
        }
        if let (Some(IpAddr::V6(asked)), false) = (heard.asked(), heard.destination == US) {
            prop_assert_eq!(heard.destination, multicast_mac(solicited_node(asked)));
        }
    }

    #[test]
    fn what_is_accepted_is_read_alike_everywhere(bytes in nearly_good()) {
        if let Ok(heard) = read(&bytes, US) {
            agrees(&bytes, &heard)?;
            for mac in [heard.source, heard.sender()] {
                prop_assert!(!mac.is_multicast() && mac != US && mac != MacAddr::zero());
            }
            if let Some(location) = heard.location() {
                prop_assert!(!location.address.is_unspecified());
            }
        }
    }

    /// The two views of a frame: with the tag and without.
    #[test]
    fn both_views_judge_alike(bytes in nearly_good()) {
        let packet = decode(&frame(&bytes), US);
        match Message::arp(&frame(&bytes), US) {
            Ok(heard) => prop_assert_eq!(Ok(heard.said), packet.map(Said::Arp)),
            Err(reason) => prop_assert_eq!(packet, Err(reason)),
        }
        let asked = decode_ndp(&frame(&bytes), US);
        match Message::ndp(&frame(&bytes), US) {
            Ok(Message { said: said @ Said::Solicitation(_), .. }) => {
                prop_assert_eq!(Ok(said), asked.map(Said::Solicitation));
            }
            Ok(_) => prop_assert_eq!(asked, Err(DropReason::NdpType)),
            Err(reason) => prop_assert_eq!(asked, Err(reason)),
        }
    }

    /// A question's reply names the holder it is told to, and goes to who asked or to all nodes.
    #[test]
    fn a_reply_is_for_who_asked((frame, about, from, _) in built(), at in station_mac()) {
        let heard = read(frame.as_slice(), US).unwrap();
        let reply = heard.reply(at, US);
        prop_assert_eq!(reply.is_some(), heard.asked().is_some());
        if let Some(reply) = reply {
            // Where it names the asker itself, the asker takes it for its own.
            prop_assume!(at != from.mac);
            let said = read(reply.as_slice(), from.mac).unwrap();
            prop_assert_eq!((said.about(), said.sender(), said.source), (about, at, US));
            agrees(reply.as_slice(), &said)?;
            let to_all = about.is_ipv6() && heard.asker().is_none();
            prop_assert_eq!(reply.destination() == from.mac, !to_all);
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for heard in [Message::arp(&frame(&bytes), US), Message::ndp(&frame(&bytes), US)].into_iter().flatten() {
            agrees(&bytes, &heard)?;
        }
    }
}
