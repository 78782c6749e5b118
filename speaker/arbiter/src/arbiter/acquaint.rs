//! Acquaintance: introductions, and the return of those who were lost or whom one was lost to.

use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::{Duration, Instant};

use super::watch::NEAR;
use super::{Arbiter, HELLO, ms};
use crate::event::{Cause, Output, Report};
use crate::frame::{Frame, Kind, Mac, NodeId};
use crate::hold::{Deadline, Hold};
use crate::mutation::Mutation;
use crate::peer::{BLIND, Liveness, Peer};

/// How often who was down is told so.
const TELLINGS: u32 = 20;

/// How long who was never seen here may take to show itself before anybody is asked about it.
const SHOWN: Duration = ms(800);

/// How often all are asked about a node gossip has alive that never showed itself here, how long the answers to the last
/// may take, and for how long a vouch for it counts.
const SOUGHT: u32 = 3;
const SOUGHT_LAST: Duration = ms(300);
const SPOKEN_FOR: Duration = ms(30_000);

/// For how long who was away yields to whoever holds what it held, whatever the order.
const AWAY: Duration = ms(2000);

/// How many introductions, 200 ms apart, are to all.
pub(super) const FIRST: u32 = 3;

/// How long all together take to answer who introduces itself, so that its socket holds their answers, and before it does so
/// again, 200 ms later; and as how many may do so in a millisecond.
const GREETED: Duration = ms(150);
const GREETED_AT_ONCE: usize = 8;

impl Arbiter {
    /// A peer that is Unknown or Down showed itself: find out, ten times a second at most.
    pub(super) fn wonder(&mut self, node: NodeId, hearing: bool) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if now >= peer.next_probe
            || peer.state == Liveness::Unknown && peer.answered.is_none() && peer.probed.is_none()
        {
            peer.next_probe = now + ms(100);
            peer.probed = Some(now);
            self.probe(node, None);
            self.timers.set(Deadline::Peer(node), now + ms(100));
        }
        // It hears others and not me: it lives, and holds what it held.
        if hearing
            && let Some(peer) = self.peers.get_mut(&node)
            && let Some(since) = peer.down_since
            && peer.state == Liveness::Down
            && now > since + ms(200)
        {
            // Three frames, none long after the one before: a single one may be late, or repeated by somebody.
            match peer.deaf_since {
                Some((first, last)) if now < last + ms(1500) => {
                    let second = first.unwrap_or(now);
                    peer.deaf_since = Some((Some(second), now));
                    if now >= second + ms(150) {
                        self.deaf(node);
                    }
                }
                _ => peer.deaf_since = Some((None, now)),
            }
        }
    }

    /// The peer does not hear me. Who hears yields: it keeps what it held.
    pub(super) fn deaf(&mut self, node: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let was = peer.state;
        peer.deaf = true;
        peer.state = Liveness::Up;
        peer.suspicion = None;
        peer.declared = false;
        peer.next_probe = now + self.profile.interval;
        peer.probed = None;
        self.timers
            .set(Deadline::Peer(node), now + self.profile.interval);
        self.report(Report::CannotBeHeard(node));
        if was == Liveness::Down && !self.mutated(Mutation::SkipDeaf) {
            let its: Vec<IpAddr> = self
                .held
                .iter()
                .filter(|address| {
                    self.holds
                        .get(address)
                        .is_some_and(|hold| hold.taken_from == Some(node))
                })
                .copied()
                .collect();
            for address in its {
                self.release(address, Some(node), Cause::Conflict);
            }
        }
    }

    pub(super) fn introduce_to(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        if peer.legacy {
            return;
        }
        let awaited = peer.awaited;
        if peer.mac.is_some() {
            self.probe(node, None);
            self.timers.set(Deadline::Peer(node), self.now + ms(1000));
        }
        if awaited {
            self.seek(node);
        }
    }

    /// An address waits for nodes before me that never showed themselves here: asks all about them.
    pub(super) fn seek_better(&mut self, address: IpAddr) {
        let (me, now) = (self.me, self.now);
        let Some(hold) = self.holds.get(&address) else {
            return;
        };
        let unproven = |node: &NodeId| {
            self.peers
                .get(node)
                .is_some_and(|peer| peer.sought_for() && !peer.awaited)
        };
        let before = hold.order().iter().take_while(|node| **node != me);
        let sought: Vec<NodeId> = before.copied().filter(unproven).take(NEAR).collect();
        for node in sought {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.awaited = true;
                let at = now.max(peer.known + SHOWN);
                self.timers.set_earlier(Deadline::Peer(node), at);
            }
        }
    }

    /// Gossip has it alive, and it never showed itself here. Others are here, so that tags pass: who hears it vouches. If it
    /// stays silent and nobody does, it is not on this segment: it has no carrier or no interface here.
    fn seek(&mut self, node: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        if !peer.sought_for() {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.awaited = false;
            }
            return;
        }
        if now < peer.known + SHOWN {
            self.timers
                .set_earlier(Deadline::Peer(node), peer.known + SHOWN);
            return;
        }
        // Whoever would vouch is there: it answered me of late.
        let late = ms(1000).max(2 * self.profile.interval);
        let witness = self.peers.iter().any(|(other, peer)| {
            *other != node
                && peer.state == Liveness::Up
                && peer.answered.is_some_and(|at| now < at + late)
        });
        let recent = |at: Option<Instant>, long| at.is_some_and(|at| now < at + long);
        let next = if recent(peer.spoken_for, SPOKEN_FOR) || recent(peer.seen, BLIND) || !witness {
            ms(1000)
        } else if peer.sought < SOUGHT {
            self.ask_about(node);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.sought += 1;
                if peer.sought == SOUGHT {
                    SOUGHT_LAST
                } else {
                    ms(1000)
                }
            } else {
                return;
            }
        } else if now < peer.known + BLIND {
            ms(100)
        } else {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.absent = true;
                peer.awaited = false;
            }
            self.settle_all();
            return;
        };
        self.timers.set_earlier(Deadline::Peer(node), now + next);
    }

    /// Looks for a peer that is down: who watches it, and who took addresses from it.
    pub(super) fn look_for(&mut self, node: NodeId) {
        let now = self.now;
        let downs = self
            .peers
            .values()
            .filter(|peer| peer.state == Liveness::Down)
            .count();
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        let long = peer
            .down_since
            .is_some_and(|since| now > since + ms(10_000));
        let closely = self.watches(node) || self.holds_of(node, Self::took);
        if !closely && !self.holds_of(node, Hold::eligible) {
            return;
        }
        // However many are down, their probes stay within some 30 a second; and however many look for one of them, so do
        // all of theirs together.
        let lookers = if closely { 0 } else { self.peers.len() };
        let scale = downs.max(lookers).div_ceil(16);
        let scale = u32::try_from(scale).unwrap_or(u32::MAX);
        let gap = if long {
            ms(500) * scale
        } else {
            ms(100) * scale
        };
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.next_probe = now + ms(100).min(gap);
        }
        self.probe(node, None);
        self.insist(node);
        self.timers.set(Deadline::Peer(node), now + gap);
        if !long && self.watches(node) && downs < 8 {
            self.ask_about(node);
        }
    }

    /// It may hear me and not I it: tells it, and nobody else, of an address that was its and is mine.
    fn insist(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        let last = peer.insisted;
        let Some(mac) = peer.mac.filter(|_| self.may_claim()) else {
            return;
        };
        let its = |address: &&IpAddr| {
            self.holds
                .get(address)
                .is_some_and(|hold| hold.state.mine() && hold.taken_from == Some(node))
        };
        let after = last.and_then(|last| {
            self.held
                .range((Excluded(last), Unbounded))
                .take(NEAR)
                .find(its)
        });
        let next = after
            .or_else(|| self.held.iter().take(NEAR).find(its))
            .copied();
        if let Some(address) = next {
            let nonce = self.next_nonce();
            // Named, so that it does not take this for what clients hear.
            self.send_to(Kind::Claim, mac, node, nonce, address);
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.insisted = next;
        }
    }

    fn holds_of(&self, node: NodeId, of: impl Fn(&Hold, NodeId) -> bool) -> bool {
        let mut some = self.held.iter().take(NEAR);
        some.any(|address| self.holds.get(address).is_some_and(|hold| of(hold, node)))
    }

    fn took(hold: &Hold, from: NodeId) -> bool {
        hold.taken_from == Some(from)
    }

    /// A peer is up that was not.
    pub(super) fn met(&mut self, node: NodeId, kind: Kind) {
        self.report(Report::Up(node));
        self.rewatch();
        // Who waits for one that is proven now may ask when it does nothing.
        self.settle_waiting(node);
        self.settle_staying();
        if let Some(peer) = self.peers.get(&node)
            && let (Some(address), Some(mac)) = (peer.node_address, peer.mac)
        {
            // Only a kernel that was heard before proves anything by its silence.
            self.out.push(Output::AskKernel(address, mac));
        }
        let declared = self.peers.get(&node).is_some_and(|peer| peer.declared);
        if declared && kind != Kind::WasDown && !self.mutated(Mutation::SkipWasDown) {
            self.tell(node);
        } else if !declared || self.mutated(Mutation::SkipWasDown) {
            self.check_all(node);
        }
    }

    /// Has a peer ask me that had been declared down; the answer tells it so.
    pub(super) fn tell(&mut self, node: NodeId) {
        if self.mutated(Mutation::SkipWasDown) {
            return;
        }
        let Some(address) = self.next_address(node) else {
            return;
        };
        let nonce = self.next_nonce();
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if peer.told.0 >= TELLINGS {
            peer.declared = false;
            self.check_all(node);
            return;
        }
        peer.told.0 += 1;
        self.send(Kind::AskMe, node, node, nonce, address);
    }

    /// A peer noted that it had been declared down.
    pub(super) fn noted(&mut self, frame: Frame) {
        let (now, node) = (self.now, frame.sender);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if peer.declared && peer.told.1 == Some(frame.nonce) {
            peer.declared = false;
            peer.told = (0, None);
            if frame.subject == NodeId::NOBODY {
                peer.mutual = Some(now + AWAY);
            } else {
                peer.returned = Some(now + AWAY);
            }
            self.check_all(node);
        }
    }

    /// A peer says to my face that it had declared me down.
    pub(super) fn was_down(&mut self, frame: Frame) {
        let (now, node) = (self.now, frame.sender);
        if self.mutated(Mutation::SkipWasDown) {
            return;
        }
        let mutual = |peer: &Peer| peer.declared || peer.mutual.is_some_and(|until| now < until);
        let mutual = self.peers.get(&node).is_some_and(mutual);
        if !mutual {
            self.away = Some(now + AWAY);
            self.yield_to_heir(node);
            self.check_all(node);
            if now > self.stable_since + ms(1000) {
                self.say_hello(self.me);
            }
            self.stable_since = now;
        }
        let subject = if mutual { NodeId::NOBODY } else { node };
        self.send(Kind::Noted, node, subject, frame.nonce, frame.address);
    }

    pub(super) fn introduce(&mut self) {
        self.hellos = 0;
        self.timers.set(Deadline::Hello, self.now);
    }

    /// To all: I am here. With no subject also: and hold nothing.
    pub(super) fn say_hello(&mut self, subject: NodeId) {
        let Some(address) = self.holds.keys().next().copied() else {
            return;
        };
        let nonce = self.next_nonce();
        self.hello = Some((nonce, self.now));
        self.broadcast(Kind::Hello, subject, nonce, address);
    }

    pub(super) fn hello_due(&mut self) {
        if !self.link || self.holds.is_empty() {
            return;
        }
        let strangers: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| {
                peer.state == Liveness::Unknown
                    && peer.listed
                    && !peer.legacy
                    && peer.believed != Some(false)
            })
            .map(|(node, _)| *node)
            .collect();
        if self.mutated(Mutation::DownFromUnknown) && self.hellos > 2 {
            for node in &strangers {
                if let Some(peer) = self.peers.get_mut(node) {
                    peer.state = Liveness::Down;
                    self.report(Report::Down {
                        node: *node,
                        silent: HELLO,
                        kernel: false,
                    });
                    self.settle_waiting(*node);
                }
            }
        }
        // They might never: then gossip and the order decide, as with MetalLB's own speakers.
        let blind = self
            .peers
            .values()
            .filter(|peer| peer.blind(self.now))
            .count();
        if blind != std::mem::replace(&mut self.blind, blind) {
            self.settle_all();
        }
        if self.hellos < FIRST {
            let subject = if self.held.is_empty() {
                NodeId::NOBODY
            } else {
                self.me
            };
            self.say_hello(subject);
            self.hellos += 1;
            self.timers.set(Deadline::Hello, self.now + ms(200));
        } else if !strangers.is_empty() {
            let turn = self.chance(2, u32::try_from(strangers.len()).unwrap_or(u32::MAX));
            let stranger = strangers.get(turn as usize).copied().unwrap_or(self.me);
            self.say_hello(stranger);
            self.timers.set(Deadline::Hello, self.now + HELLO);
        } else {
            self.timers.set(Deadline::Hello, self.now + HELLO);
        }
    }

    /// Answers who introduced itself.
    pub(super) fn greet(&mut self, node: NodeId) {
        if let Some((hello, mac)) = self.introduced.remove(&node) {
            self.answer(hello, mac);
        }
    }

    /// A peer introduces itself.
    pub(super) fn hello(&mut self, frame: Frame, mac: Mac, newer: bool) {
        let Some(peer) = self.peers.get(&frame.sender) else {
            return;
        };
        let declared = peer.declared && !self.mutated(Mutation::SkipWasDown);
        if declared || frame.subject == self.me {
            self.answer(frame, mac);
        } else if newer && frame.subject == NodeId::NOBODY {
            // Who starts knows all before it has to ask all about each of them.
            let most = u32::try_from(self.peers.len() / GREETED_AT_ONCE).unwrap_or(u32::MAX);
            let spread = u32::try_from(GREETED.min(ms(1) * most).as_micros()).unwrap_or(u32::MAX);
            let wait = Duration::from_micros(self.chance(3, spread).into());
            if wait.is_zero() {
                self.answer(frame, mac);
            } else {
                self.introduced.insert(frame.sender, (frame, mac));
                self.timers
                    .set(Deadline::Greet(frame.sender), self.now + wait);
            }
        }
        if newer && frame.subject == NodeId::NOBODY {
            let its: Vec<IpAddr> = self
                .waiting
                .get(&frame.sender)
                .into_iter()
                .flatten()
                .copied()
                .collect();
            for address in its {
                if let Some(hold) = self.holds.get_mut(&address)
                    && hold.holder == Some(frame.sender)
                {
                    hold.holder = None;
                    hold.orphan_at = None;
                    self.settle(address);
                }
            }
        }
    }
}
