//! Standing by, asking, taking and letting go: what follows for one address from who may answer and who is there.

use std::net::IpAddr;

use super::asking::ASK;
use super::{Arbiter, ms};
use crate::event::{Cause, Obstacle, Output, Report, Wish};
use crate::frame::{Kind, NodeId};
use crate::hold::{Deadline, State};
use crate::mutation::Mutation;
use crate::peer::{Liveness, Peer};
use crate::profile::Failback;

/// How long who returns takes at least to be known again, so that its wish is not refused.
const SETTLED: std::time::Duration = ms(1000);

/// How many of the first in order join the solicited-node group beforehand.
const JOINED: usize = 3;

impl Arbiter {
    /// Decides again about an address. Everything that may change the decision ends here.
    pub(super) fn settle(&mut self, address: IpAddr) {
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        if hold.state.answers() {
            // Before gossip's rule has me leave it to one that is not here.
            self.seek_better(address);
            self.reconsider(address);
        } else {
            self.stand(address);
        }
        self.groups(address);
        if self
            .holds
            .get(&address)
            .is_some_and(|hold| hold.candidates.is_none() && !hold.state.answers())
        {
            self.wait_for(address, None);
            self.timers.cancel(Deadline::Hold(address));
            self.holds.remove(&address);
        }
    }

    pub(super) fn wait_for(&mut self, address: IpAddr, node: Option<NodeId>) {
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        if hold.waits_for == node {
            return;
        }
        if let Some(old) = std::mem::replace(&mut hold.waits_for, node)
            && let Some(set) = self.waiting.get_mut(&old)
        {
            set.remove(&address);
            if set.is_empty() {
                self.waiting.remove(&old);
            }
        }
        if let Some(node) = node {
            self.waiting.entry(node).or_default().insert(address);
        }
    }

    fn groups(&mut self, address: IpAddr) {
        if address.is_ipv4() {
            return;
        }
        let me = self.me;
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        let joined = hold.state.answers() || hold.place(me) < JOINED;
        if joined != hold.joined {
            hold.joined = joined;
            self.out.push(if joined {
                Output::Join(address)
            } else {
                Output::Leave(address)
            });
        }
    }

    /// Whom MetalLB's rule names for the address; none if it does not hold.
    fn legacy_owner(&self, address: IpAddr) -> Option<NodeId> {
        let order = self.holds.get(&address)?.order();
        let known = |node: &NodeId| self.peers.get(node);
        let legacy = |peer: &Peer| peer.legacy && peer.believed_alive();
        // Who comes after me and never showed itself here changes nothing for me: it waits for me, not I for it.
        let blind = |peer: &Peer| peer.blind(self.now);
        let mut before = order.iter().take_while(|node| **node != self.me);
        // Each look through all nodes costs, and mostly there are none of MetalLB's.
        let theirs = self.legacy && order.iter().any(|node| known(node).is_some_and(legacy));
        if !theirs && !before.any(|node| known(node).is_some_and(blind)) {
            return None;
        }
        // Gossip is late to see who comes; the wire saw it.
        let there = |peer: &Peer| {
            peer.believed_alive() || matches!(peer.state, Liveness::Up | Liveness::Suspect)
        };
        let alive = |node: &&NodeId| **node == self.me || known(node).is_some_and(there);
        order.iter().find(alive).copied()
    }

    pub(super) fn under_legacy(&self, address: IpAddr) -> bool {
        self.legacy_owner(address).is_some()
    }

    /// Not answering: whether to start.
    fn stand(&mut self, address: IpAddr) {
        let (me, now) = (self.me, self.now);
        let may = self.link && self.stopping.is_none();
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        if !may || !hold.eligible(me) {
            hold.state = State::Idle;
            hold.orphan_at = None;
            hold.better_since = None;
            hold.query = None;
            self.timers.cancel(Deadline::Hold(address));
            self.wait_for(address, None);
            self.forget_stranger(address);
            return;
        }
        if hold.state == State::Idle {
            hold.state = State::Standby;
        }
        if let Some(owner) = self.legacy_owner(address) {
            self.stand_under_legacy(address, owner == me);
            if owner != me {
                self.seek_better(address);
            }
            return;
        }
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        let (state, mut holder, died) = (hold.state, hold.holder, hold.holder_died);
        if let Some(node) = holder
            && died
            && self.alive(node)
        {
            holder = None;
        }
        match (state, holder) {
            (State::Entering { from, .. }, _) if self.alive(from) => {}
            (_, Some(node)) if self.alive(node) => self.stand_by(address, node),
            _ => {
                if let Some(hold) = self.holds.get_mut(&address) {
                    hold.holder = holder;
                    hold.holder_died = holder.is_some();
                    if matches!(hold.state, State::Entering { .. }) {
                        hold.state = State::Standby;
                    }
                    hold.better_since = None;
                }
                self.stand_alone(address, holder, now);
            }
        }
    }

    /// A live node holds it.
    fn stand_by(&mut self, address: IpAddr, holder: NodeId) {
        let (me, now) = (self.me, self.now);
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        let ahead = hold.place(me) < hold.place(holder) && hold.willing().contains(&me);
        let ineligible = !hold.eligible(holder);
        let best = self.better(address).is_none();
        let stable = self.stable_since;
        let failback = self.profile.failback;
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        if !matches!(hold.state, State::Asking { .. }) {
            hold.state = State::Standby;
        }
        hold.orphan_at = None;
        self.timers.cancel(Deadline::Hold(address));
        if hold.query.is_some() {
            self.timers.set(Deadline::Hold(address), now + ASK);
        }
        if !ahead {
            hold.better_since = None;
        } else if !best {
            // A better one should act. Should that one vanish, nobody would tell me.
            let again = if ineligible { ms(200) } else { ms(30_000) };
            self.timers
                .set_earlier(Deadline::Hold(address), now + again);
        } else {
            let since = *hold.better_since.get_or_insert(now);
            let due = match failback {
                _ if ineligible => Some(now),
                _ if hold.sent_away => None,
                Failback::After(wait) => Some(since.max(stable) + wait.max(SETTLED)),
                Failback::Never => None,
            };
            let due = due.map(|due| hold.challenge_at.map_or(due, |at| at.max(due)));
            let cause = if ineligible {
                Cause::Ineligible
            } else {
                Cause::Failback
            };
            let rank = self.mutated(Mutation::RankNotIncumbency);
            if rank {
                self.take(address, Cause::Failback, Some(holder));
                return;
            }
            match due {
                Some(due) if due <= now => {
                    self.wait_for(address, Some(holder));
                    self.enter(address, holder, cause);
                    return;
                }
                Some(due) => self.timers.set_earlier(Deadline::Hold(address), due),
                None => {}
            }
        }
        self.wait_for(address, Some(holder));
    }

    /// The first in order before me that must be reckoned with.
    fn better(&self, address: IpAddr) -> Option<NodeId> {
        let order = self.holds.get(&address)?.order();
        order
            .iter()
            .take_while(|node| **node != self.me)
            .find(|node| self.alive(**node))
            .copied()
    }

    /// Whether all of those showed themselves here.
    fn better_proven(&self, address: IpAddr) -> bool {
        let order = self
            .holds
            .get(&address)
            .map_or(&[][..], |hold| hold.order());
        let mut before = order.iter().take_while(|node| **node != self.me);
        before.all(|node| self.presence(*node).is_some() || !self.alive(*node))
    }

    /// Nobody alive is known to hold it; `last` did before it went down.
    fn stand_alone(&mut self, address: IpAddr, last: Option<NodeId>, now: std::time::Instant) {
        let better = self.better(address);
        let proven = self.better_proven(address);
        let stagger = self.mutated(Mutation::StaggerNotEvidence);
        let (me, peers) = (self.me, &self.peers);
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        if let Some(stranger) = hold.stranger
            && now < stranger.ask_at
            && last.is_none()
        {
            self.wait_for(address, better);
            self.timers.set(Deadline::Hold(address), stranger.ask_at);
            return;
        }
        if let Some(better) = better {
            // Others before me take it; the later in order, the longer they get to.
            if hold.orphan_at.is_none() {
                let before = hold.order().iter().take_while(|node| **node != me);
                let alive = |node: &&NodeId| peers.get(*node).is_some_and(Peer::alive);
                let before = before.filter(alive).count().min(60);
                let further = u32::try_from(before.saturating_sub(1)).unwrap_or(0);
                let wait = if stagger {
                    ms(20)
                } else {
                    ms(1000) + ms(250) * further
                };
                hold.orphan_at = Some(now + wait);
            }
            let hold = self.holds.get(&address);
            let at = hold.and_then(|hold| hold.orphan_at).unwrap_or(now);
            let asking = hold.is_some_and(|hold| matches!(hold.state, State::Asking { .. }));
            if asking {
                return;
            }
            self.wait_for(address, Some(better));
            if !proven {
                // An Ask that nobody answers proves nothing where answers do not pass.
                self.timers.cancel(Deadline::Hold(address));
                if let Some(hold) = self.holds.get_mut(&address) {
                    // Their time begins when it is known who is there.
                    hold.orphan_at = None;
                }
                self.seek_better(address);
            } else if at > now {
                self.timers.set(Deadline::Hold(address), at);
            } else if stagger {
                self.take(address, Cause::Unheld, None);
            } else {
                self.ask(address);
            }
        } else if last.is_some() {
            self.take(address, Cause::HolderDown, last);
        } else if !matches!(hold.state, State::Asking { .. }) {
            self.ask(address);
        }
    }

    fn stand_under_legacy(&mut self, address: IpAddr, mine: bool) {
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        hold.holder = None;
        hold.better_since = None;
        hold.orphan_at = None;
        if !mine {
            hold.state = State::Standby;
            self.timers.cancel(Deadline::Hold(address));
        } else if !matches!(hold.state, State::Asking { .. }) {
            self.ask(address);
        }
        self.wait_for(address, None);
    }

    /// The deadline of an address has come.
    pub(super) fn hold_due(&mut self, address: IpAddr) {
        let now = self.now;
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        match hold.state {
            State::Idle | State::Asking { queued: true, .. } => {}
            State::Standby => {
                self.query_again(address);
                self.settle(address);
            }
            State::Asking { round, .. } => self.asking_due(address, round),
            State::Entering { .. } => self.entering_due(address),
            State::Holding | State::Contested { .. } => self.contest_due(address),
            State::Offering { .. } => self.offering_due(address),
            State::Ceding { .. } => self.ceding_due(address),
            State::LegacyLeaving { until } => {
                if now >= until {
                    self.release(address, None, Cause::Legacy);
                } else {
                    self.timers.set(Deadline::Hold(address), until);
                }
            }
        }
    }

    /// Mine from now on.
    pub(super) fn take(&mut self, address: IpAddr, cause: Cause, from: Option<NodeId>) {
        let now = self.now;
        self.wait_for(address, None);
        self.timers.cancel(Deadline::Hold(address));
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        hold.state = State::Holding;
        hold.ours = true;
        hold.holder = None;
        hold.holder_died = false;
        hold.taken_from = from;
        hold.taken_at = self.nonce.wrapping_add(1);
        hold.orphan_at = None;
        hold.better_since = None;
        hold.query = None;
        hold.conceded = false;
        hold.yielded = false;
        hold.leave_by = None;
        hold.refused.clear();
        hold.rounds = 0;
        hold.offer_at = None;
        hold.wish = None;
        hold.sent_away = false;
        if matches!(cause, Cause::Moved | Cause::Failback | Cause::Ineligible) {
            hold.moved = Some(now);
        }
        self.forget_stranger(address);
        self.held.insert(address);
        self.patrol();
        self.out.push(Output::Answer(address, None));
        self.make_claims(address);
        self.report(Report::Took {
            address,
            cause,
            from,
        });
        self.groups(address);
    }

    /// Claims the address in five rounds, from the first again.
    pub(super) fn make_claims(&mut self, address: IpAddr) {
        self.burst.withdraw(&address);
        self.unannounced.insert(address);
    }

    /// Not mine any more.
    pub(super) fn release(&mut self, address: IpAddr, to: Option<NodeId>, cause: Cause) {
        self.burst.withdraw(&address);
        self.unannounced.remove(&address);
        self.held.remove(&address);
        self.timers.cancel(Deadline::Hold(address));
        self.out.push(Output::Silent(address));
        self.report(Report::Released { address, cause, to });
        if cause == Cause::Ineligible && to.is_none() && !self.muted {
            let nonce = self.next_nonce();
            self.broadcast(Kind::Released, NodeId::NOBODY, nonce, address);
        }
        let conceded = to.filter(|_| matches!(cause, Cause::Conflict | Cause::WasAway));
        if let Some(to) = conceded {
            self.concede(address, to);
        }
        if let Some(hold) = self.holds.get_mut(&address) {
            hold.conceded = conceded.is_some();
            hold.state = State::Standby;
            hold.holder = to;
            hold.holder_died = false;
            hold.query = None;
            hold.taken_from = None;
            hold.leave_by = None;
            hold.refused.clear();
            hold.sent_away = cause == Cause::Moved && hold.wish.take() == Some(Wish::Away);
        }
        self.stays_no_more(address);
        self.forget_stranger(address);
        self.moved_on(address);
        self.settle(address);
    }

    /// Answering: whether to go on.
    fn reconsider(&mut self, address: IpAddr) {
        let (me, now) = (self.me, self.now);
        let legacy = self.legacy_owner(address);
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        if hold.candidates.is_none() {
            self.release(address, None, Cause::Withdrawn);
        } else if !self.link {
            self.release(address, None, Cause::LinkDown);
        } else if let Some(owner) = legacy {
            let leaving = matches!(hold.state, State::LegacyLeaving { .. });
            if owner != me && !leaving {
                let until = now + ms(1000);
                self.set_state(address, State::LegacyLeaving { until });
                self.timers.set(Deadline::Hold(address), until);
            } else if owner == me && leaving {
                self.set_state(address, State::Holding);
                self.timers.cancel(Deadline::Hold(address));
            } else if owner == me && hold.wish.is_some() {
                self.stays(address, Obstacle::Legacy, true);
            }
        } else if matches!(hold.state, State::LegacyLeaving { .. }) {
            self.set_state(address, State::Holding);
            self.timers.cancel(Deadline::Hold(address));
        } else if self.stopping.is_some() {
            self.queue_move(address, Cause::Moved);
        } else if !hold.eligible(me) {
            let by = hold.leave_by.unwrap_or(now + ms(1000));
            if let Some(hold) = self.holds.get_mut(&address) {
                hold.leave_by = Some(by);
            }
            if now < by && self.heir(address).is_some() {
                self.queue_move(address, Cause::Ineligible);
            } else {
                self.release(address, None, Cause::Ineligible);
            }
        } else {
            self.consider_leaving(address);
        }
    }

    pub(super) fn set_state(&mut self, address: IpAddr, state: State) {
        if let Some(hold) = self.holds.get_mut(&address) {
            hold.state = state;
        }
    }
}
