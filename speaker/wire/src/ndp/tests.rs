//! Vectors, and one wrong field at a time.

use super::{
    DropReason, Frame, Ipv6Addr, MacAddr, NDP_FRAME_LEN, Solicitation, advertise, checksum,
    decode_ndp, multicast_mac, probe, solicit, solicited_node, unsolicited,
};
use crate::Delivery;

const US: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
const PEER: MacAddr = MacAddr(2, 0, 0, 0, 0, 2);
const VIP: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0x1234, 0x5678);
const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 5);

/// Hexadecimal text, blanks ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn received(bytes: &[u8]) -> Result<Solicitation, DropReason> {
    let delivery = match bytes.first() {
        Some(0x33) => Delivery::Multicast,
        _ => Delivery::Host,
    };
    decode_ndp(
        &Frame {
            bytes,
            delivery,
            vlan: None,
        },
        US,
    )
}

/// Makes length and checksum right again after a change.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(bytes.len() - 54).unwrap();
    bytes[18..20].copy_from_slice(&length.to_be_bytes());
    bytes[56..58].fill(0);
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
    let sum = checksum(&bytes[54..], address(22), address(38));
    bytes[56..58].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A sound question with some bytes changed, and sound again but for these.
fn changed(offset: usize, values: &[u8]) -> Vec<u8> {
    let mut bytes = solicit(VIP, CLIENT, PEER).to_vec();
    bytes[offset..offset + values.len()].copy_from_slice(values);
    sealed(bytes)
}

/// A sound question with these options in place of its own.
fn with_options(question: &[u8], options: &[u8]) -> Vec<u8> {
    sealed([&question[..78], options].concat())
}

#[test]
fn groups_and_their_hardware_addresses() {
    let group = solicited_node(VIP);
    assert_eq!(group, "ff02::1:ff34:5678".parse::<Ipv6Addr>().unwrap());
    assert_eq!(
        multicast_mac(group),
        MacAddr(0x33, 0x33, 0xff, 0x34, 0x56, 0x78)
    );
}

#[test]
fn an_answer_is_the_recorded_one() {
    let asked = received(&solicit(VIP, CLIENT, PEER)).unwrap();
    let expected = hex("020000000002 020000000001 86dd 60000000 0020 3a ff \
         fd990000000000000000000012345678 fd990000000000000000000000000005 \
         88 00 4977 60000000 fd990000000000000000000012345678 02 01 020000000001");
    assert_eq!(advertise(&asked, US).to_vec(), expected);
}

#[test]
fn what_is_said_unasked_is_the_recorded_one_and_answers_a_probe() {
    let expected = hex("333300000001 020000000001 86dd 60000000 0020 3a ff \
         fd990000000000000000000012345678 ff020000000000000000000000000001 \
         88 00 8812 20000000 fd990000000000000000000012345678 02 01 020000000001");
    assert_eq!(unsolicited(VIP, US).to_vec(), expected);
    let asked = received(&probe(VIP, [7; 6], PEER)).unwrap();
    assert_eq!(
        asked,
        Solicitation {
            target: VIP,
            source: Ipv6Addr::UNSPECIFIED,
            source_mac: PEER,
            nonce: Some([7; 6])
        }
    );
    assert_eq!(advertise(&asked, US).to_vec(), expected);
}

#[test]
fn the_sender_is_found_in_the_option_before_the_header() {
    let proxied = MacAddr(2, 0, 0, 0, 0, 3);
    let asked = received(&changed(80, &proxied.octets())).unwrap();
    assert_eq!(asked.source_mac, proxied);
    assert_eq!(advertise(&asked, US)[..6], proxied.octets());
    // A neighbour that only makes sure of what it knows may leave the option out.
    let mut bare = with_options(&solicit(VIP, CLIENT, PEER), &[]);
    bare[..6].copy_from_slice(&US.octets());
    assert_eq!(received(&bare).unwrap().source_mac, PEER);
}

#[test]
fn a_group_sent_to_us_alone_is_accepted_but_not_to_another_group() {
    assert!(received(&changed(0, &US.octets())).is_ok());
    for (to, destination) in [
        // Another group's address; broadcast; one station asked through a group's address.
        ([0x33, 0x33, 0xff, 0, 0, 1], solicited_node(VIP)),
        ([0xff; 6], solicited_node(VIP)),
        (multicast_mac(solicited_node(VIP)).octets(), VIP),
    ] {
        let mut bytes = changed(38, &destination.octets());
        bytes[..6].copy_from_slice(&to);
        assert_eq!(received(&bytes), Err(DropReason::Destination), "{to:x?}");
    }
}

#[test]
fn every_truncation_is_refused() {
    let whole = solicit(VIP, CLIENT, PEER);
    for length in 0..NDP_FRAME_LEN {
        let expected = if length < 54 {
            DropReason::Truncated
        } else {
            DropReason::NdpPayloadLength
        };
        assert_eq!(received(&whole[..length]), Err(expected), "{length} bytes");
    }
    let padded = [&whole[..], &[0xaa; 20]].concat();
    assert!(received(&padded).is_ok());
}

#[test]
fn every_flipped_bit_behind_the_addresses_is_seen_by_the_checksum() {
    let whole = solicit(VIP, CLIENT, PEER);
    for bit in 22 * 8..NDP_FRAME_LEN * 8 {
        let mut bytes = whole;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(received(&bytes), Err(DropReason::NdpChecksum), "bit {bit}");
    }
}

#[test]
fn one_wrong_field_names_its_reason() {
    for (offset, values, reason) in [
        (0, &[4][..], DropReason::Destination),
        (6, &[1], DropReason::BroadcastOrMulticastSender),
        (6, &US.octets(), DropReason::OwnSender),
        (12, &[0x08, 0x06], DropReason::NdpEtherType),
        (12, &[0x81, 0x00], DropReason::VlanTagged),
        (14, &[0x45], DropReason::NdpVersion),
        (20, &[0], DropReason::NdpNextHeader),
        (20, &[44], DropReason::NdpNextHeader),
        (20, &[17], DropReason::NdpNextHeader),
        (21, &[254], DropReason::NdpHopLimit),
        (21, &[0], DropReason::NdpHopLimit),
        (22, &[0xff], DropReason::NdpSource),
        (22, &Ipv6Addr::LOCALHOST.octets(), DropReason::NdpSource),
        (54, &[136], DropReason::NdpType),
        (54, &[133], DropReason::NdpType),
        (55, &[1], DropReason::NdpCode),
        (62, &[0xff, 2], DropReason::NdpTarget),
        (79, &[0], DropReason::NdpOptionLength),
        (79, &[2], DropReason::NdpOptionLength),
        (79, &[32], DropReason::NdpOptionLength),
        (79, &[255], DropReason::NdpOptionLength),
        (80, &[0xff; 6], DropReason::BroadcastOrMulticastSender),
        (80, &[0; 6], DropReason::ZeroSenderMac),
        (80, &US.octets(), DropReason::OwnSender),
        (22, &[0; 16], DropReason::NdpUnspecifiedSource),
    ] {
        let bytes = changed(offset, values);
        assert_eq!(received(&bytes), Err(reason), "byte {offset} = {values:x?}");
    }
}

#[test]
fn a_message_too_short_is_refused_though_its_sum_is_right() {
    let whole = solicit(VIP, CLIENT, PEER);
    for length in 58..78 {
        let short = sealed(whole[..length].to_vec());
        assert_eq!(received(&short), Err(DropReason::NdpLength), "{length}");
    }
}

#[test]
fn a_probe_goes_to_the_group_of_its_target() {
    let mut bytes = probe(VIP, [7; 6], PEER).to_vec();
    bytes[38..54].copy_from_slice(&VIP.octets());
    bytes[..6].copy_from_slice(&US.octets());
    assert_eq!(received(&sealed(bytes)), Err(DropReason::NdpDestination));
    // An older one has no option at all.
    let plain = with_options(&probe(VIP, [7; 6], PEER), &[]);
    assert_eq!(received(&plain).unwrap().nonce, None);
}

#[test]
fn options_are_walked_to_the_end_and_no_further() {
    let question = solicit(VIP, CLIENT, PEER);
    let own = &question[78..];
    let unknown = [
        [200, 2],
        [9; 2],
        [9; 2],
        [9; 2],
        [9; 2],
        [9; 2],
        [9; 2],
        [9; 2],
    ]
    .concat();
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let asked = received(&with_options(
        &question,
        &[&unknown, &nonce[..], own].concat(),
    ))
    .unwrap();
    assert_eq!(
        (asked.source_mac, asked.nonce),
        (PEER, Some([1, 2, 3, 4, 5, 6]))
    );
    // A longer nonce, as secured stations send it, and a second address.
    let long = [&[14, 2][..], &[7; 14], own, &[1, 1, 2, 0, 0, 0, 0, 9]].concat();
    let asked = received(&with_options(&question, &long)).unwrap();
    assert_eq!((asked.source_mac, asked.nonce), (PEER, None));
    // A hardware address of 14 bytes, a byte behind the last option, an end in the middle, and 30 options in a row.
    for bad in [
        [&[1, 2][..], &[2; 14]].concat(),
        [own, &[1]].concat(),
        [own, &unknown[..14]].concat(),
        [own, &[200, 0, 1, 1, 1, 1, 1, 1]].concat(),
    ] {
        let bytes = with_options(&question, &bad);
        assert_eq!(
            received(&bytes),
            Err(DropReason::NdpOptionLength),
            "{bad:x?}"
        );
    }
    assert!(received(&with_options(&question, &own.repeat(20))).is_ok());
}
