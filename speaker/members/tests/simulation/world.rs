//! A network of machines in virtual time: delays, losses, cuts, deaths and pauses, all from one seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ferrolb_speaker_members::{
    Identity, Machine, Output, Profile, Status, StreamMessage, ack, whole,
};

/// What is on its way.
enum Flight {
    Packet { from: SocketAddr, body: Vec<u8> },
    Exchange { from: usize, body: Vec<u8> },
    ExchangeAnswer { body: Vec<u8> },
    TcpPing { from: usize, body: Vec<u8> },
    TcpPong { body: Vec<u8> },
}

pub struct Node {
    pub machine: Machine,
    pub name: String,
    addr: SocketAddr,
    /// When it wants to be called.
    wake: Option<Instant>,
    up: bool,
    /// What arrived while the process stood still, as a kernel's buffers keep it.
    paused: Option<Vec<Flight>>,
    /// Every verdict with its time.
    pub verdicts: Vec<(Instant, String, Status)>,
}

pub struct World {
    pub now: Instant,
    pub nodes: Vec<Node>,
    flights: BTreeMap<(Instant, u64), (usize, Flight)>,
    count: u64,
    state: u64,
    /// Packets lost, in thousandths.
    pub loss: u64,
    /// The side of a partition each node is on.
    pub side: Vec<u8>,
    /// Two nodes between which nothing passes.
    pub cut: Option<(usize, usize)>,
}

impl World {
    pub fn new(nodes: usize, profile: &Profile, seed: u64) -> Self {
        let mut world = Self {
            now: Instant::now(),
            nodes: Vec::new(),
            flights: BTreeMap::new(),
            count: 0,
            state: seed | 1,
            loss: 0,
            side: vec![0; nodes],
            cut: None,
        };
        for index in 0..nodes {
            let addr: SocketAddr = format!("10.0.{}.{}:7946", index / 250, index % 250 + 1)
                .parse()
                .unwrap();
            let name = format!("node-{index}");
            let me = Identity {
                name: name.clone(),
                addr: addr.ip(),
                port: addr.port(),
                meta: vec![],
            };
            let machine = Machine::new(me, profile.clone(), 29, world.now, world.dice());
            let verdicts = Vec::new();
            world.nodes.push(Node {
                machine,
                name,
                addr,
                wake: Some(world.now),
                up: true,
                paused: None,
                verdicts,
            });
        }
        world
    }

    /// A world in which everybody knows everybody.
    pub fn joined(nodes: usize, profile: &Profile, seed: u64) -> Self {
        let mut world = Self::new(nodes, profile, seed);
        world.everyone_joins();
        world.run(Duration::from_secs(5));
        assert!(world.converged(), "{nodes} nodes, seed {seed}");
        world
    }

    /// What MetalLB does every minute: each joins by the addresses of all.
    pub fn everyone_joins(&mut self) {
        let all: Vec<SocketAddr> = self.nodes.iter().map(|node| node.addr).collect();
        for index in 0..self.nodes.len() {
            if self.nodes[index].up {
                self.nodes[index].machine.join(&all);
                self.collect(index);
            }
        }
    }

    /// As the first pods of a cluster find each other: everyone joins by the first.
    pub fn everyone_joins_the_first(&mut self) {
        let first = self.nodes[0].addr;
        for index in 1..self.nodes.len() {
            self.nodes[index].machine.join(&[first]);
            self.collect(index);
        }
    }

    fn dice(&mut self) -> u64 {
        // xorshift64*; the machines have their own.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn launch(&mut self, from: usize, to: usize, flight: Flight) {
        let cut = self
            .cut
            .is_some_and(|(a, b)| (from, to) == (a, b) || (from, to) == (b, a));
        if cut || self.side[from] != self.side[to] || !self.nodes[to].up {
            return;
        }
        if matches!(flight, Flight::Packet { .. }) && self.dice() % 1000 < self.loss {
            return;
        }
        let delay = Duration::from_micros(100 + self.dice() % 1900);
        self.count += 1;
        self.flights
            .insert((self.now + delay, self.count), (to, flight));
    }

    fn index(&self, addr: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.addr == addr)
    }

    /// Carries out what a machine wants.
    fn collect(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].machine.output() {
            let from = self.nodes[index].addr;
            match output {
                Output::Packet { to, body } => {
                    if let Some(to) = self.index(to) {
                        self.launch(index, to, Flight::Packet { from, body });
                    }
                }
                Output::TcpPing { to, body, .. } => {
                    if let Some(to) = self.index(to) {
                        self.launch(index, to, Flight::TcpPing { from: index, body });
                    }
                }
                Output::Exchange { to, join } => {
                    let body = self.nodes[index].machine.exchange(join).encode();
                    if let Some(to) = self.index(to) {
                        self.launch(index, to, Flight::Exchange { from: index, body });
                    }
                }
                Output::Verdict(member) => {
                    let now = self.now;
                    self.nodes[index]
                        .verdicts
                        .push((now, member.name, member.status));
                }
            }
        }
        self.nodes[index].wake = self.nodes[index].machine.next_wake();
    }

    fn land(&mut self, to: usize, flight: Flight) {
        if !self.nodes[to].up {
            return;
        }
        if let Some(kept) = &mut self.nodes[to].paused {
            return kept.push(flight);
        }
        let now = self.now;
        match flight {
            Flight::Packet { from, body } => {
                assert_eq!(self.nodes[to].machine.packet(now, from, &body), None);
            }
            Flight::Exchange { from, body } => {
                let answer = self.nodes[to].machine.exchange(false).encode();
                self.merge(to, &body);
                self.launch(to, from, Flight::ExchangeAnswer { body: answer });
            }
            Flight::ExchangeAnswer { body } => self.merge(to, &body),
            Flight::TcpPing { from, body } => {
                let Ok(StreamMessage::Ping(ping)) = whole(&body) else {
                    panic!("no ping")
                };
                if self.nodes[to].machine.answer_tcp(&ping).is_some() {
                    self.launch(
                        to,
                        from,
                        Flight::TcpPong {
                            body: ack(ping.seq),
                        },
                    );
                }
            }
            Flight::TcpPong { body } => {
                let Ok(StreamMessage::Ack { seq }) = whole(&body) else {
                    panic!("no pong")
                };
                self.nodes[to].machine.tcp_pong(seq);
            }
        }
        self.collect(to);
    }

    fn merge(&mut self, to: usize, body: &[u8]) {
        let Ok(StreamMessage::Exchange(exchange)) = whole(body) else {
            panic!("no exchange")
        };
        let now = self.now;
        self.nodes[to].machine.merge(now, exchange);
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end, |_| false);
    }

    /// Runs until `done` or `end`. Whether it was done.
    pub fn run_until(&mut self, end: Instant, done: impl Fn(&Self) -> bool) -> bool {
        let mut look = self.now;
        loop {
            // Every millisecond is often enough.
            if self.now >= look {
                if done(self) {
                    return true;
                }
                look = self.now + Duration::from_millis(1);
            }
            let wake = self
                .nodes
                .iter()
                .enumerate()
                .filter(|(_, node)| node.up && node.paused.is_none())
                .filter_map(|(index, node)| Some((node.wake?.max(self.now), index)))
                .min();
            let flight = self.flights.first_key_value().map(|(key, _)| *key);
            let at = [wake.map(|(at, _)| at), flight.map(|(at, _)| at)]
                .into_iter()
                .flatten()
                .min();
            let Some(at) = at.filter(|at| *at <= end) else {
                self.now = end;
                return done(self);
            };
            self.now = at;
            if let Some(key) = flight.filter(|(due, _)| *due == at) {
                let (to, flight) = self.flights.remove(&key).unwrap();
                self.land(to, flight);
            } else if let Some((_, index)) = wake {
                self.nodes[index].machine.tick(at);
                self.collect(index);
            }
        }
    }

    /// Pulls the plug.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].up = false;
    }

    pub fn pause(&mut self, index: usize) {
        self.nodes[index].paused = Some(Vec::new());
    }

    /// The process runs again; what its kernel kept is read in order, unless it kept nothing.
    pub fn resume(&mut self, index: usize, kept: bool) {
        if !kept {
            self.nodes[index].paused = Some(Vec::new());
        }
        self.collect(index);
        for flight in self.nodes[index].paused.take().unwrap_or_default() {
            self.land(index, flight);
        }
    }

    pub fn leave(&mut self, index: usize) {
        let now = self.now;
        self.nodes[index].machine.leave(now);
        self.collect(index);
    }

    pub fn suspect_falsely(&mut self, at: usize, of: usize) {
        let claim = ferrolb_speaker_members::Claim {
            incarnation: 1,
            node: self.nodes[of].name.clone(),
            from: "someone".to_owned(),
        };
        let body = ferrolb_speaker_members::Message::Suspect(claim).encode();
        let (now, from) = (self.now, self.nodes[at].addr);
        self.nodes[at].machine.packet(now, from, &body);
        self.collect(at);
    }

    pub fn status(&self, at: usize, of: usize) -> Option<Status> {
        self.nodes[at].machine.status(&self.nodes[of].name)
    }

    /// Whether every node that is up holds all of them alive, and all others for gone.
    pub fn converged(&self) -> bool {
        let up = |index: usize| self.nodes[index].up;
        (0..self.nodes.len()).filter(|at| up(*at)).all(|at| {
            (0..self.nodes.len()).all(|of| {
                let status = self.status(at, of);
                if up(of) {
                    status == Some(Status::Alive)
                } else {
                    !status.is_some_and(Status::is_live)
                }
            })
        })
    }

    /// Whether every other node that is up holds this one for `status`.
    pub fn all_say(&self, of: usize, status: Status) -> bool {
        (0..self.nodes.len())
            .filter(|at| *at != of && self.nodes[*at].up)
            .all(|at| self.status(at, of) == Some(status))
    }
}
