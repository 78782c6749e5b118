//! The two ways neighbours find hardware addresses, and what differs between them.

use std::net::IpAddr;
use std::num::NonZeroU32;

use ferrolb_speaker_socket::{OpenError, PacketSocket};
use ferrolb_speaker_wire::{
    ArpFrame, DropReason, Frame, MacAddr, NdpFrame, Operation, advertise, decode, decode_ndp,
    filter, gratuitous, reply, unsolicited,
};

use crate::interfaces::Interface;

/// How the neighbours of one interface ask for addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    /// For IPv4 (RFC 826).
    Arp,
    /// For IPv6 (RFC 4861).
    Ndp,
}

/// A frame to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outgoing {
    Arp(ArpFrame),
    Ndp(NdpFrame),
}

impl AsRef<[u8]> for Outgoing {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Arp(frame) => frame,
            Self::Ndp(frame) => frame,
        }
    }
}

impl Protocol {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Arp, Self::Ndp];

    /// The one that neighbours find `address` with.
    pub(super) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Arp,
            IpAddr::V6(_) => Self::Ndp,
        }
    }

    /// Whether it is spoken on `interface`.
    pub(super) const fn fits(self, interface: &Interface) -> bool {
        match self {
            Self::Arp => interface.arp,
            Self::Ndp => interface.ndp,
        }
    }

    /// Gratuitous frames for one address.
    pub(super) const fn frames_a_round(self) -> u32 {
        match self {
            Self::Arp => 2,
            Self::Ndp => 1,
        }
    }

    /// MetalLB's words for the start and the end of answering, in log lines.
    pub(super) const fn events(self) -> [&'static str; 2] {
        match self {
            Self::Arp => ["createARPResponder", "deleteARPResponder"],
            Self::Ndp => ["createNDPResponder", "deleteNDPResponder"],
        }
    }

    /// MetalLB's word for sending an answer, in log lines.
    pub(super) const fn reply_op(self) -> &'static str {
        match self {
            Self::Arp => "arpReply",
            Self::Ndp => "ndpReply",
        }
    }

    /// Opens a socket for the questions that arrive at an interface.
    pub(super) fn open(self, interface: NonZeroU32) -> Result<PacketSocket, OpenError> {
        match self {
            Self::Arp => PacketSocket::arp(interface, &filter::INCOMING_ARP),
            Self::Ndp => PacketSocket::ndp(interface, &filter::INCOMING_SOLICITATIONS),
        }
    }

    /// Reads a received frame: which address it asks for and what answers it, if `us` holds that; nothing for a frame
    /// that is sound and asks nothing.
    pub(super) fn question(
        self,
        frame: &Frame<'_>,
        us: MacAddr,
    ) -> Result<Option<(IpAddr, Outgoing)>, DropReason> {
        match self {
            Self::Arp => {
                let packet = decode(frame, us)?;
                let asks = packet.operation == Operation::Request;
                let answer = || (packet.target_ip.into(), Outgoing::Arp(reply(&packet, us)));
                Ok(asks.then(answer))
            }
            Self::Ndp => {
                let asked = decode_ndp(frame, us)?;
                let answer = Outgoing::Ndp(advertise(&asked, us));
                Ok(Some((asked.target.into(), answer)))
            }
        }
    }
}

/// The frames of one round that make known that `address` is at `us`.
pub(super) fn unasked(address: IpAddr, us: MacAddr) -> impl Iterator<Item = Outgoing> {
    let [first, second] = match address {
        IpAddr::V4(address) => gratuitous(address, us).map(|frame| Some(Outgoing::Arp(frame))),
        IpAddr::V6(address) => [Some(Outgoing::Ndp(unsolicited(address, us))), None],
    };
    first.into_iter().chain(second)
}
