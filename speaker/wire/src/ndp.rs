//! Neighbour Discovery (RFC 4861) for IPv6 over Ethernet (RFC 2464): solicitations and advertisements, in and out.
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

use std::net::Ipv6Addr;

use pnet::packet::ethernet::EtherTypes;
use pnet::packet::icmpv6::{Icmpv6Type, Icmpv6Types};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::util::ipv6_checksum;
use pnet::util::MacAddr;

use crate::ethernet::{mac, single_sender, take};
use crate::message::{Message, Said, Tag};
use crate::{DropReason, Frame};

mod build;

pub use build::{advertise, probe, solicit, unsolicited};
pub(crate) use build::{advertise_at, announcement, answer, question};

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

/// Bytes of a Nonce option that carries a [`Tag`]: two of header, four of padding.
const TAG_OPTION_LEN: usize = 24;

/// Advertisement flag: from a router.
const ROUTER: u8 = 0x80;
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

/// A decoded and valid Neighbour Advertisement. Its sender is one station that is not us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The address it is about: never a group.
    pub target: Ipv6Addr,
    /// Who says it: mostly an address of the station's, not judged further than a solicitation's.
    pub source: Ipv6Addr,
    /// Where the target is: from the Target Link-Layer Address option, else from the Ethernet header. Never zero, never
    /// a group.
    pub target_mac: MacAddr,
    /// Its sender is a router.
    pub router: bool,
    /// It answers a question.
    pub solicited: bool,
    /// What it says replaces what is cached.
    pub overriding: bool,
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
    match read(frame, us)?.said {
        Said::Solicitation(asked) => Ok(asked),
        _ => Err(DropReason::NdpType),
    }
}

/// The same for advertisements, too, with the Ethernet header and the tag.
pub(crate) fn read<'a>(frame: &Frame<'a>, us: MacAddr) -> Result<Message<'a>, DropReason> {
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
    let [kind, code, _, _, flags, ..] = take::<8>(&mut rest)?;
    let link_layer = match Icmpv6Type(kind) {
        Icmpv6Types::NeighborSolicit => SOURCE_LINK_LAYER,
        Icmpv6Types::NeighborAdvert => TARGET_LINK_LAYER,
        _ => return Err(DropReason::NdpType),
    };
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
    let options = Options::read(rest, link_layer)?;
    let named = options.mac.unwrap_or(header.source);
    let said = if link_layer == SOURCE_LINK_LAYER {
        if source.is_unspecified() {
            if destination != solicited_node(target) {
                return Err(DropReason::NdpDestination);
            }
            if options.mac.is_some() {
                return Err(DropReason::NdpUnspecifiedSource);
            }
        }
        Said::Solicitation(Solicitation {
            target,
            source,
            source_mac: named,
            nonce: options.nonce,
        })
    } else {
        if source.is_unspecified() {
            return Err(DropReason::NdpSource);
        }
        let solicited = flags & SOLICITED != 0;
        if solicited && destination.is_multicast() {
            return Err(DropReason::NdpSolicitedToGroup);
        }
        Said::Advertisement(Advertisement {
            target,
            source,
            target_mac: named,
            router: flags & ROUTER != 0,
            solicited,
            overriding: flags & OVERRIDE != 0,
        })
    };
    single_sender(named, us)?;
    Ok(Message {
        said,
        source: header.source,
        destination: header.destination,
        tag: options.tag,
    })
}

/// The options we know; all others are passed over, as RFC 4861 section 4.6 asks.
#[derive(Default)]
struct Options<'a> {
    mac: Option<MacAddr>,
    nonce: Option<[u8; 6]>,
    tag: Option<&'a Tag>,
}

impl<'a> Options<'a> {
    /// Of an option that is there twice the first counts. `link_layer` is the one that names the hardware address of
    /// what the message is about.
    fn read(mut rest: &'a [u8], link_layer: u8) -> Result<Self, DropReason> {
        let mut options = Self::default();
        while let [kind, units, ..] = *rest {
            let length = usize::from(units) * 8;
            let (option, after) = rest
                .split_at_checked(length)
                .filter(|_| length > 0)
                .ok_or(DropReason::NdpOptionLength)?;
            let body = option.get(2..).unwrap_or_default();
            if kind == link_layer {
                // Longer than 8 bytes it is no Ethernet address.
                let body = <[u8; 6]>::try_from(body).map_err(|_| DropReason::NdpOptionLength)?;
                options.mac = options.mac.or(Some(mac(body)));
            } else if kind == NONCE {
                options.nonce = options.nonce.or_else(|| body.try_into().ok());
                let tag = || body.first_chunk().filter(|_| length == TAG_OPTION_LEN);
                options.tag = options.tag.or_else(tag);
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
