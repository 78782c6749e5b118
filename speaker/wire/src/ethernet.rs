//! One received frame: what is the same for every protocol carried in it.
//!
//! ```text
//!  0         6         12      14
//! +---------+---------+-------+----------------- - -
//! | to      | from    | type  | payload
//! +---------+---------+-------+----------------- - -
//! ```
//!
//! VLAN tags deserve a word. Linux strips an 802.1Q tag before any socket sees the frame, in hardware or in software,
//! and a socket bound to one protocol gets the frame *after* the kernel looked for the VLAN's own interface. If there is
//! none, the kernel clears the tag and marks the frame [`Delivery::OtherHost`] (`__netif_receive_skb_core`). So a tagged
//! broadcast reaches us looking untagged, and the only trace is that contradiction: a frame for everybody, or for our
//! own address, that is said to be for another host. An answer would go out untagged, into the wrong network. Where the
//! kernel does report the tag (`PACKET_AUXDATA`), that is believed first. VLAN 0 carries a priority and no network: such
//! a frame is untagged (IEEE 802.1Q section 6.9).

use pnet::packet::ethernet::EtherTypes;
use pnet::util::MacAddr;

use crate::DropReason;

/// Ethernet types of an 802.1Q and an 802.1ad tag.
const VLAN_TYPES: [u16; 2] = [EtherTypes::Vlan.0, EtherTypes::PBridge.0];

/// The twelve bits of a VLAN tag that name the network.
const VLAN_ID: u16 = 0x0fff;

/// Whom the kernel believes a frame is for (`sockaddr_ll.sll_pkttype`, packet(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// For this interface's own hardware address.
    Host,
    /// For everybody.
    Broadcast,
    /// For a group.
    Multicast,
    /// For somebody else: seen in promiscuous mode, or sent to a VLAN this host does not have.
    OtherHost,
    /// Sent by this host.
    Outgoing,
}

/// One received frame and what the kernel said about it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The frame from its Ethernet header on, without frame check sequence.
    pub bytes: &'a [u8],
    /// Whom the kernel believes it is for.
    pub delivery: Delivery,
    /// The VLAN tag (TCI) the kernel stripped and reported, if it did.
    pub vlan: Option<u16>,
}

/// A frame's header, checked: untagged, not ours, for this interface, from a single sender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<'a> {
    pub(crate) destination: MacAddr,
    pub(crate) source: MacAddr,
    pub(crate) ether_type: u16,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Checks the Ethernet header against `us`, the receiving interface's hardware address. `to_many` tells which
    /// destinations besides `us` the protocol speaks to.
    #[inline]
    pub(crate) fn header(
        &self,
        us: MacAddr,
        to_many: impl Fn(MacAddr) -> bool,
    ) -> Result<Header<'a>, DropReason> {
        if self.delivery == Delivery::Outgoing {
            return Err(DropReason::Outgoing);
        }
        let mut rest = self.bytes;
        let destination = mac(take(&mut rest)?);
        let source = mac(take(&mut rest)?);
        let ether_type = u16::from_be_bytes(take(&mut rest)?);

        let for_us = destination == us || to_many(destination);
        let lost_its_tag = for_us && self.delivery == Delivery::OtherHost;
        let reported = self.vlan.is_some_and(|tag| tag & VLAN_ID != 0);
        if reported || lost_its_tag || VLAN_TYPES.contains(&ether_type) {
            return Err(DropReason::VlanTagged);
        }
        if !for_us {
            return Err(DropReason::Destination);
        }
        single_sender(source, us)?;
        Ok(Header {
            destination,
            source,
            ether_type,
            payload: rest,
        })
    }
}

/// A sender's hardware address must belong to one station, and not to us.
pub(crate) fn single_sender(sender: MacAddr, us: MacAddr) -> Result<(), DropReason> {
    if sender.is_multicast() || sender.is_broadcast() {
        Err(DropReason::BroadcastOrMulticastSender)
    } else if sender == MacAddr::zero() {
        Err(DropReason::ZeroSenderMac)
    } else if sender == us {
        Err(DropReason::OwnSender)
    } else {
        Ok(())
    }
}

/// Takes the next `N` bytes off the front.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], DropReason> {
    let (head, tail) = rest.split_first_chunk().ok_or(DropReason::Truncated)?;
    *rest = tail;
    Ok(*head)
}

/// Six bytes as a hardware address.
pub(crate) fn mac(bytes: [u8; 6]) -> MacAddr {
    MacAddr::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Delivery, DropReason, Frame, MacAddr};

    const US: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

    /// Destination, source, type, delivery, tag: the verdict on the header alone.
    fn verdict(
        to: [u8; 6],
        from: [u8; 6],
        kind: u16,
        delivery: Delivery,
        vlan: Option<u16>,
    ) -> Result<u16, DropReason> {
        let bytes = [&to[..], &from[..], &kind.to_be_bytes()[..]].concat();
        let frame = Frame {
            bytes: &bytes,
            delivery,
            vlan,
        };
        frame
            .header(US, |to| to.is_broadcast())
            .map(|header| header.ether_type)
    }

    #[test]
    fn header_table() {
        use Delivery::{Broadcast, Host, Multicast, OtherHost, Outgoing};
        use DropReason as No;
        let all = [0xff; 6];
        let us = [2, 0, 0, 0, 0, 1];
        let peer = [2, 0, 0, 0, 0, 2];
        let group = [1, 0, 0x5e, 0, 0, 1];
        for (to, from, kind, delivery, vlan, expected) in [
            (all, peer, 0x0806, Broadcast, None, Ok(0x0806)),
            (us, peer, 0x0806, Host, None, Ok(0x0806)),
            (all, peer, 0x86dd, Broadcast, None, Ok(0x86dd)),
            // VLAN 0 with a priority is no VLAN.
            (all, peer, 0x0806, Broadcast, Some(0xe000), Ok(0x0806)),
            (all, peer, 0x0806, Broadcast, Some(7), Err(No::VlanTagged)),
            (all, peer, 0x8100, Broadcast, None, Err(No::VlanTagged)),
            (all, peer, 0x88a8, Broadcast, None, Err(No::VlanTagged)),
            // The kernel cleared the tag and left the contradiction.
            (all, peer, 0x0806, OtherHost, None, Err(No::VlanTagged)),
            (us, peer, 0x0806, OtherHost, None, Err(No::VlanTagged)),
            (peer, us, 0x0806, OtherHost, None, Err(No::Destination)),
            (group, peer, 0x0806, Multicast, None, Err(No::Destination)),
            (all, peer, 0x0806, Outgoing, None, Err(No::Outgoing)),
            (
                all,
                all,
                0x0806,
                Broadcast,
                None,
                Err(No::BroadcastOrMulticastSender),
            ),
            (
                all,
                group,
                0x0806,
                Broadcast,
                None,
                Err(No::BroadcastOrMulticastSender),
            ),
            (all, [0; 6], 0x0806, Broadcast, None, Err(No::ZeroSenderMac)),
            (all, us, 0x0806, Broadcast, None, Err(No::OwnSender)),
        ] {
            assert_eq!(
                verdict(to, from, kind, delivery, vlan),
                expected,
                "{to:x?} {from:x?} {kind:x} {delivery:?} {vlan:?}"
            );
        }
    }
}
