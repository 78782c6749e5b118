//! The two ways neighbours find hardware addresses, and what differs between them.

use std::net::IpAddr;
use std::num::NonZeroU32;

use ferrolb_speaker_arbiter::MARK;
use ferrolb_speaker_socket::{OpenError, PacketSocket};
use ferrolb_speaker_wire::{DropReason, Frame, MacAddr, Message, filter};

use crate::interface::Interface;

/// How the neighbours of one interface ask for addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// For IPv4 (RFC 826).
    Arp,
    /// For IPv6 (RFC 4861).
    Ndp,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Arp, Self::Ndp];

    /// The one that neighbours find `address` with.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Arp,
            IpAddr::V6(_) => Self::Ndp,
        }
    }

    /// Whether it is spoken on `interface`.
    pub const fn fits(self, interface: &Interface) -> bool {
        match self {
            Self::Arp => interface.arp,
            Self::Ndp => interface.ndp.is_some(),
        }
    }

    /// MetalLB's words for the start and the end of answering, in log lines.
    pub const fn events(self) -> [&'static str; 2] {
        match self {
            Self::Arp => ["createARPResponder", "deleteARPResponder"],
            Self::Ndp => ["createNDPResponder", "deleteNDPResponder"],
        }
    }

    /// MetalLB's word for sending an answer, in log lines.
    pub const fn reply_op(self) -> &'static str {
        match self {
            Self::Arp => "arpReply",
            Self::Ndp => "ndpReply",
        }
    }

    /// Opens a socket for the questions that clients ask at an interface, and little else.
    pub fn for_questions(self, interface: NonZeroU32) -> Result<PacketSocket, OpenError> {
        match self {
            Self::Arp => {
                let (bits, mark) = MARK;
                PacketSocket::arp(interface, &filter::questions_of_clients(bits, mark))
            }
            Self::Ndp => PacketSocket::ndp(interface, &filter::INCOMING_SOLICITATIONS),
        }
    }

    /// Opens a socket for what neighbours say of themselves at an interface and speakers say to each other, and for little
    /// of what clients ask.
    pub fn for_statements(self, interface: NonZeroU32) -> Result<PacketSocket, OpenError> {
        let (bits, mark) = MARK;
        let filter = filter::statements(bits, mark);
        match self {
            Self::Arp => PacketSocket::arp(interface, &filter),
            Self::Ndp => PacketSocket::ndp(interface, &filter),
        }
    }

    /// Reads a received frame.
    pub fn read<'a>(self, frame: &Frame<'a>, us: MacAddr) -> Result<Message<'a>, DropReason> {
        match self {
            Self::Arp => Message::arp(frame, us),
            Self::Ndp => Message::ndp(frame, us),
        }
    }
}
