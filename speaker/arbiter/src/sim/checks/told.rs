//! What must hold when a machine says what it found or did.

use std::net::IpAddr;

use super::Checks;
use crate::sim::world::{Run, S, Time, World};
use crate::{Cause, Failback, Report};

impl Checks {
    pub(super) fn reported(&mut self, world: &World, station: usize, report: Report) {
        let now = world.now;
        let it = &world.stations[station];
        match report {
            Report::Up(id) => {
                self.up.insert((station, id));
                let node = world
                    .nodes
                    .iter()
                    .position(|node| node.id == id)
                    .unwrap_or(0);
                let peer = world.station(node, it.segment);
                // Who holds an answer back and lets it go later is a slow wire, up to where answers are too old.
                let late = if self.attacked { 3 * S } else { S };
                let there = world.nodes[node].run == Run::On
                    || self
                        .node_change
                        .get(&node)
                        .is_some_and(|at| now < *at + late);
                let path = !(world.cut.contains(&(peer, station))
                    || world.cut.contains(&(station, peer)))
                    || now < self.cut_change + late
                    // Who repeats at once is a wire.
                    || self.attacked;
                if !there || !path || world.setup.strips {
                    self.fail(
                        now,
                        format!(
                            "S7: station {station} takes node {node} for up, which it cannot know"
                        ),
                    );
                }
            }
            Report::Down { node: id, .. } => {
                self.downs.push((now, station, id));
                let node = world
                    .nodes
                    .iter()
                    .position(|node| node.id == id)
                    .unwrap_or(0);
                if !self.up.contains(&(station, id)) {
                    self.fail(
                        now,
                        format!(
                            "S3: station {station} takes node {node} for down, and never heard it"
                        ),
                    );
                }
                if self.harmless.is_some_and(|from| now > from) {
                    self.fail(
                        now,
                        format!("S5: station {station} takes node {node} for down"),
                    );
                }
                self.check_vouched(world, station, node);
            }
            Report::Took { address, cause, .. } => {
                self.took.push((now, station, address, cause));
                self.check_taken(world, station, address, cause);
                if self.harmless.is_some_and(|from| now > from) && cause != Cause::Failback {
                    self.fail(
                        now,
                        format!("S5: station {station} takes {address} for no cause ({cause:?})"),
                    );
                }
                let legacy = world.nodes.iter().any(|node| node.legacy);
                let failback = matches!(world.setup.profile.failback, Failback::After(wait) if wait.as_secs() < 60);
                if self.calm(now) > 8 * S
                    && world.setup.loss == 0
                    && !self.attacked
                    && !self.restless
                    && !failback
                    && !legacy
                    && cause != Cause::Ineligible
                {
                    self.fail(now, format!("L8: station {station} takes {address} ({cause:?}), and nothing happened for long"));
                }
            }
            Report::Stays { .. } | Report::StaysNoMore { .. } => {
                self.stays.push((now, station, report));
            }
            Report::Stranger { .. } | Report::StrangerGone { .. } => {
                self.strangers.push((now, station, report));
            }
            Report::Released { address, cause, .. } => {
                self.released.push((now, station, address, cause));
                let key = (it.segment, address);
                if let Some((incumbent, _)) = self.incumbents.get(&key)
                    && *incumbent == station
                    && world.setup.loss == 0
                    && world.effective(station)
                    && !matches!(
                        cause,
                        Cause::Withdrawn
                            | Cause::LinkDown
                            | Cause::Legacy
                            | Cause::Moved
                            | Cause::Ineligible
                    )
                    && !matches!(world.setup.profile.failback, Failback::After(wait) if wait.as_secs() < 60)
                {
                    self.fail(now, format!("S11: station {station} held {address} and lost it to one that returned ({cause:?})"));
                }
            }
            _ => {}
        }
    }

    /// S2: who is handed an address finds nobody answering otherwise. S10: an address does not wander.
    fn check_taken(&mut self, world: &World, station: usize, address: IpAddr, cause: Cause) {
        let now = world.now;
        let segment = world.stations[station].segment;
        let planned = matches!(cause, Cause::Moved | Cause::Failback | Cause::Ineligible);
        if planned
            && world.setup.loss == 0
            && world.cut.is_empty()
            && now > self.cut_change + S
            && !self.attacked
        {
            let mine = world.stations[station].mac;
            let other = (0..world.stations.len()).find(|other| {
                let it = &world.stations[*other];
                let answers = it.table.get(&address).is_some_and(|mac| *mac != mine);
                answers
                    && !it.muted
                    && it.segment == segment
                    && *other != station
                    && world.effective(*other)
            });
            if let Some(other) = other {
                self.fail(now, format!("S2: station {station} is handed {address}, for which {other} answers otherwise"));
            }
        }
        let of_late = |(at, who, which, _): &&(Time, usize, IpAddr, Cause)| {
            *which == address
                && world.stations[*who].segment == segment
                && *at + 10 * S > now
                && *at > self.last_change
        };
        let moves = self.took.iter().rev().take(64).filter(of_late).count();
        if moves > 3 && world.setup.loss == 0 && world.cut.is_empty() {
            self.fail(
                now,
                format!("S10: {address} was taken {moves} times within 10 s"),
            );
        }
    }

    /// S4: nobody is down whom somebody hears that the judge hears.
    fn check_vouched(&mut self, world: &World, station: usize, node: usize) {
        let now = world.now;
        if world.setup.loss > 0 || now < self.cut_change + 2 * S {
            return;
        }
        let segment = world.stations[station].segment;
        let subject = world.station(node, segment);
        let steady = |station: usize| {
            let it = &world.stations[station];
            world.effective(station)
                && !it.muted
                && !it.stopped
                && it.arbiter.is_some()
                && world.nodes[it.node].throttle.is_none()
                && self
                    .node_change
                    .get(&it.node)
                    .is_none_or(|at| now > *at + 2 * S)
        };
        let ways =
            |a: usize, b: usize| !world.cut.contains(&(a, b)) && !world.cut.contains(&(b, a));
        if !steady(subject) || !steady(station) {
            return;
        }
        let witness = (0..world.stations.len()).find(|other| {
            world.stations[*other].segment == segment
                && *other != station
                && *other != subject
                && steady(*other)
                && ways(*other, station)
                && ways(*other, subject)
        });
        if let Some(witness) = witness {
            self.fail(
                now,
                format!("S4: station {station} takes {subject} for down, which {witness} hears"),
            );
        }
    }
}
