//! The Address Resolution Protocol (RFC 826) for IPv4 over Ethernet, with the uses RFC 5227 adds.
//!
//! ```text
//!  0       2       4   5   6       8               14          18              24          28
//! +-------+-------+---+---+-------+---------------+-----------+---------------+-----------+
//! | hw 1  | 0x800 | 6 | 4 | op    | sender MAC    | sender IP | target MAC    | target IP |
//! +-------+-------+---+---+-------+---------------+-----------+---------------+-----------+
//! ```
//!
//! An Ethernet frame is 60 bytes at least, so 18 bytes of padding follow, which arrive as they were sent: room for a
//! [`Tag`].
//!
//! Decoding is ours, strict and total; building uses pnet's views over a fixed array.

use std::net::Ipv4Addr;

use pnet::packet::MutablePacket;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, MutableArpPacket};
use pnet::packet::ethernet::{EtherTypes, MutableEthernetPacket};
use pnet::util::MacAddr;

use crate::ethernet::{Header, mac, single_sender, take};
use crate::message::{Message, Said, Tag};
use crate::{DropReason, Frame};

/// Bytes of every frame built here: the shortest Ethernet allows, without frame check sequence (IEEE 802.3).
pub const FRAME_LEN: usize = 60;

/// A frame ready to be sent.
pub type ArpFrame = [u8; FRAME_LEN];

/// The sender's address in a question from nobody.
pub(crate) const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

const MAC_LEN: u8 = 6;
const IPV4_LEN: u8 = 4;

/// What an ARP packet asks or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

impl Operation {
    const fn on_the_wire(self) -> ArpOperation {
        match self {
            Self::Request => ArpOperations::Request,
            Self::Reply => ArpOperations::Reply,
        }
    }
}

/// A decoded ARP packet. Its sender is one station that is not us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpPacket {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's hardware address: never zero, never a group.
    pub sender_mac: MacAddr,
    /// The sender's address. 0.0.0.0 in a probe (RFC 5227 section 2.1.1), which is answered like any request.
    pub sender_ip: Ipv4Addr,
    /// The target's hardware address; without meaning in a request.
    pub target_mac: MacAddr,
    /// The address asked for.
    pub target_ip: Ipv4Addr,
}

/// Reads one received frame as an ARP packet. `us` is the receiving interface's hardware address.
///
/// Bytes after the packet are padding and are not judged. The protocol addresses are not either: MetalLB does not, and a
/// probe's sender address is zero by design.
pub fn decode(frame: &Frame<'_>, us: MacAddr) -> Result<ArpPacket, DropReason> {
    packet(frame, us).map(|(_, packet, _)| packet)
}

/// The same, with the Ethernet header and the padding.
#[inline]
pub(crate) fn read<'a>(frame: &Frame<'a>, us: MacAddr) -> Result<Message<'a>, DropReason> {
    let (header, packet, padding) = packet(frame, us)?;
    Ok(Message {
        said: Said::Arp(packet),
        source: header.source,
        destination: header.destination,
        tag: padding.first_chunk(),
    })
}

/// The header, the packet in it, and what follows.
#[allow(
    clippy::inline_always,
    reason = "every question goes through here, and out of line it takes half as long again"
)]
#[inline(always)]
fn packet<'a>(
    frame: &Frame<'a>,
    us: MacAddr,
) -> Result<(Header<'a>, ArpPacket, &'a [u8]), DropReason> {
    let header = frame.header(us, |to| to.is_broadcast())?;
    if header.ether_type != EtherTypes::Arp.0 {
        return Err(DropReason::NotArp);
    }
    let mut rest = header.payload;
    // The lengths are judged before the addresses are read, so that they can be trusted to lie where they should.
    if u16::from_be_bytes(take(&mut rest)?) != ArpHardwareTypes::Ethernet.0 {
        return Err(DropReason::HardwareType);
    }
    if u16::from_be_bytes(take(&mut rest)?) != EtherTypes::Ipv4.0 {
        return Err(DropReason::ProtocolType);
    }
    if take(&mut rest)? != [MAC_LEN] {
        return Err(DropReason::HardwareLength);
    }
    if take(&mut rest)? != [IPV4_LEN] {
        return Err(DropReason::ProtocolLength);
    }
    let operation = match ArpOperation(u16::from_be_bytes(take(&mut rest)?)) {
        ArpOperations::Request => Operation::Request,
        ArpOperations::Reply => Operation::Reply,
        _ => return Err(DropReason::Operation),
    };
    let packet = ArpPacket {
        operation,
        sender_mac: mac(take(&mut rest)?),
        sender_ip: Ipv4Addr::from(take::<4>(&mut rest)?),
        target_mac: mac(take(&mut rest)?),
        target_ip: Ipv4Addr::from(take::<4>(&mut rest)?),
    };
    single_sender(packet.sender_mac, us)?;
    Ok((header, packet, rest))
}

/// The answer to `asked`: "`asked.target_ip` is at `us`", sent to the one who asked and to nobody else.
pub fn reply(asked: &ArpPacket, us: MacAddr) -> ArpFrame {
    reply_at(asked, us, us)
}

/// The same, "at `at`", sent by `us`: the holder's hardware address stands in the packet, ours in the Ethernet header.
/// Were it the holder's there, too, the switches would send the holder's frames to us.
pub(crate) fn reply_at(asked: &ArpPacket, at: MacAddr, us: MacAddr) -> ArpFrame {
    let packet = ArpPacket {
        operation: Operation::Reply,
        sender_mac: at,
        sender_ip: asked.target_ip,
        target_mac: asked.sender_mac,
        target_ip: asked.sender_ip,
    };
    build((us, asked.sender_mac), &packet, None)
}

/// The gratuitous pair that tells the whole segment "`address` is at `us`": first the request form, then the reply form,
/// because some stacks learn only from the one and some only from the other.
pub fn gratuitous(address: Ipv4Addr, us: MacAddr) -> [ArpFrame; 2] {
    announcement(address, None, us, None)
}

/// The question "who has `target`?" from `us` at `sender` (0.0.0.0 makes it a probe), to everybody.
pub fn request(target: Ipv4Addr, sender: Ipv4Addr, us: MacAddr) -> ArpFrame {
    ask(target, (sender, us), MacAddr::broadcast(), None)
}

/// [`crate::question`].
pub(crate) fn question(
    target: Ipv4Addr,
    to: Option<MacAddr>,
    us: MacAddr,
    tag: Option<&Tag>,
) -> ArpFrame {
    ask(
        target,
        (NOBODY, us),
        to.unwrap_or_else(MacAddr::broadcast),
        tag,
    )
}

/// [`crate::answer`], to a station's address and hardware address.
pub(crate) fn answer(
    address: Ipv4Addr,
    to: (Ipv4Addr, MacAddr),
    us: MacAddr,
    tag: Option<&Tag>,
) -> ArpFrame {
    let packet = ArpPacket {
        operation: Operation::Reply,
        sender_mac: us,
        sender_ip: address,
        target_mac: to.1,
        target_ip: to.0,
    };
    build((us, to.1), &packet, tag)
}

/// [`crate::announcement`].
pub(crate) fn announcement(
    address: Ipv4Addr,
    to: Option<MacAddr>,
    us: MacAddr,
    tag: Option<&Tag>,
) -> [ArpFrame; 2] {
    [Operation::Request, Operation::Reply].map(|operation| {
        let packet = ArpPacket {
            operation,
            sender_mac: us,
            sender_ip: address,
            target_mac: MacAddr::broadcast(),
            target_ip: address,
        };
        build((us, to.unwrap_or_else(MacAddr::broadcast)), &packet, tag)
    })
}

pub(crate) fn ask(
    target: Ipv4Addr,
    from: (Ipv4Addr, MacAddr),
    to: MacAddr,
    tag: Option<&Tag>,
) -> ArpFrame {
    let packet = ArpPacket {
        operation: Operation::Request,
        sender_mac: from.1,
        sender_ip: from.0,
        target_mac: MacAddr::zero(),
        target_ip: target,
    };
    build((from.1, to), &packet, tag)
}

/// A frame from the first hardware address to the second, padded with `tag` or zeros.
fn build(ends: (MacAddr, MacAddr), packet: &ArpPacket, tag: Option<&Tag>) -> ArpFrame {
    let mut frame = [0; FRAME_LEN];
    let fitted = fill(&mut frame, ends, packet);
    debug_assert!(fitted.is_some(), "both headers fit into {FRAME_LEN} bytes");
    if let (Some(padding), Some(tag)) = (frame.last_chunk_mut(), tag) {
        *padding = *tag;
    }
    frame
}

/// Writes both headers. None only if `frame` were too short for them.
fn fill(frame: &mut ArpFrame, ends: (MacAddr, MacAddr), packet: &ArpPacket) -> Option<()> {
    let mut ethernet = MutableEthernetPacket::new(frame)?;
    ethernet.set_source(ends.0);
    ethernet.set_destination(ends.1);
    ethernet.set_ethertype(EtherTypes::Arp);
    let mut arp = MutableArpPacket::new(ethernet.payload_mut())?;
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(MAC_LEN);
    arp.set_proto_addr_len(IPV4_LEN);
    arp.set_operation(packet.operation.on_the_wire());
    arp.set_sender_hw_addr(packet.sender_mac);
    arp.set_sender_proto_addr(packet.sender_ip.octets().into());
    arp.set_target_hw_addr(packet.target_mac);
    arp.set_target_proto_addr(packet.target_ip.octets().into());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::{
        ArpPacket, DropReason, FRAME_LEN, Frame, Ipv4Addr, MacAddr, Operation, decode, gratuitous,
        reply, request,
    };
    use crate::Delivery;

    const US: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
    const PEER: MacAddr = MacAddr(2, 0, 0, 0, 0, 2);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 240);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 5);

    /// Hexadecimal text, blanks ignored, padded with zeros to a whole frame.
    fn frame(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap())
            .collect();
        let mut bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect();
        bytes.resize(FRAME_LEN, 0);
        bytes
    }

    fn received(bytes: &[u8]) -> Result<ArpPacket, DropReason> {
        let delivery = if bytes.first() == Some(&0xff) {
            Delivery::Broadcast
        } else {
            Delivery::Host
        };
        decode(
            &Frame {
                bytes,
                delivery,
                vlan: None,
            },
            US,
        )
    }

    #[test]
    fn reply_is_the_recorded_one() {
        let asked = received(&request(VIP, CLIENT, PEER)).unwrap();
        let expected = frame(
            "020000000002 020000000001 0806 0001 0800 06 04 0002 020000000001 c0a801f0 020000000002 c0a80105",
        );
        assert_eq!(reply(&asked, US).as_slice(), expected);
    }

    #[test]
    fn gratuitous_pair_is_the_recorded_one() {
        let pair = gratuitous(VIP, US);
        for (sent, operation) in pair.iter().zip(["0001", "0002"]) {
            let expected = frame(&format!(
                "ffffffffffff 020000000001 0806 0001 0800 06 04 {operation} 020000000001 c0a801f0 ffffffffffff c0a801f0"
            ));
            assert_eq!(sent.as_slice(), expected);
        }
    }

    #[test]
    fn probe_with_unspecified_sender_is_a_request_and_its_answer_names_nobody() {
        let asked = received(&request(VIP, Ipv4Addr::UNSPECIFIED, PEER)).unwrap();
        assert_eq!(asked.operation, Operation::Request);
        let answer = reply(&asked, US);
        assert_eq!(answer[38..42], [0, 0, 0, 0]);
        assert_eq!(answer[..6], PEER.octets());
    }

    #[test]
    fn shortest_packet_needs_no_padding() {
        let whole = request(VIP, CLIENT, PEER);
        assert!(received(&whole[..42]).is_ok());
    }

    #[test]
    fn every_truncation_is_refused_as_truncated() {
        let whole = request(VIP, CLIENT, PEER);
        for length in 0..42 {
            assert_eq!(
                received(&whole[..length]),
                Err(DropReason::Truncated),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn one_wrong_field_names_its_reason() {
        for (offset, value, reason) in [
            (0, 0x04, DropReason::Destination),
            (6, 0x01, DropReason::BroadcastOrMulticastSender),
            (12, 0x81, DropReason::NotArp),
            (13, 0x35, DropReason::NotArp),
            (15, 6, DropReason::HardwareType),
            (14, 1, DropReason::HardwareType),
            (16, 0x86, DropReason::ProtocolType),
            (17, 0x06, DropReason::ProtocolType),
            (18, 8, DropReason::HardwareLength),
            (18, 0, DropReason::HardwareLength),
            (19, 16, DropReason::ProtocolLength),
            (19, 255, DropReason::ProtocolLength),
            (21, 0, DropReason::Operation),
            (21, 3, DropReason::Operation),
            (20, 1, DropReason::Operation),
            (22, 0x03, DropReason::BroadcastOrMulticastSender),
            (27, 0x01, DropReason::OwnSender),
        ] {
            let mut bytes = request(VIP, CLIENT, PEER);
            bytes[offset] = value;
            assert_eq!(received(&bytes), Err(reason), "byte {offset} = {value}");
        }
    }

    #[test]
    fn sender_hardware_address_is_checked_in_the_packet_too() {
        let mut bytes = request(VIP, CLIENT, PEER);
        bytes[22..28].fill(0xff);
        assert_eq!(
            received(&bytes),
            Err(DropReason::BroadcastOrMulticastSender)
        );
        bytes[22..28].fill(0);
        assert_eq!(received(&bytes), Err(DropReason::ZeroSenderMac));
    }
}
