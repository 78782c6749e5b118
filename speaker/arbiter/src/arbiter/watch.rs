//! Evidence: who is there. Probes along the ring, suspicion, vouching, verdicts.

use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::{Duration, Instant};

use super::{Arbiter, ms};
use crate::event::{Output, Report};
use crate::frame::{Frame, Kind, Mac, NodeId};
use crate::hold::Deadline;
use crate::mutation::Mutation;
use crate::peer::{Liveness, Peer, Suspicion};

/// How many of a peer's nearest on the ring vouch for it and follow an Ask about it even if no address depends on it.
pub(super) const NEAR: usize = 8;

/// How many own stalls in a row excuse the silence of a peer.
const EXCUSED: u32 = 6;

/// For how long a peer is not suspected that others hear.
const VOUCHED: Duration = ms(1500);

impl Arbiter {
    /// The peers before me on the ring, nearest first.
    fn before_me(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        let after = self.peers.range((Excluded(self.me), Unbounded)).rev();
        let before = self.peers.range(..self.me).rev();
        before.chain(after).map(|(node, peer)| (*node, peer))
    }

    /// Whom I watch: walking back, everybody up to the `watchers`-th that is up.
    fn watched(&self) -> impl Iterator<Item = NodeId> {
        let mut up = 0;
        self.before_me()
            .filter(|(_, peer)| !peer.legacy)
            .take_while(move |(_, peer)| {
                let near = up < self.profile.watchers;
                up += usize::from(matches!(peer.state, Liveness::Up | Liveness::Suspect));
                near
            })
            .map(|(node, _)| node)
    }

    pub(super) fn watches(&self, node: NodeId) -> bool {
        self.watched().any(|other| other == node)
    }

    fn near(&self, node: NodeId) -> bool {
        self.before_me().take(NEAR).any(|(other, _)| other == node)
    }

    /// The ring changed: look after everybody who is mine to watch now.
    pub(super) fn rewatch(&mut self) {
        let watched: Vec<NodeId> = self.watched().collect();
        for node in watched {
            self.timers
                .set_earlier(Deadline::Peer(node), self.now + self.profile.interval);
        }
    }

    /// Without any address nobody is asked anything, so that silence since proves nothing and no deadline stands: all begins
    /// anew, with the nodes as they were last seen.
    pub(super) fn watch_again(&mut self) {
        let now = self.now;
        for (node, peer) in &mut self.peers {
            peer.probed = None;
            peer.next_probe = now;
            self.timers.set_earlier(Deadline::Peer(*node), now);
        }
    }

    /// An address to ask the peer about: in turn one it should hold, and one I hold that it might hold too.
    pub(super) fn next_address(&mut self, node: NodeId) -> Option<IpAddr> {
        let after = |set: Option<&std::collections::BTreeSet<IpAddr>>, last: Option<IpAddr>| {
            let set = set?;
            last.and_then(|last| set.range((Excluded(last), Unbounded)).next())
                .or_else(|| set.first())
                .copied()
        };
        let peer = self.peers.get(&node)?;
        let [its, mine] = peer.turn;
        let next_its = after(self.waiting.get(&node), its);
        let next_mine = after(Some(&self.held), mine);
        // The one whose turn was longer ago goes first; the shell sees no difference between the two.
        let turn_of_mine = self.nonce & 1 == 0;
        let chosen = match (next_its, next_mine) {
            (Some(its), Some(mine)) => Some(if turn_of_mine { mine } else { its }),
            (its, mine) => its.or(mine),
        };
        let peer = self.peers.get_mut(&node)?;
        if chosen.is_some() && chosen == next_mine && (turn_of_mine || next_its.is_none()) {
            peer.turn = [its, chosen];
        } else if chosen.is_some() {
            peer.turn = [chosen, mine];
        }
        chosen.or_else(|| self.holds.keys().next().copied())
    }

    /// Asks a peer whether it is there.
    pub(super) fn probe(&mut self, node: NodeId, address: Option<IpAddr>) {
        let Some(address) = address.or_else(|| self.next_address(node)) else {
            return;
        };
        let nonce = self.next_nonce();
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(&node)
            && let Some(mac) = peer.mac
        {
            peer.asks(nonce, now, self.still);
            self.send_to(Kind::Probe, mac, node, nonce, address);
        }
    }

    /// The deadline of a peer has come.
    pub(super) fn peer_due(&mut self, node: NodeId) {
        if !self.link || self.holds.is_empty() {
            return;
        }
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        match peer.state {
            Liveness::Unknown => self.introduce_to(node),
            Liveness::Up => self.watch(node),
            Liveness::Suspect => self.suspect_due(node),
            Liveness::Down => self.look_for(node),
        }
    }

    fn watch(&mut self, node: NodeId) {
        let (now, profile) = (self.now, self.profile);
        let watched = self.watches(node);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if !watched && !peer.declared && !peer.deaf {
            peer.probed = None;
            return;
        }
        if let Some(probed) = peer.probed
            && peer.answered.is_none_or(|at| at < probed)
        {
            if now >= probed + profile.timeout {
                peer.probed = None;
                self.missed(node);
            } else {
                self.timers
                    .set(Deadline::Peer(node), probed + profile.timeout);
            }
            return;
        }
        if now < peer.next_probe {
            let at = peer.next_probe;
            self.timers.set(Deadline::Peer(node), at);
            return;
        }
        if peer.declared {
            self.tell(node);
        }
        let next = self.next_round(node);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.probed = Some(now);
            peer.next_probe = next;
        }
        self.probe(node, None);
        self.answer_due = now + profile.timeout;
        self.timers.set(Deadline::Peer(node), self.answer_due);
    }

    /// A peer probes me. Whom I would probe soon I probe at once: so two that watch each other fall into step, and each wakes
    /// for the other's question and answer together.
    pub(super) fn probe_in_step(&mut self, node: NodeId) {
        let (now, soon) = (self.now, self.now + self.profile.interval / 5);
        let watched = self.watches(node);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let waits = peer
            .probed
            .is_some_and(|probed| peer.answered.is_none_or(|at| at < probed));
        let plain = peer.state == Liveness::Up && !peer.deaf && !peer.declared;
        if watched && plain && !waits && peer.next_probe <= soon && !self.holds.is_empty() {
            peer.next_probe = now;
            self.watch(node);
        }
    }

    /// When a peer that is probed now is probed again: after the interval ± 10 %, together with another if that is due within
    /// this. So all fall into step before long, and a node wakes once for those it watches.
    fn next_round(&self, node: NodeId) -> Instant {
        let tenth = self.profile.interval / 10;
        let earliest = self.now + 9 * tenth;
        let others = self.watched().filter(|other| *other != node);
        let mut others = others.filter_map(|other| Some(self.peers.get(&other)?.next_probe));
        let together = others.find(|at| (earliest..=earliest + 2 * tenth).contains(at));
        together.unwrap_or_else(|| {
            let spread = u32::try_from(2 * tenth.as_micros()).unwrap_or(u32::MAX);
            earliest + Duration::from_micros(self.chance(1, spread).into())
        })
    }

    /// A peer that is up did not answer in time.
    fn missed(&mut self, node: NodeId) {
        let (now, interval, window) = (self.now, self.profile.interval, self.hearing_window());
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if peer.deaf {
            let long = ms(1500).max(3 * interval);
            let seen = peer.seen.is_some_and(|at| now < at + long);
            // That it hears nothing at all shows only where there was something to hear.
            let quiet = peer
                .seen_hearing
                .is_none_or(|at| now >= at + long + ms(500));
            let missed = self
                .heard_host
                .is_some_and(|host| peer.seen_hearing.is_none_or(|at| host > at + 2 * window));
            let hearing = !quiet || !missed;
            if seen && hearing {
                let next = peer.next_probe.max(now);
                self.timers.set(Deadline::Peer(node), next);
                return;
            }
            peer.deaf = false;
        }
        if peer.vouched.is_some_and(|until| now < until) {
            let next = peer.next_probe.max(now);
            self.timers.set(Deadline::Peer(node), next);
            self.ask_about(node);
            return;
        }
        self.suspect(node);
        self.ask_about(node);
    }

    /// Asks all about a peer: once a second at most, or when it has answered since; and not if somebody else just did.
    pub(super) fn ask_about(&mut self, node: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        let gap = |at| {
            if peer.answered.is_some_and(|answered| answered > at) {
                ms(200)
            } else {
                ms(1000)
            }
        };
        if peer.own_ask.is_some_and(|at| now < at + gap(at))
            || peer.asked.is_some_and(|(_, at)| now < at + ms(100))
        {
            return;
        }
        let Some(address) = self.next_address(node) else {
            return;
        };
        let nonce = self.next_nonce();
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.own_ask = Some(now);
            peer.asked = Some((nonce, now));
            peer.vouched_ask = None;
            peer.asks(nonce, now, self.still);
        }
        self.broadcast(Kind::Ask, node, nonce, address);
    }

    fn suspect(&mut self, node: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if peer.state != Liveness::Up {
            return;
        }
        peer.state = Liveness::Suspect;
        peer.suspicion = Some(Suspicion {
            since: now,
            floor: None,
            probes: 0,
            probed: None,
            enough: None,
        });
        self.suspect_due(node);
    }

    fn suspect_due(&mut self, node: NodeId) {
        let (now, profile) = (self.now, self.profile);
        let ask_kernel = !self.mutated(Mutation::SkipKernel);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let Some(mut suspicion) = peer.suspicion else {
            return;
        };
        if suspicion.probed.is_none_or(|at| now >= at + profile.retry) {
            suspicion.probed = Some(now);
            suspicion.probes += 1;
            if suspicion.probes == 2 && self.heard.is_none_or(|at| at < suspicion.since) {
                // Before the verdict: is it me who hears nothing?
                self.out.push(Output::AskAround);
            }
            if suspicion.probes == profile.retries {
                suspicion.enough = Some(now + profile.timeout);
            }
            peer.suspicion = Some(suspicion);
            if let (Some(address), Some(mac), true) = (peer.node_address, peer.mac, ask_kernel) {
                self.out.push(Output::AskKernel(address, mac));
            }
            self.probe(node, None);
        }
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        let (from, patience) = peer.patience(&profile, &suspicion, ask_kernel);
        let next_probe = suspicion.probed.unwrap_or(now) + profile.retry;
        let Some(mut verdict) = suspicion.enough.map(|enough| enough.max(from + patience)) else {
            self.timers.set(Deadline::Peer(node), next_probe);
            return;
        };
        // Others were asked, and had the time to vouch.
        let since = suspicion.since;
        let asked = peer.asked.map(|(_, at)| at + profile.timeout);
        if let Some(answered) = asked.filter(|at| *at >= since) {
            verdict = verdict.max(answered);
        } else {
            self.ask_about(node);
            verdict = verdict.max(now + profile.timeout);
        }
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        // Frames of its own: it may be deaf to me alone. What it hears later than my first probe shows that.
        let window = self.hearing_window();
        if peer.seen.is_some_and(|at| at >= suspicion.since) {
            verdict = verdict.max(suspicion.since + 2 * window + ms(10));
        }
        if now < verdict {
            self.timers
                .set(Deadline::Peer(node), verdict.min(next_probe));
        } else if peer
            .seen_hearing
            .is_some_and(|at| at >= suspicion.since + window + ms(5))
            && !self.mutated(Mutation::SkipDeaf)
        {
            self.deaf(node);
        } else {
            self.down(node, suspicion);
        }
    }

    fn down(&mut self, node: NodeId, suspicion: Suspicion) {
        let now = self.now;
        let hearing = self.heard.is_some_and(|at| at >= suspicion.since)
            || self.mutated(Mutation::SkipHearing);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let silent = now.saturating_duration_since(peer.answered.unwrap_or(suspicion.since));
        let kernel = peer.kernel_speaks(&suspicion);
        peer.state = Liveness::Down;
        peer.suspicion = None;
        peer.probed = None;
        peer.down_since = Some(now);
        peer.deaf_since = None;
        peer.declared = hearing;
        peer.told = (0, None);
        peer.next_probe = now + ms(100);
        self.report(Report::Down {
            node,
            silent,
            kernel,
        });
        self.timers.set(Deadline::Peer(node), now + ms(100));
        self.settle_waiting(node);
        self.settle_staying();
        self.rewatch();
    }

    /// A fresh answer came.
    pub(super) fn answered(&mut self, node: NodeId, mac: Mac, kind: Kind) {
        let now = self.now;
        let near = self.near(node);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let was = peer.state;
        let was_deaf = peer.deaf;
        peer.state = Liveness::Up;
        peer.mac = Some(mac);
        peer.answered = Some(now);
        peer.excused = 0;
        peer.suspicion = None;
        peer.deaf = false;
        peer.deaf_since = None;
        if matches!(was, Liveness::Unknown | Liveness::Down) {
            peer.returns(was == Liveness::Down, now);
        }
        peer.down_since = None;
        peer.vouched = None;
        peer.expect();
        let vouch = peer
            .asked
            .filter(|(nonce, at)| near && now < *at + ms(1000) && peer.vouched_ask != Some(*nonce));
        if was != Liveness::Up {
            peer.probed = None;
            peer.next_probe = now + self.profile.interval;
        }
        // Not at the end of the time it had to answer: there is nothing left to see to then.
        if was != Liveness::Up || peer.probed.is_some() {
            let at = peer.next_probe.max(now);
            self.timers.set(Deadline::Peer(node), at);
        }
        if let Some((nonce, _)) = vouch
            && !self.mutated(Mutation::SkipVouch)
        {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.vouched_ask = Some(nonce);
            }
            if let Some(address) = self.holds.keys().next().copied() {
                self.broadcast(Kind::Vouch, node, nonce, address);
            }
        }
        if was_deaf {
            self.concede_all(node);
        }
        match was {
            Liveness::Up => {}
            Liveness::Suspect => self.report(Report::Refuted(node)),
            Liveness::Unknown | Liveness::Down => self.met(node, kind),
        }
    }

    /// Somebody asks about a peer.
    pub(super) fn asked_about(&mut self, frame: Frame) {
        let now = self.now;
        let concerned = self.near(frame.subject)
            || self
                .waiting
                .get(&frame.subject)
                .is_some_and(|its| !its.is_empty());
        let Some(peer) = self.peers.get_mut(&frame.subject) else {
            return;
        };
        peer.asked = Some((frame.nonce, now));
        peer.vouched_ask = None;
        if peer.deaf || !concerned {
            return;
        }
        match peer.state {
            Liveness::Up => self.suspect(frame.subject),
            // Its answers to the probes under way will be vouched for.
            Liveness::Suspect | Liveness::Unknown | Liveness::Down => {}
        }
    }

    /// A peer vouches for another.
    pub(super) fn vouched(&mut self, frame: &Frame) {
        let now = self.now;
        if !matches!(self.presence(frame.sender), Some(true)) || self.mutated(Mutation::SkipVouch) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&frame.subject) else {
            return;
        };
        if peer.asked.is_none_or(|(nonce, _)| nonce != frame.nonce) {
            return;
        }
        if peer.state == Liveness::Unknown {
            peer.spoken_for = Some(now);
            peer.expect();
        } else if peer.state == Liveness::Suspect {
            peer.state = Liveness::Up;
            peer.suspicion = None;
            peer.probed = None;
            peer.vouched = Some(now + VOUCHED);
            peer.next_probe = now + self.profile.interval;
            let at = peer.next_probe;
            self.timers.set(Deadline::Peer(frame.subject), at);
            self.report(Report::CannotHear(frame.subject));
        } else if peer.vouched.is_some() {
            peer.vouched = Some(now + VOUCHED);
        }
    }

    /// Own stalls: what was not heard in them proves nothing.
    pub(super) fn restart_windows(&mut self) {
        let now = self.now;
        let mut again = Vec::new();
        for (node, peer) in &mut self.peers {
            // Who stands still all the time would never come to a verdict.
            if peer.excused >= EXCUSED {
                continue;
            }
            if peer.state == Liveness::Suspect {
                peer.suspicion = Some(Suspicion {
                    since: now,
                    floor: Some(now),
                    probes: 0,
                    probed: None,
                    enough: None,
                });
                peer.excused += 1;
                again.push(*node);
            } else if peer.state == Liveness::Up && peer.probed.take().is_some() {
                peer.next_probe = now;
                peer.excused += 1;
                again.push(*node);
            }
        }
        for node in again {
            self.timers.set(Deadline::Peer(node), now);
        }
    }
}
