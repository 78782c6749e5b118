//! Who says that it holds an address, and what follows when two do.

use std::net::IpAddr;

use super::{Arbiter, ms};
use crate::event::Cause;
use crate::frame::{Frame, Kind, Mac, NodeId};
use crate::hold::{Deadline, Query, State};
use crate::mutation::Mutation;
use crate::peer::Liveness;

/// How long the answer to a question about one address may take.
const ANSWER: std::time::Duration = ms(50);

/// How often such a question is asked.
const TRIES: u8 = 3;

/// How long a claimant that does not answer must go on claiming to be taken for deaf to me.
const PERSISTS: std::time::Duration = ms(1000);

/// How long a contest is remembered after the last claim.
const CONTEST: std::time::Duration = ms(2500);

/// How often checks are sent, so many at a time as the pace allows.
const CHECKS: std::time::Duration = ms(10);

impl Arbiter {
    /// A peer asks, about itself and an address.
    pub(super) fn answer(&mut self, frame: Frame, mac: Mac) {
        let declared = !self.mutated(Mutation::SkipWasDown)
            && self
                .peers
                .get(&frame.sender)
                .is_some_and(|peer| peer.declared);
        let ceding = self.holds.get(&frame.address).map(|hold| hold.state);
        // Who is about to take it from me must not hear that I still hold it after it did.
        let held = self.held.contains(&frame.address)
            && !matches!(ceding, Some(State::Ceding { to, .. }) if to == frame.sender);
        let kind = match (declared, held) {
            (true, _) => Kind::WasDown,
            (false, true) => Kind::Holding,
            (false, false) => Kind::Alive,
        };
        if declared && let Some(peer) = self.peers.get_mut(&frame.sender) {
            peer.told.1 = Some(frame.nonce);
        }
        self.send_to(kind, mac, frame.sender, frame.nonce, frame.address);
        if !held {
            self.denied(frame.address, frame.sender);
        }
    }

    /// A peer asks all: whether I am there, or who holds the address.
    pub(super) fn asked(&mut self, frame: Frame, mac: Mac) {
        if frame.subject == self.me {
            self.answer(frame, mac);
            return;
        }
        let (address, sender) = (frame.address, frame.sender);
        if self.held.contains(&address) {
            self.send_to(Kind::Holding, mac, sender, frame.nonce, address);
        } else if let Some(hold) = self.holds.get_mut(&address)
            && matches!(hold.state, State::Asking { .. })
            && hold.place(sender) < hold.place(self.me)
            && self
                .peers
                .get(&sender)
                .is_some_and(|peer| peer.state == Liveness::Up)
            && !self.under_legacy(address)
        {
            // Both of us are about to take it.
            if let Some(hold) = self.holds.get_mut(&address) {
                hold.state = State::Standby;
                hold.orphan_at = None;
            }
            self.settle(address);
        }
    }

    /// Asks one peer about one address.
    pub(super) fn query(&mut self, node: NodeId, address: IpAddr, tries: u8) {
        let nonce = self.next_nonce();
        if let Some(hold) = self.holds.get_mut(&address) {
            hold.query = Some(Query { node, nonce, tries });
            // The answer counts when the question has been dropped for another, too: it says who holds the address.
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.asks(nonce, self.now, self.still);
            }
            self.send(Kind::Probe, node, node, nonce, address);
            self.timers
                .set_earlier(Deadline::Hold(address), self.now + ANSWER);
        }
    }

    /// No answer to it: asks again, or gives up.
    pub(super) fn query_again(&mut self, address: IpAddr) {
        let Some(query) = self.holds.get(&address).and_then(|hold| hold.query) else {
            return;
        };
        if query.tries < TRIES {
            self.query(query.node, address, query.tries + 1);
        } else if let Some(hold) = self.holds.get_mut(&address) {
            hold.query = None;
        }
    }

    /// A fresh answer: `node` holds the address.
    pub(super) fn holds_it(&mut self, address: IpAddr, node: NodeId, nonce: u32) {
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        if hold.query.is_some_and(|query| query.node == node) {
            hold.query = None;
        }
        match hold.state {
            State::Idle => hold.holder = Some(node),
            State::Standby | State::Asking { .. } => {
                if self.under_legacy(address) {
                    return;
                }
                self.stand_behind(address, node);
            }
            State::Entering { from, .. } if from != node => self.stand_behind(address, node),
            State::Offering { to, .. } | State::Ceding { to, .. } if to == node => {
                self.ceded(address, node);
            }
            State::Entering { .. } | State::Ceding { .. } => {}
            State::Holding
            | State::Contested { .. }
            | State::Offering { .. }
            | State::LegacyLeaving { .. } => {
                // What I asked before I took it proves nothing.
                if nonce.wrapping_sub(hold.taken_at) < u32::MAX / 2 {
                    self.rival(address, node);
                }
            }
        }
    }

    fn stand_behind(&mut self, address: IpAddr, node: NodeId) {
        let hold = self.holds.get(&address);
        // I left it to another that does not have it: clients may go by my claim still.
        let mistaken = hold.is_some_and(|hold| hold.yielded && hold.holder != Some(node));
        if mistaken {
            self.concede(address, node);
        }
        if let Some(hold) = self.holds.get_mut(&address) {
            hold.conceded |= mistaken;
            hold.state = State::Standby;
            hold.ours = true;
            hold.yielded = false;
            hold.holder = Some(node);
            hold.holder_died = false;
            hold.orphan_at = None;
        }
        self.forget_stranger(address);
        self.settle(address);
    }

    /// A fresh answer: `node` does not hold the address.
    pub(super) fn holds_not(&mut self, address: IpAddr, node: NodeId, nonce: u32) {
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        let asked = |query: Query| (query.node, query.nonce) == (node, nonce);
        let queried = hold.query.is_some_and(asked);
        if queried {
            hold.query = None;
        }
        match hold.state {
            State::Contested { by, .. } if by == node => {
                hold.state = State::Holding;
                self.timers.cancel(Deadline::Hold(address));
            }
            // Only the answer to what I asked since: one to an earlier question was true when it was given.
            State::Ceding { to, .. } if to == node && queried => self.not_ceded(address),
            State::Standby if hold.holder == Some(node) => {
                hold.holder = None;
                hold.orphan_at = None;
                if hold.yielded {
                    hold.yielded = false;
                    let taken_at = hold.taken_at;
                    self.take(address, Cause::Returned, None);
                    // Nobody handed it to me: another who said meanwhile that it holds it is a rival.
                    if let Some(hold) = self.holds.get_mut(&address) {
                        hold.taken_at = taken_at;
                    }
                } else {
                    self.settle(address);
                }
            }
            // The answer to my Ready; one to an earlier question may come from a node about to say Go.
            State::Entering {
                from, nonce: ready, ..
            } if (from, ready) == (node, nonce) => {
                hold.state = State::Standby;
                hold.holder = None;
                self.settle(address);
            }
            State::Asking { .. } => self.denies(address, node, nonce),
            _ => {}
        }
    }

    /// A peer let the address go.
    pub(super) fn left(&mut self, address: IpAddr, node: NodeId) {
        if let Some(hold) = self.holds.get_mut(&address)
            && hold.holder == Some(node)
            && !hold.state.answers()
        {
            hold.holder = None;
            hold.orphan_at = None;
            if matches!(hold.state, State::Entering { .. }) {
                hold.state = State::Standby;
            }
            self.settle(address);
        }
    }

    /// A peer that claimed what I hold let it go to me: what clients heard last may be its claim.
    pub(super) fn left_to_me(&mut self, address: IpAddr) {
        let state = self.holds.get(&address).map(|hold| hold.state);
        if state.is_some_and(|state| state.mine() && !matches!(state, State::LegacyLeaving { .. }))
        {
            self.make_claims(address);
        }
    }

    /// Tells the holder of an address that I claimed it, too, and do no more.
    pub(super) fn concede(&mut self, address: IpAddr, holder: NodeId) {
        if self.muted {
            return;
        }
        let nonce = self.next_nonce();
        self.send(Kind::Released, holder, holder, nonce, address);
    }

    /// The same once more, to one that did not hear me and does now.
    pub(super) fn concede_all(&mut self, holder: NodeId) {
        let conceded = |address: &&IpAddr| {
            self.holds
                .get(address)
                .is_some_and(|hold| hold.conceded && hold.holder == Some(holder))
        };
        let its: Vec<IpAddr> = self
            .waiting
            .get(&holder)
            .into_iter()
            .flatten()
            .filter(conceded)
            .copied()
            .collect();
        for address in its {
            self.concede(address, holder);
        }
    }

    /// A new Claim by a peer, to all or to me alone.
    pub(super) fn claimed(&mut self, address: IpAddr, node: NodeId, to_all: bool) {
        let now = self.now;
        let alive = self.alive(node);
        if self.held.contains(&address)
            && self
                .peers
                .get(&node)
                .is_some_and(|peer| peer.declared && peer.state == Liveness::Up)
        {
            return;
        }
        let unverified = self.mutated(Mutation::YieldUnverified);
        // It was found out before that it does not hear me: no use in asking it.
        let deaf = self.peers.get(&node).is_some_and(|peer| peer.deaf);
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        hold.conceded &= !to_all;
        match hold.state {
            State::Idle => hold.holder = Some(node),
            State::Standby | State::Asking { .. } | State::Entering { .. } => {
                if matches!(hold.state, State::Entering { from, .. } if from == node)
                    || self.under_legacy(address)
                {
                    return;
                }
                if alive {
                    self.stand_behind(address, node);
                } else {
                    self.query(node, address, 1);
                }
            }
            State::Ceding { to, .. } | State::Offering { to, .. } if to == node => {
                self.ceded(address, node);
            }
            State::Ceding { .. } => {}
            State::LegacyLeaving { .. } => self.release(address, Some(node), Cause::Legacy),
            _ if deaf || unverified => self.release(address, Some(node), Cause::Conflict),
            State::Contested {
                by,
                since,
                answered,
            } if by == node => {
                if answered || now < since + PERSISTS {
                    return;
                }
                if self.mutated(Mutation::SkipDeaf) {
                    return;
                }
                self.deaf(node);
                self.release(address, Some(node), Cause::Conflict);
            }
            State::Holding | State::Contested { .. } | State::Offering { .. } => {
                hold.state = State::Contested {
                    by: node,
                    since: now,
                    answered: false,
                };
                self.timers.cancel(Deadline::Hold(address));
                self.query(node, address, 1);
                self.moved_on(address);
            }
        }
    }

    /// Both of us hold it, and both know.
    fn rival(&mut self, address: IpAddr, node: NodeId) {
        if self.peers.get(&node).is_some_and(|peer| peer.declared) {
            // It does not know yet that it was away, and will let go when it does. If it had declared me down too, both
            // look through what they hold when that is settled.
            return;
        }
        let (me, now) = (self.me, self.now);
        let patience = ms(300) + ms(self.chance(3, 300).into());
        let legacy = self.under_legacy(address);
        let away = !legacy && self.away.is_some_and(|until| now < until);
        let returned = self
            .peers
            .get(&node)
            .is_some_and(|peer| peer.returned.is_some_and(|until| now < until))
            && !legacy;
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        // The order decides, unless one of us was away: that one yields.
        let worse = if away {
            true
        } else {
            !returned && hold.place(node) <= hold.place(me)
        };
        match hold.state {
            _ if worse => {
                self.challenged(address);
                self.release(address, Some(node), Cause::Conflict);
            }
            State::Contested {
                by,
                since,
                answered: true,
            } if by == node => {
                if now >= since + ms(300) {
                    // It had time to see that I am better placed and does not agree: it knows more, or cannot hear claims.
                    self.challenged(address);
                    self.release(address, Some(node), Cause::Conflict);
                }
            }
            _ => {
                hold.state = State::Contested {
                    by: node,
                    since: now,
                    answered: true,
                };
                hold.query = None;
                self.make_claims(address);
                self.timers.set(Deadline::Hold(address), now + patience);
                self.moved_on(address);
            }
        }
    }

    /// Who lost a contest or was refused waits 10 s before it wants the address again, then twice as long.
    pub(super) fn challenged(&mut self, address: IpAddr) {
        let now = self.now;
        if self.mutated(Mutation::SkipDamping) {
            return;
        }
        if let Some(hold) = self.holds.get_mut(&address) {
            hold.challenge_at = Some(now + ms(10_000) * 2_u32.pow(hold.challenges.min(6)));
            hold.challenges += 1;
        }
    }

    /// Holding, and something is not clear.
    pub(super) fn contest_due(&mut self, address: IpAddr) {
        let now = self.now;
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        match hold.state {
            State::Contested {
                by, answered: true, ..
            } => self.query(by, address, 1),
            State::Contested { by, since, .. } => {
                if now >= since + CONTEST {
                    hold.state = State::Holding;
                    hold.query = None;
                    return;
                }
                // Clients have heard its claim; say it again, once.
                if hold.defended.is_none_or(|at| now >= at + ms(10_000)) {
                    hold.defended = Some(now);
                    self.make_claims(address);
                }
                self.query(by, address, 1);
                self.timers.set(Deadline::Hold(address), now + ms(250));
            }
            _ => {
                self.query_again(address);
                self.settle(address);
            }
        }
    }

    /// Asks a peer about every address both of us might hold, at the pace.
    pub(super) fn check_all(&mut self, node: NodeId) {
        if self.mutated(Mutation::SkipChecks) {
            return;
        }
        let common = self
            .held
            .iter()
            .filter(|address| {
                self.holds
                    .get(address)
                    .is_some_and(|hold| hold.eligible(node))
            })
            .map(|address| (node, *address));
        self.checks.extend(common);
        if !self.checks.is_empty() {
            self.timers.set_earlier(Deadline::Checks, self.now);
        }
    }

    pub(super) fn run_checks(&mut self) {
        for _ in 0..(self.profile.pace / 100).max(1) {
            let Some((node, address)) = self.checks.pop_front() else {
                return;
            };
            let wanted = self
                .holds
                .get(&address)
                .is_some_and(|hold| match hold.state {
                    State::Holding => hold.query.is_none(),
                    State::Standby => hold.holder == Some(node),
                    _ => false,
                });
            if wanted {
                self.query(node, address, 1);
            }
        }
        if !self.checks.is_empty() {
            self.timers.set(Deadline::Checks, self.now + CHECKS);
        }
    }

    /// I was away: who comes after me holds what it would inherit. Silent at once, then ask.
    pub(super) fn yield_to_heir(&mut self, node: NodeId) {
        let its: Vec<IpAddr> = self
            .held
            .iter()
            .filter(|address| self.heir_if_away(**address, node) && !self.under_legacy(**address))
            .copied()
            .collect();
        for address in its {
            self.release(address, Some(node), Cause::WasAway);
            if let Some(hold) = self.holds.get_mut(&address)
                && hold.state == State::Standby
            {
                hold.yielded = true;
                self.checks.push_back((node, address));
            }
        }
        if !self.checks.is_empty() {
            self.timers.set_earlier(Deadline::Checks, self.now);
        }
    }

    /// Whether `heir` is the first after me that is there, as far as I know. Whom I lost while I heard nothing may be.
    fn heir_if_away(&self, address: IpAddr, heir: NodeId) -> bool {
        let order = self
            .holds
            .get(&address)
            .map_or(&[][..], |hold| hold.order());
        let there = |node: NodeId| {
            let peer = self.peers.get(&node);
            node == heir
                || peer.is_some_and(|peer| {
                    peer.alive() || peer.state == Liveness::Down && !peer.declared
                })
        };
        order.iter().find(|node| **node != self.me && there(**node)) == Some(&heir)
    }

    /// Who says that it does not hold an address must not take it on a Go that was under way: it is ready anew. Asked in
    /// passing, the other goes on with the hand-over as if nothing was.
    fn denied(&mut self, address: IpAddr, node: NodeId) {
        if let Some(hold) = self.holds.get(&address)
            && let State::Entering {
                from, tries, cause, ..
            } = hold.state
            && from == node
        {
            self.entering(address, from, tries, cause);
        }
    }
}
