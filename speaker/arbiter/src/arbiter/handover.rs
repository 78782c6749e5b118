//! Planned moves: offer, ready, go. Between Ready and the new node's word that it holds the address, the old one answers
//! with the new one's hardware address.
//!
//! ```text
//!  old                                   new
//!   │ ───────────── Offer ─────────────▶ │  Entering      (unasked where the new one wants it: failback)
//!   │ ◀──────────── Ready ────────────── │
//!   │ Ceding: answers with new's MAC     │
//!   │ ───────────── Go ────────────────▶ │  Holding: answers, claims
//!   │ ◀──────────── Holding ──────────── │
//!   │ silent                             │
//! ```

use std::net::IpAddr;
use std::time::Duration;

use super::{Arbiter, ms};
use crate::event::{Cause, Output};
use crate::frame::{Frame, Kind, Mac, NodeId};
use crate::hold::{Deadline, State};
use crate::mutation::Mutation;
use crate::peer::Liveness;
use crate::profile::Failback;

/// From one Offer to the next.
const OFFER: Duration = ms(50);

/// How long an Offer stands.
const OFFERED: Duration = ms(1000);

/// From one Ready to the next, and how many.
const READY: Duration = ms(100);
const READIES: u8 = 5;

/// From Go to the question whether it arrived, and how many of those.
const GO: Duration = ms(30);
const GOES: u8 = 5;

/// How many hand-overs are under way at once.
const UNDER_WAY: usize = 64;

impl Arbiter {
    /// Who takes the address when I leave: the first willing in order that proved itself here, else the first at all.
    pub(super) fn heir(&self, address: IpAddr) -> Option<NodeId> {
        let hold = self.holds.get(&address)?;
        let proven = |node: &&NodeId| {
            **node != self.me
                && !hold.refused.contains(*node)
                && self
                    .peers
                    .get(node)
                    .is_some_and(|peer| peer.state == Liveness::Up && peer.mac.is_some())
        };
        hold.order().iter().find(proven).copied()
    }

    /// Wants an address moved away. Many wait for their turn.
    pub(super) fn queue_move(&mut self, address: IpAddr, cause: Cause) {
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        let movable = matches!(hold.state, State::Holding | State::Contested { .. });
        if movable && !std::mem::replace(&mut hold.queued, true) {
            self.moves.push_back((address, cause));
            self.next_moves();
        }
    }

    pub(super) fn next_moves(&mut self) {
        while self.moving.len() < UNDER_WAY {
            let Some((address, cause)) = self.moves.pop_front() else {
                break;
            };
            if let Some(hold) = self.holds.get_mut(&address) {
                hold.queued = false;
                self.offer(address, cause);
            }
        }
        // Who refused may yet take it, or another: until all is tried, or the time is up.
        if self.collected
            && self.moving.is_empty()
            && self.moves.is_empty()
            && !self
                .held
                .iter()
                .any(|address| self.heir(*address).is_some())
        {
            self.end();
        }
    }

    /// A hand-over ended, one way or the other.
    pub(super) fn moved_on(&mut self, address: IpAddr) {
        if self.moving.remove(&address) {
            self.next_moves();
        }
    }

    fn offer(&mut self, address: IpAddr, cause: Cause) {
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        if !matches!(hold.state, State::Holding | State::Contested { .. }) {
            return;
        }
        let Some(to) = self.successor(address) else {
            return;
        };
        let nonce = self.next_nonce();
        let until = self.now + OFFERED;
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.asks(nonce, self.now, self.still);
        }
        self.moving.insert(address);
        self.set_state(
            address,
            State::Offering {
                to,
                nonce,
                until,
                cause,
            },
        );
        self.send(Kind::Offer, to, to, nonce, address);
        self.timers.set(Deadline::Hold(address), self.now + OFFER);
    }

    pub(super) fn offering_due(&mut self, address: IpAddr) {
        let now = self.now;
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        let State::Offering {
            to, until, cause, ..
        } = hold.state
        else {
            return;
        };
        if now < until && self.alive(to) {
            let nonce = self.next_nonce();
            if let Some(peer) = self.peers.get_mut(&to) {
                peer.asks(nonce, now, self.still);
            }
            self.set_state(
                address,
                State::Offering {
                    to,
                    nonce,
                    until,
                    cause,
                },
            );
            self.send(Kind::Offer, to, to, nonce, address);
            self.timers.set(Deadline::Hold(address), now + OFFER);
        } else {
            self.set_state(address, State::Holding);
            self.declined(address, to);
            self.moved_on(address);
        }
    }

    /// A peer offers me an address.
    pub(super) fn offered(&mut self, frame: Frame, mac: Mac) {
        let (me, address, from) = (self.me, frame.address, frame.sender);
        let may =
            self.link && self.stopping.is_none() && !self.muted && !self.under_legacy(address);
        let Some(hold) = self.holds.get(&address) else {
            self.send_to(Kind::Refuse, mac, from, frame.nonce, address);
            return;
        };
        match hold.state {
            state if state.answers() => {
                self.send_to(Kind::Holding, mac, from, frame.nonce, address);
            }
            State::Standby | State::Asking { .. } if may && hold.eligible(me) => {
                self.wait_for(address, Some(from));
                self.enter(address, from, Cause::Moved);
            }
            State::Entering { from: other, .. } if other == from => {}
            _ => self.send_to(Kind::Refuse, mac, from, frame.nonce, address),
        }
    }

    /// Ready to take an address from its holder, asked or not.
    pub(super) fn enter(&mut self, address: IpAddr, from: NodeId, cause: Cause) {
        self.entering(address, from, 1, cause);
    }

    pub(super) fn entering(&mut self, address: IpAddr, from: NodeId, tries: u8, cause: Cause) {
        let nonce = self.next_nonce();
        if let Some(hold) = self.holds.get_mut(&address) {
            hold.state = State::Entering {
                from,
                nonce,
                tries,
                cause,
            };
            hold.holder = Some(from);
            hold.holder_died = false;
        }
        self.send(Kind::Ready, from, from, nonce, address);
        self.timers.set(Deadline::Hold(address), self.now + READY);
    }

    pub(super) fn entering_due(&mut self, address: IpAddr) {
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        let State::Entering {
            from, tries, cause, ..
        } = hold.state
        else {
            return;
        };
        if tries < READIES {
            self.entering(address, from, tries + 1, cause);
        } else {
            self.set_state(address, State::Standby);
            self.challenged(address);
            self.settle(address);
        }
    }

    /// A peer is ready to take an address from me.
    pub(super) fn readied(&mut self, frame: Frame, mac: Mac) {
        let (now, address, to) = (self.now, frame.address, frame.sender);
        if self.muted {
            return;
        }
        let calm = self.profile.calm;
        let damped = !self.mutated(Mutation::SkipDamping);
        let up = self.presence(to) == Some(true);
        let base = match self.profile.failback {
            Failback::After(wait) => wait,
            Failback::Never => Duration::ZERO,
        };
        let distrusted = self
            .peers
            .get(&to)
            .and_then(|peer| peer.distrusted(base))
            .is_some_and(|until| now < until);
        let me = self.me;
        let Some(hold) = self.holds.get_mut(&address) else {
            self.send_to(Kind::Alive, mac, to, frame.nonce, address);
            return;
        };
        let cause = match hold.state {
            State::Offering {
                to: offered, cause, ..
            } if offered == to => cause,
            State::Ceding {
                to: other, cause, ..
            } if other == to => cause,
            State::Holding
                if up
                    && (!damped
                        || hold.moved.is_none_or(|at| now >= at + calm)
                            && !(distrusted && hold.willing().contains(&me))) =>
            {
                Cause::Failback
            }
            state => {
                let kind = if state.answers() {
                    Kind::Refuse
                } else {
                    Kind::Alive
                };
                self.send_to(kind, mac, to, frame.nonce, address);
                return;
            }
        };
        hold.moved = Some(now);
        hold.query = None;
        hold.state = State::Ceding {
            to,
            mac,
            nonce: frame.nonce,
            tries: 0,
            cause,
        };
        self.moving.insert(address);
        self.burst.withdraw(&address);
        self.unannounced.remove(&address);
        if !self.mutated(Mutation::OwnMacWhileCeding) {
            self.out.push(Output::Answer(address, Some(mac)));
        }
        self.send_to(Kind::Go, mac, to, frame.nonce, address);
        self.timers.set(Deadline::Hold(address), now + GO);
    }

    /// The address is mine to take.
    pub(super) fn go(&mut self, frame: Frame) {
        let (address, old) = (frame.address, frame.sender);
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        if let State::Entering {
            from, nonce, cause, ..
        } = hold.state
            && (from, nonce) == (old, frame.nonce)
        {
            self.take(address, cause, Some(old));
        }
        if self.held.contains(&address) {
            self.send(Kind::Holding, old, old, frame.nonce, address);
        }
    }

    /// No answer to Go: says it again, and asks.
    pub(super) fn ceding_due(&mut self, address: IpAddr) {
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        let State::Ceding {
            to,
            mac,
            nonce,
            tries,
            cause,
        } = hold.state
        else {
            return;
        };
        if tries >= GOES || !self.alive(to) {
            self.not_ceded(address);
            return;
        }
        self.set_state(
            address,
            State::Ceding {
                to,
                mac,
                nonce,
                tries: tries + 1,
                cause,
            },
        );
        self.send_to(Kind::Go, mac, to, nonce, address);
        if tries > 0 {
            self.query(to, address, 1);
        }
        self.timers.set(Deadline::Hold(address), self.now + GO);
    }

    /// The new node holds it.
    pub(super) fn ceded(&mut self, address: IpAddr, to: NodeId) {
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        let cause = match hold.state {
            State::Ceding { cause, .. } | State::Offering { cause, .. } => cause,
            _ => Cause::Moved,
        };
        self.release(address, Some(to), cause);
    }

    /// The new node does not: it stays mine.
    pub(super) fn not_ceded(&mut self, address: IpAddr) {
        self.set_state(address, State::Holding);
        if let Some(hold) = self.holds.get_mut(&address) {
            hold.query = None;
        }
        self.timers.cancel(Deadline::Hold(address));
        self.out.push(Output::Answer(address, None));
        self.moved_on(address);
        self.settle(address);
    }

    /// The other does not want to give or take it now.
    pub(super) fn refused(&mut self, frame: Frame) {
        let (address, node) = (frame.address, frame.sender);
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        match hold.state {
            State::Entering { from, .. } if from == node => {
                hold.state = State::Standby;
                self.challenged(address);
                self.settle(address);
            }
            State::Offering { to, .. } if to == node => {
                hold.state = State::Holding;
                self.moving.remove(&address);
                self.declined(address, node);
                self.next_moves();
            }
            _ => {}
        }
    }
}
