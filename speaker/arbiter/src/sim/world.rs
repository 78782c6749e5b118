//! The world: nodes on segments, the wires between them, clients, gossip, Kubernetes, and everything that befalls them. One
//! queue of events in order of virtual time; all chance from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod befall;
mod wires;

use super::checks::Checks;
use super::random::Random;
use crate::mutation::Mutation;
use crate::{
    Arbiter, Candidates, Frame, Input, Kind, Mac, NodeId, Output, PeerFacts, Profile, Wish,
};

/// Microseconds.
pub type Time = u64;
pub const MS: Time = 1000;
pub const S: Time = 1_000_000;

/// What travels.
#[derive(Clone, Copy, Debug)]
pub enum Packet {
    Tagged(Frame, Mac),
    Plain {
        address: IpAddr,
        mac: Mac,
        unasked: bool,
    },
    /// For the node address of the receiver; its kernel answers.
    KernelRequest {
        from: usize,
    },
    ClientRequest {
        address: IpAddr,
        host: usize,
    },
    /// One of ours without its tag.
    Question {
        address: IpAddr,
        from: usize,
    },
    /// Answers of the gateway, and all other traffic.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    On,
    /// No power: nothing answers.
    Off,
    /// Only the speaker is gone; the kernel answers.
    Killed,
    /// SIGSTOP: the kernel answers and queues.
    Stopped,
    /// The machine stands still, and its clock too or not.
    Paused {
        clock: bool,
    },
}

#[derive(Debug)]
pub struct Node {
    pub id: NodeId,
    pub run: Run,
    /// How far its clock is behind.
    pub lost: Time,
    pub paused_at: Time,
    /// It may run only every so often.
    pub throttle: Option<(Time, Time)>,
    pub busy_until: Time,
    /// MetalLB's speaker instead of ours.
    pub legacy: bool,
}

/// A node on a segment.
pub struct Station {
    pub node: usize,
    pub segment: usize,
    pub mac: Mac,
    pub arbiter: Option<Arbiter>,
    pub table: BTreeMap<IpAddr, Mac>,
    pub muted: bool,
    pub carrier: bool,
    pub rx_dead: bool,
    pub tx_dead: bool,
    pub inbox: VecDeque<(Time, Packet)>,
    pub view: BTreeMap<IpAddr, Candidates>,
    pub wake: u64,
    pub heard: Time,
    /// When it last heard a client that it was not told of yet.
    pub overheard: Option<Instant>,
    pub sent: VecDeque<Time>,
    pub asks: BTreeMap<NodeId, Time>,
    pub stopped: bool,
    /// MetalLB: which it announces.
    pub announces: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug)]
pub enum Event {
    Arrive {
        to: usize,
        packet: Packet,
    },
    Process {
        station: usize,
    },
    Wake {
        station: usize,
        wake: u64,
    },
    Act(Act),
    Ask {
        segment: usize,
    },
    /// A host hears where an address is; `unasked`: by a gratuitous frame.
    Taught {
        host: usize,
        address: IpAddr,
        mac: Mac,
        unasked: bool,
    },
    Sample,
}

/// A client, and what it has in its cache: where each address is, and since when.
#[derive(Debug)]
pub struct Host {
    pub segment: usize,
    pub cache: BTreeMap<IpAddr, (Mac, Time)>,
}

/// What befalls the world.
#[derive(Clone, Debug)]
pub enum Act {
    Run(usize, Run),
    Throttle(usize, Option<(Time, Time)>),
    Rx(usize, bool),
    Tx(usize, bool),
    Carrier(usize, bool),
    /// From, to, cut.
    Cut(usize, usize, bool),
    /// Kubernetes changes its mind about who may answer; each node learns it so much later.
    View(IpAddr, Vec<usize>, usize, Vec<Time>),
    Learn(usize, IpAddr, Candidates),
    /// The address is not announced any more, anywhere.
    Withdraw(IpAddr),
    /// A node that was away reads what it missed.
    Refresh(usize),
    Gossip,
    GossipBlocked(bool),
    Stop(usize),
    /// The operator wants it at that node, which then comes first for everybody, or away from who holds it.
    Move(IpAddr, Option<usize>),
    /// And no more.
    Unwish(IpAddr),
    /// Somebody repeats frames heard before, forges others.
    Attack(bool),
    AttackOnce,
    /// Somebody who is none of ours answers for an address on the first segment, or does no more.
    Stranger(IpAddr, bool),
    /// It says so unasked.
    StrangerClaims(IpAddr),
    /// MetalLB's speaker is replaced by ours, or ours by it.
    Replace(usize, bool),
}

#[derive(Clone, Debug)]
pub struct Setup {
    pub nodes: usize,
    pub segments: usize,
    pub addresses: usize,
    pub delay: (Time, Time),
    /// Lost, of a million; doubled.
    pub loss: u32,
    pub twice: u32,
    /// Of a million: delayed by as much as this again.
    pub stray: (u32, Time),
    pub gossip: bool,
    pub kernels: bool,
    pub clients: bool,
    pub client_every: Time,
    /// For how many addresses at a time.
    pub client_burst: usize,
    /// How many clients a segment has whose caches are looked at.
    pub hosts: usize,
    /// Gratuitous frames they lose, of a million.
    pub deafness: u32,
    /// The order of nodes is the same for all addresses.
    pub same_order: bool,
    pub gateway: bool,
    /// The fabric answers for node addresses it knows, dead or not.
    pub proxy: bool,
    /// The fabric strips tags.
    pub strips: bool,
    /// Somebody repeats and forges frames.
    pub attacked: bool,
    pub profile: Profile,
    pub mutation: Option<Mutation>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nodes: 3,
            segments: 1,
            addresses: 2,
            delay: (50, 300),
            loss: 0,
            twice: 0,
            stray: (0, 0),
            gossip: true,
            kernels: true,
            clients: true,
            client_every: 20 * MS,
            client_burst: 1,
            hosts: 2,
            deafness: 0,
            same_order: false,
            gateway: true,
            proxy: false,
            strips: false,
            attacked: false,
            profile: Profile::DEFAULT,
            mutation: None,
        }
    }
}

pub struct World {
    pub setup: Setup,
    pub random: Random,
    pub now: Time,
    base: Instant,
    queue: BinaryHeap<Reverse<(Time, u64, usize)>>,
    /// The events queued, by place, and the places that are free.
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    sequence: u64,
    pub nodes: Vec<Node>,
    pub stations: Vec<Station>,
    pub hosts: Vec<Host>,
    pub strangers: BTreeSet<IpAddr>,
    /// The last Ask of each station, delivered or not.
    pub last_ask: BTreeMap<usize, Packet>,
    pub cut: BTreeSet<(usize, usize)>,
    pub gossip_blocked: bool,
    /// What gossip has dead.
    gossip_dead: BTreeSet<usize>,
    pub order: BTreeMap<IpAddr, Vec<usize>>,
    recorded: Vec<(usize, Packet)>,
    attack: bool,
    pub clients: bool,
    pub checks: Checks,
    pub frames: u64,
    pub tally: Tally,
}

/// Frames counted: sent, by kind, and given to each station.
#[derive(Debug)]
pub struct Tally {
    pub sent: [u64; 16],
    pub heard: Vec<u64>,
}

pub fn address(index: usize) -> IpAddr {
    let low = u16::try_from(index + 1).unwrap();
    if index % 3 == 2 {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, low))
    } else {
        let [high, low] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
    }
}

fn node_address(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 1, 0, u8::try_from(node + 1).unwrap()))
}

impl World {
    /// All nodes on, all eligible for everything.
    pub fn new(setup: Setup, seed: u64) -> Self {
        let mut world = Self {
            random: Random::new(seed),
            now: 0,
            base: Instant::now(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            nodes: Vec::new(),
            stations: Vec::new(),
            hosts: Vec::new(),
            strangers: BTreeSet::new(),
            last_ask: BTreeMap::new(),
            cut: BTreeSet::new(),
            gossip_blocked: false,
            gossip_dead: BTreeSet::new(),
            order: BTreeMap::new(),
            recorded: Vec::new(),
            attack: false,
            clients: setup.clients,
            checks: Checks::default(),
            frames: 0,
            tally: Tally {
                sent: [0; 16],
                heard: vec![0; setup.nodes * setup.segments],
            },
            setup,
        };
        for node in 0..world.setup.nodes {
            let name = format!("node-{node}-{seed}");
            world.nodes.push(Node {
                id: NodeId::of(&name),
                run: Run::On,
                lost: 0,
                paused_at: 0,
                throttle: None,
                busy_until: 0,
                legacy: false,
            });
            for segment in 0..world.setup.segments {
                let mac = [
                    2,
                    0,
                    0,
                    0,
                    u8::try_from(segment).unwrap(),
                    u8::try_from(node + 1).unwrap(),
                ];
                world.stations.push(Station {
                    node,
                    segment,
                    mac,
                    arbiter: None,
                    table: BTreeMap::new(),
                    muted: false,
                    carrier: true,
                    rx_dead: false,
                    tx_dead: false,
                    inbox: VecDeque::new(),
                    view: BTreeMap::new(),
                    wake: 0,
                    heard: 0,
                    overheard: None,
                    sent: VecDeque::new(),
                    asks: BTreeMap::new(),
                    stopped: false,
                    announces: BTreeSet::new(),
                });
            }
        }
        let all: Vec<usize> = (0..world.setup.nodes).collect();
        for index in 0..world.setup.addresses {
            let mut order = all.clone();
            for at in (1..order.len()).rev() {
                let other = world.random.below(at + 1);
                if !world.setup.same_order {
                    order.swap(at, other);
                }
            }
            world.order.insert(address(index), order.clone());
            for station in 0..world.stations.len() {
                let candidates = world.candidates(&order, order.len());
                world.stations[station]
                    .view
                    .insert(address(index), candidates);
            }
        }
        for node in all {
            let at = world.random.range(0, 50 * MS);
            world.at(at, Event::Act(Act::Run(node, Run::On)));
        }
        for segment in 0..world.setup.segments {
            for _ in 0..world.setup.hosts {
                world.hosts.push(Host {
                    segment,
                    cache: BTreeMap::new(),
                });
            }
            world.at(world.setup.client_every, Event::Ask { segment });
        }
        world.at(5 * MS, Event::Sample);
        world
    }

    pub fn candidates(&self, order: &[usize], willing: usize) -> Candidates {
        let order: Arc<[NodeId]> = order.iter().map(|node| self.nodes[*node].id).collect();
        Candidates { order, willing }
    }

    pub fn station(&self, node: usize, segment: usize) -> usize {
        node * self.setup.segments + segment
    }

    pub fn at(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        let place = if let Some(place) = self.free.pop() {
            self.events[place] = Some(event);
            place
        } else {
            self.events.push(Some(event));
            self.events.len() - 1
        };
        self.queue
            .push(Reverse((at.max(self.now), self.sequence, place)));
    }

    pub fn act(&mut self, at: Time, act: Act) {
        self.at(at, Event::Act(act));
    }

    /// Goes on until then, or until something is wrong.
    pub fn run_until(&mut self, end: Time) {
        while let Some(Reverse((at, _, place))) = self.queue.peek().copied() {
            if at > end || self.checks.failed() {
                break;
            }
            self.queue.pop();
            self.now = at;
            self.free.push(place);
            if let Some(event) = self.events[place].take() {
                self.happen(event);
            }
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { to, packet } => self.arrive(to, packet),
            Event::Process { station } => self.process(station),
            Event::Wake { station, wake } => {
                if self.stations[station].wake == wake && self.runs(station) {
                    match self.runs_at(self.stations[station].node) {
                        at if at > self.now => self.at(at, Event::Wake { station, wake }),
                        _ => self.tell(station, Input::Tick),
                    }
                }
            }
            Event::Act(act) => self.befall(act),
            Event::Ask { segment } => self.client_asks(segment),
            Event::Taught {
                host,
                address,
                mac,
                unasked,
            } => self.learn(host, address, mac, unasked),
            Event::Sample => {
                let mut checks = std::mem::take(&mut self.checks);
                checks.sample(self);
                self.checks = checks;
                self.at(self.now + 5 * MS, Event::Sample);
            }
        }
    }

    pub fn runs(&self, station: usize) -> bool {
        self.nodes[self.stations[station].node].run == Run::On
    }

    /// Whether clients can be answered by it: it runs, hears and speaks.
    pub fn effective(&self, station: usize) -> bool {
        let it = &self.stations[station];
        self.runs(station) && it.carrier && !it.rx_dead && !it.tx_dead
    }

    /// When a node may run next.
    fn runs_at(&self, node: usize) -> Time {
        match self.nodes[node].throttle {
            Some((off, on)) => {
                let phase = self.now % (off + on);
                if phase < off {
                    self.now - phase + off
                } else {
                    self.now
                }
            }
            None => self.now,
        }
    }

    fn local(&self, node: usize) -> Instant {
        self.base + Duration::from_micros(self.now - self.nodes[node].lost)
    }

    // The machine and its shell.

    pub fn tell(&mut self, station: usize, input: Input) {
        let node = self.stations[station].node;
        let now = self.local(node);
        let overheard = self.stations[station].overheard.take();
        let Some(arbiter) = self.stations[station].arbiter.as_mut() else {
            return;
        };
        let mut outputs =
            overheard.map_or_else(Vec::new, |at| arbiter.handle(Input::Heard(at), now));
        outputs.extend(arbiter.handle(input, now));
        let next = arbiter.next_deadline();
        for output in outputs {
            self.obey(station, output);
        }
        self.stations[station].wake += 1;
        let wake = self.stations[station].wake;
        if let Some(next) = next {
            let at = u64::try_from(next.saturating_duration_since(self.base).as_micros()).unwrap()
                + self.nodes[node].lost;
            let late = self.random.range(0, 1000);
            self.at(at.max(self.now) + late, Event::Wake { station, wake });
        }
    }

    /// A client was heard, of which an arbiter that knows that it hears is told with what it is told next.
    pub(super) fn overhear(&mut self, station: usize) {
        let now = self.local(self.stations[station].node);
        let arbiter = self.stations[station].arbiter.as_ref();
        let until = arbiter.and_then(Arbiter::heard_until);
        if until.is_some_and(|until| now <= until) {
            self.stations[station].overheard = Some(now);
        } else {
            self.tell(station, Input::Heard(now));
        }
    }

    fn obey(&mut self, station: usize, output: Output) {
        let mac = self.stations[station].mac;
        let mut checks = std::mem::take(&mut self.checks);
        checks.output(self, station, &output);
        self.checks = checks;
        match output {
            Output::Send(frame, to) => {
                self.frames += 1;
                self.tally.sent[frame.kind as usize] += 1;
                let packet = if self.setup.strips {
                    match frame.form() {
                        crate::Form::Question => Packet::Question {
                            address: frame.address,
                            from: station,
                        },
                        _ => Packet::Plain {
                            address: frame.address,
                            mac,
                            unasked: frame.kind == Kind::Claim,
                        },
                    }
                } else {
                    Packet::Tagged(frame, mac)
                };
                if self.attack && self.random.chance(50_000) && self.recorded.len() < 400 {
                    self.recorded.push((station, packet));
                }
                self.transmit(station, to, packet);
            }
            Output::AskKernel(_, to) => {
                self.transmit(station, Some(to), Packet::KernelRequest { from: station });
            }
            Output::AskAround => {
                if self.setup.gateway
                    && !self.stations[station].tx_dead
                    && self.stations[station].carrier
                {
                    self.at(
                        self.now + 2 * self.setup.delay.1,
                        Event::Arrive {
                            to: station,
                            packet: Packet::Other,
                        },
                    );
                }
            }
            Output::Answer(address, other) => {
                self.stations[station]
                    .table
                    .insert(address, other.unwrap_or(mac));
                self.served(station, address);
            }
            Output::Silent(address) => {
                self.stations[station].table.remove(&address);
                self.served(station, address);
            }
            Output::Mute(muted) => self.stations[station].muted = muted,
            Output::Stopped => self.stations[station].stopped = true,
            Output::Join(_) | Output::Leave(_) | Output::Report(_) => {}
        }
    }
}
