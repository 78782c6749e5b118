//! What is said of members, and what becomes of it: alive, suspect, dead, left.

use std::time::Instant;

use super::{Entry, MAX_MEMBERS, Machine, Output};
use crate::message::{Alive, Claim, Message};
use crate::stream::{Exchange, Status};
use crate::suspicion::Suspicion;

impl Machine {
    /// The other side of an exchange. A dead node is only suspected on hearsay: it may have protested elsewhere.
    pub fn merge(&mut self, now: Instant, exchange: Exchange) {
        self.notice(now);
        for (status, alive) in exchange.states {
            let claim = |from: &str| Claim {
                incarnation: alive.incarnation,
                node: alive.node.clone(),
                from: from.to_owned(),
            };
            match status {
                Status::Alive => self.hear_alive(now, alive),
                Status::Left => self.hear_dead(now, claim(&alive.node)),
                Status::Dead | Status::Suspect => {
                    let claim = claim(&self.me.name);
                    self.hear_suspect(now, claim);
                }
            }
        }
    }

    pub(super) fn hear_alive(&mut self, now: Instant, mut alive: Alive) {
        let me = alive.node == self.me.name;
        // A message from before our farewell must not bring us back; and versions that make no sense are nobody's.
        if (me && self.leaving.is_some()) || alive.versions.is_some_and(|versions| !versions.sane())
        {
            return;
        }
        if alive.port == 0 {
            alive.port = self.me.port;
        }
        let Some(entry) = self.nodes.get_mut(&alive.node) else {
            return self.meet(now, alive);
        };
        let moved = (entry.alive.addr, entry.alive.port) != (alive.addr, alive.port);
        // A name belongs to its address until its owner has left or was forgotten.
        if moved && entry.status != Status::Left {
            return;
        }
        if me {
            let newer = alive.incarnation > entry.alive.incarnation;
            let other = alive.incarnation == entry.alive.incarnation
                && (alive.meta != entry.alive.meta || alive.versions != entry.alive.versions);
            if newer || other {
                self.refute(alive.incarnation);
            }
            return;
        }
        if alive.incarnation <= entry.alive.incarnation && !moved {
            return;
        }
        alive.versions = alive.versions.or(entry.alive.versions);
        let changed = entry.status != Status::Alive || entry.alive.meta != alive.meta || moved;
        if entry.status != Status::Alive {
            entry.status = Status::Alive;
            entry.changed = now;
        }
        entry.suspicion = None;
        entry.alive = alive.clone();
        self.news
            .push(&alive.node, Message::Alive(alive.clone()).encode());
        if changed {
            self.verdict(&alive.node);
        }
    }

    /// A node never heard of.
    fn meet(&mut self, now: Instant, alive: Alive) {
        if self.nodes.len() >= MAX_MEMBERS || alive.node.is_empty() {
            return;
        }
        // At a random place of the round, or all would probe the newest one last.
        let place = self.dice.below(self.order.len());
        self.order.push(alive.node.clone());
        let last = self.order.len() - 1;
        self.order.swap(place, last);
        self.news
            .push(&alive.node, Message::Alive(alive.clone()).encode());
        let entry = Entry {
            alive,
            status: Status::Alive,
            changed: now,
            suspicion: None,
        };
        self.outputs.push_back(Output::Verdict(entry.member()));
        self.nodes.insert(entry.alive.node.clone(), entry);
    }

    pub(super) fn hear_suspect(&mut self, now: Instant, claim: Claim) {
        let alive = self
            .nodes
            .values()
            .filter(|entry| entry.status == Status::Alive)
            .count();
        let Some(entry) = self.nodes.get_mut(&claim.node) else {
            return;
        };
        if claim.incarnation < entry.alive.incarnation {
            return;
        }
        if let Some(suspicion) = &mut entry.suspicion {
            if suspicion.confirm(&claim.from) {
                self.news
                    .push(&claim.node, Message::Suspect(claim.clone()).encode());
            }
            return;
        }
        if entry.status != Status::Alive {
            return;
        }
        if claim.node == self.me.name {
            return self.refute(claim.incarnation);
        }
        entry.alive.incarnation = claim.incarnation;
        entry.status = Status::Suspect;
        entry.changed = now;
        entry.suspicion = Some(Suspicion::new(&claim.from, now, alive, &self.profile));
        self.news
            .push(&claim.node, Message::Suspect(claim.clone()).encode());
        self.verdict(&claim.node);
    }

    pub(super) fn hear_dead(&mut self, now: Instant, claim: Claim) {
        let Some(entry) = self.nodes.get_mut(&claim.node) else {
            return;
        };
        if claim.incarnation < entry.alive.incarnation || !entry.status.is_live() {
            return;
        }
        if claim.node == self.me.name && self.leaving.is_none() {
            return self.refute(claim.incarnation);
        }
        entry.suspicion = None;
        entry.alive.incarnation = claim.incarnation;
        // Only the node itself can say that it has left.
        entry.status = if claim.node == claim.from {
            Status::Left
        } else {
            Status::Dead
        };
        entry.changed = now;
        self.news
            .push(&claim.node, Message::Dead(claim.clone()).encode());
        self.verdict(&claim.node);
    }

    /// Something false was said of us: say that we live, louder than `accused`. Having to do so is a sign that we are slow.
    fn refute(&mut self, accused: u32) {
        let Some(entry) = self.nodes.get_mut(&self.me.name) else {
            return;
        };
        entry.alive.incarnation = entry.alive.incarnation.max(accused).saturating_add(1);
        self.news
            .push(&self.me.name, Message::Alive(entry.alive.clone()).encode());
        self.awareness.worse(1);
    }

    pub(super) fn suspicions_due(&mut self, now: Instant) {
        let due = |entry: &&Entry| {
            entry
                .suspicion
                .as_ref()
                .is_some_and(|s| s.deadline() <= now)
        };
        let claims: Vec<Claim> = self
            .nodes
            .values()
            .filter(due)
            .map(|entry| Claim {
                incarnation: entry.alive.incarnation,
                node: entry.alive.node.clone(),
                from: self.me.name.clone(),
            })
            .collect();
        for claim in claims {
            self.hear_dead(now, claim);
        }
    }

    /// Our own death notice, which others read as a farewell; told to each live member beside being gossiped.
    pub(super) fn say_goodbye(&mut self, now: Instant) {
        let Some(entry) = self.nodes.get(&self.me.name) else {
            return;
        };
        let claim = Claim {
            incarnation: entry.alive.incarnation,
            node: self.me.name.clone(),
            from: self.me.name.clone(),
        };
        let farewell = Message::Dead(claim.clone()).encode();
        self.hear_dead(now, claim);
        let others: Vec<_> = self
            .nodes
            .values()
            .filter(|entry| entry.status.is_live())
            .map(|entry| (entry.socket(), entry.versions()))
            .collect();
        for (to, versions) in others {
            self.send_alone(to, versions, &farewell);
        }
    }
}
