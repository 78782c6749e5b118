//! What must hold, whatever happens. The names are those of the crate's documentation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use super::world::{Act, MS, Run, S, Time, World};
use crate::{Cause, Failback, Form, Kind, Mac, NodeId, Output, Report};

/// How long something may last after the last change of the world.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Two answer that hear each other, at least one way.
    pub two: Time,
    /// Nobody answers.
    pub none: Time,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            two: 1300 * MS,
            none: 1300 * MS,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Span {
    Two(usize, usize, IpAddr),
    None(usize, IpAddr),
    Ineligible(usize, IpAddr),
}

/// One answer to a client.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub at: Time,
    pub address: IpAddr,
    pub mac: Mac,
}

#[derive(Debug, Default)]
pub struct Checks {
    violation: Option<String>,
    pub trace: bool,
    log: VecDeque<String>,
    pub bounds: Bounds,
    pub last_change: Time,
    spans: BTreeMap<Span, Time>,
    /// From then on nobody may be lost nor anything move (S5).
    pub harmless: Option<Time>,
    pub attacked: bool,
    /// Something goes on for ever: no rest is to be expected (L8).
    pub restless: bool,
    /// Nobody but the nodes says anything, so that a node left alone cannot tell whether it hears.
    pub dumb: bool,
    /// MetalLB's rule knows no incumbent.
    pub legacy: bool,
    pub record: bool,
    pub answers: Vec<Answer>,
    /// What the clients' caches were last taught.
    pub cache: BTreeMap<(usize, IpAddr), Mac>,
    up: BTreeSet<(usize, NodeId)>,
    node_change: BTreeMap<usize, Time>,
    cut_change: Time,
    incumbents: BTreeMap<(usize, IpAddr), (usize, Time)>,
    sole: BTreeMap<(usize, IpAddr), (usize, Time)>,
    pub took: Vec<(Time, usize, IpAddr, Cause)>,
    pub downs: Vec<(Time, usize, NodeId)>,
    pub longest_two: Time,
    pub longest_none: Time,
    pub most_frames: usize,
}

impl Checks {
    pub fn failed(&self) -> bool {
        self.violation.is_some()
    }

    pub fn outcome(&self) -> Result<(), String> {
        match &self.violation {
            None => Ok(()),
            Some(violation) => {
                let log: Vec<&str> = self.log.iter().map(String::as_str).collect();
                Err(format!("{violation}\n{}", log.join("\n")))
            }
        }
    }

    pub fn log(&self) -> String {
        let log: Vec<&str> = self.log.iter().map(String::as_str).collect();
        log.join("\n")
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.trace {
            self.log.push_back(line());
            if self.log.len() > 40_000 {
                self.log.pop_front();
            }
        }
    }

    fn fail(&mut self, now: Time, what: String) {
        if self.violation.is_none() {
            self.violation = Some(format!("at {}.{:03} ms: {what}", now / MS, now % MS));
        }
    }

    /// The world changes.
    pub fn change(&mut self, now: Time, act: &Act) {
        self.note(|| format!("{:>9.3} --- {act:?}", now as f64 / 1000.0));
        let returns = matches!(
            act,
            Act::Run(_, Run::On)
                | Act::Rx(_, false)
                | Act::Tx(_, false)
                | Act::Carrier(_, true)
                | Act::Throttle(_, None)
        );
        self.incumbents.clear();
        if returns
            && !self.legacy
            && !self.dumb
            && now > self.cut_change + 3 * S
            && now > self.last_change + S
        {
            self.incumbents = self.sole.clone();
            self.incumbents.retain(|_, (_, since)| now > *since + S);
        }
        match act {
            Act::Run(node, _)
            | Act::Throttle(node, _)
            | Act::Stop(node)
            | Act::Replace(node, _) => {
                self.node_change.insert(*node, now);
            }
            Act::Cut(..) | Act::Rx(..) | Act::Tx(..) | Act::Carrier(..) => self.cut_change = now,
            _ => {}
        }
        self.last_change = now;
    }

    pub fn answered(&mut self, at: Time, address: IpAddr, mac: Mac) {
        if self.record {
            self.answers.push(Answer { at, address, mac });
        }
    }

    fn since(&mut self, span: Span, now: Time, holds: bool) -> Option<Time> {
        if holds {
            let start = *self.spans.entry(span).or_insert(now);
            Some(now - start.max(self.last_change.min(now)))
        } else {
            self.spans.remove(&span);
            None
        }
    }

    /// Looks at all there is.
    pub fn sample(&mut self, world: &World) {
        let now = world.now;
        for segment in 0..world.setup.segments {
            let stations: Vec<usize> = (0..world.stations.len())
                .filter(|station| world.stations[*station].segment == segment)
                .collect();
            for address in world.order.keys().copied() {
                self.sample_one(world, segment, &stations, address, now);
            }
        }
    }

    fn sample_one(
        &mut self,
        world: &World,
        segment: usize,
        stations: &[usize],
        address: IpAddr,
        now: Time,
    ) {
        let answers = |station: usize| {
            let it = &world.stations[station];
            if world.effective(station) && !it.muted {
                it.table.get(&address).copied()
            } else {
                None
            }
        };
        let cut = |a: usize, b: usize| world.cut.contains(&(a, b));
        if world.cut.is_empty() && self.at_rest(world, segment, stations, address) {
            return;
        }
        // Whom a client beside it reaches, in steps.
        let reach = |from: usize| {
            let mut reached = vec![from];
            let mut at = 0;
            while let Some(one) = reached.get(at).copied() {
                at += 1;
                for other in stations.iter().copied() {
                    if !(reached.contains(&other) || cut(one, other) && cut(other, one)) {
                        reached.push(other);
                    }
                }
            }
            reached
        };
        for (index, a) in stations.iter().copied().enumerate() {
            for b in stations.iter().copied().skip(index + 1) {
                let two = matches!((answers(a), answers(b)), (Some(one), Some(other)) if one != other)
                    && !(cut(a, b) && cut(b, a))
                    // Where no client asks, a node that hears nothing else cannot know that it hears at all.
                    && (world.clients || !(cut(a, b) || cut(b, a)));
                if let Some(long) = self.since(Span::Two(a, b, address), now, two) {
                    self.longest_two = self.longest_two.max(long);
                    if long > self.bounds.two {
                        self.fail(
                            now,
                            format!("S1: stations {a} and {b} both answer for {address}"),
                        );
                    }
                }
            }
        }
        for me in stations.iter().copied() {
            let it = &world.stations[me];
            let eligible = it
                .view
                .get(&address)
                .is_some_and(|view| view.order.contains(&world.nodes[it.node].id));
            let legacy = world.nodes[it.node].legacy;
            let unserved = eligible
                && world.effective(me)
                && !it.stopped
                && (legacy || it.arbiter.is_some())
                && !reach(me).into_iter().any(|other| answers(other).is_some());
            if let Some(long) = self.since(Span::None(me, address), now, unserved) {
                self.longest_none = self.longest_none.max(long);
                if long > self.bounds.none {
                    self.fail(
                        now,
                        format!("L2: nobody answers for {address}, and station {me} could"),
                    );
                }
            }
            let wrong = !eligible && it.table.get(&address) == Some(&it.mac) && world.effective(me);
            if let Some(long) = self.since(Span::Ineligible(me, address), now, wrong && !legacy)
                && long > 1700 * MS
            {
                self.fail(
                    now,
                    format!("S6: station {me} answers for {address} and is not eligible"),
                );
            }
        }
        let holders: Vec<usize> = stations
            .iter()
            .copied()
            .filter(|station| answers(*station).is_some())
            .collect();
        match (holders.as_slice(), self.sole.get(&(segment, address))) {
            ([one], Some((other, _))) if one == other => {}
            ([one], _) => {
                self.sole.insert((segment, address), (*one, now));
            }
            _ => {
                self.sole.remove(&(segment, address));
            }
        }
    }

    /// The common case, seen quickly: one answers, is eligible and did so before; nobody else thinks it does.
    fn at_rest(&self, world: &World, segment: usize, stations: &[usize], address: IpAddr) -> bool {
        let Some((sole, _)) = self.sole.get(&(segment, address)).copied() else {
            return false;
        };
        let has = |station: &usize| world.stations[*station].table.contains_key(&address);
        let it = &world.stations[sole];
        self.spans.is_empty()
            && world.effective(sole)
            && !it.muted
            && stations.iter().filter(|station| has(station)).count() == 1
            && it.table.get(&address) == Some(&it.mac)
            && it
                .view
                .get(&address)
                .is_some_and(|view| view.order.contains(&world.nodes[it.node].id))
    }

    /// A machine wants something done.
    pub fn output(&mut self, world: &mut World, station: usize, output: &Output) {
        let now = world.now;
        self.note(|| match output {
            Output::Send(frame, to) => format!(
                "{:>9.3} {station} {:?} {} {:?} to {:?} nonce {:x}{}",
                now as f64 / 1000.0,
                frame.kind,
                frame.address,
                world.nodes.iter().position(|node| node.id == frame.subject),
                to.map(|mac| mac[5]),
                frame.nonce,
                if frame.hearing { "" } else { " deaf" }
            ),
            other => format!("{:>9.3} {station} {other:?}", now as f64 / 1000.0),
        });
        match output {
            Output::Send(frame, _) => self.sent(world, station, frame.kind, frame),
            Output::Report(report) => self.reported(world, station, *report),
            _ => {}
        }
    }

    fn calm(&self, now: Time) -> Time {
        now - self.last_change
    }

    fn sent(&mut self, world: &mut World, station: usize, kind: Kind, frame: &crate::Frame) {
        let now = world.now;
        let clean =
            world.setup.loss == 0 && world.setup.stray.0 == 0 && !self.attacked && !self.restless;
        let busy = world
            .nodes
            .iter()
            .any(|node| node.throttle.is_some() || node.run != Run::On);
        let it = &mut world.stations[station];
        it.sent.push_back(now);
        while it.sent.front().is_some_and(|at| *at + S < now) {
            it.sent.pop_front();
        }
        let rate = it.sent.len();
        let quiet = self.calm(now) > 12 * S && clean && world.cut.is_empty() && !busy;
        if quiet {
            self.most_frames = self.most_frames.max(rate);
            let all_there = world
                .stations
                .iter()
                .all(|it| it.carrier && !it.rx_dead && !it.tx_dead);
            if all_there && rate > 75 {
                self.fail(
                    now,
                    format!("S9: {rate} frames in a second from station {station}"),
                );
            }
            if all_there
                && !matches!(
                    kind,
                    Kind::Probe | Kind::Alive | Kind::Holding | Kind::Hello
                )
            {
                self.fail(
                    now,
                    format!("L8: {kind:?} from station {station}, and nothing happened for long"),
                );
            }
        }
        // By its own clock: who stood still without it cannot know.
        let local = now - world.nodes[world.stations[station].node].lost;
        let it = &mut world.stations[station];
        if kind == Kind::Ask && frame.subject != NodeId::NOBODY {
            if it
                .asks
                .get(&frame.subject)
                .is_some_and(|at| now < *at + 190 * MS)
            {
                self.fail(
                    now,
                    format!(
                        "S9: station {station} asked twice in 200 ms about {}",
                        frame.subject
                    ),
                );
            }
            it.asks.insert(frame.subject, now);
        }
        if matches!(frame.form(), Form::Answer | Form::Gratuitous)
            && kind != Kind::Holding
            && kind != Kind::Claim
        {
            self.fail(now, format!("S8: {kind:?} teaches"));
        }
        if kind == Kind::Claim {
            if it.table.get(&frame.address) != Some(&it.mac) || it.muted {
                self.fail(
                    now,
                    format!(
                        "S8: station {station} claims {} and does not answer for it",
                        frame.address
                    ),
                );
            }
            if local > it.heard + 200 * MS {
                self.fail(
                    now,
                    format!(
                        "S6: station {station} claims {} and heard nothing",
                        frame.address
                    ),
                );
            }
        }
        if kind == Kind::Holding && !it.table.contains_key(&frame.address) {
            self.fail(
                now,
                format!(
                    "S8: station {station} says it holds {} and does not",
                    frame.address
                ),
            );
        }
    }

    fn reported(&mut self, world: &World, station: usize, report: Report) {
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
            Report::Released { address, cause, .. } => {
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
