//! Telling the news: in packets of its own, on the back of others, and by exchanging everything now and then.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Machine, Output};
use crate::broadcast::retransmit_limit;
use crate::message::{Message, Versions};
use crate::packet;
use crate::stream::Status;

/// Up to this many nodes, exchanges are made as often as the profile says.
const FULL_RATE_NODES: usize = 32;
/// The protocol version that knows checksums.
const CHECKSUMS: u8 = 5;

impl Machine {
    /// A packet whose envelope was opened, from `from`. What in it cannot be read is the answer.
    pub fn packet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        body: &[u8],
    ) -> Option<packet::Unreadable> {
        self.notice(now);
        let contents = packet::decode(body);
        for message in contents.messages {
            match message {
                Message::Ping(ping) => self.answer(from, ping),
                Message::IndirectPing(ping) => self.relay(now, from, ping),
                Message::Ack { seq } => self.hear_ack(now, seq),
                Message::Nack { seq } => self.hear_nack(seq),
                Message::Alive(alive) => self.hear_alive(now, alive),
                Message::Suspect(claim) => self.hear_suspect(now, claim),
                Message::Dead(claim) => self.hear_dead(now, claim),
            }
        }
        contents.trouble
    }

    /// Sends a message with as much news on its back as fits.
    pub(super) fn send(&mut self, to: SocketAddr, versions: Versions, message: &Message) {
        let message = message.encode();
        let used =
            message.len() + packet::COMPOUND_OVERHEAD + packet::PART_OVERHEAD + self.overhead;
        let room = self.profile.udp_buffer_size.saturating_sub(used);
        let mut parts = vec![message];
        parts.extend(self.take_news(room, packet::MAX_PARTS - 1));
        self.send_alone(to, versions, &packet::join(&parts));
    }

    /// Sends a packet as it is.
    pub(super) fn send_alone(&mut self, to: SocketAddr, versions: Versions, packet: &[u8]) {
        let checked = versions.greatest() >= CHECKSUMS;
        let body = if checked {
            packet::with_checksum(packet)
        } else {
            packet.to_vec()
        };
        self.outputs.push_back(Output::Packet { to, body });
    }

    fn take_news(&mut self, room: usize, parts: usize) -> Vec<Vec<u8>> {
        let limit = retransmit_limit(self.profile.retransmit_mult, self.nodes.len());
        self.news.take(room, packet::PART_OVERHEAD, parts, limit)
    }

    pub(super) fn gossip_due(&mut self, now: Instant) {
        if self.news.is_empty() || self.next_gossip.is_none_or(|next| next > now) {
            return;
        }
        // The dead are told too for a while: one of them may live, and protest.
        let mut targets: Vec<(SocketAddr, Versions)> = self
            .nodes
            .values()
            .filter(|entry| entry.alive.node != self.me.name)
            .filter(|entry| match entry.status {
                Status::Alive | Status::Suspect => true,
                Status::Dead => now - entry.changed <= self.profile.gossip_to_the_dead_time,
                Status::Left => false,
            })
            .map(|entry| (entry.socket(), entry.versions()))
            .collect();
        self.dice
            .choose(&mut targets, self.profile.gossip_nodes as usize);
        let used = packet::COMPOUND_OVERHEAD + self.overhead;
        let room = self.profile.udp_buffer_size.saturating_sub(used);
        for (to, versions) in targets {
            let news = self.take_news(room, packet::MAX_PARTS);
            if news.is_empty() {
                break;
            }
            self.send_alone(to, versions, &packet::join(&news));
        }
        self.next_gossip = Some(now + self.profile.gossip_interval);
    }

    pub(super) fn exchange_due(&mut self, now: Instant) {
        if self.next_exchange.is_none_or(|next| next > now) {
            return;
        }
        let mut others: Vec<SocketAddr> = self
            .nodes
            .values()
            .filter(|entry| entry.alive.node != self.me.name && entry.status == Status::Alive)
            .map(super::Entry::socket)
            .collect();
        self.dice.choose(&mut others, 1);
        self.outputs.extend(
            others
                .into_iter()
                .map(|to| Output::Exchange { to, join: false }),
        );
        self.next_exchange = Some(now + self.exchange_interval());
    }

    /// Doubles nodes, one interval more: the sum of all exchanges grows slowly.
    fn exchange_interval(&self) -> Duration {
        let mut interval = self.profile.push_pull_interval;
        let mut size = FULL_RATE_NODES;
        while size < self.nodes.len() {
            size *= 2;
            interval += self.profile.push_pull_interval;
        }
        interval
    }
}
