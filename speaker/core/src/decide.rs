//! May this node announce this Service, and who may answer for an address in what order? MetalLB's rules: those of 0.12
//! for pools of the ConfigMap, those of 0.16 for pools that are objects of their own, with these differences, each for a
//! reason:
//!
//! * whether a node lives is no question here: the arbiter of each interface finds out who does answer. A Node that is not
//!   Ready or cordoned, or whose speaker is not Ready, comes last;
//! * a Node's own address is never announced: that would take the node off the network;
//! * addresses are ordered one by one, and Services that share one together, so that all agree who comes first for it
//!   even where their advertisements select different nodes.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_config::{Advertisement, Labels, ObjectName, Origin, Pool, Protocol};

use crate::facts::{Endpoints, IngressIp, Node, Service, TrafficPolicy};
use crate::field::{Field, Place};
use crate::reach::Reach;
use crate::reason::{NotEligible, Reason};
use crate::view::View;

/// What a node announces, or may announce, for one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The pool its addresses are from.
    pub pool: String,
    /// Which kind of source that pool stands in.
    pub origin: Origin,
    /// The addresses, of both families, in the order of the Service's status; at least one.
    pub addresses: Vec<IpAddr>,
    /// The interfaces of this node they may be answered for on, for this Service's sake.
    pub reach: Reach,
}

/// Whether a node may announce a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may, with all of the Service's addresses, where it holds them.
    May(Announcement),
    /// It may not.
    Silent(Reason),
}

/// Who may answer for one address, by names that the view has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking<'a> {
    /// See [`Standing::order`].
    pub order: Vec<&'a str>,
    /// See [`Standing::willing`].
    pub willing: usize,
    /// See [`Standing::reach`].
    pub reach: Option<Reach>,
}

/// Who may answer for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The nodes in MetalLB's order, best first; at least one. Those that are not willing come after all that are.
    pub order: Vec<String>,
    /// How many, from the first, are willing; the rest are to leave what they hold to them.
    pub willing: usize,
    /// Where this node may answer for it, for the sake of any Service that has it; none if this node may not, which is
    /// where it is not in the order.
    pub reach: Option<Reach>,
}

/// Decides whether the node `me` may announce the Service `name`. Which interfaces there are is known of one node only, so
/// only for that one is the verdict whole.
pub fn decide(view: &View, me: &str, name: &ObjectName) -> Verdict {
    match announcement(view, me, name) {
        Ok(announcement) => Verdict::May(announcement),
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
    match mine.admits(me) {
        Ok(()) => Ok(Announcement {
            pool: pool.name().to_owned(),
            origin: pool.origin(),
            addresses: service.addresses().collect(),
            reach: mine.reach(me)?,
        }),
        Err(NotEligible::NoEndpoints) => Err(Reason::NoEndpoints),
        Err(why) => {
            let address = service.addresses().next();
            let first = address.and_then(|address| {
                let order = ordered(view, &candidacies(view, address));
                order.first().map(|candidate| candidate.node.to_owned())
            });
            Err(match first {
                Some(owner) => Reason::NotEligible { owner, why },
                None => Reason::NoCandidate(why),
            })
        }
    }
}

/// What [`ranking`] gives, with names of its own.
pub fn standing(view: &View, me: &str, address: IpAddr) -> Option<Standing> {
    ranking(view, me, address).map(|ranking| Standing {
        order: ranking.order.into_iter().map(str::to_owned).collect(),
        willing: ranking.willing,
        reach: ranking.reach,
    })
}

/// Who may answer for `address`, and where the node `me` may; none while not everything has been listed, if no Service
/// that may be announced has it, or if nobody may answer for it.
///
/// All nodes that see the same objects come to the same order, but for this: a node that has none of the interfaces it
/// would have to answer on leaves itself out, and the others cannot know.
pub fn ranking<'a>(view: &'a View, me: &str, address: IpAddr) -> Option<Ranking<'a>> {
    if !view.complete() {
        return None;
    }
    let candidacies = candidacies(view, address);
    let mine = candidacies.iter().filter(|one| one.admits(me).is_ok());
    let reach = mine
        .filter_map(|one| one.reach(me).ok())
        .reduce(|all, one| all.union(&one));
    let mut order = ordered(view, &candidacies);
    order.retain(|candidate| candidate.node != me || reach.is_some());
    (!order.is_empty()).then(|| Ranking {
        willing: order.iter().filter(|candidate| candidate.willing).count(),
        order: order.iter().map(|one| one.node).collect(),
        reach,
    })
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
    service: &'a Service,
    endpoints: Cow<'a, Endpoints>,
    pool: &'a Pool,
    /// Those of the pool that select the Service, and which of its these are.
    advertisements: Vec<&'a Advertisement>,
    chosen: Vec<usize>,
}

impl<'a> Candidacy<'a> {
    fn new(view: &'a View, name: &ObjectName, service: &'a Service, pool: &'a Pool) -> Self {
        let advertisements = pool.advertisements().enumerate();
        let selected = advertisements.filter(|(_, one)| one.selects_service(&service.labels));
        let (chosen, advertisements) = selected.unzip();
        Self {
            view,
            service,
            endpoints: view.endpoints_of(name),
            pool,
            advertisements,
            chosen,
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
        let node = self.view.nodes().candidate(name)?;
        self.admits_node(name, node)
    }

    /// The same for one of the nodes that may announce at all, while there are endpoints.
    fn admits_node(&self, name: &str, node: &Node) -> Result<(), NotEligible> {
        self.selects(node)?;
        if !self.serves_at(name) {
            return Err(NotEligible::NoLocalEndpoint);
        }
        Ok(())
    }

    /// The part of it that does not depend on endpoints.
    fn selects(&self, node: &Node) -> Result<(), NotEligible> {
        if self.view.nodes().excludes(node, self.pool.origin()) {
            return Err(NotEligible::Excluded);
        }
        if self.advertisements_on(&node.labels).next().is_none() {
            return Err(NotEligible::NotSelected);
        }
        Ok(())
    }

    /// Whether endpoints allow that the node announces it, while there are some.
    fn serves_at(&self, name: &str) -> bool {
        self.service.traffic_policy != TrafficPolicy::Local
            || self.endpoints.usable().nodes.contains(name)
    }

    /// The nodes that may announce the Service as far as its endpoints allow, whether they are willing, and how much each is
    /// preferred: the sum over the advertisements that speak of the Service there.
    fn field(&self) -> Field {
        let pool = (self.pool.origin(), self.pool.name().to_owned());
        let these = (pool.0, pool.1, self.chosen.clone());
        let nodes = self.view.nodes();
        self.view.fields().of(these, || {
            let places = nodes.orders().names().map(|name| {
                let (node, willing) = nodes.willing(name?)?;
                self.selects(node).ok()?;
                let weights = self.advertisements_on(&node.labels);
                let weights = weights.map(|one| one.preference(&node.labels));
                Some(Place {
                    willing,
                    preference: weights.sum(),
                })
            });
            places.collect()
        })
    }

    /// Where `node`, which is the one whose interfaces are known, may answer for the Service's addresses.
    fn reach(&self, node: &str) -> Result<Reach, Reason> {
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
                addresses: self.service.addresses().collect(),
                named: named.into_iter().cloned().collect(),
            });
        }
        Ok(Reach::Only(found))
    }
}

/// The Services that have the address and may be announced.
fn candidacies(view: &View, address: IpAddr) -> Vec<Candidacy<'_>> {
    let sharers = view.sharers(address);
    sharers
        .filter_map(|(name, service)| {
            let pool = allowed(view, service).ok()?;
            Some(Candidacy::new(view, name, service, pool))
        })
        .collect()
}

/// A node that may answer for an address.
struct Candidate<'a> {
    node: &'a str,
    willing: bool,
    rank: Rank,
}

/// How good a candidate is for an address, better ones being greater. What is equal is settled by the order of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// How many of the Services that share the address it may announce: with one that may announce only some, the
    /// others would not be announced at all.
    services: usize,
    /// The operator wants it here (annotation `ferrolb.io/move` of one of these).
    wanted: bool,
    /// How much the advertisements of these prefer it.
    preference: u64,
}

/// Who may announce one of the Services that share an address, best first.
fn ordered<'a>(view: &'a View, sharers: &[Candidacy<'a>]) -> Vec<Candidate<'a>> {
    // The key is the first ingress address: of several Services the smallest such text, so that all agree.
    let heads = sharers
        .iter()
        .filter_map(|one| one.service.addresses().next());
    let Some(key) = heads.min_by_key(IpAddr::to_string) else {
        return Vec::new();
    };
    // Of several that say so the first by name counts. MetalLB's speakers know no such wish, so beside one there is none.
    let mut wishes = sharers.iter().filter(|one| !one.view.beside_metallb());
    let wanted = wishes.find_map(|one| {
        let wanted = one.service.wanted_at.as_deref()?;
        one.admits(wanted).is_ok().then_some(wanted)
    });
    let served = sharers.iter().filter(|one| one.endpoints.usable().any);
    let fields: Vec<_> = served.map(|one| (one, one.field())).collect();
    let orders = view.nodes().orders();
    let nodes = orders.of(key);
    let mut order: Vec<Candidate<'a>> = Vec::with_capacity(nodes.len());
    for slot in nodes.iter() {
        let Some(node) = orders.name(*slot) else {
            continue;
        };
        let mut candidate = None;
        for (sharer, field) in &fields {
            let place = field.get(usize::from(*slot)).copied().flatten();
            let Some(place) = place.filter(|_| sharer.serves_at(node)) else {
                continue;
            };
            let candidate = candidate.get_or_insert(Candidate {
                node,
                willing: place.willing,
                rank: Rank::default(),
            });
            candidate.rank.services += 1;
            candidate.rank.wanted = wanted == Some(node);
            candidate.rank.preference += place.preference;
        }
        order.extend(candidate);
    }
    // What is equal stays in the order of nodes.
    order.sort_by_key(|one| (!one.willing, Reverse(one.rank)));
    order
}
