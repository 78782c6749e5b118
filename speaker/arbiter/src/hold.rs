//! What one node knows of one address on one segment, and does about it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use crate::event::{Candidates, Cause, Obstacle, Wish};
use crate::frame::{Mac, NodeId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not eligible, no carrier or about to end: silent.
    Idle,
    /// Eligible, and it is not my turn.
    Standby,
    /// Asking all who holds it; nobody said so yet. `queued`: its next Ask waits for its turn. `nonce`: of the last.
    Asking {
        round: u8,
        nonce: Option<u32>,
        queued: bool,
    },
    /// Ready to take it from `from`; `offered` by it, or of my own wish.
    Entering {
        from: NodeId,
        nonce: u32,
        tries: u8,
        cause: Cause,
    },
    /// Mine.
    Holding,
    /// Mine, and `by` says the same. `since` when; `answered`: it told me so to my face.
    Contested {
        by: NodeId,
        since: Instant,
        answered: bool,
    },
    /// Mine, offered to `to` until `until`.
    Offering {
        to: NodeId,
        nonce: u32,
        until: Instant,
        cause: Cause,
    },
    /// Answered for with the hardware address of `to`, until that one says that it holds it.
    Ceding {
        to: NodeId,
        mac: Mac,
        nonce: u32,
        tries: u8,
        cause: Cause,
    },
    /// Mine until the one MetalLB's rule names claims it, or until then.
    LegacyLeaving { until: Instant },
}

impl State {
    /// Whether clients are answered.
    pub const fn answers(self) -> bool {
        self.mine() || matches!(self, Self::Ceding { .. })
    }

    /// Whether they are answered with my own hardware address.
    pub const fn mine(self) -> bool {
        matches!(
            self,
            Self::Holding
                | Self::Contested { .. }
                | Self::Offering { .. }
                | Self::LegacyLeaving { .. }
        )
    }
}

/// A question to one peer about one address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    pub node: NodeId,
    pub nonce: u32,
    pub tries: u8,
}

/// Who is still to say that it does not hold an address that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Denials {
    /// Of the question.
    pub nonce: u32,
    pub left: BTreeSet<NodeId>,
    /// When the address may be taken once nobody is left.
    pub at: Instant,
}

/// Somebody who is none of us answers for an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stranger {
    pub seen: Instant,
    /// When to ask whether it is still there.
    pub ask_at: Instant,
}

/// It is to move, and does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stays {
    pub obstacle: Obstacle,
    /// Since when, or when it was reported last.
    pub since: Instant,
    /// What was reported.
    pub told: Option<Obstacle>,
}

#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a plain fact of its own"
)]
pub(crate) struct Hold {
    pub candidates: Option<Candidates>,
    pub state: State,
    /// Who holds it, as far as I know; not me.
    pub holder: Option<NodeId>,
    /// It held it when it went down.
    pub holder_died: bool,
    /// I let it go to the holder after both of us claimed it, and heard no claim of the holder's since.
    pub conceded: bool,
    /// I left it to the holder because I was away, and would have it back.
    pub yielded: bool,
    /// One of us held it before: no stranger can keep us from it.
    pub ours: bool,
    /// Who answered for it without a tag while I asked.
    pub plain: Option<Mac>,
    /// Every peer is asked whether it holds it, too. Stale in any other state than asking with that nonce.
    pub denials: Option<Box<Denials>>,
    /// Who keeps me from it, or disputes it, and was reported.
    pub stranger: Option<Stranger>,
    /// Whose end I wait for.
    pub waits_for: Option<NodeId>,
    pub query: Option<Query>,
    pub taken_from: Option<NodeId>,
    /// The last nonce used before I took it.
    pub taken_at: u32,
    /// When asking all becomes due although a better node is alive.
    pub orphan_at: Option<Instant>,
    /// Since when I would be the better holder.
    pub better_since: Option<Instant>,
    /// When I may challenge its holder again, and how often I did in vain.
    pub challenge_at: Option<Instant>,
    pub challenges: u32,
    /// Who refused it in this round of offers.
    pub refused: Vec<NodeId>,
    /// How many rounds were in vain, and when the next may begin.
    pub rounds: u32,
    pub offer_at: Option<Instant>,
    /// It waits for its turn to be handed over.
    pub queued: bool,
    /// What the operator wants of what I hold.
    pub wish: Option<Wish>,
    /// I handed it over because the operator did not want it here, and the wish stands.
    pub sent_away: bool,
    pub stays: Option<Stays>,
    /// When to let it go at last, not being eligible any more.
    pub leave_by: Option<Instant>,
    /// Its last voluntary move from here.
    pub moved: Option<Instant>,
    /// When a stranger's claim was last answered.
    pub defended: Option<Instant>,
    pub joined: bool,
}

impl Hold {
    pub fn new() -> Self {
        Self {
            candidates: None,
            state: State::Idle,
            holder: None,
            holder_died: false,
            conceded: false,
            yielded: false,
            ours: false,
            plain: None,
            denials: None,
            stranger: None,
            waits_for: None,
            query: None,
            taken_from: None,
            taken_at: 0,
            orphan_at: None,
            better_since: None,
            challenge_at: None,
            challenges: 0,
            refused: Vec::new(),
            rounds: 0,
            offer_at: None,
            queued: false,
            wish: None,
            sent_away: false,
            stays: None,
            leave_by: None,
            moved: None,
            defended: None,
            joined: false,
        }
    }

    pub fn order(&self) -> &[NodeId] {
        self.candidates
            .as_ref()
            .map_or(&[], |candidates| &candidates.order)
    }

    /// The nodes that are not to leave.
    pub fn willing(&self) -> &[NodeId] {
        let willing = self
            .candidates
            .as_ref()
            .map_or(0, |candidates| candidates.willing);
        self.order().get(..willing).unwrap_or(self.order())
    }

    /// The place of a node in my view; whoever is not eligible comes last.
    pub fn place(&self, node: NodeId) -> usize {
        self.order()
            .iter()
            .position(|other| *other == node)
            .unwrap_or(usize::MAX)
    }

    pub fn eligible(&self, node: NodeId) -> bool {
        self.order().contains(&node)
    }
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deadline {
    /// The end of a mute.
    Mute,
    Peer(NodeId),
    Hold(IpAddr),
    /// The next checks.
    Checks,
    /// The next Asks.
    Asks,
    /// To see whether a stranger is still there that disputes what I hold.
    Stranger(IpAddr),
    /// To ask for the next of what I hold.
    Patrol,
    Hello,
    /// To answer a Hello.
    Greet(NodeId),
    /// The next of those to be decided again.
    Settle,
    Stop,
}
