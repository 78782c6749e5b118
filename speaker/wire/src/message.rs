//! What a received frame says, in words that ARP and NDP share: one reading for who answers questions and for who
//! watches what the neighbours say of themselves.
//!
//! | | ARP | NDP |
//! |---|---|---|
//! | asks for | the target of a request | the target of a solicitation |
//! | says where is | its sender, unless 0 | the source of a solicitation, unless `::`; the target of an advertisement |
//! | tag | the padding of a 60-byte frame | a Nonce option of 24 bytes |

use std::net::{IpAddr, Ipv6Addr};

use pnet::util::MacAddr;

use crate::arp::{self, ArpPacket, Operation};
use crate::buffer::FrameBuf;
use crate::ndp::{self, Advertisement, Solicitation};
use crate::{DropReason, Frame};

/// Bytes of a tag: what the padding of the shortest ARP frame holds (60 - 14 - 28).
pub const TAG_LEN: usize = 18;

/// Bytes that travel with a frame and mean nothing to the protocol: an ARP frame's padding, or an NDP Nonce option. Every
/// ARP frame that is padded has some, whoever sent it, mostly zeros; nothing is known of them here.
pub type Tag = [u8; TAG_LEN];

/// One received frame that is sound, and whose sender is one station that is not us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it says.
    pub said: Said,
    /// The Ethernet header's source: never zero, never a group.
    pub source: MacAddr,
    /// The Ethernet header's destination: our own, or one that is for many.
    pub destination: MacAddr,
    /// The tag, if it has one.
    pub tag: Option<&'a Tag>,
}

/// What a message says, in its protocol's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// An ARP request or reply.
    Arp(ArpPacket),
    /// Where is this address?
    Solicitation(Solicitation),
    /// This address is here.
    Advertisement(Advertisement),
}

/// That an address is at a hardware address, as somebody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The address: never 0.0.0.0 or `::`.
    pub address: IpAddr,
    /// Where it is: never zero, never a group, never ours.
    pub mac: MacAddr,
    /// Whether it was said unasked: in any question or ARP announcement, in an advertisement that is not a solicited one.
    pub unasked: bool,
}

impl<'a> Message<'a> {
    /// Reads a received frame as an ARP packet, as [`decode`](crate::decode) does. `us` is the receiving interface's hardware address.
    #[inline]
    pub fn arp(frame: &Frame<'a>, us: MacAddr) -> Result<Self, DropReason> {
        arp::read(frame, us)
    }

    /// Reads a received frame as a Neighbour Solicitation, as [`decode_ndp`](crate::decode_ndp) does, or as a Neighbour
    /// Advertisement that is valid by RFC 4861 section 7.1.2.
    pub fn ndp(frame: &Frame<'a>, us: MacAddr) -> Result<Self, DropReason> {
        ndp::read(frame, us)
    }

    /// The address it is about: the target of a question, the sender of an ARP reply, the target of an advertisement.
    pub fn about(&self) -> IpAddr {
        match &self.said {
            Said::Arp(packet) => match packet.operation {
                Operation::Request => packet.target_ip.into(),
                Operation::Reply => packet.sender_ip.into(),
            },
            Said::Solicitation(asked) => asked.target.into(),
            Said::Advertisement(said) => said.target.into(),
        }
    }

    /// The hardware address its sender gives as its own, inside ARP or in the link-layer address option; without an option
    /// the Ethernet header's source. A bond may rewrite both.
    #[inline]
    pub const fn sender(&self) -> MacAddr {
        match &self.said {
            Said::Arp(packet) => packet.sender_mac,
            Said::Solicitation(asked) => asked.source_mac,
            Said::Advertisement(said) => said.target_mac,
        }
    }

    /// What it says about where an address is; none for a question from nobody (an ARP probe, a question whether an
    /// address is free).
    #[inline]
    pub fn location(&self) -> Option<Location> {
        let (address, unasked): (IpAddr, bool) = match &self.said {
            Said::Arp(packet) => {
                let asked_for = packet.operation == Operation::Reply
                    && packet.sender_ip != packet.target_ip
                    && !self.destination.is_broadcast();
                (packet.sender_ip.into(), !asked_for)
            }
            Said::Solicitation(asked) => (asked.source.into(), true),
            Said::Advertisement(said) => (said.target.into(), !said.solicited),
        };
        (!address.is_unspecified()).then(|| Location {
            address,
            mac: self.sender(),
            unasked,
        })
    }

    /// The address it asks for; none if it asks nothing. An announcement by ARP request asks, too.
    #[inline]
    pub fn asked(&self) -> Option<IpAddr> {
        match &self.said {
            Said::Arp(packet) => {
                (packet.operation == Operation::Request).then(|| packet.target_ip.into())
            }
            Said::Solicitation(asked) => Some(asked.target.into()),
            Said::Advertisement(_) => None,
        }
    }

    /// The address of who asks; none if it asks nothing, or nobody asks.
    #[inline]
    pub fn asker(&self) -> Option<IpAddr> {
        self.asked()?;
        self.location().map(|location| location.address)
    }

    /// What answers it: "the address it asks for is at `at`", sent by `us`, who may be another; none if it asks nothing.
    pub fn reply(&self, at: MacAddr, us: MacAddr) -> Option<FrameBuf> {
        match &self.said {
            Said::Arp(packet) => {
                let asks = packet.operation == Operation::Request;
                asks.then(|| FrameBuf::of(&arp::reply_at(packet, at, us)))
            }
            Said::Solicitation(asked) => Some(FrameBuf::of(&ndp::advertise_at(asked, at, us))),
            Said::Advertisement(_) => None,
        }
    }
}

/// The interface that frames are sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its link-local address (`fe80::/10`), from which it asks by NDP. Without one it asks as a station does that has
    /// none yet: from `::`, and what answers that goes to all nodes.
    pub link_local: Option<Ipv6Addr>,
}

/// A question for `address` that teaches nobody where another address is, to the station at `to` or to all.
///
/// ARP: a request with sender address 0 (RFC 5227 section 2.1.1). NDP: a Neighbour Solicitation to the address's
/// solicited-node group, in an Ethernet frame to that group's or to the one station (RFC 6085), from the link-local address,
/// with the Source Link-Layer Address option: MetalLB's speaker answers no other. What it teaches is where that
/// link-local address is. Asked for an address of its own, a Linux kernel answers both.
pub fn question(
    address: IpAddr,
    to: Option<MacAddr>,
    from: &Station,
    tag: Option<&Tag>,
) -> FrameBuf {
    match address {
        IpAddr::V4(address) => FrameBuf::of(&arp::question(address, to, from.mac, tag)),
        IpAddr::V6(address) => ndp::question(address, to, from, tag),
    }
}

/// What teaches the station at `to`, which is `host` to others, that `address` is at `from`.
///
/// ARP: a request for its own address in the name of `address`, which it has to learn to answer (RFC 826); where its reply
/// arrives shows what it believes. NDP: a Neighbour Advertisement with Override to all nodes' group in an Ethernet frame to
/// the one station, which nothing answers.
pub fn teach(address: IpAddr, host: IpAddr, to: MacAddr, from: &Station) -> FrameBuf {
    match (address, host) {
        (IpAddr::V4(address), IpAddr::V4(host)) => {
            FrameBuf::of(&arp::ask(host, (address, from.mac), to, None))
        }
        (address, _) => answer(address, to, None, from, None),
    }
}

/// The answer that `address` is at `from`, to the station at `to` and nobody else.
///
/// `asker` is the address it asked from ([`Message::asker`]), of the same family; none if it asked from nobody or that is
/// not known any more. ARP: a reply. NDP: a Neighbour Advertisement with Override, and solicited if there is an asker;
/// without one to all nodes' group, in an Ethernet frame to the one station.
pub fn answer(
    address: IpAddr,
    to: MacAddr,
    asker: Option<IpAddr>,
    from: &Station,
    tag: Option<&Tag>,
) -> FrameBuf {
    match (address, asker) {
        (IpAddr::V4(address), Some(IpAddr::V4(asker))) => {
            FrameBuf::of(&arp::answer(address, (asker, to), from.mac, tag))
        }
        (IpAddr::V4(address), _) => {
            FrameBuf::of(&arp::answer(address, (arp::NOBODY, to), from.mac, tag))
        }
        (IpAddr::V6(address), Some(IpAddr::V6(asker))) => {
            ndp::answer(address, (Some(asker), to), from.mac, tag)
        }
        (IpAddr::V6(address), _) => ndp::answer(address, (None, to), from.mac, tag),
    }
}

/// What makes known unasked that `address` is at `from`, to the station at `to` or to all.
///
/// ARP: the gratuitous pair, request then reply. NDP: one unsolicited Neighbour Advertisement with Override, to all nodes'
/// group. To one station they go in Ethernet frames to it alone.
pub fn announcement(
    address: IpAddr,
    to: Option<MacAddr>,
    from: &Station,
    tag: Option<&Tag>,
) -> impl Iterator<Item = FrameBuf> + use<> {
    let [first, second] = match address {
        IpAddr::V4(address) => {
            arp::announcement(address, to, from.mac, tag).map(|frame| Some(FrameBuf::of(&frame)))
        }
        IpAddr::V6(address) => [Some(ndp::announcement(address, to, from.mac, tag)), None],
    };
    first.into_iter().chain(second)
}

#[cfg(test)]
mod tests;
