//! The other hosts of a segment: who is asked whether this node hears at all, and who is taught where an address is.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use ferrolb_speaker_core::{Host, Lesson, Repair};
use ferrolb_speaker_responder::Question;
use ferrolb_speaker_wire::{MacAddr, Message, Operation, Said};

use super::routes::Gateways;

/// How many hosts that are neither speakers nor gateways are remembered, to be asked for any answer.
const OTHERS: usize = 3;

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    gateways: Gateways,
    /// The last that were heard.
    others: VecDeque<(IpAddr, MacAddr)>,
    /// The nodes' own addresses.
    nodes: HashSet<IpAddr>,
    repair: Repair,
    /// Taken, and claimed to nobody yet: who may be deaf must not teach.
    unclaimed: HashSet<IpAddr>,
}

impl Neighbours {
    /// These are the addresses of the other nodes.
    pub(super) fn set_nodes(&mut self, nodes: impl Iterator<Item = IpAddr>) {
        self.nodes = nodes.collect();
        let nodes = &self.nodes;
        self.others.retain(|(address, _)| !nodes.contains(address));
    }

    /// Whether it is the address of another node.
    pub(super) fn is_node(&self, address: IpAddr) -> bool {
        self.nodes.contains(&address)
    }

    /// Gateways that are to be asked where they are.
    pub(super) fn look(&mut self, interface: &str) -> Vec<IpAddr> {
        self.gateways.look(interface)
    }

    /// Who is asked for any answer: gateways by everybody's address, others by their own.
    pub(super) fn all(&self) -> Vec<(IpAddr, Option<MacAddr>)> {
        let gateways = self.gateways.addresses().into_iter();
        let others = self.others.iter();
        gateways
            .map(|gateway| (gateway, None))
            .chain(others.map(|(address, mac)| (*address, Some(*mac))))
            .collect()
    }

    /// A host that is neither speaker nor node said where it is.
    pub(super) fn met(&mut self, address: IpAddr, mac: MacAddr) {
        if self.others.front() == Some(&(address, mac)) {
            return;
        }
        self.others.retain(|(other, _)| *other != address);
        self.others.push_front((address, mac));
        self.others.truncate(OTHERS);
    }

    /// What a host's question shows: which address of ours it asks for, of which it knows where it is, and where it is
    /// itself. `ours`: the address is one of those that may be answered for here; `held`: it is answered for here.
    pub(super) fn asked(
        &mut self,
        question: &Question,
        asker: IpAddr,
        ours: impl Fn(IpAddr) -> bool,
        held: impl Fn(IpAddr) -> bool,
    ) {
        let address = question.target;
        if address == asker {
            // It says where it is itself, and no more.
        } else if question.to_us && held(address) {
            self.repair.heard(address, asker);
        } else if !question.to_us && ours(address) {
            let host = Host {
                address: asker,
                mac: question.mac.octets(),
            };
            self.repair.asked(address, host, question.at);
        }
        self.gateways.is_at(asker, question.mac, question.at);
    }

    /// What a host says of itself shows: where it is, and by its reply to us, `us` being this node's hardware address, that
    /// it knows where an address is that asked it.
    pub(super) fn learn_from(&mut self, message: &Message<'_>, us: MacAddr, now: Instant) {
        if let Said::Arp(packet) = &message.said {
            let sender = IpAddr::from(packet.sender_ip);
            self.gateways.is_at(sender, packet.sender_mac, now);
            if message.destination == us && packet.operation == Operation::Reply {
                self.repair.heard(packet.target_ip.into(), sender);
            }
        }
    }

    /// The address is answered for here from now on.
    pub(super) fn taken(&mut self, address: IpAddr) {
        self.unclaimed.insert(address);
    }

    /// It was claimed to all: whoever used it is taught as well.
    pub(super) fn claimed(&mut self, address: IpAddr) {
        if self.unclaimed.remove(&address) {
            let gateways = self.gateways.hosts();
            self.repair.taken(address, &gateways, Instant::now());
        }
    }

    /// It is answered for here no longer, or with another node's hardware address.
    pub(super) fn let_go(&mut self, address: IpAddr) {
        self.unclaimed.remove(&address);
        self.repair.released(address);
    }

    /// When the next lesson is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.repair.next_deadline()
    }

    /// The next lesson that is due; none when that was all.
    pub(super) fn due(&mut self, now: Instant) -> Option<Lesson> {
        self.repair.due(now)
    }
}
