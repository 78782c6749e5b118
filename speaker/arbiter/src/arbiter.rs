//! The machine of one interface: owns what is known of every peer and every address, and tells each input to the part it
//! concerns.

mod acquaint;
mod asking;
mod contest;
mod denials;
mod facts;
mod handover;
mod stand;
mod strangers;
mod watch;
mod wishes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ferrolb_speaker_core::Burst;

use crate::event::{Cause, Input, Output, Report};
use crate::frame::{Frame, Kind, Mac, NodeId};
use crate::hold::{Deadline, Hold, State};
use crate::mutation::Mutation;
use crate::peer::{Liveness, Peer};
use crate::profile::Profile;
use crate::timers::Timers;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A deadline missed by more than this is a stall: silence in it proves nothing.
const LATE: Duration = ms(20);

/// A stall beyond this may have cost the addresses: ask before answering. Not above the shortest patience of any profile
/// but `fast`, whose patience it follows.
const ABSENT: Duration = ms(250);

/// How long the answers to that may take: a fourth of the standstill, within these bounds. Where one node stands still for
/// long, others answer late.
const MUTED: [Duration; 2] = [ms(50), ms(500)];

/// After a standstill this long another holds the addresses: it is always asked first.
const LONG: Duration = ms(1000);

/// From one introduction to the next, while there are peers that never answered.
const HELLO: Duration = ms(3000);

/// Senders that nobody has told of are believed up to this many: those who are new. Without a secret anybody can make up more.
const UNLISTED: usize = 64;

/// How long all hand-overs of a process that ends may take.
const STOP: Duration = ms(1500);

/// The arbiter of one interface.
///
/// It has no clock: every call says what time it is, in monotonic time that may stand still while the machine does.
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a plain fact of its own"
)]
pub struct Arbiter {
    me: NodeId,
    profile: Profile,
    now: Instant,
    nonce: u32,
    link: bool,
    stopping: Option<Instant>,
    /// All that is held is queued for its last move.
    collected: bool,
    stopped: bool,
    muted: bool,
    peers: BTreeMap<NodeId, Peer>,
    /// Each in memory of its own: of the room in a tree's nodes, half is left over where addresses come in order.
    holds: BTreeMap<IpAddr, Box<Hold>>,
    /// The addresses answered for, and the one of them that strangers were asked about last.
    held: BTreeSet<IpAddr>,
    patrolled: Option<IpAddr>,
    /// Whose end or change decides about which addresses.
    waiting: BTreeMap<NodeId, BTreeSet<IpAddr>>,
    kernels: BTreeMap<IpAddr, NodeId>,
    timers: Timers<Deadline>,
    burst: Burst<IpAddr>,
    /// Held, but claimed to nobody yet, because nothing was heard.
    unannounced: BTreeSet<IpAddr>,
    checks: VecDeque<(NodeId, IpAddr)>,
    /// The addresses to ask all about, the start of the time slot the last was asked in, and how many were.
    asks: VecDeque<IpAddr>,
    asked_in: (Instant, u32),
    moves: VecDeque<(IpAddr, Cause)>,
    moving: BTreeSet<IpAddr>,
    /// What is to move and stays, so that it is looked at again when nodes come and go.
    staying: BTreeSet<IpAddr>,
    /// The addresses to be decided again, some at a time, and the last that was.
    unsettled: BTreeSet<IpAddr>,
    last_settled: Option<IpAddr>,
    last_input: Instant,
    /// When the answer to the last probe was due: nothing wakes this node then that was answered, but it is still to be there.
    answer_due: Instant,
    /// When anything was heard of another host, and of one that is no peer.
    heard: Option<Instant>,
    heard_host: Option<Instant>,
    /// When others were last asked for any answer, to prove that this node hears.
    asked_around: Option<Instant>,
    /// Until when others are believed that say they hold what I hold, because I was away.
    away: Option<Instant>,
    stood_still: Option<Instant>,
    /// How long this node has stood still in all, by what it noticed.
    still: Duration,
    /// Since when this node was there without fault.
    stable_since: Instant,
    /// The last introduction: its nonce and when; and how many.
    hello: Option<(u32, Instant)>,
    hellos: u32,
    /// Who introduced themselves and are to be answered.
    introduced: BTreeMap<NodeId, (Frame, Mac)>,
    /// How many peers never showed themselves here and should have.
    blind: usize,
    /// Some peer is MetalLB's.
    legacy: bool,
    out: Vec<Output>,
    #[cfg(test)]
    mutation: Option<Mutation>,
}

impl Arbiter {
    /// An arbiter for node `me` that knows nothing yet. `nonce` must lie above all an earlier process of this node used
    /// of late: Unix time in 1024ths of a second, truncated, does.
    pub fn new(me: NodeId, profile: Profile, nonce: u32, now: Instant) -> Self {
        Self {
            me,
            profile: profile.limited(),
            now,
            nonce,
            link: false,
            stopping: None,
            collected: false,
            stopped: false,
            muted: false,
            peers: BTreeMap::new(),
            holds: BTreeMap::new(),
            held: BTreeSet::new(),
            patrolled: None,
            waiting: BTreeMap::new(),
            kernels: BTreeMap::new(),
            timers: Timers::new(),
            burst: Burst::new(2),
            unannounced: BTreeSet::new(),
            checks: VecDeque::new(),
            asks: VecDeque::new(),
            asked_in: (now, 0),
            moves: VecDeque::new(),
            moving: BTreeSet::new(),
            staying: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            last_settled: None,
            last_input: now,
            answer_due: now,
            heard: None,
            heard_host: None,
            asked_around: None,
            away: None,
            stood_still: None,
            still: Duration::ZERO,
            stable_since: now,
            hello: None,
            hellos: 0,
            introduced: BTreeMap::new(),
            blind: 0,
            legacy: false,
            out: Vec::new(),
            #[cfg(test)]
            mutation: None,
        }
    }

    /// When [`Input::Tick`] is due; none if there is nothing to wait for. To be asked again after every input.
    pub fn next_deadline(&self) -> Option<Instant> {
        let claims = self
            .burst
            .next_deadline(self.now)
            .filter(|_| self.may_claim());
        self.first_due().into_iter().chain(claims).min()
    }

    /// The first of the timers; and where peers are patient for less time than this node lets pass between two probes, as soon
    /// as they would give it up if it did nothing, for it has to notice no later than they that it stood still.
    fn first_due(&self) -> Option<Instant> {
        let first = self.timers.first()?;
        let rare = self.profile.interval > self.profile.patience && !self.peers.is_empty();
        let pulse = self.last_input + self.profile.patience;
        Some(if rare { first.min(pulse) } else { first })
    }

    /// From when on this node counts as standing still if it does nothing: the next deadline, or before it the end of the time
    /// that a peer had to answer in, even if it has. [`Mute`](Output::Mute) goes by it, and so should the shell where it
    /// keeps answers back because the machine was not asked for long.
    pub fn owed(&self) -> Option<Instant> {
        let due = Some(self.answer_due).filter(|due| *due > self.now);
        self.next_deadline()
            .map(|next| due.map_or(next, |due| next.min(due)))
    }

    /// Tells the machine what happened, `now`: what to do, in order.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Output> {
        self.now = self.now.max(now);
        self.notice_stall();
        match input {
            Input::Tick => self.run_due(),
            Input::Frame(frame, mac) => {
                if self.link && frame.sender != self.me {
                    self.heard = Some(self.now);
                    self.frame(frame, mac);
                }
            }
            Input::Plain {
                address,
                mac,
                unasked,
                at,
            } => {
                let at = at.min(self.now);
                self.heard = self.heard.max(Some(at));
                self.plain(address, mac, unasked, at);
            }
            Input::Heard(at) => {
                let at = Some(at.min(self.now));
                self.heard = self.heard.max(at);
                self.heard_host = self.heard_host.max(at);
            }
            Input::Peers(peers) => self.set_peers(&peers),
            Input::View(address, candidates) => self.set_view(address, candidates),
            Input::Link(up) => self.set_link(up),
            Input::Dropped => self.restart_windows(),
            Input::Wish(address, wish) => self.wish(address, wish),
            Input::Stop => self.stop(),
        }
        self.last_input = self.now;
        self.make_known();
        std::mem::take(&mut self.out)
    }

    /// Whether this node answers for the address, be it with another's hardware address.
    pub fn answers(&self, address: IpAddr) -> bool {
        !self.muted && self.held.contains(&address)
    }

    /// What is known of a peer's presence on this segment: true and false where it proved itself on the wire, none where
    /// gossip decides.
    pub fn presence(&self, node: NodeId) -> Option<bool> {
        match self.peers.get(&node)?.state {
            Liveness::Unknown => None,
            Liveness::Up | Liveness::Suspect => Some(true),
            Liveness::Down => Some(false),
        }
    }

    /// Who holds the address in this node's opinion; none if nobody known does.
    pub fn holder(&self, address: IpAddr) -> Option<NodeId> {
        if self.held.contains(&address) {
            return Some(self.me);
        }
        let holder = self.holds.get(&address)?.holder?;
        self.alive(holder).then_some(holder)
    }

    #[cfg(test)]
    pub(crate) fn mutate(&mut self, mutation: Option<Mutation>) {
        self.mutation = mutation;
    }

    #[cfg(test)]
    fn mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "it has one in tests")]
    const fn mutated(&self, _: Mutation) -> bool {
        false
    }

    // What the parts share.

    fn next_nonce(&mut self) -> u32 {
        self.nonce = self.nonce.wrapping_add(1);
        self.nonce
    }

    fn report(&mut self, report: Report) {
        self.out.push(Output::Report(report));
    }

    /// Sends to one node, if its hardware address is known.
    fn send(&mut self, kind: Kind, to: NodeId, subject: NodeId, nonce: u32, address: IpAddr) {
        if let Some(mac) = self.peers.get(&to).and_then(|peer| peer.mac) {
            self.send_to(kind, mac, subject, nonce, address);
        }
    }

    fn send_to(&mut self, kind: Kind, mac: Mac, subject: NodeId, nonce: u32, address: IpAddr) {
        let frame = self.compose(kind, subject, nonce, address);
        self.out.push(Output::Send(frame, Some(mac)));
    }

    fn broadcast(&mut self, kind: Kind, subject: NodeId, nonce: u32, address: IpAddr) {
        let frame = self.compose(kind, subject, nonce, address);
        self.out.push(Output::Send(frame, None));
    }

    fn compose(&self, kind: Kind, subject: NodeId, nonce: u32, address: IpAddr) -> Frame {
        Frame {
            kind,
            hearing: self.hears() && !self.muted,
            sender: self.me,
            subject,
            nonce,
            address,
        }
    }

    /// How long hearing something proves that reception works.
    fn hearing_window(&self) -> Duration {
        self.profile.interval.mul_f32(1.2).max(ms(60))
    }

    /// Until when it is sure that this node hears; none if it never heard anything.
    pub fn heard_until(&self) -> Option<Instant> {
        self.heard.map(|at| at + self.hearing_window())
    }

    fn hears(&self) -> bool {
        self.heard_until().is_some_and(|until| self.now <= until)
    }

    /// Whether anything may be told unasked: who hears nothing may be wrong about who holds what.
    pub fn may_claim(&self) -> bool {
        self.link && !self.muted && (self.hears() || self.mutated(Mutation::SkipHearing))
    }

    fn alive(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(Peer::alive)
    }

    /// A number that looks like chance and depends on this node, `salt` and what was sent so far only.
    fn chance(&self, salt: u32, below: u32) -> u32 {
        let mut x =
            u32::from_be_bytes(self.me.to_bytes()) ^ self.nonce.wrapping_mul(0x9e37_79b9) ^ salt;
        for _ in 0..3 {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x = x.wrapping_mul(0x85eb_ca6b);
        }
        x % below.max(1)
    }

    // Time.

    fn notice_stall(&mut self) {
        let Some(due) = self.first_due() else {
            return;
        };
        let late = self.now.saturating_duration_since(due.max(self.last_input));
        if late <= LATE {
            return;
        }
        // Longer than it is late, where nothing was to wake it since.
        let away = if self.answer_due > self.last_input {
            late.max(self.now.saturating_duration_since(self.answer_due))
        } else {
            late
        };
        self.still = self.still.saturating_add(late);
        self.restart_windows();
        if away > ABSENT.min(self.profile.patience) {
            self.stable_since = self.now;
            self.report(Report::StoodStill(late));
            // Who stands still again and again would never answer if it asked every time.
            let again = late < LONG && self.stood_still.is_some_and(|at| self.now < at + ms(2000));
            self.stood_still = Some(self.now);
            if !self.muted && !again {
                self.muted = true;
                self.out.push(Output::Mute(true));
                let [least, most] = MUTED;
                let until = self.now + (late / 4).clamp(least, most);
                self.timers.set(Deadline::Mute, until);
            }
            self.say_hello(self.me);
        }
    }

    fn run_due(&mut self) {
        while let Some(deadline) = self.timers.due(self.now) {
            match deadline {
                Deadline::Mute => {
                    if self.muted {
                        self.muted = false;
                        self.out.push(Output::Mute(false));
                    }
                }
                Deadline::Peer(node) => self.peer_due(node),
                Deadline::Hold(address) => self.hold_due(address),
                Deadline::Checks => self.run_checks(),
                Deadline::Asks => self.run_asks(),
                Deadline::Stranger(address) => self.stranger_due(address),
                Deadline::Patrol => self.patrol_due(),
                Deadline::Hello => self.hello_due(),
                Deadline::Greet(node) => self.greet(node),
                Deadline::Settle => self.settle_some(),
                Deadline::Stop => self.end(),
            }
        }
    }

    fn claims_due(&self) -> bool {
        let soon = self.now + ms(20);
        !self.unannounced.is_empty()
            || self
                .burst
                .next_deadline(self.now)
                .is_some_and(|at| at <= soon)
    }

    /// Sends the claims that are due, unless nothing is heard.
    fn make_known(&mut self) {
        if self.link && !self.muted && self.claims_due() {
            // Before the last proof of hearing is too old, so that many claims keep their pace on a silent segment.
            let half = self.hearing_window() / 2;
            let old = |at: Option<Instant>| at.is_none_or(|at| self.now > at + half);
            if old(self.heard) && old(self.asked_around) {
                self.asked_around = Some(self.now);
                self.out.push(Output::AskAround);
            }
        }
        if !self.may_claim() {
            return;
        }
        while let Some(address) = self.unannounced.pop_first() {
            self.burst.take(address, self.now);
        }
        while let Some(address) = self.burst.due(self.now) {
            let nonce = self.next_nonce();
            self.broadcast(Kind::Claim, NodeId::NOBODY, nonce, address);
        }
    }

    // Frames.

    fn frame(&mut self, frame: Frame, mac: Mac) {
        let (now, sender) = (self.now, frame.sender);
        if !self.peers.contains_key(&sender)
            && self.peers.values().filter(|peer| !peer.listed).count() >= UNLISTED
        {
            return;
        }
        let peer = self.peers.entry(sender).or_insert_with(|| Peer::new(now));
        if peer.mac.is_none() {
            peer.mac = Some(mac);
        }
        if frame.kind.echoes() && frame.kind != Kind::Vouch {
            if frame.kind == Kind::Noted {
                // Echoes what its sender asked once, so it proves nothing about now.
                self.noted(frame);
                return;
            }
            if frame.subject != self.me {
                // To another, whose nonce may look like mine.
                return;
            }
            let hold = self.holds.get(&frame.address);
            let asked = hold
                .and_then(|hold| hold.query)
                .is_some_and(|q| (q.node, q.nonce) == (sender, frame.nonce))
                || hold.is_some_and(|hold| match hold.state {
                    State::Asking { nonce, .. } => nonce == Some(frame.nonce),
                    State::Entering {
                        from: node, nonce, ..
                    }
                    | State::Offering {
                        to: node, nonce, ..
                    }
                    | State::Ceding {
                        to: node, nonce, ..
                    } => (node, nonce) == (sender, frame.nonce),
                    _ => false,
                })
                || self
                    .hello
                    .is_some_and(|(nonce, at)| nonce == frame.nonce && now < at + ms(1000))
                    && peer.answered_hello.replace(frame.nonce) != Some(frame.nonce);
            let fresh = peer.answers(frame.nonce, now, self.still)
                || asked
                || self.mutated(Mutation::SkipNonce);
            if fresh {
                self.fresh(frame, mac);
            }
            return;
        }
        if frame.kind == Kind::Vouch {
            self.vouched(&frame);
            return;
        }
        let unicast = matches!(
            frame.kind,
            Kind::Probe | Kind::AskMe | Kind::Offer | Kind::Ready
        ) || matches!(frame.kind, Kind::Released | Kind::Claim)
            && frame.subject != NodeId::NOBODY;
        if unicast && frame.subject != self.me {
            // Meant for another: here it is a repetition, or a flooded frame.
            return;
        }
        let newer = self.newer(sender, frame);
        match frame.kind {
            Kind::Probe => {
                self.answer(frame, mac);
                if newer {
                    self.probe_in_step(sender);
                }
            }
            Kind::Hello => self.hello(frame, mac, newer),
            Kind::Ask if frame.subject == self.me || frame.subject == NodeId::NOBODY => {
                self.asked(frame, mac);
            }
            Kind::Ask if newer => self.asked_about(frame),
            Kind::AskMe if newer => self.probe(sender, Some(frame.address)),
            Kind::Released if newer && frame.subject == self.me => self.left_to_me(frame.address),
            Kind::Released if newer => self.left(frame.address, sender),
            Kind::Claim if newer => {
                let to_all = frame.subject == NodeId::NOBODY;
                self.claimed(frame.address, sender, to_all);
            }
            Kind::Offer if newer => self.offered(frame, mac),
            Kind::Ready if newer => self.readied(frame, mac),
            _ => {}
        }
    }

    /// A fresh answer: whatever it says, its sender is there.
    fn fresh(&mut self, frame: Frame, mac: Mac) {
        let (sender, address) = (frame.sender, frame.address);
        if frame.kind == Kind::Alive && self.mutated(Mutation::AliveIsSilence) {
            return;
        }
        self.answered(sender, mac, frame.kind);
        match frame.kind {
            Kind::WasDown => self.was_down(frame),
            Kind::Holding => self.holds_it(address, sender, frame.nonce),
            Kind::Alive => self.holds_not(address, sender, frame.nonce),
            Kind::Go => self.go(frame),
            Kind::Refuse => self.refused(frame),
            _ => {}
        }
    }

    /// Notes that a frame of its own came from a peer; whether it is newer than all before.
    fn newer(&mut self, node: NodeId, frame: Frame) -> bool {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&node) else {
            return false;
        };
        if !peer.rises(frame.nonce) {
            return false;
        }
        peer.seen = Some(now);
        peer.expect();
        if frame.hearing {
            peer.seen_hearing = Some(now);
        }
        if matches!(peer.state, Liveness::Unknown | Liveness::Down) {
            self.wonder(node, frame.hearing);
        }
        true
    }
}
