//! What the arbiters tell: who answers for an address now and why, whom they lost, what they met on the wire.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ferrolb_speaker_arbiter::{Cause, NodeId, Report};
use ferrolb_speaker_core::Reason;
use ferrolb_speaker_wire::MacAddr;

use super::{Actor, EventType};
use crate::arbitration::Told;
use crate::decider::Uids;

/// Nodes by what frames call them.
#[derive(Debug, Default)]
pub struct Names(HashMap<NodeId, String>);

impl Names {
    /// Those nodes. Names that frames cannot tell apart are said aloud: their speakers take each other for themselves.
    pub fn of<'a>(nodes: impl Iterator<Item = &'a str>) -> Self {
        let mut names = HashMap::new();
        for node in nodes {
            if let Some(other) = names.insert(NodeId::of(node), node.to_owned()) {
                tracing::error!(
                    op = "arbitrate",
                    node,
                    other,
                    "the names of two nodes have the same first four bytes of SHA-256; rename one, or one of them will not answer"
                );
            }
        }
        Self(names)
    }

    fn name(&self, node: NodeId) -> String {
        let known = self.0.get(&node);
        known.cloned().unwrap_or_else(|| node.to_string())
    }
}

/// What is remembered of the arbiters' reports.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// By interface: when a node was found to be down there, and how long it had been silent by then.
    lost: HashMap<(String, NodeId), (Instant, Duration)>,
    /// Who answers for addresses this node let go, where it knows.
    pub(super) elsewhere: HashMap<IpAddr, String>,
    /// Hosts that are no speakers and answer for addresses, by the interface they were heard on.
    strangers: BTreeMap<(IpAddr, String), Stranger>,
    /// The interfaces on which any other speaker was ever heard.
    company: BTreeSet<String>,
    /// What is held on interfaces without company, while others have some: it is answered for there and counts for nothing
    /// else, because each node has such an interface of its own and all would say that they announce the address.
    apart: BTreeSet<(IpAddr, String)>,
}

/// A host that is no speaker and answers for an address.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    mac: MacAddr,
    /// Events about it were this node's to write.
    told: bool,
}

/// A cause in a word, for log lines and metrics.
pub(super) const fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Unheld => "unheld",
        Cause::HolderDown => "holderDown",
        Cause::Moved => "moved",
        Cause::Failback => "failback",
        Cause::Ineligible => "ineligible",
        Cause::Conflict => "conflict",
        Cause::WasAway => "wasAway",
        Cause::Returned => "returned",
        Cause::Legacy => "metallb",
        Cause::LinkDown => "linkDown",
        Cause::Withdrawn => "withdrawn",
    }
}

/// What happened, for people.
const fn sentence(cause: Cause) -> &'static str {
    match cause {
        Cause::Unheld => "nobody answered for it",
        Cause::HolderDown => "the node that answered for it is down",
        Cause::Moved => "it was moved as planned",
        Cause::Failback => "the node that comes first for it is back",
        Cause::Ineligible => "the node that answered for it may not any more",
        Cause::Conflict => "two nodes answered for it",
        Cause::WasAway => "this node was away, and another has taken it",
        Cause::Returned => "it turned out that no other node answers for it",
        Cause::Legacy => {
            "MetalLB's rule, which holds while one of its speakers is there, names the node"
        }
        Cause::LinkDown => "the interface cannot be used",
        Cause::Withdrawn => "it is not announced here any more",
    }
}

impl Actor {
    /// Takes over what an arbiter tells.
    pub fn heed(&mut self, told: &Told, names: &Names, uids: &Uids) {
        let interface = told.interface.as_str();
        let failover = &self.metrics.failover;
        let Some(report) = told.report else {
            self.ended(interface, uids);
            return;
        };
        match report {
            Report::Took {
                address,
                cause,
                from,
            } => {
                failover.taken(interface, word(cause));
                if cause == Cause::HolderDown
                    && let Some((at, silent)) =
                        from.and_then(|from| self.owners.lost.get(&(interface.to_owned(), from)))
                {
                    failover.taken_over(told.at.saturating_duration_since(*at) + *silent);
                }
                let from = from.map(|from| names.name(from));
                tracing::info!(event = "ownerChanged", ip = %address, interface, owner = self.node, former = from,
                    cause = word(cause), "this node answers for the address from now on: {}", sentence(cause));
                self.took(address, interface, uids);
            }
            Report::Released { address, cause, to } => {
                failover.released(interface, word(cause));
                let to = to.map(|to| names.name(to));
                tracing::info!(event = "ownerChanged", ip = %address, interface, owner = to, former = self.node,
                    cause = word(cause), "this node no longer answers for the address: {}", sentence(cause));
                self.released(address, interface, to, uids);
            }
            Report::Up(node) => {
                self.owners.lost.remove(&(interface.to_owned(), node));
                self.has_company(interface, uids);
                let node = names.name(node);
                tracing::info!(
                    event = "peerUp",
                    node,
                    interface,
                    "its speaker answers here"
                );
            }
            Report::Down {
                node,
                silent,
                kernel,
            } => {
                failover.down(silent, kernel);
                let lost = (interface.to_owned(), node);
                self.owners.lost.insert(lost, (told.at, silent));
                let node = names.name(node);
                tracing::warn!(event = "peerDown", node, interface, silent = ?silent, kernel,
                    "its speaker does not answer here any more");
            }
            Report::Refuted(node) => {
                failover.refuted.inc();
                let node = names.name(node);
                tracing::debug!(
                    event = "suspicionRefuted",
                    node,
                    interface,
                    "it answers after all"
                );
            }
            // Starving nodes say this of each other, too, so it is no warning.
            Report::CannotHear(node) => {
                let node = names.name(node);
                tracing::info!(
                    event = "peerUnheard",
                    node,
                    interface,
                    "others hear its speaker here and this node does not: look for what filters frames between the two"
                );
            }
            Report::CannotBeHeard(node) => {
                let node = names.name(node);
                tracing::info!(
                    event = "peerDeaf",
                    node,
                    interface,
                    "its speaker is heard here and does not hear this node: look for what filters frames between the two"
                );
            }
            Report::StoodStill(long) => {
                failover.stalls.inc();
                tracing::warn!(event = "stoodStill", interface, long = ?long,
                    "this speaker did not run for that long; it asks who holds its addresses before it answers again");
            }
            Report::Stays {
                address,
                obstacle,
                wished,
            } => self.stays(address, interface, obstacle, wished, uids),
            Report::StaysNoMore { address } => self.stays_no_more(address, interface, uids),
            Report::Stranger { .. } | Report::StrangerGone { .. } | Report::StrictArp { .. } => {
                self.heed_others(report, interface, names, uids);
            }
        }
    }

    /// What is told of addresses by others than their owners.
    fn heed_others(&mut self, report: Report, interface: &str, names: &Names, uids: &Uids) {
        match report {
            Report::Stranger {
                address,
                mac,
                speaks,
            } => self.stranger(address, mac.into(), speaks, interface, uids),
            Report::StrangerGone { address } => self.stranger_gone(address, interface, uids),
            Report::StrictArp { node, address } => self.strict_arp(address, names, node, uids),
            _ => {}
        }
    }

    /// One of the nodes that met it writes events; each shows what it met.
    fn stranger(
        &mut self,
        address: IpAddr,
        mac: MacAddr,
        speaks: bool,
        interface: &str,
        uids: &Uids,
    ) {
        let failover = &self.metrics.failover;
        failover.conflicts.with_label_values(&["stranger"]).inc();
        let key = (address, interface.to_owned());
        let known = self.owners.strangers.get(&key).copied();
        let told = speaks || known.is_some_and(|known| known.told);
        self.owners.strangers.insert(key, Stranger { mac, told });
        if known.is_none_or(|known| known.mac != mac) {
            if let Some(known) = known {
                failover.stranger_gone(address, interface, known.mac);
            }
            failover.stranger(address, interface, mac);
            self.report_strangers();
        }
        if !speaks {
            tracing::debug!(event = "addressConflictSeen", ip = %address, interface, mac = %mac,
                "a host that is no speaker answers for the address; the node that comes first for it tells of it");
            return;
        }
        let message = format!(
            "a host that is no speaker answers for {address}: {mac}, as heard on {interface} of node {:?}; give that host \
             another address, or take {address} out of the pool",
            self.node
        );
        let kind = EventType::Warning;
        self.say(address, kind, "addressConflict", &message, uids);
    }

    fn stranger_gone(&mut self, address: IpAddr, interface: &str, uids: &Uids) {
        let key = (address, interface.to_owned());
        let known = self.owners.strangers.remove(&key);
        if let Some(known) = known {
            let failover = &self.metrics.failover;
            failover.stranger_gone(address, interface, known.mac);
            self.report_strangers();
        }
        if !known.is_some_and(|known| known.told) {
            return;
        }
        let message = format!("{address} is no longer answered for by a host that is no speaker");
        let kind = EventType::Normal;
        self.say(address, kind, "addressConflictEnded", &message, uids);
    }

    fn report_strangers(&self) {
        if let Some(state) = &self.state {
            let each = self.owners.strangers.iter();
            let each = each.map(|((address, _), met)| (*address, met.mac.to_string()));
            state.set_strangers(each.collect());
        }
    }

    fn strict_arp(&self, address: IpAddr, names: &Names, node: NodeId, uids: &Uids) {
        let node = names.name(node);
        let conflicts = &self.metrics.failover.conflicts;
        conflicts.with_label_values(&["strictARP"]).inc();
        let message = format!(
            "the kernel of node {node:?} answers for {address} itself: kube-proxy's mode ipvs needs strictARP: true"
        );
        let kind = EventType::Warning;
        self.say(address, kind, "strictARPMissing", &message, uids);
    }

    fn took(&mut self, address: IpAddr, interface: &str, uids: &Uids) {
        self.owners.elsewhere.remove(&address);
        self.retired.retain(|retired| *retired != address);
        let company = &self.owners.company;
        if company.is_empty() || company.contains(interface) {
            self.hold(address, interface, None, uids);
        } else {
            let key = (address, interface.to_owned());
            self.owners.apart.insert(key);
        }
    }

    /// Another speaker was heard on an interface: from now on that one counts, and those without company do not.
    fn has_company(&mut self, interface: &str, uids: &Uids) {
        if self.owners.company.contains(interface) {
            return;
        }
        let first = self.owners.company.is_empty();
        self.owners.company.insert(interface.to_owned());
        let here = |key: &(IpAddr, String)| key.1 == interface;
        let counted: Vec<_> = self.owners.apart.extract_if(.., here).collect();
        for (address, interface) in counted {
            self.hold(address, &interface, None, uids);
        }
        if first {
            let lonely = self.announced.held().filter(|(_, on)| on != interface);
            for (address, on) in lonely.collect::<Vec<_>>() {
                let gone = Reason::HeldElsewhere {
                    address,
                    holder: None,
                };
                self.hold(address, &on, Some(gone), uids);
                self.owners.apart.insert((address, on));
            }
        }
    }

    /// The arbiter of an interface is no more: nothing is held there, and what it met there is past.
    fn ended(&mut self, interface: &str, uids: &Uids) {
        for address in self.announced.held_on(interface) {
            self.released(address, interface, None, uids);
        }
        self.owners.apart.retain(|(_, on)| on != interface);
        self.owners.lost.retain(|(on, _), _| on != interface);
        let strangers = self.owners.strangers.keys();
        let here = strangers.filter(|(_, on)| on == interface);
        for (address, on) in here.cloned().collect::<Vec<_>>() {
            self.stranger_gone(address, &on, uids);
        }
        self.forget_stays(interface);
        // What fell had told of addresses that it had not let go.
        self.metrics.failover.gone(interface);
    }

    fn released(&mut self, address: IpAddr, interface: &str, to: Option<String>, uids: &Uids) {
        match to.clone() {
            Some(to) => self.owners.elsewhere.insert(address, to),
            None => self.owners.elsewhere.remove(&address),
        };
        let gone = Reason::HeldElsewhere {
            address,
            holder: to,
        };
        let key = (address, interface.to_owned());
        if !self.owners.apart.remove(&key) {
            self.hold(address, interface, Some(gone), uids);
        }
        if !self.announced.is_held(address) {
            self.retire(address);
        }
    }

    /// Tells about an address in the log, and in an event on each Service that this node may announce with it.
    pub(super) fn say(
        &self,
        address: IpAddr,
        kind: EventType,
        reason: &str,
        message: &str,
        uids: &Uids,
    ) {
        tracing::warn!(event = reason, ip = %address, "{message}");
        for name in self.announced.with(address) {
            self.post(name, uids.get(name), kind, reason, message.to_owned());
        }
    }
}
