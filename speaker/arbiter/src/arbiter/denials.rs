//! A fresh address: where all others say to the face that they do not hold it, there is nothing to wait for.
//!
//! An Ask is answered by who holds the address, so that none holds it is known only when its answer would have been there.
//! Where there are few peers and few addresses to be asked for, each peer is asked by a probe, too, which it answers either
//! way. Who is silent, or says anything else, leaves everything to the Asks.

use std::net::IpAddr;
use std::time::Duration;

use super::{Arbiter, ms};
use crate::frame::{Kind, NodeId};
use crate::hold::{Deadline, Denials, State};
use crate::peer::Liveness;

/// How many peers are asked so at most.
const FEW: usize = 8;

/// How many Asks of a slot are backed by such questions at most.
const BACKED: u32 = 5;

/// How long a stranger has to answer the Ask, whom nobody can speak for: a host's kernel answers in well under a
/// millisecond.
const STRANGER: Duration = ms(10);

impl Arbiter {
    /// After the Ask with this nonce: asks each peer, where all are there and few.
    pub(super) fn ask_each(&mut self, address: IpAddr, nonce: u32) {
        let now = self.now;
        let crowded = !self.asks.is_empty() || self.asked_in.1 >= BACKED;
        let alive = self.peers.iter().filter(|(_, peer)| peer.alive());
        let alive: Vec<(NodeId, bool)> = alive
            .map(|(node, peer)| {
                let there = peer.state == Liveness::Up && peer.mac.is_some() && !peer.legacy;
                (*node, there)
            })
            .take(FEW + 1)
            .collect();
        let known = alive.len() <= FEW && alive.iter().all(|(_, there)| *there);
        let legacy = self.under_legacy(address);
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        hold.denials = None;
        let first = matches!(hold.state, State::Asking { round: 1, .. });
        if !first || crowded || !known || alive.is_empty() || legacy {
            return;
        }
        let wait = if hold.ours { Duration::ZERO } else { STRANGER };
        hold.denials = Some(Box::new(Denials {
            nonce,
            left: alive.iter().map(|(node, _)| *node).collect(),
            at: now + wait,
        }));
        for (node, _) in alive {
            self.send(Kind::Probe, node, node, nonce, address);
        }
    }

    /// A peer says that it does not hold an address I ask for.
    pub(super) fn denies(&mut self, address: IpAddr, node: NodeId, nonce: u32) {
        let now = self.now;
        let Some(hold) = self.holds.get_mut(&address) else {
            return;
        };
        let State::Asking { nonce: last, .. } = hold.state else {
            return;
        };
        let current = |denials: &&mut Box<Denials>| denials.nonce == nonce && last == Some(nonce);
        let Some(denials) = hold.denials.as_mut().filter(current) else {
            return;
        };
        if denials.left.remove(&node) && denials.left.is_empty() {
            let at = denials.at.max(now);
            self.timers.set(Deadline::Hold(address), at);
        }
    }

    /// Whether all have said so of the address since it was asked for last.
    pub(super) fn denied_by_all(&self, address: IpAddr) -> bool {
        let Some(hold) = self.holds.get(&address) else {
            return false;
        };
        let State::Asking { nonce, .. } = hold.state else {
            return false;
        };
        hold.denials
            .as_ref()
            .is_some_and(|denials| Some(denials.nonce) == nonce && denials.left.is_empty())
    }
}
