//! One decision: from what a Service asks for and has to what it gets.
//!
//! The steps are those of MetalLB's controller (0.16), in its order:
//!
//! 1. Without cluster IPs, or with too few for `RequireDualStack`, there is nothing to give.
//! 2. The addresses it has are kept if they can be: of the right families, from a pool that is there for the Service,
//!    assignable, in the pool and among the addresses asked for. A pool that selects namespaces counts as there for one
//!    whose labels are not known, which gives nothing new to it. First those of its status are tried, then those on
//!    record; on record first if the status only lacks some of them, for then the write of the status is under way.
//! 3. If it is to leave an address because a stranger answers for it (not MetalLB's), it gets another in its place.
//! 4. A `PreferDualStack` Service with one address gets one of the other family from the same pool if there is one.
//! 5. A Service without gets the addresses asked for, or the lowest of the pool asked for, or the lowest of the first
//!    pool that has some: first of the pools that are there for certain Services, by priority, then of the others.
//!    Addresses that strangers answer for come last, unless they are asked for.
//!
//! Before the restart barrier is lifted the addresses of the status are held, and nothing else happens.
//!
//! Where the ConfigMap era (0.12) and the custom resources (0.16) differ, the pool in question decides by its origin:
//!
//! | question | pool of the ConfigMap | pool that is a custom resource |
//! |---|---|---|
//! | a new configuration does not cover an address in use | refused whole | the Service is moved |
//! | order of two addresses | as the pool's ranges supply them | IPv4 first |
//! | requested address not in the requested pool | the address wins | refused |
//! | annotation that names the pool | absent | written |
//! | events about annotations of the old prefix | none | once for each key |
//! | texts | 0.12 | 0.16 |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_config::{Family, ObjectName, Origin, Pool};

use crate::allocator::{Claim, Holding, Key, Refusal, Terms};
use crate::family::Families;
use crate::notice::{Level, Notice, quoted};
use crate::plan::Plan;
use crate::request::{FamilyPolicy, Request};
use crate::service::Core;

/// What a Service can be told about; on each topic the same text is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// Why it gets no address.
    Failure,
    /// Why it gets no second address.
    Additional,
    /// Which node has its address too.
    Conflict,
    /// Why it stays where a stranger answers.
    Stranger,
}

/// What a decision leaves behind.
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) memory: Memory,
}

/// What is remembered of a Service between decisions, besides its addresses.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// What it was told on each topic that is still open; the same is not told twice.
    told: BTreeMap<Topic, String>,
    /// The status that was to be replaced. While it is still shown, the write is under way, and it is no claim.
    replaced: Option<Vec<Result<IpAddr, String>>>,
    /// The annotation keys it was told to be deprecated.
    deprecated: BTreeSet<String>,
}

/// The families a Service is served with.
#[derive(Clone, Copy)]
pub(crate) struct Stack {
    pub(crate) families: Families,
    /// The family to take if only one of two can be had.
    pub(crate) primary: Family,
}

/// Why a Service cannot be served with any family.
enum Unserved {
    NoClusterIp,
    /// The cluster IPs are no addresses, or too many.
    Unknown(String),
    /// `RequireDualStack` with one cluster IP.
    NotEnough,
}

/// What stands against addresses the Service shows or has.
enum Objection {
    /// They are no set of addresses a Service can have.
    Unknown(String),
    /// They cannot be assigned.
    Refused(Refusal),
    /// Something else is asked for.
    NotWanted,
}

/// One decision under way.
pub(crate) struct Pass<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) name: &'a ObjectName,
    pub(crate) request: &'a Request,
    pub(crate) terms: Terms,
    /// What the Service had when the decision began.
    before: Option<Holding>,
    memory: Memory,
    told: BTreeMap<Topic, String>,
    notices: Vec<Notice>,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(
        core: &'a mut Core,
        name: &'a ObjectName,
        request: &'a Request,
        memory: Memory,
    ) -> Self {
        let key = Key {
            sharing: request.sharing.clone().unwrap_or_default(),
            backend: request.backend.clone(),
        };
        let terms = Terms {
            key,
            ports: request.ports.clone(),
        };
        let before = core.allocator.holding(name).cloned();
        Self {
            core,
            name,
            request,
            terms,
            before,
            memory,
            told: BTreeMap::new(),
            notices: Vec::new(),
        }
    }

    /// Decides.
    pub(crate) fn run(mut self) -> Outcome {
        let pending = self.converge();
        let held = self.core.allocator.holding(self.name);
        let addresses = held
            .map(|holding| holding.addresses.clone())
            .unwrap_or_default();
        self.warn_of_nodes(&addresses);

        let shown = self.request.current.iter().map(|shown| shown.as_ref().ok());
        let moves = !shown.eq(addresses.iter().map(Some));
        // Before the barrier a status that cannot be honoured yet stays.
        let left_alone = pending.is_some() && !self.core.all_seen;
        let writes = (moves || !self.is_noted(&addresses)) && !left_alone;
        let deprecated = self.warn_of_annotations(&addresses, writes);
        let plan = Plan {
            ingress: writes.then(|| addresses.clone()),
            noted_pool: self.noted_pool(&addresses).map(ToString::to_string),
            pool: self
                .core
                .allocator
                .pool_of(&addresses)
                .map(|pool| pool.name().to_string()),
            notices: self.notices,
            pending,
            // Known at the end of the turn.
            revisit: false,
        };
        let replaced = (writes && moves && !self.request.current.is_empty())
            .then(|| self.request.current.clone());
        Outcome {
            plan,
            memory: Memory {
                told: self.told,
                replaced,
                deprecated,
            },
        }
    }

    /// The pool to be named by an annotation of a Service with these addresses.
    fn noted_pool(&self, addresses: &[IpAddr]) -> Option<&str> {
        let pool = self.core.allocator.pool_of(addresses)?;
        (pool.origin() == Origin::Resource).then(|| pool.name())
    }

    /// Whether the object says all that is to be said with these addresses, and no more.
    fn is_noted(&self, addresses: &[IpAddr]) -> bool {
        !self.request.surplus && self.request.noted_pool.as_deref() == self.noted_pool(addresses)
    }

    /// Warns of annotations of the deprecated prefix, in a pass that writes, as MetalLB 0.14.9 does; returns what was
    /// warned of.
    fn warn_of_annotations(&mut self, addresses: &[IpAddr], writes: bool) -> BTreeSet<String> {
        let present = &self.request.deprecated;
        let mut told = std::mem::take(&mut self.memory.deprecated);
        told.retain(|key| present.contains(key));
        if writes && self.noted_pool(addresses).is_some() {
            for key in present {
                if told.insert(key.clone()) {
                    let message = format!("Service uses deprecated annotation {key}");
                    self.note(Level::Warning, "deprecatedAnnotation", message);
                }
            }
        }
        told
    }

    /// Brings the holding to what it should be; returns why the Service has no address although it should.
    fn converge(&mut self) -> Option<String> {
        if !self.core.all_seen {
            return self.hold();
        }
        let stack = match self.stack() {
            Ok(stack) => stack,
            Err(unserved) => return self.unserved(unserved),
        };
        let desired = self.desired();
        let wanted = desired.as_deref().unwrap_or_default();
        let kept = self.keep(|pass, addresses| pass.wants(addresses, stack, wanted));
        if let Err(objection) = &kept {
            self.tell_objection(objection);
        }
        let wanted = match desired {
            Ok(wanted) => wanted,
            Err(error) => {
                let message = format!("invalid requested loadbalancer IPs: {error}");
                self.fail("LoadBalancerFailed", message.clone());
                return kept.err().map(|_| self.lose(message));
            }
        };
        if kept.is_err() {
            self.core.allocator.release(self.name);
            if let Err(refusal) = self.grant(stack, &wanted) {
                let message = format!("Failed to allocate IP for \"{}\": {refusal}", self.name);
                self.fail("AllocationFailed", message);
                return Some(refusal.to_string());
            }
        }
        self.leave_strangers(stack, &wanted);
        self.complete(stack);
        None
    }

    /// Before the barrier is lifted: holds what the status shows, so that nobody else gets it, whether or not it is what
    /// the Service asks for now. Where it is not, the Service is decided again afterwards.
    fn hold(&mut self) -> Option<String> {
        let held = self.keep(|_, addresses| any_set(addresses));
        let settled = held.is_ok() && self.is_settled();
        (!settled).then(|| {
            "waiting until every Service has been seen after the start of the controller".into()
        })
    }

    /// Whether a decision after the barrier would leave the Service as it is, and tell it nothing.
    fn is_settled(&self) -> bool {
        let (Ok(stack), Ok(desired)) = (self.stack(), self.desired()) else {
            return false;
        };
        let Some(holding) = self.core.allocator.holding(self.name) else {
            return false;
        };
        let lacks_one = self.prefers_dual(stack) && holding.addresses.len() == 1;
        !lacks_one
            && self
                .left_to_strangers(&holding.addresses, &desired)
                .is_empty()
            && self.is_noted(&holding.addresses)
            && self.wants(&holding.addresses, stack, &desired).is_ok()
    }

    /// With which families the Service is to be served.
    fn stack(&self) -> Result<Stack, Unserved> {
        let ips = &self.request.cluster_ips;
        if ips.iter().all(String::is_empty) {
            return Err(Unserved::NoClusterIp);
        }
        let (families, primary) = Families::of_cluster(ips).map_err(Unserved::Unknown)?;
        if self.request.policy == FamilyPolicy::RequireDualStack && families != Families::Dual {
            return Err(Unserved::NotEnough);
        }
        Ok(Stack { families, primary })
    }

    /// A Service that cannot be served. One whose cluster IPs have no family, such as a headless one, keeps what it has.
    fn unserved(&mut self, unserved: Unserved) -> Option<String> {
        let ips = &self.request.cluster_ips;
        match unserved {
            Unserved::NoClusterIp => Some(self.lose("the Service has no cluster IP".into())),
            Unserved::NotEnough => {
                let message = format!(
                    "Service requires dual stack but not enough clusterips [{}]",
                    ips.join(" ")
                );
                self.fail("not enough clusterips", message.clone());
                Some(self.lose(message))
            }
            Unserved::Unknown(error) => {
                let kept = self.keep(|_, addresses| any_set(addresses));
                if kept.is_ok() {
                    let held = self.core.allocator.holding(self.name);
                    let addresses = held.map(|held| held.addresses.clone()).unwrap_or_default();
                    let mut whose = quoted(ips);
                    if self.noted_pool(&addresses).is_some() {
                        // MetalLB 0.16 names `spec.clusterIP` too.
                        whose.extend(ips.first().map(|first| format!(" {first}")));
                    }
                    let message =
                        format!("Failed to retrieve ClusterIPs IPFamily for {whose}: {error}");
                    self.fail("noclusterIPsIPFamily", message);
                    return None;
                }
                self.fail(
                    "AllocationFailed",
                    format!("Failed to allocate IP for \"{}\": {error}", self.name),
                );
                Some(self.lose(error))
            }
        }
    }

    /// Takes the Service's address away.
    fn lose(&mut self, reason: String) -> String {
        self.core.allocator.release(self.name);
        reason
    }

    /// The addresses asked for.
    fn desired(&self) -> Result<Vec<IpAddr>, String> {
        let desired: Vec<IpAddr> = self
            .request
            .desired
            .clone()?
            .iter()
            .map(IpAddr::to_canonical)
            .collect();
        if !desired.is_empty() {
            Families::of(&desired)?;
        }
        Ok(desired)
    }

    /// Assigns what the status shows or what is on record, the first that is acceptable. If none is: what stands against
    /// the status, or against the record if the status is empty.
    fn keep(
        &mut self,
        acceptable: impl Fn(&Self, &[IpAddr]) -> Result<(), Objection>,
    ) -> Result<(), Objection> {
        let recorded = self
            .before
            .as_ref()
            .map(|holding| holding.addresses.clone());
        let current = match &self.memory.replaced {
            Some(replaced) if *replaced == self.request.current => &[],
            _ => self.request.current.as_slice(),
        };
        let shown: Result<Vec<IpAddr>, &String> = current
            .iter()
            .map(|shown| shown.as_ref().map(IpAddr::to_canonical))
            .collect();
        let Ok(shown) = shown else {
            let kept = self.keep_one(recorded.unwrap_or_default(), &acceptable);
            return kept.map_err(|_| self.unreadable());
        };
        match recorded {
            Some(recorded) if shown.iter().all(|address| recorded.contains(address)) => {
                self.keep_one(recorded, &acceptable)
            }
            Some(recorded) => match self.keep_one(shown, &acceptable) {
                Ok(()) => Ok(()),
                Err(objection) => self.keep_one(recorded, &acceptable).map_err(|_| objection),
            },
            None => self.keep_one(shown, &acceptable),
        }
    }

    fn keep_one(
        &mut self,
        addresses: Vec<IpAddr>,
        acceptable: &impl Fn(&Self, &[IpAddr]) -> Result<(), Objection>,
    ) -> Result<(), Objection> {
        if addresses.is_empty() {
            return Err(Objection::NotWanted);
        }
        acceptable(self, &addresses)?;
        // What the status shows counts as had before only until every Service has been seen once.
        let claim = if self.core.all_seen {
            Claim::New
        } else {
            Claim::Old
        };
        let assigned = self
            .core
            .allocator
            .assign(self.name, addresses, self.terms.clone(), claim);
        assigned.map_err(Objection::Refused)
    }

    /// Whether these addresses are what the Service asks for. What cannot be assigned anyway is said to be so.
    fn wants(
        &self,
        addresses: &[IpAddr],
        stack: Stack,
        wanted: &[IpAddr],
    ) -> Result<(), Objection> {
        let families = Families::of(addresses).map_err(Objection::Unknown)?;
        if !families.serve(stack.families, self.request.policy) {
            return Err(Objection::NotWanted);
        }
        let claim = if self.core.all_seen {
            Claim::New
        } else {
            Claim::Old
        };
        self.keepable(addresses, claim)
            .map_err(Objection::Refused)?;
        if self.misses_pool(addresses, wanted).is_some() {
            return Err(Objection::NotWanted);
        }
        // One of two addresses may have been asked for, the other added.
        let partly = self.prefers_dual(stack) && wanted.len() == 1;
        let all_there = wanted.iter().all(|address| addresses.contains(address));
        if !wanted.is_empty() && !(all_there && (partly || wanted.len() == addresses.len())) {
            return Err(Objection::NotWanted);
        }
        Ok(())
    }

    /// Whether the Service may go on having these addresses. That its namespace's labels are not known is no reason to
    /// take them away: Namespaces may be forbidden, or not seen yet.
    fn keepable(&self, addresses: &[IpAddr], claim: Claim) -> Result<(), Refusal> {
        if let Some(pool) = self.core.allocator.pool_of(addresses)
            && !self.is_in_doubt(pool)
        {
            self.admitted(pool)?;
        }
        self.core
            .allocator
            .admits(self.name, addresses, &self.terms, claim)
    }

    /// Whether it is up to labels nobody knows if the pool is there for the Service.
    fn is_in_doubt(&self, pool: &Pool) -> bool {
        let namespace = &*self.name.namespace;
        !self.core.namespaces.contains_key(namespace)
            && pool
                .allocation()
                .is_some_and(|allocation| allocation.may_admit(namespace, &self.request.labels))
    }

    /// Whether the Service may be given these addresses.
    pub(crate) fn assignable(&self, addresses: &[IpAddr], claim: Claim) -> Result<(), Refusal> {
        if let Some(pool) = self.core.allocator.pool_of(addresses) {
            self.admitted(pool)?;
        }
        self.core
            .allocator
            .admits(self.name, addresses, &self.terms, claim)
    }

    /// Whether the pool is there for the Service; where the labels of the namespace decide, only if they are known.
    pub(crate) fn admitted(&self, pool: &Pool) -> Result<(), Refusal> {
        let namespace = &*self.name.namespace;
        let labels = self.core.namespaces.get(namespace);
        let admits = pool
            .allocation()
            .is_none_or(|allocation| allocation.admits(namespace, labels, &self.request.labels));
        if admits {
            return Ok(());
        }
        Err(Refusal::NotAdmitted {
            pool: pool.name().to_string(),
        })
    }

    /// The pool asked for, if these addresses are not from it.
    pub(crate) fn misses_pool(&self, addresses: &[IpAddr], wanted: &[IpAddr]) -> Option<&'a str> {
        let pool = self.core.allocator.pool_of(addresses);
        // In the ConfigMap era an address asked for outweighs the pool asked for.
        let outweighed =
            !wanted.is_empty() && pool.is_some_and(|pool| pool.origin() == Origin::ConfigMap);
        self.asked_pool()
            .filter(|asked| !outweighed && pool.map(Pool::name) != Some(asked))
    }

    /// The pool asked for.
    pub(crate) fn asked_pool(&self) -> Option<&'a str> {
        self.request.pool.as_deref().filter(|pool| !pool.is_empty())
    }

    pub(crate) fn prefers_dual(&self, stack: Stack) -> bool {
        stack.families == Families::Dual && self.request.policy == FamilyPolicy::PreferDualStack
    }

    /// Tells why the status is given up.
    fn tell_objection(&mut self, objection: &Objection) {
        match objection {
            Objection::Unknown(error) => {
                let shown: Vec<String> = self.request.current.iter().map(show).collect();
                let message = format!(
                    "Failed to retrieve LBIPs IPFamily for {}: {error}",
                    quoted(&shown)
                );
                self.note(Level::Warning, "nolbIPsIPFamily", message);
            }
            Objection::Refused(refusal) => {
                let message = format!(
                    "current IP for \"{}\" not allowed by config, will attempt for new IP assignment: {refusal}",
                    self.name
                );
                self.note(Level::Normal, "ClearAssignment", message);
            }
            Objection::NotWanted => {}
        }
    }

    /// The objection to a status that has a text which is no address.
    fn unreadable(&self) -> Objection {
        let shown: Vec<String> = self.request.current.iter().map(show).collect();
        Objection::Unknown(format!(
            "IPFamilyForAddresses: Invalid address {}",
            quoted(&shown)
        ))
    }

    /// Warns if an address is also a node's.
    fn warn_of_nodes(&mut self, addresses: &[IpAddr]) {
        let conflicts = addresses.iter().filter_map(|address| {
            let node = self.core.allocator.node_of(*address)?;
            Some(format!("\"{address}\" is also an address of node {node:?}"))
        });
        let conflicts: Vec<String> = conflicts.collect();
        if !conflicts.is_empty() {
            let message = format!(
                "{}: give the node or the Service another address",
                conflicts.join(", ")
            );
            self.tell(Topic::Conflict, Level::Warning, "AddressConflict", message);
        }
    }

    fn fail(&mut self, reason: &'static str, message: String) {
        self.tell(Topic::Failure, Level::Warning, reason, message);
    }

    /// Tells something about a lasting state: once, until the text changes or the state ends.
    pub(crate) fn tell(
        &mut self,
        topic: Topic,
        level: Level,
        reason: &'static str,
        message: String,
    ) {
        if self.memory.told.get(&topic) != Some(&message) {
            self.note(level, reason, message.clone());
        }
        self.told.insert(topic, message);
    }

    pub(crate) fn note(&mut self, level: Level, reason: &'static str, message: String) {
        self.notices.push(Notice {
            level,
            reason,
            message,
        });
    }
}

/// Accepts whatever a Service could have at all.
fn any_set(addresses: &[IpAddr]) -> Result<(), Objection> {
    Families::of(addresses)
        .map(drop)
        .map_err(Objection::Unknown)
}

/// An entry of the status as text.
fn show(shown: &Result<IpAddr, String>) -> String {
    match shown {
        Ok(address) => address.to_string(),
        Err(text) => text.clone(),
    }
}
