//! Asking one member after the other whether it lives, directly, through others, and by TCP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Machine, Output};
use crate::message::{Claim, IndirectPing, Message, Ping, Source, Versions};
use crate::packet;
use crate::stream::Status;

/// Most indirect pings that are made for others at a time.
const MAX_RELAYS: usize = 1024;
/// The protocol version that knows pings by TCP.
const TCP_PINGS: u8 = 3;
/// The protocol version that knows nacks.
const NACKS: u8 = 4;

/// The probe that is under way.
#[derive(Debug)]
pub(super) struct Probe {
    node: String,
    /// The incarnation that is asked after: a newer one is not to blame for its silence.
    incarnation: u32,
    seq: u32,
    /// When others are asked; `None` once they were.
    ask_others: Option<Instant>,
    deadline: Instant,
    expected_nacks: u32,
    nacks: u32,
    tcp_answered: bool,
}

impl Probe {
    pub(super) fn wake(&self) -> Instant {
        self.ask_others
            .map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// The answer may lie unread where it arrived during the pause.
    pub(super) fn postpone(&mut self, pause: Duration) {
        self.deadline += pause;
        self.ask_others = self.ask_others.map(|at| at + pause);
    }
}

/// A ping we make for another node.
#[derive(Debug)]
pub(super) struct Relay {
    /// Whom to tell, and the number they gave.
    to: SocketAddr,
    seq: u32,
    /// When to send the nack; `None`: unwanted or sent.
    nack: Option<Instant>,
    deadline: Instant,
}

impl Relay {
    pub(super) fn wake(&self) -> Instant {
        self.nack.map_or(self.deadline, |at| at.min(self.deadline))
    }
}

impl Machine {
    fn source(&self) -> Source {
        Source {
            addr: self.me.addr,
            port: self.me.port,
            node: self.me.name.clone(),
        }
    }

    /// Somebody asks whether we live.
    pub(super) fn answer(&mut self, from: SocketAddr, ping: Ping) {
        if ping.node.is_empty() || ping.node == self.me.name {
            let to = ping.source.map_or(from, |source| source.socket());
            self.send(to, Versions::UNKNOWN, &Message::Ack { seq: ping.seq });
        }
    }

    /// The answer to a ping by TCP; `None` if it was not meant for us.
    pub fn answer_tcp(&self, ping: &Ping) -> Option<Vec<u8>> {
        let meant = ping.node.is_empty() || ping.node == self.me.name;
        meant.then(|| crate::stream::ack(ping.seq))
    }

    /// Somebody asks us to ask another node.
    pub(super) fn relay(&mut self, now: Instant, from: SocketAddr, ping: IndirectPing) {
        if self.relays.len() >= MAX_RELAYS {
            return;
        }
        let seq = self.next_seq();
        let port = if ping.port == 0 {
            self.me.port
        } else {
            ping.port
        };
        let target = SocketAddr::new(ping.target.to_canonical(), port);
        let timeout = self.profile.probe_timeout;
        self.relays.insert(
            seq,
            Relay {
                to: ping.source.map_or(from, |source| source.socket()),
                seq: ping.seq,
                nack: ping.nack.then(|| now + timeout * 4 / 5),
                deadline: now + timeout,
            },
        );
        let ping = Ping {
            seq,
            node: ping.node,
            source: Some(self.source()),
        };
        self.send(target, Versions::UNKNOWN, &Message::Ping(ping));
    }

    pub(super) fn relays_due(&mut self, now: Instant) {
        let mut nacks = Vec::new();
        self.relays.retain(|_, relay| {
            if relay.nack.is_some_and(|at| at <= now) {
                relay.nack = None;
                nacks.push((relay.to, relay.seq));
            }
            relay.deadline > now
        });
        for (to, seq) in nacks {
            self.send(to, Versions::UNKNOWN, &Message::Nack { seq });
        }
    }

    pub(super) fn hear_ack(&mut self, now: Instant, seq: u32) {
        if self.probe.as_ref().is_some_and(|probe| probe.seq == seq) {
            self.probe_succeeded(now);
        } else if let Some(relay) = self.relays.remove(&seq) {
            self.send(
                relay.to,
                Versions::UNKNOWN,
                &Message::Ack { seq: relay.seq },
            );
        }
    }

    pub(super) fn hear_nack(&mut self, seq: u32) {
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.seq == seq) {
            probe.nacks += 1;
        }
    }

    /// A ping by TCP was answered. It counts only when nothing else was heard until the probe's deadline.
    pub fn tcp_pong(&mut self, seq: u32) {
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.seq == seq) {
            probe.tcp_answered = true;
        }
    }

    fn probe_succeeded(&mut self, now: Instant) {
        self.probe = None;
        self.awareness.better();
        self.probe_due(now);
    }

    pub(super) fn probe_due(&mut self, now: Instant) {
        if let Some(probe) = &self.probe {
            if probe.deadline <= now {
                self.probe_over(now);
            } else if probe.ask_others.is_some_and(|at| at <= now) {
                self.ask_others();
            }
        }
        if self.probe.is_some() || self.next_probe.is_none_or(|next| next > now) {
            return;
        }
        // Rounds missed while the last probe took longer are not made up for.
        while let Some(next) = self.next_probe.filter(|next| *next <= now) {
            let late = (now - next).as_nanos() / self.profile.probe_interval.as_nanos().max(1);
            let rounds = u32::try_from(late).unwrap_or(u32::MAX - 1) + 1;
            self.next_probe = Some(next + self.profile.probe_interval.saturating_mul(rounds));
        }
        if let Some(name) = self.next_target(now) {
            self.start_probe(now, &name);
        }
    }

    /// The next live member of the round; a new round forgets the long dead and is shuffled.
    fn next_target(&mut self, now: Instant) -> Option<String> {
        for _ in 0..=self.order.len() {
            if let Some(name) = self.order.get(self.probe_index) {
                self.probe_index += 1;
                let live = self
                    .nodes
                    .get(name)
                    .is_some_and(|entry| entry.status.is_live());
                if live && *name != self.me.name {
                    return Some(name.clone());
                }
            } else {
                self.forget_the_dead(now);
                let all = self.order.len();
                self.dice.choose(&mut self.order, all);
                self.probe_index = 0;
            }
        }
        None
    }

    fn forget_the_dead(&mut self, now: Instant) {
        let time = self.profile.gossip_to_the_dead_time;
        let me = self.me.name.clone();
        self.nodes.retain(|name, entry| {
            entry.status.is_live() || now - entry.changed <= time || *name == me
        });
        let nodes = &self.nodes;
        self.order.retain(|name| nodes.contains_key(name));
    }

    fn start_probe(&mut self, now: Instant, name: &str) {
        let seq = self.next_seq();
        let Some(entry) = self.nodes.get(name) else {
            return;
        };
        let (to, versions) = (entry.socket(), entry.versions());
        let (incarnation, status) = (entry.alive.incarnation, entry.status);
        self.probe = Some(Probe {
            node: name.to_owned(),
            incarnation,
            seq,
            ask_others: Some(now + self.profile.probe_timeout),
            deadline: now + self.awareness.scale(self.profile.probe_interval),
            expected_nacks: 0,
            nacks: 0,
            tcp_answered: false,
        });
        let ping = Message::Ping(Ping {
            seq,
            node: name.to_owned(),
            source: Some(self.source()),
        });
        if status == Status::Alive {
            return self.send(to, versions, &ping);
        }
        // A suspect learns that it is one, so that it can protest at once.
        let claim = Claim {
            incarnation,
            node: name.to_owned(),
            from: self.me.name.clone(),
        };
        let both = packet::join(&[ping.encode(), Message::Suspect(claim).encode()]);
        self.send_alone(to, versions, &both);
    }

    /// No answer in time: a few others try, and so do we by TCP.
    fn ask_others(&mut self) {
        let Some(mut probe) = self.probe.take() else {
            return;
        };
        probe.ask_others = None;
        if let Some(entry) = self.nodes.get(&probe.node) {
            let (target, to, versions) = (entry.alive.addr, entry.socket(), entry.versions());
            let mut helpers: Vec<(SocketAddr, Versions)> = self
                .nodes
                .values()
                .filter(|entry| entry.status == Status::Alive)
                .filter(|entry| entry.alive.node != self.me.name && entry.alive.node != probe.node)
                .map(|entry| (entry.socket(), entry.versions()))
                .collect();
            self.dice
                .choose(&mut helpers, self.profile.indirect_checks as usize);
            for (helper, versions) in helpers {
                let nack = versions.greatest() >= NACKS;
                probe.expected_nacks += u32::from(nack);
                let ping = IndirectPing {
                    seq: probe.seq,
                    target,
                    port: to.port(),
                    node: probe.node.clone(),
                    nack,
                    source: Some(self.source()),
                };
                self.send(helper, versions, &Message::IndirectPing(ping));
            }
            if !self.profile.disable_tcp_pings && versions.greatest() >= TCP_PINGS {
                let ping = Ping {
                    seq: probe.seq,
                    node: probe.node.clone(),
                    source: Some(self.source()),
                };
                self.outputs.push_back(Output::TcpPing {
                    to,
                    body: crate::stream::ping(ping),
                    seq: probe.seq,
                    deadline: probe.deadline,
                });
            }
        }
        self.probe = Some(probe);
    }

    /// The deadline has passed without an answer by UDP.
    fn probe_over(&mut self, now: Instant) {
        let Some(probe) = self.probe.take() else {
            return;
        };
        if probe.tcp_answered {
            return self.awareness.better();
        }
        // Helpers that do not even say no are a sign that it is us whom nobody hears.
        let missing = probe.expected_nacks.saturating_sub(probe.nacks);
        self.awareness.worse(if probe.expected_nacks == 0 {
            1
        } else {
            missing
        });
        let claim = Claim {
            incarnation: probe.incarnation,
            node: probe.node,
            from: self.me.name.clone(),
        };
        self.hear_suspect(now, claim);
    }
}
