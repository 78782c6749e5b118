//! What Kubernetes, gossip and the kernel say: peers, views, the carrier, the end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};

use super::acquaint::FIRST;
use super::{Arbiter, STOP, ms};
use crate::event::{Candidates, Output, PeerFacts};
use crate::frame::NodeId;
use crate::hold::{Deadline, Hold};
use crate::peer::{Liveness, Peer};

/// How many addresses are decided again before other deadlines are seen to, at most; and how many pairs of an address and
/// a node, since each address looks through all nodes.
const SETTLED_AT_ONCE: usize = 256;
const PAIRS_AT_ONCE: usize = 8192;

impl Arbiter {
    pub(super) fn set_peers(&mut self, facts: &[PeerFacts]) {
        let now = self.now;
        let was: BTreeMap<NodeId, (bool, bool)> = self
            .peers
            .iter()
            .map(|(node, peer)| (*node, (peer.alive(), peer.believed_alive())))
            .collect();
        let believed: BTreeMap<NodeId, Option<bool>> = self
            .peers
            .iter()
            .map(|(node, peer)| (*node, peer.believed))
            .collect();
        for peer in self.peers.values_mut() {
            peer.listed = false;
            peer.believed = None;
            peer.legacy = false;
        }
        self.kernels.clear();
        for facts in facts.iter().filter(|facts| facts.node != self.me) {
            let peer = self
                .peers
                .entry(facts.node)
                .or_insert_with(|| Peer::new(now));
            if peer.state == Liveness::Unknown
                && facts.believed == Some(true)
                && believed.get(&facts.node) != Some(&Some(true))
            {
                // It may be coming just now.
                peer.expect();
                peer.known = now;
            }
            peer.learn(facts);
            if facts.legacy && peer.state != Liveness::Unknown {
                // MetalLB's speaker took the place of ours: what ours showed is past.
                peer.forget(now);
                peer.state = Liveness::Unknown;
            }
            if let Some(address) = facts.address {
                self.kernels.insert(address, facts.node);
            }
        }
        self.peers.retain(|_, peer| {
            peer.listed || matches!(peer.state, Liveness::Up | Liveness::Suspect)
        });
        let legacy = self.peers.values().any(|peer| peer.legacy);
        self.legacy = legacy;
        let changed: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(node, peer)| {
                was.get(node)
                    .is_some_and(|was| *was != (peer.alive(), peer.believed_alive()))
            })
            .map(|(node, _)| *node)
            .chain(
                was.keys()
                    .filter(|node| !self.peers.contains_key(node))
                    .copied(),
            )
            .collect();
        let new = self.peers.keys().any(|node| !was.contains_key(node));
        let unproven = |node: &NodeId| self.presence(*node).is_none();
        if legacy || new || changed.iter().any(unproven) {
            self.settle_all();
        } else {
            for node in changed {
                self.settle_waiting(node);
            }
        }
        self.rewatch();
        // The first introductions keep their pace, so that each can be answered before the next.
        if self.hellos >= FIRST {
            self.timers.set_earlier(Deadline::Hello, self.now);
        }
    }

    pub(super) fn set_view(&mut self, address: IpAddr, candidates: Option<Candidates>) {
        let first = self.holds.is_empty();
        let hold = self
            .holds
            .entry(address)
            .or_insert_with(|| Box::new(Hold::new()));
        if hold.candidates == candidates && candidates.is_some() {
            return;
        }
        hold.candidates = candidates;
        hold.challenge_at = None;
        hold.challenges = 0;
        hold.orphan_at = None;
        hold.rounds = 0;
        hold.offer_at = None;
        if first && self.link {
            self.introduce();
            self.watch_again();
        }
        self.settle(address);
    }

    pub(super) fn set_link(&mut self, up: bool) {
        if up == self.link {
            return;
        }
        self.link = up;
        self.stable_since = self.now;
        self.heard = None;
        self.heard_host = None;
        let now = self.now;
        for peer in self.peers.values_mut() {
            peer.forget(now);
        }
        for hold in self.holds.values_mut() {
            hold.holder = None;
            hold.orphan_at = None;
        }
        if up {
            self.introduce();
        }
        self.settle_at_once();
    }

    pub(super) fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(self.now);
        self.timers.set(Deadline::Stop, self.now + STOP);
        self.settle_at_once();
        self.collected = true;
        self.next_moves();
    }

    pub(super) fn end(&mut self) {
        if !self.stopped {
            self.stopped = true;
            self.out.push(Output::Stopped);
        }
    }

    /// Decides again about every address: about some at once, and about the others in the milliseconds that follow, so that
    /// no deadline is missed however many there are.
    pub(super) fn settle_all(&mut self) {
        self.unsettled.extend(self.holds.keys());
        self.settle_some();
    }

    /// The same before anything else happens.
    fn settle_at_once(&mut self) {
        self.unsettled.clear();
        let addresses: Vec<IpAddr> = self.holds.keys().copied().collect();
        for address in addresses {
            self.settle(address);
        }
    }

    pub(super) fn settle_some(&mut self) {
        let some = PAIRS_AT_ONCE / (self.peers.len() + 1);
        for _ in 0..some.clamp(1, SETTLED_AT_ONCE) {
            // In turn, so that all come to it however often it begins anew.
            let after = self.last_settled.map_or(Unbounded, Excluded);
            let next = self.unsettled.range((after, Unbounded)).next();
            let Some(address) = next.or_else(|| self.unsettled.first()).copied() else {
                return;
            };
            self.unsettled.remove(&address);
            self.last_settled = Some(address);
            self.settle(address);
        }
        if !self.unsettled.is_empty() {
            self.timers.set(Deadline::Settle, self.now + ms(1));
        }
    }

    pub(super) fn settle_waiting(&mut self, node: NodeId) {
        let addresses: Vec<IpAddr> = self
            .waiting
            .get(&node)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for address in addresses {
            self.settle(address);
        }
    }
}
