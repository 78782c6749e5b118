//! Does this node announce this Service? MetalLB's rules (0.12, where the two differ), with these differences, each for
//! a reason:
//!
//! * a node must be Ready, and so must a speaker on it where that can be seen: MetalLB asks its member list instead;
//! * a Node's own address is never announced: that would take the node off the network;
//! * addresses are decided one by one, and Services that share one are decided together, so that it has one owner.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_config::{ObjectName, Protocol};

use crate::facts::{IngressIp, Service, TrafficPolicy};
use crate::order::first;
use crate::reason::{NotEligible, Reason};
use crate::view::View;

/// What a node announces for one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The pool its addresses are from.
    pub pool: String,
    /// The addresses this node answers for, of both families, in the order of the Service's status; at least one.
    pub addresses: Vec<IpAddr>,
}

/// Whether a node announces a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Announce(Announcement),
    /// It does not.
    Silent(Reason),
}

/// Decides whether the node `me` announces the Service `name`.
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
    let mut reason = None;
    let mut addresses = Vec::new();
    for address in service.addresses() {
        match ownership(view, me, name, service, address) {
            Ok(()) => addresses.push(address),
            Err(why) => reason = reason.or(Some(why)),
        }
    }
    match reason {
        Some(reason) if addresses.is_empty() => Err(reason),
        _ => Ok(Announcement {
            pool: pool.to_owned(),
            addresses,
        }),
    }
}

/// The layer-2 pool the Service's addresses are from, if somebody may announce them at all.
fn allowed<'a>(view: &'a View, service: &Service) -> Result<&'a str, Reason> {
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
    for address in service.addresses() {
        if let Some(node) = view.node_with(address) {
            let node = node.to_owned();
            return Err(Reason::NodeAddress { address, node });
        }
    }
    Ok(pool.name())
}

/// Whether `me` owns one address of a Service: it is the first, in the order for the address, of all nodes that may
/// announce it for one of the Services that have it, and may do so for this one.
fn ownership(
    view: &View,
    me: &str,
    name: &ObjectName,
    service: &Service,
    address: IpAddr,
) -> Result<(), Reason> {
    // The key is the first ingress address: of several Services the smallest such text, so that all agree.
    let mut key: Option<String> = None;
    let mut candidates: BTreeSet<&str> = BTreeSet::new();
    for (sharer, shared) in view.sharers(address) {
        if allowed(view, shared).is_err() {
            continue;
        }
        if let Some(text) = shared.addresses().next().map(|head| head.to_string()) {
            key = Some(key.map_or_else(|| text.clone(), |smallest| smallest.min(text.clone())));
        }
        let usable = view.endpoints_of(sharer);
        let usable = usable.usable();
        let live = view.live().iter();
        candidates.extend(
            live.filter(|node| match shared.traffic_policy {
                TrafficPolicy::Cluster => usable.any,
                TrafficPolicy::Local => usable.nodes.contains(*node),
            })
            .map(String::as_str),
        );
    }
    let mine = eligible(view, me, name, service);
    let key = key.unwrap_or_default();
    match (first(candidates, &key), mine) {
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

/// Whether `node` may announce the Service, and if not, what keeps it out.
fn eligible(
    view: &View,
    node: &str,
    name: &ObjectName,
    service: &Service,
) -> Result<(), NotEligible> {
    let endpoints = view.endpoints_of(name);
    let usable = endpoints.usable();
    if !usable.any {
        return Err(NotEligible::NoEndpoints);
    }
    if let Some(why) = view.not_live(node) {
        return Err(why);
    }
    if service.traffic_policy == TrafficPolicy::Local && !usable.nodes.contains(node) {
        return Err(NotEligible::NoLocalEndpoint);
    }
    Ok(())
}
