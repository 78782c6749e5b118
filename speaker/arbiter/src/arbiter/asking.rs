//! Asking all for an address, before it is taken: at the pace, however many there are.

use std::net::IpAddr;
use std::time::Duration;

use super::{Arbiter, ms};
use crate::event::Cause;
use crate::frame::{Kind, NodeId};
use crate::hold::{Deadline, State};

/// From one Ask for an address to the next, and from the last to taking it.
pub(super) const ASK: Duration = ms(50);

/// How many Asks go unanswered before an address is taken.
const ASKS: u8 = 2;

/// How many Asks are waited out that somebody answers without a tag, who may be MetalLB's speaker leaving.
const LEGACY_ASKS: u8 = 20;

/// How many where it may be a peer whose tags do not pass; from the fifth on they are further apart.
const UNPROVEN_ASKS: u8 = 20;
const QUICK_ASKS: u8 = 4;
const SLOW: Duration = ms(200);

/// The Asks of a second are sent in slots of this length.
const SLOT: Duration = ms(10);

impl Arbiter {
    /// Asks all who holds the address.
    pub(super) fn ask(&mut self, address: IpAddr) {
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        let (round, nonce) = match hold.state {
            State::Asking { round, nonce, .. } => (round, nonce),
            _ => (0, None),
        };
        hold.state = State::Asking {
            round,
            nonce,
            queued: true,
        };
        if round == 0 {
            hold.plain = None;
        }
        self.timers.cancel(Deadline::Hold(address));
        self.ask_in_turn(address);
    }

    /// Asks when the pace allows.
    pub(super) fn ask_in_turn(&mut self, address: IpAddr) {
        self.asks.push_back(address);
        self.run_asks();
    }

    pub(super) fn run_asks(&mut self) {
        let now = self.now;
        let (start, _) = self.asked_in;
        if now >= start + SLOT {
            // A slot that began late is made up for, one at most.
            let start = (start + SLOT).max(now.checked_sub(SLOT).unwrap_or(now));
            self.asked_in = (start, 0);
        }
        while self.asked_in.1 < (self.profile.pace / 100).max(1) {
            let Some(address) = self.asks.pop_front() else {
                return;
            };
            if self.ask_now(address) {
                self.asked_in.1 += 1;
            }
        }
        if !self.asks.is_empty() {
            self.timers.set(Deadline::Asks, self.asked_in.0 + SLOT);
        }
    }

    /// Sends the Ask, if it is still wanted.
    fn ask_now(&mut self, address: IpAddr) -> bool {
        let nonce = self.nonce.wrapping_add(1);
        let Some(hold) = self.holds.get_mut(&address) else {
            return false;
        };
        match hold.state {
            State::Asking {
                round,
                queued: true,
                ..
            } => {
                let round = round.saturating_add(1);
                hold.state = State::Asking {
                    round,
                    nonce: Some(nonce),
                    queued: false,
                };
                hold.plain = None;
                let wait = if round > QUICK_ASKS && !self.under_legacy(address) {
                    SLOW
                } else {
                    ASK
                };
                self.timers.set(Deadline::Hold(address), self.now + wait);
            }
            state if state.mine() && hold.stranger.is_some() => {}
            _ => return false,
        }
        self.nonce = nonce;
        self.broadcast(Kind::Ask, NodeId::NOBODY, nonce, address);
        self.ask_each(address, nonce);
        true
    }

    /// The answers to the last Ask are in.
    pub(super) fn asking_due(&mut self, address: IpAddr, round: u8) {
        let legacy = self.under_legacy(address);
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        let unproven = |node: &NodeId| self.alive(*node) && self.presence(*node).is_none();
        let unproven = !legacy && hold.order().iter().any(unproven);
        // Where very many are asked for, once must do: should another node hold one after all, both will notice.
        let crowded = self.asks.len() > self.profile.pace as usize / 50;
        let denied = !legacy && !unproven && self.denied_by_all(address);
        match hold.plain {
            Some(_) if legacy && round < LEGACY_ASKS => self.ask(address),
            Some(_) if unproven && round < UNPROVEN_ASKS => self.ask(address),
            Some(mac) if !legacy && !hold.ours => self.kept_by_stranger(address, mac),
            _ if legacy => self.take(address, Cause::Legacy, None),
            _ if round < ASKS && !crowded && !denied => self.ask(address),
            _ => {
                let from = hold.holder;
                self.take(address, Cause::Unheld, from);
            }
        }
    }
}
