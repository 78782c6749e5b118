//! Neighbour Discovery (RFC 4861) for IPv6 over Ethernet (RFC 2464): solicitations in, advertisements out.
//!
//! ```text
//!  0          14           54     56         58           62           78                 86
//! +----------+------------+------+----------+------------+------------+------------------+- -
//! | Ethernet | IPv6       | type | checksum | flags or 0 | target     | options, each    |
//! | header   | header     | code |          |            |            | n times 8 bytes  |
//! +----------+------------+------+----------+------------+------------+------------------+- -
//! ```
//!
//! Decoding is ours, strict and total. So are the options: a length of zero would make a careless reader walk for ever,
//! and a large one overflows the readers of some libraries.
//!
//! An answer's IPv6 source is the address it speaks for. RFC 4861 section 4.4 asks for an address of the sending
//! interface; as holders we are that address's interface, and the receivers' rules (section 7.1.2) do not judge the
//! source. It also keeps the codec free of the interface's own addresses.

use std::net::Ipv6Addr;

use pnet::packet::ethernet::EtherTypes;
use pnet::packet::icmpv6::Icmpv6Types;
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::util::ipv6_checksum;
use pnet::util::MacAddr;

use crate::ethernet::{mac, single_sender, take};
use crate::{DropReason, Frame};

/// Bytes of every frame built here: headers, target and one option of 8 bytes. Longer than Ethernet's shortest.
pub const NDP_FRAME_LEN: usize = 86;

/// A frame ready to be sent.
pub type NdpFrame = [u8; NDP_FRAME_LEN];

/// All nodes of the segment: `ff02::1` (RFC 4291 section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a packet must have been sent with to prove that no router forwarded it (RFC 4861 section 7.1.1).
const HOP_LIMIT: u8 = 255;

/// The shortest solicitation: type, code, checksum, reserved and target.
const SHORTEST: usize = 24;

/// Option: the sender's hardware address.
const SOURCE_LINK_LAYER: u8 = 1;
/// Option: the target's hardware address.
const TARGET_LINK_LAYER: u8 = 2;
/// Option: a number that is told again (RFC 3971 section 5.3.2).
const NONCE: u8 = 14;

/// Advertisement flag: asked for.
const SOLICITED: u8 = 0x40;
/// Advertisement flag: what is said replaces what is cached.
const OVERRIDE: u8 = 0x20;

/// A decoded and valid Neighbour Solicitation. Its sender is one station that is not us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// The address asked for: never a group.
    pub target: Ipv6Addr,
    /// Who asks; `::` for a station that wants the target for itself and asks whether it is free (RFC 4862 section 5.4).
    pub source: Ipv6Addr,
    /// Where who asks is reached: from the Source Link-Layer Address option, else from the Ethernet header. Never zero,
    /// never a group.
    pub source_mac: MacAddr,
    /// The Nonce option, if it is of the usual 6 bytes: a station recognises its own looped question by it (RFC 7527).
    pub nonce: Option<[u8; 6]>,
}

/// The group that those listen to who hold `address`: `ff02::1:ffXX:XXXX` (RFC 4291 section 2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (a & 0xff), b)
}

/// The hardware address a group's frames are sent to: `33:33` and the last four bytes (RFC 2464 section 7).
pub const fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr(0x33, 0x33, a, b, c, d)
}

/// Reads one received frame as a Neighbour Solicitation. `us` is the receiving interface's hardware address.
///
/// Accepts what RFC 4861 section 7.1.1 calls valid and Ethernet delivered where it should; extension headers are refused,
/// because no station puts any in front of a solicitation and fragments are forbidden there (RFC 6980).
pub fn decode_ndp(frame: &Frame<'_>, us: MacAddr) -> Result<Solicitation, DropReason> {
    let header = frame.header(us, |to| (to.0, to.1) == (0x33, 0x33))?;
    if header.ether_type != EtherTypes::Ipv6.0 {
        return Err(DropReason::NdpEtherType);
    }
    let mut rest = header.payload;
    let [version, ..] = take::<4>(&mut rest)?;
    if version >> 4 != 6 {
        return Err(DropReason::NdpVersion);
    }
    let length = usize::from(u16::from_be_bytes(take(&mut rest)?));
    let [next_header, hop_limit] = take(&mut rest)?;
    let source = Ipv6Addr::from(take::<16>(&mut rest)?);
    let destination = Ipv6Addr::from(take::<16>(&mut rest)?);
    // What follows the packet is Ethernet's padding.
    let packet = rest.get(..length).ok_or(DropReason::NdpPayloadLength)?;
    if next_header != IpNextHeaderProtocols::Icmpv6.0 {
        return Err(DropReason::NdpNextHeader);
    }
    if hop_limit != HOP_LIMIT {
        return Err(DropReason::NdpHopLimit);
    }
    if packet.len() < SHORTEST {
        return Err(DropReason::NdpLength);
    }
    // Summed with the checksum in it, a sound packet gives zero (RFC 1071).
    if checksum(packet, source, destination) != 0 {
        return Err(DropReason::NdpChecksum);
    }
    let mut rest = packet;
    let [kind, code, ..] = take::<8>(&mut rest)?;
    if kind != Icmpv6Types::NeighborSolicit.0 {
        return Err(DropReason::NdpType);
    }
    if code != 0 {
        return Err(DropReason::NdpCode);
    }
    let target = Ipv6Addr::from(take::<16>(&mut rest)?);
    if target.is_multicast() {
        return Err(DropReason::NdpTarget);
    }
    if source.is_multicast() || source.is_loopback() {
        return Err(DropReason::NdpSource);
    }
    // A switch may turn a group's frames into one for each member (RFC 6085), but never the other way round.
    let expected = if destination.is_multicast() {
        multicast_mac(destination)
    } else {
        us
    };
    if header.destination != us && header.destination != expected {
        return Err(DropReason::Destination);
    }
    let options = Options::read(rest)?;
    if source.is_unspecified() {
        if destination != solicited_node(target) {
            return Err(DropReason::NdpDestination);
        }
        if options.source_mac.is_some() {
            return Err(DropReason::NdpUnspecifiedSource);
        }
    }
    let source_mac = options.source_mac.unwrap_or(header.source);
    single_sender(source_mac, us)?;
    Ok(Solicitation {
        target,
        source,
        source_mac,
        nonce: options.nonce,
    })
}

/// The options we know; all others are passed over, as RFC 4861 section 4.6 asks.
#[derive(Default)]
struct Options {
    source_mac: Option<MacAddr>,
    nonce: Option<[u8; 6]>,
}

impl Options {
    /// Of an option that is there twice the first counts.
    fn read(mut rest: &[u8]) -> Result<Self, DropReason> {
        let mut options = Self::default();
        while let [kind, units, ..] = *rest {
            let length = usize::from(units) * 8;
            let (option, after) = rest
                .split_at_checked(length)
                .filter(|_| length > 0)
                .ok_or(DropReason::NdpOptionLength)?;
            let body = option
                .split_first_chunk::<2>()
                .and_then(|(_, body)| <[u8; 6]>::try_from(body).ok());
            match kind {
                SOURCE_LINK_LAYER => {
                    // Longer than 8 bytes it is no Ethernet address.
                    let body = body.ok_or(DropReason::NdpOptionLength)?;
                    options.source_mac = options.source_mac.or(Some(mac(body)));
                }
                NONCE => options.nonce = options.nonce.or(body),
                _ => {}
            }
            rest = after;
        }
        if rest.is_empty() {
            Ok(options)
        } else {
            Err(DropReason::NdpOptionLength)
        }
    }
}

/// The answer to `asked`: "`asked.target` is at `us`".
///
/// To the one who asked, with Override set: we are the holder, and who still has the former holder in its cache is put
/// right by the first answer it gets. (MetalLB's speaker does not set it, and leaves such a cache wrong until it expires.)
/// To a station that asked whether the address is free, which has none to be answered at, the answer goes to all nodes
/// and is not a solicited one (RFC 4861 section 7.2.4).
pub fn advertise(asked: &Solicitation, us: MacAddr) -> NdpFrame {
    if asked.source.is_unspecified() {
        return unsolicited(asked.target, us);
    }
    advertisement(
        asked.target,
        SOLICITED | OVERRIDE,
        (asked.source, asked.source_mac),
        us,
    )
}

/// What tells the whole segment unasked "`address` is at `us`" (RFC 4861 section 7.2.6).
pub fn unsolicited(address: Ipv6Addr, us: MacAddr) -> NdpFrame {
    advertisement(address, OVERRIDE, (ALL_NODES, multicast_mac(ALL_NODES)), us)
}

/// The question "who has `target`?" from `us` at `source`, to all who may have it.
pub fn solicit(target: Ipv6Addr, source: Ipv6Addr, us: MacAddr) -> NdpFrame {
    solicitation(target, source, us, (SOURCE_LINK_LAYER, us.octets()))
}

/// The question "is `target` free?" from `us`, with `nonce` (RFC 7527 section 4.1), to all who may have it.
pub fn probe(target: Ipv6Addr, nonce: [u8; 6], us: MacAddr) -> NdpFrame {
    solicitation(target, Ipv6Addr::UNSPECIFIED, us, (NONCE, nonce))
}

fn advertisement(address: Ipv6Addr, flags: u8, to: (Ipv6Addr, MacAddr), us: MacAddr) -> NdpFrame {
    let message = Message {
        kind: Icmpv6Types::NeighborAdvert.0,
        flags,
        target: address,
        option: (TARGET_LINK_LAYER, us.octets()),
    };
    build(to, (address, us), &message)
}

fn solicitation(
    target: Ipv6Addr,
    source: Ipv6Addr,
    us: MacAddr,
    option: (u8, [u8; 6]),
) -> NdpFrame {
    let group = solicited_node(target);
    let message = Message {
        kind: Icmpv6Types::NeighborSolicit.0,
        flags: 0,
        target,
        option,
    };
    build((group, multicast_mac(group)), (source, us), &message)
}

/// What an ICMPv6 message built here says.
struct Message {
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    option: (u8, [u8; 6]),
}

impl Message {
    const LEN: u8 = 32;

    fn bytes(&self, checksum: u16) -> [u8; Self::LEN as usize] {
        let (kind, body) = self.option;
        let mut bytes = [0; Self::LEN as usize];
        write(
            &mut bytes,
            &[
                &[self.kind, 0],
                &checksum.to_be_bytes(),
                &[self.flags, 0, 0, 0],
                &self.target.octets(),
                &[kind, 1],
                &body,
            ],
        );
        bytes
    }
}

/// A whole frame, from its receiver's and its sender's addresses.
fn build(to: (Ipv6Addr, MacAddr), from: (Ipv6Addr, MacAddr), message: &Message) -> NdpFrame {
    let sum = checksum(&message.bytes(0), from.0, to.0);
    let mut frame = [0; NDP_FRAME_LEN];
    write(
        &mut frame,
        &[
            &to.1.octets(),
            &from.1.octets(),
            &EtherTypes::Ipv6.0.to_be_bytes(),
            // Version 6, traffic class and flow label 0.
            &[0x60, 0, 0, 0],
            &[0, Message::LEN, IpNextHeaderProtocols::Icmpv6.0, HOP_LIMIT],
            &from.0.octets(),
            &to.0.octets(),
            &message.bytes(sum),
        ],
    );
    frame
}

/// Fills `bytes` with `parts`, which are exactly as long.
fn write(bytes: &mut [u8], parts: &[&[u8]]) {
    debug_assert_eq!(bytes.len(), parts.iter().copied().map(<[u8]>::len).sum());
    for (byte, value) in bytes.iter_mut().zip(parts.iter().copied().flatten()) {
        *byte = *value;
    }
}

/// The checksum over an ICMPv6 message and its pseudo header (RFC 8200 section 8.1).
fn checksum(message: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> u16 {
    // No word is left out: where the checksum is to be written there are zeros.
    ipv6_checksum(
        message,
        usize::MAX,
        &[],
        &source.octets().into(),
        &destination.octets().into(),
        IpNextHeaderProtocols::Icmpv6,
    )
}

#[cfg(test)]
mod tests;
