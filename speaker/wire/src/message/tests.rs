//! Recorded frames, and what each says. The bytes were put together by other means than the code here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Location, Message, Station, Tag, announcement, answer, question};
use crate::{
    Delivery, DropReason, Frame, FrameBuf, MacAddr, advertise, decode, decode_ndp, gratuitous,
    reply, request, solicit, unsolicited,
};

const US: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
const PEER: MacAddr = MacAddr(2, 0, 0, 0, 0, 2);
const OTHER: MacAddr = MacAddr(2, 0, 0, 0, 0, 3);
const HERE: Station = Station {
    mac: US,
    link_local: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1)),
};
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 240));
const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0x1234, 0x5678));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 5));
const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
const TAG: Tag = [
    0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
    0xb0, 0xb1,
];

/// Text without its blanks.
fn packed(text: &str) -> String {
    text.split_whitespace().collect()
}

fn is(frame: FrameBuf, expected: &str) {
    assert_eq!(format!("{frame:?}"), packed(expected));
}

/// An ARP frame, whose packet begins with the operation.
fn arp(ends: &str, packet: &str, padding: &str) -> String {
    format!("{ends} 0806 0001 0800 06 04 {packet} {padding}")
}

const TAGGED: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1";
const BARE: &str = "000000000000000000000000000000000000";

fn delivery(bytes: &[u8]) -> Delivery {
    match bytes {
        [0xff, ..] => Delivery::Broadcast,
        [0x33, ..] => Delivery::Multicast,
        _ => Delivery::Host,
    }
}

fn frame(bytes: &[u8]) -> Frame<'_> {
    Frame {
        bytes,
        delivery: delivery(bytes),
        vlan: None,
    }
}

/// How a neighbour with this hardware address reads it.
fn read(bytes: &[u8], us: MacAddr) -> Message<'_> {
    if bytes[12] == 8 {
        Message::arp(&frame(bytes), us).unwrap()
    } else {
        Message::ndp(&frame(bytes), us).unwrap()
    }
}

#[test]
fn arp_questions_are_the_recorded_ones() {
    let asks = "0001 020000000001 00000000 000000000000 c0a801f0";
    let to_all = arp("ffffffffffff 020000000001", asks, TAGGED);
    is(question(VIP, None, &HERE, Some(&TAG)), &to_all);
    let to_one = arp("020000000002 020000000001", asks, TAGGED);
    is(question(VIP, Some(PEER), &HERE, Some(&TAG)), &to_one);
    let bare = arp("020000000002 020000000001", asks, BARE);
    is(question(VIP, Some(PEER), &HERE, None), &bare);
}

#[test]
fn arp_answers_and_announcements_are_the_recorded_ones() {
    let ends = "020000000002 020000000001";
    let says = "0002 020000000001 c0a801f0 020000000002 00000000";
    let tagged = answer(VIP, PEER, None, &HERE, Some(&TAG));
    is(tagged, &arp(ends, says, TAGGED));
    // An asker of the other family is none.
    let strange = answer(VIP, PEER, Some(CLIENT6), &HERE, Some(&TAG));
    assert_eq!(tagged, strange);
    let says = "0002 020000000001 c0a801f0 020000000002 c0a80105";
    is(
        answer(VIP, PEER, Some(CLIENT), &HERE, None),
        &arp(ends, says, BARE),
    );
    for (to, ends) in [
        (None, "ffffffffffff 020000000001"),
        (Some(PEER), "020000000002 020000000001"),
    ] {
        let pair: Vec<_> = announcement(VIP, to, &HERE, Some(&TAG)).collect();
        assert_eq!(pair.len(), 2);
        for (sent, operation) in pair.into_iter().zip(["0001", "0002"]) {
            let says = format!("{operation} 020000000001 c0a801f0 ffffffffffff c0a801f0");
            is(sent, &arp(ends, &says, TAGGED));
        }
    }
    let IpAddr::V4(vip) = VIP else { unreachable!() };
    let bare: Vec<_> = announcement(VIP, None, &HERE, None).collect();
    assert_eq!(bare, gratuitous(vip, US).map(|frame| FrameBuf::of(&frame)));
}

/// From the end of the Ethernet header: the link-local address asks the group, naming its hardware address.
const ASKS: &str = "86dd 60000000 0038 3a ff fe80000000000000000000fffe000001 ff0200000000000000000001ff345678 \
    87 00 c117 00000000 fd990000000000000000000012345678 01 01 020000000001 \
    0e 03 a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1 00000000";

#[test]
fn ndp_questions_are_the_recorded_ones() {
    is(
        question(VIP6, None, &HERE, Some(&TAG)),
        &format!("3333ff345678 020000000001 {ASKS}"),
    );
    is(
        question(VIP6, Some(PEER), &HERE, Some(&TAG)),
        &format!("020000000002 020000000001 {ASKS}"),
    );
    is(
        question(VIP6, Some(PEER), &HERE, None),
        "020000000002 020000000001 86dd 60000000 0020 3a ff \
         fe80000000000000000000fffe000001 ff0200000000000000000001ff345678 \
         87 00 bd29 00000000 fd990000000000000000000012345678 01 01 020000000001",
    );
    let nobody = Station {
        link_local: None,
        ..HERE
    };
    is(
        question(VIP6, None, &nobody, Some(&TAG)),
        "3333ff345678 020000000001 86dd 60000000 0030 3a ff \
         00000000000000000000000000000000 ff0200000000000000000001ff345678 \
         87 00 c1a3 00000000 fd990000000000000000000012345678 \
         0e 03 a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1 00000000",
    );
}

/// From the end of the Ethernet header: the address is told to all nodes, with Override.
const SAYS: &str = "86dd 60000000 0038 3a ff fd990000000000000000000012345678 ff020000000000000000000000000001 \
    88 00 8c00 20000000 fd990000000000000000000012345678 02 01 020000000001 \
    0e 03 a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1 00000000";

#[test]
fn ndp_answers_and_announcements_are_the_recorded_ones() {
    is(
        answer(VIP6, PEER, Some(CLIENT6), &HERE, Some(&TAG)),
        "020000000002 020000000001 86dd 60000000 0038 3a ff \
         fd990000000000000000000012345678 fe800000000000000000000000000002 \
         88 00 4c81 60000000 fd990000000000000000000012345678 02 01 020000000001 \
         0e 03 a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1 00000000",
    );
    // No asker to name: none, one of the other family, or `::`.
    for asker in [None, Some(CLIENT), Some(Ipv6Addr::UNSPECIFIED.into())] {
        is(
            answer(VIP6, PEER, asker, &HERE, Some(&TAG)),
            &format!("020000000002 020000000001 {SAYS}"),
        );
    }
    for (to, mac) in [(None, "333300000001"), (Some(PEER), "020000000002")] {
        let sent: Vec<_> = announcement(VIP6, to, &HERE, Some(&TAG)).collect();
        let [sent] = sent[..] else { panic!("{sent:?}") };
        is(sent, &format!("{mac} 020000000001 {SAYS}"));
    }
    let IpAddr::V6(vip) = VIP6 else {
        unreachable!()
    };
    let bare: Vec<_> = announcement(VIP6, None, &HERE, None).collect();
    assert_eq!(bare, [FrameBuf::of(&unsolicited(vip, US))]);
}

/// Input: every form, of both families, to one and to all.
/// Output: what the neighbour it is for reads.
#[test]
fn every_form_says_what_it_should() {
    let here = |address, unasked| {
        Some(Location {
            address,
            mac: US,
            unasked,
        })
    };
    let me = IpAddr::from(HERE.link_local.unwrap());
    for (address, asker, asked_by) in [(VIP, CLIENT, None), (VIP6, CLIENT6, Some(me))] {
        for to in [None, Some(PEER)] {
            let sent = question(address, to, &HERE, Some(&TAG));
            let heard = read(sent.as_slice(), PEER);
            assert_eq!((heard.about(), heard.asked()), (address, Some(address)));
            assert_eq!((heard.sender(), heard.source), (US, US));
            assert_eq!((heard.asker(), heard.tag), (asked_by, Some(&TAG)));
            assert_eq!(heard.location().map(|it| it.address), asked_by);
            assert_eq!(heard.destination, sent.destination());

            for sent in announcement(address, to, &HERE, Some(&TAG)) {
                let heard = read(sent.as_slice(), PEER);
                assert_eq!((heard.about(), heard.sender()), (address, US));
                assert_eq!(heard.location(), here(address, true), "{heard:?}");
                assert_eq!(heard.tag, Some(&TAG));
            }
        }
        for asker in [None, Some(asker)] {
            let sent = answer(address, PEER, asker, &HERE, Some(&TAG));
            let heard = read(sent.as_slice(), PEER);
            assert_eq!((heard.about(), heard.asked()), (address, None));
            assert_eq!((heard.sender(), heard.tag), (US, Some(&TAG)));
            // To a multicast address no advertisement may call itself solicited.
            let unasked = address.is_ipv6() && asker.is_none();
            assert_eq!(heard.location(), here(address, unasked));
            assert_eq!(heard.reply(PEER, PEER), None);
        }
    }
}

/// Input: a client's question, and one whether an address is free.
/// Output: the responder's answer, which names another's hardware address where it is told to, and is otherwise the same.
#[test]
fn a_reply_names_the_holder_and_is_sent_by_us() {
    let (IpAddr::V4(vip), IpAddr::V4(client)) = (VIP, CLIENT) else {
        unreachable!()
    };
    let (IpAddr::V6(vip6), IpAddr::V6(client6)) = (VIP6, CLIENT6) else {
        unreachable!()
    };
    let asked = request(vip, client, PEER);
    let heard = read(&asked, US);
    let packet = decode(&frame(&asked), US).unwrap();
    assert_eq!((heard.asked(), heard.asker()), (Some(VIP), Some(CLIENT)));
    assert_eq!(heard.tag, Some(&[0; 18]), "padding is not judged");
    assert_eq!(heard.reply(US, US), Some(FrameBuf::of(&reply(&packet, US))));
    is(
        heard.reply(OTHER, US).unwrap(),
        &arp(
            "020000000002 020000000001",
            "0002 020000000003 c0a801f0 020000000002 c0a80105",
            BARE,
        ),
    );

    for asked in [
        solicit(vip6, client6, PEER),
        crate::probe(vip6, [7; 6], PEER),
    ] {
        let heard = read(&asked, US);
        let packet = decode_ndp(&frame(&asked), US).unwrap();
        assert_eq!((heard.asked(), heard.tag), (Some(VIP6), None));
        assert_eq!(
            heard.reply(US, US),
            Some(FrameBuf::of(&advertise(&packet, US)))
        );
        let sent = heard.reply(OTHER, US).unwrap();
        let read = read(sent.as_slice(), PEER);
        assert_eq!((read.sender(), read.source), (OTHER, US));
        assert_eq!(read.destination, sent.destination());
    }
}

#[test]
fn a_tag_is_there_whole_or_not_at_all() {
    let arp = question(VIP, None, &HERE, Some(&TAG));
    for length in 42..60 {
        assert_eq!(read(&arp.as_slice()[..length], PEER).tag, None);
    }
    let longer = [arp.as_slice(), &[9; 4]].concat();
    assert_eq!(read(&longer, PEER).tag, Some(&TAG));
    let mut vlan = frame(arp.as_slice());
    vlan.vlan = Some(7);
    assert_eq!(Message::arp(&vlan, PEER), Err(DropReason::VlanTagged));
    assert_eq!(
        Message::arp(&frame(arp.as_slice()), US),
        Err(DropReason::OwnSender)
    );
}

/// Input: ordinary frames of stations that know nothing of tags.
/// Output: where they say they are, and whether that was an answer to us.
#[test]
fn what_strangers_say_is_told_apart() {
    let (IpAddr::V4(vip), IpAddr::V4(client)) = (VIP, CLIENT) else {
        unreachable!()
    };
    let at = |address, unasked| {
        Some(Location {
            address,
            mac: PEER,
            unasked,
        })
    };
    let asked = decode(&frame(&request(client, vip, US)), PEER).unwrap();
    // An answer to us; a question of who is elsewhere; an announcement, also to us alone; an answer sent to all.
    let mut answer = reply(&asked, PEER);
    assert_eq!(read(&answer, US).location(), at(CLIENT, false));
    answer[..6].fill(0xff);
    assert_eq!(read(&answer, US).location(), at(CLIENT, true));
    let other = request(vip, client, PEER);
    assert_eq!(read(&other, US).location(), at(CLIENT, true));
    for mut frame in gratuitous(vip, PEER) {
        assert_eq!(read(&frame, US).location(), at(VIP, true));
        frame[..6].copy_from_slice(&US.octets());
        assert_eq!(read(&frame, US).location(), at(VIP, true));
    }
    let nobody = request(vip, Ipv4Addr::UNSPECIFIED, PEER);
    assert_eq!(read(&nobody, US).location(), None);
}
