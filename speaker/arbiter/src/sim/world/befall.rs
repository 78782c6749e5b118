//! What befalls the world, and what gossip, Kubernetes and MetalLB's speakers make of it.

use super::*;

impl World {
    pub(super) fn befall(&mut self, act: Act) {
        let quiet = matches!(
            act,
            Act::Refresh(_) | Act::Gossip | Act::AttackOnce | Act::Attack(_)
        );
        if !quiet {
            self.checks.change(self.now, &act);
        }
        match act {
            Act::Run(node, run) => self.set_run(node, run),
            Act::Throttle(node, throttle) => self.nodes[node].throttle = throttle,
            Act::Rx(station, dead) => self.stations[station].rx_dead = dead,
            Act::Tx(station, dead) => self.stations[station].tx_dead = dead,
            Act::Carrier(station, up) => {
                self.stations[station].carrier = up;
                if self.runs(station) {
                    self.tell(station, Input::Link(up));
                }
            }
            Act::Cut(from, to, cut) => {
                if cut {
                    self.cut.insert((from, to));
                } else {
                    self.cut.remove(&(from, to));
                }
            }
            Act::View(address, order, willing, lags) => {
                let candidates = self.candidates(&order, willing);
                self.order.insert(address, order);
                for (node, lag) in lags.into_iter().enumerate() {
                    self.act(
                        self.now + lag,
                        Act::Learn(node, address, candidates.clone()),
                    );
                }
            }
            Act::Learn(node, address, candidates) => {
                for segment in 0..self.setup.segments {
                    let station = self.station(node, segment);
                    self.stations[station]
                        .view
                        .insert(address, candidates.clone());
                    if self.runs(station) {
                        self.tell(station, Input::View(address, Some(candidates.clone())));
                    }
                }
                self.legacy_decide();
            }
            Act::Withdraw(address) => {
                for station in 0..self.stations.len() {
                    self.stations[station].view.remove(&address);
                    if self.runs(station) {
                        self.tell(station, Input::View(address, None));
                    }
                }
            }
            Act::Refresh(node) => {
                for segment in 0..self.setup.segments {
                    let station = self.station(node, segment);
                    for (address, candidates) in self.stations[station].view.clone() {
                        if self.runs(station) {
                            self.tell(station, Input::View(address, Some(candidates)));
                        }
                    }
                }
            }
            Act::Gossip => self.gossip(),
            Act::GossipBlocked(blocked) => {
                self.gossip_blocked = blocked;
                self.act(self.now + 5 * S, Act::Gossip);
            }
            Act::Stop(node) => {
                for segment in 0..self.setup.segments {
                    let station = self.station(node, segment);
                    if self.runs(station) {
                        self.tell(station, Input::Stop);
                    }
                }
            }
            Act::Move(address, to) => {
                let wish = to.map_or(Wish::Away, |to| Wish::To(self.nodes[to].id));
                if let Some(to) = to {
                    self.prefer(address, to);
                }
                self.wish(address, Some(wish));
            }
            Act::Unwish(address) => self.wish(address, None),
            Act::Attack(on) => {
                self.attack = on;
                self.checks.attacked |= on;
                self.act(self.now + 10 * MS, Act::AttackOnce);
            }
            Act::AttackOnce => self.attack_once(),
            Act::Replace(node, legacy) => self.replace(node, legacy),
            Act::Stranger(address, there) => {
                if there {
                    self.strangers.insert(address);
                } else {
                    self.strangers.remove(&address);
                }
            }
            Act::StrangerClaims(address) => {
                for station in 0..self.stations.len() {
                    if self.stations[station].segment == 0 {
                        self.wire(
                            station,
                            Packet::Plain {
                                address,
                                mac: super::wires::STRANGER,
                                unasked: true,
                            },
                        );
                    }
                }
            }
        }
    }

    /// The order as it is with a node that the operator wants first, if it is willing.
    fn prefer(&mut self, address: IpAddr, to: usize) {
        let order = &self.order[&address];
        let Some(place) = order.iter().position(|node| *node == to) else {
            return;
        };
        let node = self.nodes[to].id;
        let view = self.stations.iter().find_map(|it| it.view.get(&address));
        let Some(view) = view.cloned() else {
            return;
        };
        if view.order.iter().position(|one| *one == node) >= Some(view.willing) {
            return;
        }
        let mut order = order.clone();
        order.remove(place);
        order.insert(0, to);
        let lags = self.nodes.iter().map(|_| self.random.range(0, 20 * MS));
        let lags = lags.collect();
        self.befall(Act::View(address, order, view.willing, lags));
    }

    fn wish(&mut self, address: IpAddr, wish: Option<Wish>) {
        for station in 0..self.stations.len() {
            if self.runs(station) {
                self.tell(station, Input::Wish(address, wish));
            }
        }
    }

    pub(super) fn attack_once(&mut self) {
        if !self.attack {
            return;
        }
        if !self.recorded.is_empty() {
            let (from, packet) = self.recorded[self.random.below(self.recorded.len())];
            let segment = self.stations[from].segment;
            for station in 0..self.stations.len() {
                if self.stations[station].segment == segment && station != from {
                    self.wire(station, packet);
                }
            }
        }
        if self.random.chance(20_000) {
            let index = self.random.below(self.setup.addresses);
            let packet = Packet::Plain {
                address: address(index),
                mac: [6; 6],
                unasked: true,
            };
            for station in 0..self.stations.len() {
                self.wire(station, packet);
            }
        }
        self.act(self.now + 5 * MS, Act::AttackOnce);
    }

    pub(super) fn set_run(&mut self, node: usize, run: Run) {
        let was = self.nodes[node].run;
        let fresh =
            self.stations[self.station(node, 0)].arbiter.is_none() && !self.nodes[node].legacy;
        self.nodes[node].run = run;
        match (was, run) {
            (Run::On, Run::Stopped | Run::Paused { .. }) => self.nodes[node].paused_at = self.now,
            (Run::Paused { clock: false }, Run::On) => {
                self.nodes[node].lost += self.now - self.nodes[node].paused_at;
            }
            _ => {}
        }
        for segment in 0..self.setup.segments {
            let station = self.station(node, segment);
            match run {
                Run::Off | Run::Killed => {
                    self.stations[station].arbiter = None;
                    self.stations[station].table.clear();
                    self.stations[station].announces.clear();
                    self.stations[station].inbox.clear();
                    self.stations[station].muted = false;
                }
                Run::On if self.nodes[node].legacy => {}
                Run::On if fresh => self.start(station),
                Run::On => {
                    // Resumed: what waited, and the deadline that passed.
                    for _ in 0..self.stations[station].inbox.len() {
                        let at = self.now + self.random.range(0, 2000);
                        self.at(at, Event::Process { station });
                    }
                    let wake = self.stations[station].wake;
                    let at = self.now + self.random.range(0, 2000);
                    self.at(at, Event::Wake { station, wake });
                }
                Run::Stopped | Run::Paused { .. } => {}
            }
        }
        if run == Run::On && !fresh {
            self.act(self.now + 5 * MS, Act::Refresh(node));
        }
        let lag = if run == Run::On {
            S / 2
        } else {
            self.random.range(3 * S, 6 * S)
        };
        self.act(self.now + lag, Act::Gossip);
    }

    pub(super) fn start(&mut self, station: usize) {
        let node = self.stations[station].node;
        let nonce = u32::try_from(self.now / 15_625 + 1000).unwrap();
        let mut arbiter = Arbiter::new(
            self.nodes[node].id,
            self.setup.profile,
            nonce,
            self.local(node),
        );
        arbiter.mutate(self.setup.mutation);
        self.stations[station].arbiter = Some(arbiter);
        self.stations[station].overheard = None;
        self.stations[station].stopped = false;
        self.stations[station].asks.clear();
        let facts = self.facts(node);
        self.tell(station, Input::Peers(facts));
        let carrier = self.stations[station].carrier;
        self.tell(station, Input::Link(carrier));
        for (address, candidates) in self.stations[station].view.clone() {
            self.tell(station, Input::View(address, Some(candidates)));
        }
    }

    /// Whether gossip has it alive.
    pub fn gossip_has(&self, node: usize) -> bool {
        !self.gossip_blocked && !self.gossip_dead.contains(&node)
    }

    pub(super) fn facts(&self, me: usize) -> Vec<PeerFacts> {
        (0..self.nodes.len())
            .filter(|node| *node != me)
            .map(|node| PeerFacts {
                node: self.nodes[node].id,
                address: self.setup.kernels.then(|| node_address(node)),
                believed: self
                    .setup
                    .gossip
                    .then(|| !self.gossip_blocked && !self.gossip_dead.contains(&node)),
                legacy: self.nodes[node].legacy,
            })
            .collect()
    }

    pub(super) fn gossip(&mut self) {
        self.gossip_dead = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].run != Run::On)
            .collect();
        for station in 0..self.stations.len() {
            if self.runs(station) && !self.nodes[self.stations[station].node].legacy {
                let facts = self.facts(self.stations[station].node);
                self.tell(station, Input::Peers(facts));
            }
        }
        self.legacy_decide();
    }

    pub(super) fn replace(&mut self, node: usize, legacy: bool) {
        for segment in 0..self.setup.segments {
            let station = self.station(node, segment);
            self.stations[station].arbiter = None;
            self.stations[station].table.clear();
            self.stations[station].announces.clear();
        }
        self.nodes[node].legacy = legacy;
        if !legacy && self.nodes[node].run == Run::On {
            for segment in 0..self.setup.segments {
                let station = self.station(node, segment);
                self.start(station);
            }
        }
        self.gossip();
    }

    /// The best that gossip has alive announces, at once; the others do not.
    pub(super) fn legacy_decide(&mut self) {
        for station in 0..self.stations.len() {
            let node = self.stations[station].node;
            if !self.nodes[node].legacy || !self.runs(station) {
                continue;
            }
            for (address, candidates) in self.stations[station].view.clone() {
                let owner = candidates.order.iter().find(|id| {
                    let other = self.nodes.iter().position(|other| other.id == **id);
                    other.is_some_and(|other| other == node || !self.gossip_dead.contains(&other))
                });
                let mac = self.stations[station].mac;
                if owner == Some(&self.nodes[node].id) {
                    self.stations[station].table.insert(address, mac);
                    if self.stations[station].announces.insert(address) {
                        self.transmit(
                            station,
                            None,
                            Packet::Plain {
                                address,
                                mac,
                                unasked: true,
                            },
                        );
                    }
                } else {
                    self.stations[station].table.remove(&address);
                    self.stations[station].announces.remove(&address);
                }
            }
        }
    }
}
