//! Solicitations and advertisements to be sent.
//!
//! An advertisement's IPv6 source is the address it speaks for. RFC 4861 section 4.4 asks for an address of the sending
//! interface; as holders we are that address's interface, and the receivers' rules (section 7.1.2) do not judge the
//! source. It also keeps the codec free of the interface's own addresses.

use std::net::Ipv6Addr;

use pnet::packet::ethernet::EtherTypes;
use pnet::packet::icmpv6::{Icmpv6Type, Icmpv6Types};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::util::MacAddr;

use super::{
    ALL_NODES, HOP_LIMIT, NDP_FRAME_LEN, NONCE, NdpFrame, OVERRIDE, SHORTEST, SOLICITED,
    SOURCE_LINK_LAYER, Solicitation, TAG_OPTION_LEN, TARGET_LINK_LAYER, checksum, multicast_mac,
    solicited_node,
};
use crate::buffer::{FrameBuf, write};
use crate::message::{Station, Tag};

/// Bytes before the ICMPv6 message: an Ethernet and an IPv6 header.
const HEADERS: usize = 14 + 40;

/// A station's address and hardware address.
type End = (Ipv6Addr, MacAddr);

/// The answer to `asked`: "`asked.target` is at `us`".
///
/// To the one who asked, with Override set: we are the holder, and who still has the former holder in its cache is put
/// right by the first answer it gets. (MetalLB's speaker does not set it, and leaves such a cache wrong until it expires.)
/// To a station that asked whether the address is free, which has none to be answered at, the answer goes to all nodes
/// and is not a solicited one (RFC 4861 section 7.2.4).
pub fn advertise(asked: &Solicitation, us: MacAddr) -> NdpFrame {
    advertise_at(asked, us, us)
}

/// The same, "at `at`", sent by `us`: the holder's hardware address stands in the option, ours in the Ethernet header.
pub(crate) fn advertise_at(asked: &Solicitation, at: MacAddr, us: MacAddr) -> NdpFrame {
    let (flags, to) = if asked.source.is_unspecified() {
        (OVERRIDE, (ALL_NODES, multicast_mac(ALL_NODES)))
    } else {
        (SOLICITED | OVERRIDE, (asked.source, asked.source_mac))
    };
    let message = Message {
        kind: Icmpv6Types::NeighborAdvert,
        flags,
        target: asked.target,
        options: &[&link_layer(TARGET_LINK_LAYER, at)],
    };
    plain((asked.target, us), to, &message)
}

/// What tells the whole segment unasked "`address` is at `us`" (RFC 4861 section 7.2.6).
pub fn unsolicited(address: Ipv6Addr, us: MacAddr) -> NdpFrame {
    let message = Message {
        kind: Icmpv6Types::NeighborAdvert,
        flags: OVERRIDE,
        target: address,
        options: &[&link_layer(TARGET_LINK_LAYER, us)],
    };
    plain(
        (address, us),
        (ALL_NODES, multicast_mac(ALL_NODES)),
        &message,
    )
}

/// The question "who has `target`?" from `us` at `source`, to all who may have it.
pub fn solicit(target: Ipv6Addr, source: Ipv6Addr, us: MacAddr) -> NdpFrame {
    let message = Message {
        kind: Icmpv6Types::NeighborSolicit,
        flags: 0,
        target,
        options: &[&link_layer(SOURCE_LINK_LAYER, us)],
    };
    plain((source, us), group_of(target), &message)
}

/// The question "is `target` free?" from `us`, with `nonce` (RFC 7527 section 4.1), to all who may have it.
pub fn probe(target: Ipv6Addr, nonce: [u8; 6], us: MacAddr) -> NdpFrame {
    let mut option = [NONCE, 1, 0, 0, 0, 0, 0, 0];
    if let Some(body) = option.last_chunk_mut() {
        *body = nonce;
    }
    let message = Message {
        kind: Icmpv6Types::NeighborSolicit,
        flags: 0,
        target,
        options: &[&option],
    };
    plain((Ipv6Addr::UNSPECIFIED, us), group_of(target), &message)
}

/// [`crate::question`].
pub(crate) fn question(
    target: Ipv6Addr,
    to: Option<MacAddr>,
    from: &Station,
    tag: Option<&Tag>,
) -> FrameBuf {
    let (group, mac) = group_of(target);
    let named = link_layer(SOURCE_LINK_LAYER, from.mac);
    let option = tag.map(tag_option);
    // From nobody nobody can be named (RFC 4861 section 4.3).
    let named = from.link_local.map(|_| named.as_slice());
    let options = [named, option.as_ref().map(<[u8; _]>::as_slice)];
    let message = Message {
        kind: Icmpv6Types::NeighborSolicit,
        flags: 0,
        target,
        options: &options.map(Option::unwrap_or_default),
    };
    let source = from.link_local.unwrap_or(Ipv6Addr::UNSPECIFIED);
    build((source, from.mac), (group, to.unwrap_or(mac)), &message)
}

/// [`crate::answer`], to a station's address, if it has one, and hardware address.
pub(crate) fn answer(
    address: Ipv6Addr,
    to: (Option<Ipv6Addr>, MacAddr),
    us: MacAddr,
    tag: Option<&Tag>,
) -> FrameBuf {
    match to {
        (Some(asker), mac) if !asker.is_unspecified() => {
            advertisement(address, SOLICITED | OVERRIDE, (asker, mac), us, tag)
        }
        (_, mac) => announcement(address, Some(mac), us, tag),
    }
}

/// [`crate::announcement`].
pub(crate) fn announcement(
    address: Ipv6Addr,
    to: Option<MacAddr>,
    us: MacAddr,
    tag: Option<&Tag>,
) -> FrameBuf {
    let mac = to.unwrap_or_else(|| multicast_mac(ALL_NODES));
    advertisement(address, OVERRIDE, (ALL_NODES, mac), us, tag)
}

fn advertisement(
    address: Ipv6Addr,
    flags: u8,
    to: End,
    us: MacAddr,
    tag: Option<&Tag>,
) -> FrameBuf {
    let option = tag.map(tag_option);
    let message = Message {
        kind: Icmpv6Types::NeighborAdvert,
        flags,
        target: address,
        options: &[
            &link_layer(TARGET_LINK_LAYER, us),
            option.as_ref().map(<[u8; _]>::as_slice).unwrap_or_default(),
        ],
    };
    build((address, us), to, &message)
}

/// Where a question to all goes.
fn group_of(target: Ipv6Addr) -> End {
    let group = solicited_node(target);
    (group, multicast_mac(group))
}

/// An option that names a hardware address.
fn link_layer(kind: u8, mac: MacAddr) -> [u8; 8] {
    let mut option = [kind, 1, 0, 0, 0, 0, 0, 0];
    if let Some(body) = option.last_chunk_mut() {
        *body = mac.octets();
    }
    option
}

/// The Nonce option that carries a tag.
fn tag_option(tag: &Tag) -> [u8; TAG_OPTION_LEN] {
    let mut option = [0; TAG_OPTION_LEN];
    write(&mut option, &[&[NONCE, 3], tag, &[0; 4]]);
    option
}

/// What an ICMPv6 message built here says.
struct Message<'a> {
    kind: Icmpv6Type,
    flags: u8,
    target: Ipv6Addr,
    options: &'a [&'a [u8]],
}

impl Message<'_> {
    /// Bytes of it.
    fn len(&self) -> usize {
        let options = self.options.iter().map(|option| option.len());
        SHORTEST + options.sum::<usize>()
    }
}

/// A frame with one option of 8 bytes.
fn plain(from: End, to: End, message: &Message<'_>) -> NdpFrame {
    let mut frame = [0; NDP_FRAME_LEN];
    fill(&mut frame, from, to, message);
    frame
}

fn build(from: End, to: End, message: &Message<'_>) -> FrameBuf {
    FrameBuf::filled(HEADERS + message.len(), |frame| {
        fill(frame, from, to, message);
    })
}

/// Writes a whole frame, as long as it should be.
fn fill(frame: &mut [u8], from: End, to: End, message: &Message<'_>) {
    let Some((headers, bytes)) = frame.split_at_mut_checked(HEADERS) else {
        return;
    };
    // No message built here is longer than a few dozen bytes.
    let length = u16::try_from(bytes.len()).unwrap_or_default();
    write(
        headers,
        &[
            &to.1.octets(),
            &from.1.octets(),
            &EtherTypes::Ipv6.0.to_be_bytes(),
            // Version 6, traffic class and flow label 0.
            &[0x60, 0, 0, 0],
            &length.to_be_bytes(),
            &[IpNextHeaderProtocols::Icmpv6.0, HOP_LIMIT],
            &from.0.octets(),
            &to.0.octets(),
        ],
    );
    let (head, options) = bytes.split_at_mut_checked(SHORTEST).unwrap_or_default();
    write(
        head,
        &[
            &[message.kind.0, 0, 0, 0, message.flags, 0, 0, 0],
            &message.target.octets(),
        ],
    );
    write(options, message.options);
    let sum = checksum(bytes, from.0, to.0).to_be_bytes();
    if let Some([_, _, high, low, ..]) = bytes.first_chunk_mut::<4>() {
        [*high, *low] = sum;
    }
}
