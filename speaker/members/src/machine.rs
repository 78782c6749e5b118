//! The machine: SWIM (Das, Gupta, Motivala, 2002) with Lifeguard, as memberlist 0.5 behaves. Time, messages and a seed go
//! in; messages to send and verdicts on members come out. It knows no socket, clock or system randomness.
//!
//! Where it differs from memberlist, on purpose and without the others noticing:
//! - news is told at once when nothing was told for a gossip interval, not at the next tick;
//! - a node that leaves tells every live member itself, beside gossiping it;
//! - a nack is sent at 80 % of the probe timeout: memberlist's own comes just too late for the asker's default deadline,
//!   and so costs whoever asks one of its nodes a point of health for every node that dies;
//! - only nodes that are alive are expected to confirm a suspicion; memberlist waits for the dead too, so that of four
//!   nodes the second to die is missed 7 s longer than the first;
//! - a pause of this process moves every deadline by as much: silence while we were not listening counts for nothing.

mod claims;
mod gossip;
mod probe;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::broadcast::Broadcasts;
use crate::dice::Dice;
use crate::message::{Alive, Message, Versions};
use crate::profile::Profile;
use crate::stream::{Exchange, Status};
use crate::suspicion::{Awareness, Suspicion};
use probe::{Probe, Relay};

/// Most members that are kept; further ones are not let in.
pub const MAX_MEMBERS: usize = 16_384;
/// How long a leaving node waits for its farewell to spread.
pub const LEAVE_TIME: Duration = Duration::from_secs(1);
/// Shortest lateness that counts as a pause of the process, beside half a probe timeout.
const PAUSE: Duration = Duration::from_millis(100);

/// Who we are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The node's name, as Kubernetes has it.
    pub name: String,
    /// The address others reach us at.
    pub addr: IpAddr,
    /// The port, UDP and TCP.
    pub port: u16,
    /// Metadata for the others; MetalLB has none.
    pub meta: Vec<u8>,
}

/// What is believed of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node's name.
    pub name: String,
    /// Its address.
    pub addr: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its metadata.
    pub meta: Vec<u8>,
    /// Dead or alive.
    pub status: Status,
}

/// What the machine wants done, or has concluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this packet (close its envelope first).
    Packet {
        /// Where to.
        to: SocketAddr,
        /// What.
        body: Vec<u8>,
    },
    /// Ping a node by TCP and report with [`Machine::tcp_pong`] before the deadline, or not at all.
    TcpPing {
        /// Where to.
        to: SocketAddr,
        /// The stream's message.
        body: Vec<u8>,
        /// The number that must come back.
        seq: u32,
        /// When the answer is of no use any more.
        deadline: Instant,
    },
    /// Exchange everything with a node: send [`Machine::exchange`], give what comes back to [`Machine::merge`].
    Exchange {
        /// Where to.
        to: SocketAddr,
        /// Whether we join the cluster by it.
        join: bool,
    },
    /// The verdict on a member, ourselves included, has changed.
    Verdict(Member),
}

#[derive(Clone, Debug)]
struct Entry {
    /// Name, address as it was sent, incarnation and the like: what is told to others.
    alive: Alive,
    status: Status,
    changed: Instant,
    suspicion: Option<Suspicion>,
}

impl Entry {
    fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.alive.addr.to_canonical(), self.alive.port)
    }

    fn versions(&self) -> Versions {
        self.alive.versions.unwrap_or(Versions::UNKNOWN)
    }

    fn member(&self) -> Member {
        let Alive {
            node,
            addr,
            port,
            meta,
            ..
        } = &self.alive;
        Member {
            name: node.clone(),
            addr: addr.to_canonical(),
            port: *port,
            meta: meta.clone(),
            status: self.status,
        }
    }
}

/// One member's view of the cluster.
#[derive(Debug)]
pub struct Machine {
    me: Identity,
    profile: Profile,
    /// Bytes label and seal add to a packet.
    overhead: usize,
    dice: Dice,
    nodes: BTreeMap<String, Entry>,
    /// The order in which nodes are probed.
    order: Vec<String>,
    probe_index: usize,
    awareness: Awareness,
    news: Broadcasts,
    seq: u32,
    probe: Option<Probe>,
    /// Indirect pings we make for others, by our own number.
    relays: BTreeMap<u32, Relay>,
    next_probe: Option<Instant>,
    next_gossip: Option<Instant>,
    next_exchange: Option<Instant>,
    /// Until when a farewell may spread.
    leaving: Option<Instant>,
    /// The last time anything came in.
    awake: Instant,
    outputs: VecDeque<Output>,
}

impl Machine {
    /// A member on its own. `overhead` is [`crate::Envelope::overhead`]; `seed` should differ between members and lives.
    pub fn new(me: Identity, profile: Profile, overhead: usize, now: Instant, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        // A random share of an interval first, so that nodes started together do not act together.
        let mut first = |interval: Duration| {
            (!interval.is_zero()).then(|| now + interval + dice.share(interval))
        };
        let next_probe = first(profile.probe_interval);
        let next_exchange = first(profile.push_pull_interval);
        let gossip = !profile.gossip_interval.is_zero() && profile.gossip_nodes > 0;
        let alive = Alive {
            incarnation: 1,
            node: me.name.clone(),
            addr: me.addr,
            port: me.port,
            meta: me.meta.clone(),
            versions: Some(Versions::OURS),
        };
        // Answers to an earlier life of ours should not be taken for answers to this one.
        let seq = u32::try_from(dice.next() >> 33).unwrap_or(0);
        let mut machine = Self {
            awareness: Awareness::new(&profile),
            order: vec![me.name.clone()],
            me,
            overhead,
            dice,
            nodes: BTreeMap::new(),
            probe_index: 0,
            news: Broadcasts::default(),
            seq,
            probe: None,
            relays: BTreeMap::new(),
            next_probe,
            next_gossip: gossip.then_some(now),
            next_exchange,
            leaving: None,
            awake: now,
            outputs: VecDeque::new(),
            profile,
        };
        machine
            .news
            .push(&alive.node, Message::Alive(alive.clone()).encode());
        let entry = Entry {
            alive,
            status: Status::Alive,
            changed: now,
            suspicion: None,
        };
        machine.outputs.push_back(Output::Verdict(entry.member()));
        machine.nodes.insert(machine.me.name.clone(), entry);
        machine
    }

    /// The next thing to do, until there is none. Call after every other method.
    pub fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Everyone known, ourselves included, in the order of their names. The dead and the departed stay in it for
    /// [`Profile::gossip_to_the_dead_time`] or somewhat longer.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.nodes.values().map(Entry::member)
    }

    /// What is believed of this member.
    pub fn status(&self, name: &str) -> Option<Status> {
        self.nodes.get(name).map(|entry| entry.status)
    }

    /// How many [`Machine::members`] there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// How ill we believe ourselves to be: 0 is well, and no more than [`Profile::awareness_max_multiplier`] - 1.
    pub fn health_score(&self) -> u32 {
        self.awareness.score()
    }

    /// When [`Machine::tick`] must be called at the latest. A time that has passed means at once.
    pub fn next_wake(&self) -> Option<Instant> {
        let gossip = self
            .next_gossip
            .filter(|_| !self.news.is_empty() && self.nodes.len() > 1);
        // While a probe runs, the next one waits for its end.
        let probe = match &self.probe {
            Some(probe) => Some(probe.wake()),
            None => self.next_probe,
        };
        let suspicions = self
            .nodes
            .values()
            .filter_map(|e| Some(e.suspicion.as_ref()?.deadline()))
            .min();
        let relays = self.relays.values().map(Relay::wake).min();
        [gossip, probe, self.next_exchange, suspicions, relays]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        self.notice(now);
        self.relays_due(now);
        self.probe_due(now);
        self.suspicions_due(now);
        self.gossip_due(now);
        self.exchange_due(now);
    }

    /// Called first by everything that comes in. If it comes much later than we asked to be woken, the process or the whole
    /// machine stood still, and so did our ears.
    fn notice(&mut self, now: Instant) {
        // A wake-up may lie before our last sign of life: that input has just brought it about.
        let asked = self.next_wake().map(|wake| wake.max(self.awake));
        self.awake = now;
        let pause = asked.map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked));
        if pause < PAUSE.max(self.profile.probe_timeout / 2) {
            return;
        }
        for entry in self.nodes.values_mut() {
            if let Some(suspicion) = &mut entry.suspicion {
                suspicion.postpone(pause);
            }
        }
        if let Some(probe) = &mut self.probe {
            probe.postpone(pause);
        }
    }

    /// Joins the cluster by every one of `targets` that is not ourselves or a live member.
    pub fn join(&mut self, targets: &[SocketAddr]) {
        for to in targets {
            let known = |entry: &Entry| {
                entry.socket() == *to
                    && (entry.status.is_live() || entry.alive.node == self.me.name)
            };
            if !self.nodes.values().any(known) {
                self.outputs.push_back(Output::Exchange {
                    to: *to,
                    join: true,
                });
            }
        }
    }

    /// Our side of an exchange.
    pub fn exchange(&self, join: bool) -> Exchange {
        let states = self
            .nodes
            .values()
            .map(|entry| (entry.status, entry.alive.clone()))
            .collect();
        Exchange { join, states }
    }

    /// Says goodbye. The others hear of it within [`LEAVE_TIME`]; keep driving the machine until [`Machine::has_left`].
    pub fn leave(&mut self, now: Instant) {
        self.notice(now);
        if self.leaving.is_none() {
            self.leaving = Some(now + LEAVE_TIME);
            self.say_goodbye(now);
        }
    }

    /// Whether the farewell has spread, or its time is over.
    pub fn has_left(&self, now: Instant) -> bool {
        self.leaving.is_some_and(|deadline| {
            let others = self
                .nodes
                .values()
                .any(|e| e.alive.node != self.me.name && e.status.is_live());
            now >= deadline || !others || !self.news.holds(&self.me.name)
        })
    }

    fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    fn verdict(&mut self, name: &str) {
        if let Some(entry) = self.nodes.get(name) {
            self.outputs.push_back(Output::Verdict(entry.member()));
        }
    }
}
