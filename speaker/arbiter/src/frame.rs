//! What speakers say to each other, as values.
//!
//! Each is carried by an ARP packet or an NDP message about an address; [`Frame::form`] says by which, [`crate::Key`]
//! makes and checks the tag that tells it from a stranger's.

use std::fmt;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

/// An Ethernet hardware address.
pub type Mac = [u8; 6];

/// A node, by the first four bytes of the SHA-256 digest of its Kubernetes name: what fits a tag. The order of these is
/// the ring in which nodes watch each other.
///
/// Two of 500 names collide with a chance of 3 in 100 000. Who knows all names should check, and say so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// No node: the subject of a frame that is about none.
    pub const NOBODY: Self = Self(0);

    /// The node of that name.
    pub fn of(name: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(name).into();
        let [a, b, c, d, ..] = digest;
        Self(u32::from_be_bytes([a, b, c, d]).max(1))
    }

    /// As it stands in a tag.
    pub const fn to_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// From a tag.
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_be_bytes(bytes))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:08x}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, to)
    }
}

/// What a frame says. "Echoes" means that its nonce is the one of the frame it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Are you there, and do you hold the address? To one node.
    Probe = 1,
    /// I hold the address. Echoes.
    Holding = 2,
    /// I am there, and do not hold the address. Echoes.
    Alive = 3,
    /// To all. With a subject: is it there? It answers, and others that hear its answer vouch. Without: who holds the
    /// address? Its holder answers.
    Ask = 4,
    /// To all: I have a fresh answer from the subject. Echoes the Ask.
    Vouch = 5,
    /// To all: I hold the address now.
    Claim = 6,
    /// Take the address from me.
    Offer = 7,
    /// I am ready to take the address from you, asked or unasked.
    Ready = 8,
    /// Take it: from now on I answer with your hardware address. Echoes the Ready.
    Go = 9,
    /// Not now. Echoes the Ready or the Offer.
    Refuse = 10,
    /// I am there, and had declared you down. Echoes.
    WasDown = 11,
    /// I noted your `WasDown`. Echoes it. With no subject: and had declared you down, too.
    Noted = 12,
    /// To all: I am here. Without a subject: and start, holding nothing. With one: and never heard of it.
    Hello = 13,
    /// Ask me: I have something to say, and to echo, so that you know that I say it now.
    AskMe = 14,
    /// To all: I let the address go, and know of nobody who has it. With a subject, and to that one alone: I claimed it, and
    /// let it go to you; clients should hear so from you.
    Released = 15,
}

impl Kind {
    pub(crate) const ALL: [Self; 15] = [
        Self::Probe,
        Self::Holding,
        Self::Alive,
        Self::Ask,
        Self::Vouch,
        Self::Claim,
        Self::Offer,
        Self::Ready,
        Self::Go,
        Self::Refuse,
        Self::WasDown,
        Self::Noted,
        Self::Hello,
        Self::AskMe,
        Self::Released,
    ];

    /// Whether the nonce is the one of a frame answered, so that it proves that this one is fresh.
    pub(crate) const fn echoes(self) -> bool {
        matches!(
            self,
            Self::Holding
                | Self::Alive
                | Self::Vouch
                | Self::Go
                | Self::Refuse
                | Self::WasDown
                | Self::Noted
        )
    }
}

/// How a frame is carried, in ARP's words and in NDP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// ARP: a request for the address with sender address 0. NDP: a Neighbour Solicitation for the address to its
    /// solicited-node group, in an Ethernet frame to the one it is for, or to the group's if it is for all; source: the
    /// interface's link-local address, which is all it teaches; for the addresses of Services it changes no cache.
    Question,
    /// ARP: a reply that the address is here, to the one who asked. NDP: the same as a solicited Neighbour Advertisement
    /// with Override.
    Answer,
    /// ARP: the gratuitous pair. NDP: an unsolicited Neighbour Advertisement with Override to all nodes.
    Gratuitous,
}

/// One frame. Who it came from and goes to on the link stands beside it: hardware addresses are not covered by the tag,
/// because bonds rewrite them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub kind: Kind,
    /// Whether its sender heard anything from another host of late: whose reception is dead says so.
    pub hearing: bool,
    /// Who says it.
    pub sender: NodeId,
    /// Whom it is about or for; [`NodeId::NOBODY`] for none.
    pub subject: NodeId,
    /// Rises with every frame of its own of a sender, wrapping; or echoes.
    pub nonce: u32,
    /// The address it is about: the target of a question, the sender of an answer.
    pub address: IpAddr,
}

impl Frame {
    /// How this frame is carried.
    pub const fn form(&self) -> Form {
        match self.kind {
            Kind::Holding => Form::Answer,
            Kind::Claim => Form::Gratuitous,
            _ => Form::Question,
        }
    }
}
