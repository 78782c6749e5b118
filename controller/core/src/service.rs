//! Everything decided so far, and the one way to decide more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_config::{Config, Labels, ObjectName, Refused};

use crate::allocator::Allocator;
use crate::converge::{Memory, Pass};
use crate::plan::{Plan, PoolUse};
use crate::request::Request;
use crate::strangers::Stranger;

/// The state of the decision: who has which address, who waits, who was told what.
///
/// It is used in this order: [`configure`](Self::configure) until a configuration is accepted, then
/// [`decide`](Self::decide) for every Service there is, then [`all_seen`](Self::all_seen), then `decide` again for those
/// [`waiting`](Self::waiting); from there on `decide` for each Service that changes, for all Services after a change of
/// configuration or node addresses, and for those waiting whenever a plan says [`revisit`](Plan::revisit).
#[derive(Debug, Default)]
pub struct Core {
    pub(crate) allocator: Allocator,
    configured: bool,
    /// The labels of the Namespaces that are known.
    pub(crate) namespaces: BTreeMap<String, Labels>,
    /// The restart barrier is lifted.
    pub(crate) all_seen: bool,
    /// Services of type `LoadBalancer`.
    records: BTreeMap<ObjectName, Record>,
    /// Services without an address, by the time they began to wait.
    queue: BTreeMap<u64, ObjectName>,
    /// The next time stamp for `queue`.
    arrivals: u64,
}

/// What is remembered of a Service besides its addresses.
#[derive(Debug, Default)]
struct Record {
    /// Its key in the queue.
    waiting: Option<u64>,
    memory: Memory,
}

impl Core {
    /// A core that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a configuration; the caller then decides all Services again.
    ///
    /// A Service whose address came from a pool that is a custom resource may lose it by this: it is moved when it is
    /// decided next (MetalLB since 0.14.2).
    ///
    /// # Errors
    /// If a Service could not keep its address from a pool of the ConfigMap (MetalLB's in-use rule, 0.7–0.13): one
    /// problem for each such Service. Nothing has changed then.
    pub fn configure(&mut self, config: Config) -> Result<(), Refused> {
        self.allocator.configure(config)?;
        self.configured = true;
        Ok(())
    }

    /// Whether a configuration was accepted.
    pub fn configured(&self) -> bool {
        self.configured
    }

    /// Takes the labels of a Namespace, `None` if it is gone or cannot be seen: then pools that select by labels give it
    /// nothing, and its Services keep what they have or show. If this changed anything (which is returned), the caller decides all Services of the Namespace again.
    pub fn label(&mut self, namespace: &str, labels: Option<Labels>) -> bool {
        let before = match labels.clone() {
            Some(labels) => self.namespaces.insert(namespace.to_owned(), labels),
            None => self.namespaces.remove(namespace),
        };
        before != labels
    }

    /// Replaces the addresses that belong to nodes, each with the node's name. They are not given out. A Service that
    /// has one keeps it and is warned when it is decided next, so the caller decides all Services again.
    pub fn reserve(&mut self, owners: BTreeMap<IpAddr, String>) {
        self.allocator.reserve(owners);
    }

    /// Replaces the addresses that hosts outside the cluster answer for, or did of late. Nobody gets one who does not ask for
    /// it while there is another, and who [is to leave](Stranger::leave) one gets another in its place when it is decided
    /// next. Returns the addresses of which something else is said than before: the caller decides their
    /// [`holders`](Self::holders) again.
    ///
    /// A Service that is to leave an address and finds no other stays: the caller decides it again when something was
    /// released.
    pub fn dispute(&mut self, strangers: BTreeMap<IpAddr, Stranger>) -> BTreeSet<IpAddr> {
        self.allocator.dispute(strangers)
    }

    /// Lifts the restart barrier: every Service has been decided once. Until then Services only get back the addresses in
    /// their status, since one that is not seen yet may have any other.
    pub fn all_seen(&mut self) {
        self.all_seen = true;
    }

    /// Decides one Service; `None` if it was deleted.
    ///
    /// Deciding the same again changes nothing and tells nothing, and as long as the status is not written the plan stays
    /// the same. Before the first configuration nothing is decided and nothing remembered.
    ///
    /// What the status of a Service shows is in use even if the Service does not have it any more, whatever its type:
    /// nobody else gets such an address who does not have or show it too, until a decision on the Service whose
    /// [`current`](Request::current) is without it. So a Service has to be decided again once its status was written.
    /// A Service that was deleted, or is not ours (`None`), shows nothing.
    pub fn decide(&mut self, name: &ObjectName, request: Option<&Request>) -> Plan {
        if !self.configured {
            let wants = request.is_some_and(|request| request.balancer);
            return Plan {
                pending: wants.then(|| "no configuration yet".to_string()),
                ..Plan::default()
            };
        }
        let current = request.map_or_else(BTreeSet::new, Request::addresses);
        let turn = self.allocator.open(name, current);
        let plan = match request {
            Some(request) if request.balancer => self.converge(name, request),
            _ => {
                self.forget(name);
                let shown = request.is_some_and(Request::shows_anything);
                Plan {
                    ingress: shown.then(Vec::new),
                    ..Plan::default()
                }
            }
        };
        let revisit = self.allocator.close(name, turn);
        Plan { revisit, ..plan }
    }

    /// Services that want an address and have none, the one that waits longest first: all whose last plan was
    /// [`pending`](Plan::pending).
    pub fn waiting(&self) -> Vec<ObjectName> {
        self.queue.values().cloned().collect()
    }

    /// How much of each pool is in use, in the order of the configuration.
    pub fn pools(&self) -> Vec<PoolUse> {
        self.allocator.uses()
    }

    /// The Services that have this address, sorted by name; more than one if they share it.
    pub fn holders(&self, ip: IpAddr) -> Vec<ObjectName> {
        self.allocator.holders(ip)
    }

    /// A Service that is to have an address.
    fn converge(&mut self, name: &ObjectName, request: &Request) -> Plan {
        let record = self.records.remove(name).unwrap_or_default();
        let outcome = Pass::new(self, name, request, record.memory).run();
        let waiting = match (&outcome.plan.pending, record.waiting) {
            (Some(_), None) => {
                self.arrivals += 1;
                self.queue.insert(self.arrivals, name.clone());
                Some(self.arrivals)
            }
            (Some(_), since) => since,
            (None, since) => {
                since.and_then(|since| self.queue.remove(&since));
                None
            }
        };
        self.records.insert(
            name.clone(),
            Record {
                waiting,
                memory: outcome.memory,
            },
        );
        outcome.plan
    }

    /// Drops a Service.
    fn forget(&mut self, name: &ObjectName) {
        if let Some(since) = self.records.remove(name).and_then(|record| record.waiting) {
            self.queue.remove(&since);
        }
        self.allocator.release(name);
    }
}
