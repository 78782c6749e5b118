//! One interface: its sockets, its arbiter, and the table its answers are looked up in.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ferrolb_speaker_arbiter::{
    Arbiter, Candidates, Cause, Input, Kind, Mac, NodeId, Output, PeerFacts, Report, Wish,
};
use ferrolb_speaker_core::{Lesson, Reach};
use ferrolb_speaker_responder::{Counters, Held, Interface, Protocol, Question, Table};
use ferrolb_speaker_socket::{Alarm, Inbox};
use ferrolb_speaker_wire::{FrameBuf, MacAddr, Message, Station, question, teach};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at};

use super::neighbours::Neighbours;
use super::promise::promise;
use super::voices::Voices;
use super::{Settings, Standing, Told, frames};
use crate::metrics::Metrics;

/// How often a socket that failed or could not be opened is opened anew, and groups are joined that could not be.
const UPKEEP: Duration = Duration::from_secs(1);

/// How often at most the kernel is asked whether it dropped frames: a probe's answer among them would be missed.
const DROPS: Duration = Duration::from_millis(50);

/// How often at most an arbiter is told that it heard something that means nothing else.
const HEARD: Duration = Duration::from_millis(1);

/// Speakers whose own addresses are remembered, to answer them there.
const ASKERS: usize = 4096;
/// How long what gives an address up waits for answers that are still on their way with the hardware address of before.
const LAST_ANSWERS: Duration = Duration::from_millis(10);

/// What a segment is told.
#[derive(Debug)]
pub(super) enum News {
    /// The interface as it is now; its index, name and hardware address are what they were.
    Interface(Interface),
    /// This node's hardware addresses.
    Own(Arc<HashSet<MacAddr>>),
    Peers(Vec<PeerFacts>),
    Standings(Vec<(IpAddr, Option<Standing>)>),
    Wish(IpAddr, Option<Wish>),
    Stop(mpsc::Sender<()>),
}

pub(super) struct Segment {
    interface: Interface,
    own: Arc<HashSet<MacAddr>>,
    settings: Settings,
    arbiter: Arbiter,
    voices: Voices,
    table: Table,
    /// Frames to be sent, with what counts them.
    outbox: Vec<(FrameBuf, Protocol, Option<Arc<Counters>>)>,
    /// The addresses the arbiter decides about.
    viewed: HashSet<IpAddr>,
    /// Since the last frames were sent an address was given up, which the next ones may tell.
    gave_up: bool,
    askers: HashMap<Mac, IpAddr>,
    neighbours: Neighbours,
    muted: bool,
    heard: Option<Instant>,
    /// The answering thread was asked for questions since this task woke.
    fetched: bool,
    drops: Instant,
    metrics: Metrics,
    told: mpsc::UnboundedSender<Told>,
    /// Dropped when all is handed over.
    stopping: Option<mpsc::Sender<()>>,
}

impl Segment {
    pub(super) fn new(
        interface: Interface,
        own: Arc<HashSet<MacAddr>>,
        settings: Settings,
        table: Table,
        metrics: Metrics,
        told: mpsc::UnboundedSender<Told>,
    ) -> Self {
        let now = Instant::now();
        let arbiter = Arbiter::new(settings.me, settings.profile, first_nonce(), now);
        table.clear();
        table.mute(false);
        table.promise(None);
        table.overheard().open();
        Self {
            interface,
            own,
            settings,
            arbiter,
            voices: Voices::default(),
            table,
            outbox: Vec::new(),
            viewed: HashSet::new(),
            gave_up: false,
            askers: HashMap::new(),
            neighbours: Neighbours::default(),
            muted: false,
            heard: None,
            fetched: false,
            drops: now,
            metrics,
            told,
            stopping: None,
        }
    }

    /// Works until nobody has news for it; then nothing is answered on the interface any more.
    pub(super) async fn run(mut self, mut news: mpsc::UnboundedReceiver<News>) {
        // The first look is at the first news of the interface, which comes after that of the peers.
        let mut upkeep = interval_at(tokio::time::Instant::now() + UPKEEP, UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut arp, mut ndp) = (Inbox::new(), Inbox::new());
        let mut alarm = Alarm::new();
        loop {
            let deadline = self.next_deadline();
            let wake = self.promise(deadline);
            alarm.set(wake);
            self.fetched = false;
            let overheard = self.table.overheard();
            overheard.content_until(self.arbiter.heard_until());
            overheard.wake(Instant::now());
            let drained = tokio::select! {
                told = news.recv() => match told {
                    Some(told) => {
                        self.take_in(told);
                        // Many may wait, each worth milliseconds: sockets are looked at in between.
                        false
                    }
                    None => break,
                },
                got = self.voices.receive(Protocol::Arp, &mut arp) => self.received(Protocol::Arp, got, &arp),
                got = self.voices.receive(Protocol::Ndp, &mut ndp) => self.received(Protocol::Ndp, got, &ndp),
                () = overheard.due() => {
                    self.take_in_questions();
                    // There may be more at once, and this is always ready then.
                    false
                }
                // Rings at once where a deadline is past already: others have their turn in between.
                () = alarm.rings() => false,
                _ = upkeep.tick() => {
                    self.look_after();
                    true
                }
            };
            // However this task was woken, and even while it never sleeps.
            if wake.is_some_and(|wake| wake <= Instant::now()) {
                self.tick();
            }
            self.send().await;
            // While sockets always have more, nothing above makes this task wait and the runtime gets to nothing else: a
            // flood would silence all other arbiters.
            if !drained {
                tokio::task::yield_now().await;
            }
        }
        self.let_all_go();
    }

    fn take_in(&mut self, news: News) {
        match news {
            News::Interface(interface) => {
                self.interface = interface;
                self.look_after();
            }
            News::Own(own) => self.own = own,
            News::Peers(peers) => {
                let nodes = peers.iter().filter_map(|peer| peer.address);
                self.neighbours.set_nodes(nodes);
                self.handle(Input::Peers(peers));
            }
            News::Standings(standings) => {
                for (address, standing) in standings {
                    self.stand(address, standing);
                }
            }
            News::Wish(address, wish) => self.handle(Input::Wish(address, wish)),
            News::Stop(stopping) => {
                self.stopping = Some(stopping);
                self.handle(Input::Stop);
            }
        }
    }

    fn stand(&mut self, address: IpAddr, standing: Option<Standing>) {
        let here = |reach: &Reach| reach.includes(&self.interface.name);
        let spoken = Protocol::of(address).fits(&self.interface);
        let standing = standing.filter(|_| spoken);
        let candidates = standing.and_then(|standing| {
            if standing.reach.as_ref().is_some_and(here) {
                return Some(standing.candidates);
            }
            // Not here; but it may be held here still, to be handed over.
            let viewed = self.viewed.contains(&address);
            let others = viewed.then(|| without(self.settings.me, &standing.candidates));
            others.filter(|others| !others.order.is_empty())
        });
        let was = if candidates.is_some() {
            !self.viewed.insert(address)
        } else {
            self.viewed.remove(&address)
        };
        if was || candidates.is_some() {
            self.handle(Input::View(address, candidates));
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.drops) >= DROPS {
            self.drops = now;
            if self.voices.dropped() {
                self.handle(Input::Dropped);
            }
        }
        self.handle(Input::Tick);
        while let Some(lesson) = self.neighbours.due(now) {
            self.give(lesson);
        }
        self.voices.join_due(now, &self.interface);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let others = [self.neighbours.next_deadline(), self.voices.next_deadline()];
        let others = others.into_iter().flatten();
        self.arbiter.next_deadline().into_iter().chain(others).min()
    }

    /// Answers are given while this task keeps its deadlines. Who wakes later than the arbiter bears may be too late. Gives when
    /// to wake: at the `deadline`, or before it to renew the promise.
    fn promise(&self, deadline: Option<Instant>) -> Option<Instant> {
        let patience = self.settings.profile.patience;
        let (until, wake) = promise(deadline, self.arbiter.owed(), patience, Instant::now());
        self.table.promise(until);
        wake
    }

    fn give(&mut self, lesson: Lesson) {
        match lesson {
            // Who may be deaf teaches nobody: another may hold it, unheard.
            Lesson::Tell { address, .. } if !self.teaches(address) => {}
            Lesson::Tell { address, host } => {
                let to = MacAddr::from(host.mac);
                let frame = teach(address, host.address, to, &self.station());
                self.outbox.push((frame, Protocol::of(address), None));
            }
            // Nobody has to answer what NDP says unasked, so only of ARP is silence a sign.
            Lesson::Unlearned { address, host } if address.is_ipv4() => {
                self.metrics.failover.unlearned.inc();
                let mac = MacAddr::from(host.mac);
                tracing::warn!(event = "unlearned", ip = %address, interface = self.interface.name, host = %host.address, mac = %mac,
                    "the host has not shown that it knows where the address is now; it may still send to its former node");
            }
            Lesson::Unlearned { .. } => {}
        }
    }

    fn teaches(&self, address: IpAddr) -> bool {
        let held = self.table.held(address);
        !self.muted && self.arbiter.may_claim() && held.is_some_and(|held| held.at.is_none())
    }

    /// What came in, or why nothing will any more. True if that were all.
    fn received(&mut self, protocol: Protocol, got: io::Result<bool>, inbox: &Inbox) -> bool {
        let drained = match got {
            Ok(drained) => drained,
            Err(error) => {
                self.metrics.wire.receive_errors.inc();
                tracing::warn!(op = "arbitrate", interface = self.interface.name, error = %error,
                    "cannot listen on an interface any longer, opening it anew if it stays");
                self.voices.close(protocol);
                self.tell_link();
                return true;
            }
        };
        // What a client asked before it said something else must not be heard after it.
        self.catch_up();
        let now = Instant::now();
        for frame in inbox.frames() {
            // Why a frame was no good is the responder's to count.
            if let Ok(message) = protocol.read(&frame, self.interface.mac) {
                self.heard(&message, now);
            }
        }
        drained
    }

    fn heard(&mut self, message: &Message<'_>, now: Instant) {
        let (own, key) = (&self.own, &self.settings.key);
        let Some(input) = frames::input(message, now, key, |mac| own.contains(&mac)) else {
            return;
        };
        if let Input::Frame(_, mac) = &input {
            if let Some(asker) = message.asker()
                && (self.askers.len() < ASKERS || self.askers.contains_key(mac))
            {
                self.askers.insert(*mac, asker);
            }
        } else {
            self.neighbours.learn_from(message, self.interface.mac, now);
        }
        let input = self.of_concern(input);
        if matches!(input, Input::Heard(_)) {
            if self.heard.is_some_and(|at| now < at + HEARD) {
                return;
            }
            self.heard = Some(now);
        }
        self.handle(input);
    }

    /// The same, but that somebody said where an address is that is none of the arbiter's: another host was heard.
    fn of_concern(&mut self, input: Input) -> Input {
        match input {
            Input::Plain {
                address, mac, at, ..
            } if !self.viewed.contains(&address) && !self.neighbours.is_node(address) => {
                self.neighbours.met(address, MacAddr::from(mac));
                Input::Heard(at)
            }
            input => input,
        }
    }

    /// What clients asked since this task woke last, of which the answering thread tells.
    fn take_in_questions(&mut self) {
        let mut last = None;
        for question in self.table.overheard().fetch() {
            match self.overheard(&question) {
                Some(Input::Heard(at)) => last = last.max(Some(at)),
                Some(input) => self.decide(input),
                None => {}
            }
        }
        if let Some(at) = last {
            self.decide(Input::Heard(at));
        }
    }

    /// What a client's question means to the arbiter; nothing if it is one of this node's own.
    fn overheard(&mut self, question: &Question) -> Option<Input> {
        if self.own.contains(&question.mac) || self.own.contains(&question.source) {
            return None;
        }
        let Some(asker) = question.asker else {
            return Some(Input::Heard(question.at));
        };
        let (viewed, table) = (&self.viewed, &self.table);
        let ours = |address| viewed.contains(&address);
        let held = |address| table.holds(address);
        self.neighbours.asked(question, asker, ours, held);
        Some(self.of_concern(Input::Plain {
            address: asker,
            mac: question.mac.octets(),
            unasked: true,
            at: question.at,
        }))
    }

    /// What happened, after what clients asked before.
    fn handle(&mut self, input: Input) {
        self.catch_up();
        self.decide(input);
    }

    /// Takes in what clients asked, once each time this task wakes: a flood of questions must not hold up what else there is.
    fn catch_up(&mut self) {
        if !std::mem::replace(&mut self.fetched, true) {
            self.take_in_questions();
        }
    }

    fn decide(&mut self, input: Input) {
        let outputs = self.arbiter.handle(input, Instant::now());
        for output in outputs {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send(frame, to) => {
                let asker = to.and_then(|mac| self.askers.get(&mac).copied());
                let asker = asker.filter(|asker| asker.is_ipv4() == frame.address.is_ipv4());
                let counter = (frame.kind == Kind::Claim)
                    .then(|| self.table.held(frame.address))
                    .flatten()
                    .map(|held| held.counters);
                if frame.kind == Kind::Claim && to.is_none() {
                    self.neighbours.claimed(frame.address);
                }
                let mut bytes = Vec::new();
                let station = self.station();
                frames::encode(&frame, to, asker, &station, &self.settings.key, &mut bytes);
                let protocol = Protocol::of(frame.address);
                let bytes = bytes
                    .into_iter()
                    .map(|frame| (frame, protocol, counter.clone()));
                self.outbox.extend(bytes);
            }
            Output::AskKernel(address, mac) => self.ask(address, Some(MacAddr::from(mac))),
            Output::AskAround => {
                for (address, mac) in self.neighbours.all() {
                    self.ask(address, mac);
                }
            }
            Output::Answer(address, mac) => {
                let at = mac.map(MacAddr::from);
                self.gave_up |= at.is_some();
                if at.is_some() {
                    self.neighbours.let_go(address);
                }
                let held = self.table.held(address);
                let held = held.unwrap_or_else(|| self.metrics.held(address));
                self.table.insert(address, Held { at, ..held });
            }
            Output::Silent(address) => {
                self.gave_up = true;
                self.table.remove(address);
                self.neighbours.let_go(address);
            }
            Output::Mute(muted) => {
                self.muted = muted;
                self.table.mute(muted);
            }
            Output::Join(address) => self.voices.join(address),
            Output::Leave(address) => self.voices.leave(address),
            Output::Report(report) => {
                if let Report::Took { address, .. } = report {
                    self.neighbours.taken(address);
                }
                self.tell(Some(report));
            }
            Output::Stopped => self.stopping = None,
        }
    }

    /// A question without a tag, which whoever has the address answers.
    fn ask(&mut self, address: IpAddr, to: Option<MacAddr>) {
        let frame = question(address, to, &self.station(), None);
        self.outbox.push((frame, Protocol::of(address), None));
    }

    fn tell(&self, report: Option<Report>) {
        let interface = self.interface.name.clone();
        let at = Instant::now();
        let _the_process_ends = self.told.send(Told {
            interface,
            at,
            report,
        });
    }

    /// Sends what is to be sent. The table is in line with what the arbiter wants by then: whoever is told that an address
    /// is here finds it answered.
    async fn send(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        if std::mem::take(&mut self.gave_up) {
            self.table.known_to_all(LAST_ANSWERS).await;
        }
        for protocol in Protocol::ALL {
            let outbox = &self.outbox;
            let mine = outbox.iter().filter(|(_, spoken, _)| *spoken == protocol);
            let (frames, counters): (Vec<&FrameBuf>, Vec<Option<&Arc<Counters>>>) = mine
                .map(|(frame, _, counter)| (frame, counter.as_ref()))
                .unzip();
            let sent = self.voices.send(protocol, &frames, |position| {
                if let Some(Some(counters)) = counters.get(position) {
                    counters.count_gratuitous();
                }
            });
            if let Err(error) = sent.await {
                self.metrics.wire.send_errors.inc();
                tracing::debug!(op = "arbitrate", interface = self.interface.name, error = %error, "cannot send");
            }
        }
        self.outbox.clear();
    }

    /// Opens what should be open and is not, closes what should not be, and tells the arbiter whether it can be used.
    fn look_after(&mut self) {
        self.voices.look_after(&self.interface, &self.metrics);
        self.tell_link();
        for unknown in self.neighbours.look(&self.interface.name) {
            self.ask(unknown, None);
        }
    }

    fn tell_link(&mut self) {
        let usable = self.interface.running && self.voices.complete(&self.interface);
        self.handle(Input::Link(usable));
    }

    fn station(&self) -> Station {
        Station {
            mac: self.interface.mac,
            link_local: self.interface.ndp,
        }
    }

    /// The interface is gone, or no longer announced on.
    fn let_all_go(&mut self) {
        let held = self.table.clear();
        self.table.promise(None);
        self.table.overheard().close();
        for address in held {
            let cause = Cause::LinkDown;
            self.tell(Some(Report::Released {
                address,
                cause,
                to: None,
            }));
        }
        self.tell(None);
    }
}

/// The same candidates but for one.
fn without(node: NodeId, candidates: &Candidates) -> Candidates {
    let order = candidates.order.iter().copied();
    let willing = candidates.order.iter().take(candidates.willing);
    Candidates {
        willing: willing.filter(|other| **other != node).count(),
        order: order.filter(|other| *other != node).collect(),
    }
}

/// Above every number an earlier process of this node used, unless it sent more than 1024 frames of its own a second; and
/// so little below those of a month ago that they count as past.
fn first_nonce() -> u32 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // The lowest 32 bits: what is compared wraps.
    u32::try_from((since.as_millis() * 1024 / 1000) & u128::from(u32::MAX)).unwrap_or_default()
}
