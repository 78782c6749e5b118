//! What the machine is told and what it asks for: its whole surface but [`crate::Arbiter`] itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::frame::{Frame, Mac, NodeId};

/// A node as Kubernetes and gossip know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// Which.
    pub node: NodeId,
    /// Its own address on this segment (`InternalIP`), which its kernel answers for; none if it has none here.
    pub address: Option<IpAddr>,
    /// Whether Kubernetes and gossip believe that it is there, for where the wire does not tell; none if they cannot say.
    pub believed: Option<bool>,
    /// Whether its speaker is MetalLB's: known to gossip or Kubernetes, without our mark.
    pub legacy: bool,
}

/// Who may answer for an address: MetalLB's eligible nodes in MetalLB's order (`ferrolb_speaker_core::standing`), and after
/// them those that should leave: cordoned, draining, excluded by option, or not ready for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// The nodes, best first. Shared: many addresses have the same.
    pub order: Arc<[NodeId]>,
    /// How many of them, from the first, are not to leave.
    pub willing: usize,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// [`crate::Arbiter::next_deadline`] has come.
    Tick,
    /// A frame with a tag that [`crate::Key::open`] opened came from this hardware address (the one inside ARP or NDP).
    /// Own frames that come back are ignored.
    Frame(Frame, Mac),
    /// An ARP or NDP message without a tag of ours says that `address` is at `mac`, none of this node's own.
    Plain {
        /// The address: the sender's, never 0.
        address: IpAddr,
        /// Where it is.
        mac: Mac,
        /// Whether it was unasked: gratuitous ARP, any question, unsolicited Neighbour Advertisement.
        unasked: bool,
        /// When it was read.
        at: Instant,
    },
    /// Anything else came from another host and was read then. At most one a millisecond need be told, and until
    /// [`crate::Arbiter::heard_until`] the last one may wait for the next other input.
    Heard(Instant),
    /// All other nodes there are. Whoever is missing is gone.
    Peers(Vec<PeerFacts>),
    /// Who may answer for an address on this segment now; none: it is not announced here any more.
    View(IpAddr, Option<Candidates>),
    /// The interface has a carrier and can be used, or not.
    Link(bool),
    /// The socket dropped received frames: silence proves nothing.
    Dropped,
    /// What the operator wants of the address from now on; none: nothing any more.
    Wish(IpAddr, Option<Wish>),
    /// This process will end: hand everything over. [`Output::Stopped`] follows within 1.5 s.
    Stop,
}

/// What an operator may want of an address. Who holds it heeds it once, when that can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// That this node answers for it. The order of candidates should name it first, or it is taken back after a while.
    To(NodeId),
    /// That who holds it hands it to the best of the others. While the wish stands, who did so does not take it back because
    /// it is better placed.
    Away,
}

/// Why an address that is to move stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// No other node may answer for it.
    NobodyElse,
    /// None of the nodes it might go to is heard here.
    Unheard,
    /// Those that are heard are to leave what they hold themselves.
    Unwilling,
    /// The node it is to go to may not answer for it.
    NotEligible,
    /// They refused.
    Refused,
    /// One of MetalLB's speakers may answer for it, so that MetalLB's rule says where it is.
    Legacy,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a frame, to one or to all.
    Send(Frame, Option<Mac>),
    /// Ask who has this node address, without a tag, to that hardware address: its kernel answers
    /// ([`Input::Plain`]).
    AskKernel(IpAddr, Mac),
    /// Ask some other host, best the default gateway and a host heard of late, anything that makes it answer
    /// ([`Input::Heard`]): it is in doubt whether this node hears.
    AskAround,
    /// From now on, answer for the address with this hardware address: mine if none.
    Answer(IpAddr, Option<Mac>),
    /// From now on, do not answer for the address.
    Silent(IpAddr),
    /// Until told otherwise, answer for nothing, and drop what was asked before.
    Mute(bool),
    /// Join the solicited-node group of the address: its holder, and who is first to follow.
    Join(IpAddr),
    /// Leave it.
    Leave(IpAddr),
    /// For the operator.
    Report(Report),
    /// All is handed over that can be: the process may end.
    Stopped,
}

/// Why an address came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Nobody held it.
    Unheld,
    /// Its holder went down.
    HolderDown,
    /// A planned move: this node's end, drain, an operator's wish.
    Moved,
    /// A better placed node was back long enough.
    Failback,
    /// Its holder is no longer eligible.
    Ineligible,
    /// Two held it, and the other keeps it, being better placed or deaf to this one.
    Conflict,
    /// This node was away, and the other took over.
    WasAway,
    /// Nobody answered for it after all.
    Returned,
    /// MetalLB's rule, while one of its speakers is eligible.
    Legacy,
    /// The interface lost its carrier.
    LinkDown,
    /// It is not announced any more, or not here.
    Withdrawn,
}

/// Something an operator may want to know or count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// This node holds the address now.
    Took {
        /// Which.
        address: IpAddr,
        /// Why.
        cause: Cause,
        /// Who held it, as far as known.
        from: Option<NodeId>,
    },
    /// This node does not hold the address any more.
    Released {
        /// Which.
        address: IpAddr,
        /// Why.
        cause: Cause,
        /// Who holds it, as far as known.
        to: Option<NodeId>,
    },
    /// This node is to hand the address over, because the operator wants it or because the node is to leave what it holds,
    /// and has not been able to for 2 s. Told again when the obstacle has become another, every 10 s at most.
    Stays {
        /// Which.
        address: IpAddr,
        /// Why.
        obstacle: Obstacle,
        /// The operator wants this very address moved; otherwise all this node holds is to leave.
        wished: bool,
    },
    /// What a former report said stays has moved, is held no longer, or may stay. This comes once.
    StaysNoMore {
        /// Which.
        address: IpAddr,
    },
    /// A peer answered for the first time, or again.
    Up(NodeId),
    /// A peer is down.
    Down {
        /// Which.
        node: NodeId,
        /// Since its last answer.
        silent: Duration,
        /// Whether its kernel still answers: only its speaker is gone.
        kernel: bool,
    },
    /// A suspicion proved false.
    Refuted(NodeId),
    /// Others hear this peer, this node does not.
    CannotHear(NodeId),
    /// The peer does not hear this node, yet is heard.
    CannotBeHeard(NodeId),
    /// A process of this node, or all of it, stood still.
    StoodStill(Duration),
    /// A stranger claims an address this node holds, or answers for one it was to take. Told again, every 10 s at most,
    /// while it does.
    Stranger {
        /// Which.
        address: IpAddr,
        /// The stranger's hardware address.
        mac: Mac,
        /// Whether it is for this node to tell people: it holds the address, or comes first of those that are there and may.
        speaks: bool,
    },
    /// The stranger a former report told of answers no more, or the address is no longer this node's to care for.
    /// `Stranger` is repeated while it is there; this comes once.
    StrangerGone {
        /// Which.
        address: IpAddr,
    },
    /// The kernel of a peer answers for an address no kernel should answer for: IPVS without `strictARP`.
    StrictArp {
        /// Whose.
        node: NodeId,
        /// Which.
        address: IpAddr,
    },
}
