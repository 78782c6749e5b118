//! Strangers: who is none of ours and answers for an address all the same.
//!
//! Met while asking, before anybody of ours ever held the address (RFC 5227 section 2.1): it is not taken, and asked for
//! again every few seconds until nobody answers. Met while holding (section 2.4, case c): defended, a claim in 10 s at most,
//! kept, and looked for every 10 s until it is gone.
//!
//! Who answers single hosts is heard by nobody else, and claims nothing. So all that is held is asked for, one address after
//! the other, by the probe of RFC 5227: it changes nobody's cache, and peers let it be, since they do not hold the address.

use std::net::IpAddr;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::{Arbiter, ms};
use crate::event::Report;
use crate::frame::{Kind, Mac, NodeId};
use crate::hold::{Deadline, State, Stranger};

/// How long the first in order waits before it asks again for an address a stranger has; each further one waits as much
/// longer, up to a minute.
const RETRY: Duration = ms(5000);
const RETRY_MOST: u32 = 12;

/// From one defence, report or question about a stranger's claim to the next.
const DEFEND: Duration = ms(10_000);

/// How long nothing is heard of a stranger that is asked for before it is gone: two unanswered questions.
const GONE: Duration = ms(25_000);

/// From one question about what is held to the next, at least; ten intervals of the profile where that is more. And as many
/// times [`SHARE`] as there are peers: so many hosts hear each question.
const PATROL: Duration = ms(1000);
const SHARE: Duration = ms(50);

impl Arbiter {
    /// Without a tag, read `at`: `address` is at `mac`.
    pub(super) fn plain(&mut self, address: IpAddr, mac: Mac, unasked: bool, at: Instant) {
        let now = self.now;
        if let Some(node) = self.kernels.get(&address).copied() {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.kernel = peer.kernel.max(Some(at));
            }
            return;
        }
        self.heard_host = self.heard_host.max(Some(at));
        let legacy = self.under_legacy(address);
        let peer = self
            .peers
            .iter()
            .find(|(_, peer)| peer.mac == Some(mac))
            .map(|(node, _)| *node);
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        match hold.state {
            // From a cache of the fabric, a peer's own kernel, or somebody else altogether.
            State::Asking { .. } if !unasked && (peer.is_none() || legacy) => {
                hold.plain = Some(mac);
            }
            State::LegacyLeaving { .. } if unasked => {
                self.release(address, None, crate::event::Cause::Legacy);
            }
            state if state.mine() => {
                if peer.is_none() && !legacy {
                    let ask_at = hold.stranger.map_or(now + DEFEND, |known| known.ask_at);
                    hold.stranger = Some(Stranger { seen: now, ask_at });
                    self.timers.set(Deadline::Stranger(address), ask_at);
                }
                self.dispute(address, mac, unasked, peer, legacy);
            }
            _ => {}
        }
    }

    /// Somebody without a tag disputes what I hold: says so and defends it, both once in a while only.
    fn dispute(
        &mut self,
        address: IpAddr,
        mac: Mac,
        unasked: bool,
        peer: Option<NodeId>,
        legacy: bool,
    ) {
        let now = self.now;
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        if hold.defended.is_some_and(|at| now < at + DEFEND) {
            return;
        }
        hold.defended = Some(now);
        if let Some(node) = peer {
            self.report(Report::StrictArp { node, address });
        } else if !legacy {
            self.report(Report::Stranger {
                address,
                mac,
                speaks: true,
            });
        }
        if (unasked || peer.is_none() && !legacy) && self.may_claim() {
            let nonce = self.next_nonce();
            self.broadcast(Kind::Claim, NodeId::NOBODY, nonce, address);
        }
    }

    /// Asked for the address, and a stranger answered: not mine to take. Looks again later.
    pub(super) fn kept_by_stranger(&mut self, address: IpAddr, mac: Mac) {
        let now = self.now;
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        let me = self.me;
        let before = hold.order().iter().take_while(|node| **node != me);
        let before = before.filter(|node| self.alive(**node));
        let turns = u32::try_from(before.take(RETRY_MOST as usize).count()).unwrap_or(RETRY_MOST);
        let ask_at = now + RETRY * (turns + 1).min(RETRY_MOST);
        if let Some(hold) = self.holds.get_mut(&address) {
            hold.state = State::Standby;
            hold.plain = None;
            hold.stranger = Some(Stranger { seen: now, ask_at });
        }
        self.report(Report::Stranger {
            address,
            mac,
            speaks: turns == 0,
        });
        self.timers.set(Deadline::Hold(address), ask_at);
    }

    /// Whoever disputed the address: it is no matter of mine any more.
    pub(super) fn forget_stranger(&mut self, address: IpAddr) {
        if let Some(hold) = self.holds.get_mut(&address)
            && hold.stranger.take().is_some()
        {
            self.timers.cancel(Deadline::Stranger(address));
            self.report(Report::StrangerGone { address });
        }
    }

    /// Looks whether the stranger is still there that disputes what I hold.
    pub(super) fn stranger_due(&mut self, address: IpAddr) {
        let now = self.now;
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        let Some(stranger) = hold.stranger.as_mut().filter(|_| hold.state.answers()) else {
            return;
        };
        if now > stranger.seen + GONE {
            self.forget_stranger(address);
            return;
        }
        stranger.ask_at = now + DEFEND;
        self.timers.set(Deadline::Stranger(address), now + DEFEND);
        self.ask_in_turn(address);
    }

    /// Sees to it that strangers are looked for while anything is held.
    pub(super) fn patrol(&mut self) {
        let crowd = SHARE * u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        let wait = PATROL.max(self.profile.interval * 10).max(crowd);
        self.timers.set_earlier(Deadline::Patrol, self.now + wait);
    }

    /// Asks for the next of what is held: a stranger that has it answers.
    pub(super) fn patrol_due(&mut self) {
        let after = self.patrolled.map_or(Bound::Unbounded, Bound::Excluded);
        let mut later = self.held.range((after, Bound::Unbounded));
        let Some(address) = later.next().or_else(|| self.held.first()).copied() else {
            return;
        };
        self.patrolled = Some(address);
        self.patrol();
        let hold = self.holds.get(&address);
        if hold.is_some_and(|hold| hold.state == State::Holding) && self.may_claim() {
            let nonce = self.next_nonce();
            self.broadcast(Kind::Ask, NodeId::NOBODY, nonce, address);
        }
    }
}
