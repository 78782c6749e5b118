//! What must hold, whatever happens. The names are those of the crate's documentation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

mod told;

use super::world::{Act, MS, Run, S, Time, World};
use crate::{Cause, Form, Kind, Mac, NodeId, Output, Report};

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
    /// When it changed with which hardware addresses an address is answered.
    pub served: BTreeMap<IpAddr, Vec<(Time, BTreeSet<Mac>)>>,
    /// When a station last asked for what it holds, at rest.
    patrols: BTreeMap<usize, Time>,
    /// What was said of strangers.
    pub strangers: Vec<(Time, usize, Report)>,
    pub released: Vec<(Time, usize, IpAddr, Cause)>,
    /// What was said of addresses that are to move and stay.
    pub stays: Vec<(Time, usize, Report)>,
    pub offers: usize,
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

    pub fn served(&mut self, at: Time, address: IpAddr, macs: BTreeSet<Mac>) {
        let log = self.served.entry(address).or_default();
        if log.last().is_none_or(|(_, last)| *last != macs) {
            log.push((at, macs));
        }
    }

    /// L6: in the end every client's cache says who answers.
    pub fn caches(&mut self, world: &World) {
        let now = world.now;
        let setup = &world.setup;
        if self.attacked || setup.loss > 0 || setup.stray.0 > 0 || self.calm(now) < 6500 * MS {
            return;
        }
        for (host, it) in world.hosts.iter().enumerate() {
            for (address, (mac, _)) in &it.cache {
                let Some((sole, since)) = self.sole.get(&(it.segment, *address)) else {
                    continue;
                };
                let holder = &world.stations[*sole];
                if now > *since + 6 * S && world.effective(*sole) && holder.mac != *mac {
                    let what = format!(
                        "L6: client {host} has {address} at {mac:?}, and station {sole} answers for it"
                    );
                    self.fail(now, what);
                    return;
                }
            }
        }
    }

    /// How long a node may wait for one that it never heard here and gossip has alive; none: as long as gossip says so.
    fn none_of(&self, world: &World, me: usize, address: IpAddr) -> Option<Time> {
        let it = &world.stations[me];
        let (Some(arbiter), Some(view)) = (it.arbiter.as_ref(), it.view.get(&address)) else {
            return Some(self.bounds.none);
        };
        let place = |id: &NodeId| world.nodes.iter().position(|node| node.id == *id);
        let my = world.nodes[it.node].id;
        let mut better = view.order.iter().take_while(|id| **id != my);
        let unseen = better.any(|id| {
            arbiter.presence(*id).is_none()
                && place(id).is_some_and(|node| {
                    !world.nodes[node].legacy && (!world.setup.gossip || world.gossip_has(node))
                })
        });
        if !unseen || world.setup.strips {
            return Some(self.bounds.none);
        }
        let witness = (0..world.stations.len()).any(|other| {
            let there = &world.stations[other];
            other != me
                && there.segment == it.segment
                && arbiter.presence(world.nodes[there.node].id) == Some(true)
                && world.effective(other)
                && there.arbiter.is_some()
                && !there.stopped
        });
        witness.then_some(self.bounds.none + 4 * S)
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
            let none = if unserved {
                self.none_of(world, me, address)
            } else {
                None
            };
            if let Some(long) = self.since(Span::None(me, address), now, none.is_some()) {
                self.longest_none = self.longest_none.max(long);
                if none.is_some_and(|none| long > none) {
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
        self.offers += usize::from(kind == Kind::Offer);
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
            if all_there && rate > 76 {
                self.fail(
                    now,
                    format!("S9: {rate} frames in a second from station {station}"),
                );
            }
            // What is held is asked for, for strangers to answer: one question a second.
            let it = &world.stations[station];
            let held = it.table.get(&frame.address) == Some(&it.mac);
            let patrol = kind == Kind::Ask && frame.subject == NodeId::NOBODY && held;
            let last = self.patrols.get(&station).copied().filter(|_| patrol);
            let soon = last.is_some_and(|at| now < at + 950 * MS);
            if patrol {
                self.patrols.insert(station, now);
            }
            if all_there
                && (!patrol || soon)
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
}
