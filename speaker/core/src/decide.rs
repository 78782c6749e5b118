//! Does this node announce this Service? MetalLB's rules: those of 0.12 for pools of the ConfigMap, those of 0.16 for
//! pools that are objects of their own, with these differences, each for a reason:
//!
//! * a node must be Ready, and so must a speaker on it where that can be seen: MetalLB asks its member list instead;
//! * a Node's own address is never announced: that would take the node off the network;
//! * addresses are decided one by one, and Services that share one are decided together, so that it has one owner even
//!   where their advertisements select different nodes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_config::{Advertisement, Labels, ObjectName, Origin, Pool, Protocol};

use crate::facts::{Endpoints, IngressIp, Node, Service, TrafficPolicy};
use crate::order::elect;
use crate::reach::Reach;
use crate::reason::{NotEligible, Reason};
use crate::view::View;

/// What a node announces for one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The pool its addresses are from.
    pub pool: String,
    /// Which kind of source that pool stands in.
    pub origin: Origin,
    /// The addresses this node answers for, of both families, in the order of the Service's status; at least one.
    pub addresses: Vec<IpAddr>,
    /// The Service's first address is among them. Where a Service shares one of two addresses, two nodes may announce it;
    /// one of them leads.
    pub leads: bool,
    /// The interfaces they are answered for on, for this Service's sake.
    pub reach: Reach,
}

/// Whether a node announces a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Announce(Announcement),
    /// It does not.
    Silent(Reason),
}

/// Decides whether the node `me` announces the Service `name`. Which interfaces there are is known of one node only, so
/// only there is the verdict whole.
pub fn decide(view: &View, me: &str, name: &ObjectName) -> Verdict {
    match announcement(view, me, name) {
        Ok(announcement) => Verdict::Announce(announcement),
        Err(reason) => Verdict::Silent(reason),
    }
}

fn announcement(view: &View, me: &str, name: &ObjectName) -> Result<Announcement, Reason> {
    if !view.complete() {
        return Err(Reason::NotSynced);
    }
    let service = view.service(name).ok_or(Reason::ServiceDeleted)?;
    let pool = allowed(view, service)?;
    let mine = Candidacy::new(view, name, service, pool);
    let mut reason = None;
    let mut addresses = Vec::new();
    for address in service.addresses() {
        match ownership(me, &mine, address) {
            Ok(()) => addresses.push(address),
            Err(why) => reason = reason.or(Some(why)),
        }
    }
    match reason {
        Some(reason) if addresses.is_empty() => Err(reason),
        _ => Ok(Announcement {
            pool: pool.name().to_owned(),
            origin: pool.origin(),
            leads: service.addresses().next() == addresses.first().copied(),
            reach: mine.reach(me, &addresses)?,
            addresses,
        }),
    }
}

/// The layer-2 pool the Service's addresses are from, if somebody may announce them at all.
fn allowed<'a>(view: &'a View, service: &Service) -> Result<&'a Pool, Reason> {
    if !service.load_balancer {
        return Err(Reason::NotLoadBalancer);
    }
    let config = view.config().ok_or(Reason::NoConfig)?;
    for ip in &service.ingress {
        if let IngressIp::Invalid(text) = ip {
            return Err(Reason::InvalidIp(text.clone()));
        }
    }
    if service.ingress.is_empty() {
        return Err(Reason::NoIpAllocated);
    }
    let pool = service
        .pool_in(config)
        .ok_or_else(|| Reason::IpNotAllowed(service.addresses().collect()))?;
    if pool.protocol() != Protocol::Layer2 {
        return Err(Reason::ProtocolChanged(pool.name().to_owned()));
    }
    let mut advertisements = pool.advertisements();
    if !advertisements.any(|one| one.selects_service(&service.labels)) {
        return Err(Reason::NotAdvertised(pool.name().to_owned()));
    }
    for address in service.addresses() {
        if let Some(node) = view.nodes().with(address) {
            let node = node.to_owned();
            return Err(Reason::NodeAddress { address, node });
        }
    }
    Ok(pool)
}

/// What makes a node eligible for one Service.
struct Candidacy<'a> {
    view: &'a View,
    name: &'a ObjectName,
    service: &'a Service,
    endpoints: Cow<'a, Endpoints>,
    origin: Origin,
    /// Those of the pool that select the Service.
    advertisements: Vec<&'a Advertisement>,
}

impl<'a> Candidacy<'a> {
    fn new(view: &'a View, name: &'a ObjectName, service: &'a Service, pool: &'a Pool) -> Self {
        let advertisements = pool.advertisements();
        Self {
            view,
            name,
            service,
            endpoints: view.endpoints_of(name),
            origin: pool.origin(),
            advertisements: advertisements
                .filter(|one| one.selects_service(&service.labels))
                .collect(),
        }
    }

    /// The advertisements that speak of the Service on nodes with these labels.
    fn advertisements_on(&self, labels: &Labels) -> impl Iterator<Item = &'a Advertisement> {
        let all = self.advertisements.iter().copied();
        all.filter(|one| one.selects_node(labels))
    }

    /// Whether the node `name` may announce the Service, and if not, what keeps it out.
    fn admits(&self, name: &str) -> Result<(), NotEligible> {
        if !self.endpoints.usable().any {
            return Err(NotEligible::NoEndpoints);
        }
        let node = self.view.nodes().live_node(name)?;
        self.admits_live(name, node)
    }

    /// The same for one of the live nodes, while there are endpoints.
    fn admits_live(&self, name: &str, node: &Node) -> Result<(), NotEligible> {
        if self.view.nodes().excludes(node, self.origin) {
            return Err(NotEligible::Excluded);
        }
        if self.advertisements_on(&node.labels).next().is_none() {
            return Err(NotEligible::NotSelected);
        }
        let local = self.service.traffic_policy == TrafficPolicy::Local;
        if local && !self.endpoints.usable().nodes.contains(name) {
            return Err(NotEligible::NoLocalEndpoint);
        }
        Ok(())
    }

    /// The live nodes that may announce the Service, and how much each is preferred: the sum over the advertisements that
    /// speak of the Service there.
    fn candidates(&self) -> impl Iterator<Item = (&'a str, u64)> {
        let live = self.view.nodes().live_nodes();
        let live = live.filter(|_| self.endpoints.usable().any);
        let admitted = live.filter(|(name, node)| self.admits_live(name, node).is_ok());
        admitted.map(|(name, node)| {
            let weights = self.advertisements_on(&node.labels);
            (name, weights.map(|one| one.preference(&node.labels)).sum())
        })
    }

    /// Where `node`, which is the one whose interfaces are known, answers for the Service's `addresses`.
    fn reach(&self, node: &str, addresses: &[IpAddr]) -> Result<Reach, Reason> {
        let mut named: BTreeSet<&String> = BTreeSet::new();
        let labels = self.view.nodes().labels(node);
        for advertisement in self.advertisements_on(labels) {
            if advertisement.interfaces().is_empty() {
                return Ok(Reach::Everywhere);
            }
            named.extend(advertisement.interfaces());
        }
        let there = self.view.interfaces();
        let found = named.iter().filter(|name| there.contains(**name));
        let found: BTreeSet<String> = found.map(|name| (*name).clone()).collect();
        if found.is_empty() {
            return Err(Reason::NoInterface {
                addresses: addresses.to_vec(),
                named: named.into_iter().cloned().collect(),
            });
        }
        Ok(Reach::Only(found))
    }
}

/// How good a candidate is for an address, better ones being greater. What is equal is settled by the order of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// How many of the Services that share the address it may announce: with one that may announce only some, the
    /// others would not be announced at all.
    services: usize,
    /// How much the advertisements of these prefer it.
    preference: u64,
}

/// Whether `me` owns one address of the Service `mine` is about: it is the best of all nodes that may announce it for one
/// of the Services that have it, and may do so for this one.
fn ownership(me: &str, mine: &Candidacy<'_>, address: IpAddr) -> Result<(), Reason> {
    let view = mine.view;
    // The key is the first ingress address: of several Services the smallest such text, so that all agree.
    let mut key: Option<String> = None;
    let mut candidates: BTreeMap<&str, Rank> = BTreeMap::new();
    for (sharer, service) in view.sharers(address) {
        let Ok(pool) = allowed(view, service) else {
            continue;
        };
        if let Some(text) = service.addresses().next().map(|head| head.to_string()) {
            key = Some(key.map_or_else(|| text.clone(), |smallest| smallest.min(text.clone())));
        }
        let theirs;
        let candidacy = if sharer == mine.name {
            mine
        } else {
            theirs = Candidacy::new(view, sharer, service, pool);
            &theirs
        };
        for (node, preference) in candidacy.candidates() {
            let rank = candidates.entry(node).or_default();
            rank.services += 1;
            rank.preference += preference;
        }
    }
    let key = key.unwrap_or_default();
    let ranked = candidates.iter().map(|(node, rank)| (*node, *rank));
    match (elect(ranked, &key), mine.admits(me)) {
        (Some(owner), Ok(())) if owner == me => Ok(()),
        (Some(owner), Ok(())) => Err(Reason::NotOwner {
            owner: owner.to_owned(),
            key,
        }),
        // A node that may announce is among the candidates, so without any it may not.
        (_, Err(NotEligible::NoEndpoints)) | (None, Ok(())) => Err(Reason::NoEndpoints),
        (Some(owner), Err(why)) => Err(Reason::NotEligible {
            owner: owner.to_owned(),
            why,
        }),
        (None, Err(why)) => Err(Reason::NoCandidate(why)),
    }
}
