//! What travels, what is lost, and who hears what.

use super::*;

/// Who is none of ours.
pub const STRANGER: Mac = [6; 6];

impl World {
    pub fn transmit(&mut self, from: usize, to: Option<Mac>, packet: Packet) {
        let segment = self.stations[from].segment;
        if matches!(packet, Packet::Tagged(frame, _) if frame.kind == Kind::Ask) {
            self.last_ask.insert(from, packet);
        }
        if self.stations[from].tx_dead || !self.stations[from].carrier {
            return;
        }
        for other in 0..self.stations.len() {
            let it = &self.stations[other];
            let wanted =
                it.segment == segment && other != from && to.is_none_or(|mac| mac == it.mac);
            if !wanted || self.cut.contains(&(from, other)) {
                if wanted && self.setup.proxy && matches!(packet, Packet::KernelRequest { .. }) {
                    self.proxied(from, other);
                }
                continue;
            }
            self.wire(other, packet);
        }
        if to.is_none() {
            self.teach_all(segment, packet);
            self.stranger_answers(from, packet);
        }
    }

    /// All clients of a segment hear a gratuitous frame, or lose it: two of ARP, one of NDP.
    fn teach_all(&mut self, segment: usize, packet: Packet) {
        let (address, mac) = match packet {
            Packet::Tagged(frame, mac) if frame.kind == Kind::Claim => (frame.address, mac),
            Packet::Plain {
                address,
                mac,
                unasked: true,
            } => (address, mac),
            _ => return,
        };
        for host in 0..self.hosts.len() {
            let frames = if address.is_ipv4() { 2 } else { 1 };
            for _ in 0..frames {
                if self.hosts[host].segment == segment && !self.random.chance(self.setup.deafness) {
                    self.teach(host, address, mac, true);
                }
            }
        }
    }

    pub(super) fn teach(&mut self, host: usize, address: IpAddr, mac: Mac, unasked: bool) {
        if self.random.chance(self.setup.loss) {
            return;
        }
        let mut delay = self.random.range(self.setup.delay.0, self.setup.delay.1);
        if self.random.chance(self.setup.stray.0) {
            delay += self.random.range(0, self.setup.stray.1);
        }
        self.at(
            self.now + delay,
            Event::Taught {
                host,
                address,
                mac,
                unasked,
            },
        );
    }

    /// As Linux does: what is younger than a second changes by gratuitous frames only.
    pub(super) fn learn(&mut self, host: usize, address: IpAddr, mac: Mac, unasked: bool) {
        let now = self.now;
        let known = self.hosts[host].cache.get(&address);
        // Nobody who knows none of the address learns from what it did not ask for.
        let learns = match known {
            None => !unasked,
            Some((_, since)) => unasked || now > since + S,
        };
        if learns {
            self.hosts[host].cache.insert(address, (mac, now));
        }
    }

    /// A stranger's kernel answers any question for what it has.
    fn stranger_answers(&mut self, from: usize, packet: Packet) {
        let Packet::Tagged(frame, _) = packet else {
            return;
        };
        if frame.form() == crate::Form::Question
            && self.stations[from].segment == 0
            && self.strangers.contains(&frame.address)
        {
            self.wire(
                from,
                Packet::Plain {
                    address: frame.address,
                    mac: STRANGER,
                    unasked: false,
                },
            );
        }
    }

    /// Who answers for the address now, and with what.
    pub(super) fn served(&mut self, station: usize, address: IpAddr) {
        if !self.checks.record {
            return;
        }
        let segment = self.stations[station].segment;
        let macs = self
            .stations
            .iter()
            .filter(|it| it.segment == segment)
            .filter_map(|it| it.table.get(&address).copied())
            .collect();
        self.checks.served(self.now, address, macs);
    }

    /// One way across the wire.
    pub(super) fn wire(&mut self, to: usize, packet: Packet) {
        if self.random.chance(self.setup.loss) {
            return;
        }
        let copies = if self.random.chance(self.setup.twice) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut delay = self.random.range(self.setup.delay.0, self.setup.delay.1);
            if self.random.chance(self.setup.stray.0) {
                delay += self.random.range(0, self.setup.stray.1);
            }
            self.at(self.now + delay, Event::Arrive { to, packet });
        }
    }

    pub(super) fn proxied(&mut self, asker: usize, dead: usize) {
        let packet = Packet::Plain {
            address: node_address(self.stations[dead].node),
            mac: self.stations[dead].mac,
            unasked: false,
        };
        self.wire(asker, packet);
    }

    pub(super) fn arrive(&mut self, to: usize, packet: Packet) {
        let (node, carrier, rx_dead) = {
            let it = &self.stations[to];
            (it.node, it.carrier, it.rx_dead)
        };
        let run = self.nodes[node].run;
        if run == Run::Off || rx_dead || !carrier {
            if let Packet::KernelRequest { from } = packet
                && self.setup.proxy
            {
                self.proxied(from, to);
            }
            return;
        }
        if let Packet::KernelRequest { from } = packet {
            if !matches!(run, Run::Paused { .. }) && self.setup.kernels {
                let answer = Packet::Plain {
                    address: node_address(node),
                    mac: self.stations[to].mac,
                    unasked: false,
                };
                let asker = self.stations[from].mac;
                self.transmit(to, Some(asker), answer);
            }
            return;
        }
        let limit = match run {
            Run::On | Run::Stopped => 512,
            Run::Paused { .. } => 8,
            Run::Killed | Run::Off => 0,
        };
        if self.stations[to].inbox.len() >= limit {
            return;
        }
        self.tally.heard[to] += 1;
        self.stations[to].inbox.push_back((self.now, packet));
        if run == Run::On {
            let busy = self.random.range(10, 150);
            let at = self.runs_at(node).max(self.nodes[node].busy_until) + busy;
            self.at(at, Event::Process { station: to });
        }
    }

    pub(super) fn process(&mut self, station: usize) {
        if !self.runs(station) {
            return;
        }
        let at = self.runs_at(self.stations[station].node);
        if at > self.now {
            self.at(at, Event::Process { station });
            return;
        }
        while let Some((received, packet)) = self.stations[station].inbox.pop_front() {
            self.hear(station, received, packet);
        }
    }

    /// The speaker reads what its kernel received then.
    fn hear(&mut self, station: usize, received: Time, packet: Packet) {
        self.stations[station].heard = self.now - self.nodes[self.stations[station].node].lost;
        if self.nodes[self.stations[station].node].legacy {
            self.legacy_hears(station, packet);
            return;
        }
        match packet {
            Packet::Tagged(frame, mac) => self.tell(station, Input::Frame(frame, mac)),
            Packet::Plain {
                address,
                mac,
                unasked,
            } => {
                let at = self.local(self.stations[station].node);
                let plain = Input::Plain {
                    address,
                    mac,
                    unasked,
                    at,
                };
                self.tell(station, plain);
            }
            Packet::ClientRequest { address, host } => {
                self.overhear(station);
                let it = &self.stations[station];
                if self.now - received <= 100 * MS
                    && !it.muted
                    && !it.tx_dead
                    && let Some(mac) = it.table.get(&address).copied()
                {
                    self.checks.answered(self.now, address, mac);
                    // Who has it in its cache does not ask.
                    if self
                        .hosts
                        .get(host)
                        .is_some_and(|host| !host.cache.contains_key(&address))
                    {
                        self.teach(host, address, mac, false);
                    }
                }
            }
            Packet::Question { address, from } => {
                self.overhear(station);
                let it = &self.stations[station];
                if let Some(mac) = it.table.get(&address).copied().filter(|_| !it.muted) {
                    let to = self.stations[from].mac;
                    self.transmit(
                        station,
                        Some(to),
                        Packet::Plain {
                            address,
                            mac,
                            unasked: false,
                        },
                    );
                }
            }
            Packet::Other => {
                let now = self.local(self.stations[station].node);
                self.tell(station, Input::Heard(now));
            }
            Packet::KernelRequest { .. } => {}
        }
    }

    pub(super) fn client_asks(&mut self, segment: usize) {
        let every = self.setup.client_every;
        let next = self.now + every + self.random.range(0, every / 4);
        self.at(next, Event::Ask { segment });
        if !self.clients {
            return;
        }
        let hosts = self.setup.hosts;
        let host = segment * hosts + self.random.below(hosts.max(1));
        let all = self.setup.client_burst >= self.setup.addresses;
        for burst in 0..self.setup.client_burst.min(self.setup.addresses) {
            let index = if all {
                burst
            } else {
                self.random.below(self.setup.addresses)
            };
            for station in 0..self.stations.len() {
                if self.stations[station].segment == segment {
                    self.wire(
                        station,
                        Packet::ClientRequest {
                            address: address(index),
                            host,
                        },
                    );
                }
            }
        }
    }

    pub(super) fn legacy_hears(&mut self, station: usize, packet: Packet) {
        let it = &self.stations[station];
        let mac = it.mac;
        match packet {
            Packet::ClientRequest { address, .. } => {
                if let Some(mac) = it.table.get(&address).copied() {
                    self.checks.answered(self.now, address, mac);
                }
            }
            // It answers any request for what it announces, tag or not.
            Packet::Tagged(frame, to)
                if matches!(frame.kind, Kind::Ask | Kind::Probe | Kind::Hello)
                    && it.table.contains_key(&frame.address) =>
            {
                self.transmit(
                    station,
                    Some(to),
                    Packet::Plain {
                        address: frame.address,
                        mac,
                        unasked: false,
                    },
                );
            }
            _ => {}
        }
    }
}
