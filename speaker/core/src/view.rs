//! All facts, indexed, and which Services a change of one touches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::net::IpAddr;

use ferrolb_config::{Config, ObjectName};

use crate::facts::{Endpoints, Node, Service, SpeakerPod};
use crate::reason::NotEligible;

/// The kinds of objects that must have been listed before anything is decided: a decision on half a list would take
/// addresses other nodes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Services.
    Services,
    /// EndpointSlices or Endpoints.
    Endpoints,
    /// Nodes.
    Nodes,
    /// The speakers' own pods; told to be unknown counts as listed.
    Speakers,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Services, Self::Endpoints, Self::Nodes, Self::Speakers];
}

/// The Services whose verdict a change may have altered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// These; often none.
    Some(BTreeSet<ObjectName>),
    /// All of them.
    All,
}

impl Default for Touched {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Touched {
    /// Adds what another change touched.
    pub fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::All, _) => {}
            (mine, Self::All) => *mine = Self::All,
            (Self::Some(mine), Self::Some(theirs)) => mine.extend(theirs),
        }
    }

    /// No Service is touched.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Some(services) if services.is_empty())
    }

    fn all_if(changed: bool) -> Self {
        if changed { Self::All } else { Self::default() }
    }
}

/// Everything a decision looks at. One task owns it; every change is synchronous and names what it touches.
#[derive(Debug, Default)]
pub struct View {
    config: Option<Config>,
    services: BTreeMap<ObjectName, Service>,
    /// Which Services have an address in their status: few, unless they share it.
    by_address: HashMap<IpAddr, BTreeSet<ObjectName>>,
    /// Service → slice → its endpoints.
    endpoints: HashMap<ObjectName, BTreeMap<ObjectName, Endpoints>>,
    /// Slice → Service, to find the former Service of a slice that changed hands or went.
    slices: HashMap<ObjectName, ObjectName>,
    nodes: BTreeMap<String, Node>,
    /// The Nodes' own addresses.
    node_addresses: HashMap<IpAddr, String>,
    /// None while unknown.
    speakers: Option<Vec<SpeakerPod>>,
    /// The known nodes with a Ready speaker. Empty where speakers are unknown, and where their pods say nothing.
    spoken_for: BTreeSet<String>,
    /// Names of nodes that may announce, endpoints aside. Kept, because every Service asks.
    live: BTreeSet<String>,
    listed: BTreeSet<Kind>,
}

impl View {
    /// A view of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every object of this kind has been told.
    pub fn set_listed(&mut self, kind: Kind) -> Touched {
        let before = self.complete();
        self.listed.insert(kind);
        Touched::all_if(self.complete() != before)
    }

    /// This kind has been listed at least once.
    pub fn listed(&self, kind: Kind) -> bool {
        self.listed.contains(&kind)
    }

    /// Every kind has been listed at least once.
    pub fn complete(&self) -> bool {
        self.listed.len() == Kind::ALL.len()
    }

    /// A configuration takes the place of the former.
    pub fn set_config(&mut self, config: Config) -> Touched {
        let changed = self.config.as_ref() != Some(&config);
        self.config = Some(config);
        Touched::all_if(changed)
    }

    /// The configuration in force.
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// A Service that the configuration in force has a pool for and `config` has none for, with its addresses. Such a
    /// configuration is not to be taken up while that is so: addresses in use are not taken away. MetalLB's speakers do
    /// the same (all releases), but each looks only at what it announces itself, so that they come to differ; this looks
    /// at what every speaker sees.
    pub fn left_out_by(&self, config: &Config) -> Option<(&ObjectName, Vec<IpAddr>)> {
        let in_force = self.config.as_ref()?;
        let mut services = self.services.iter();
        let (name, service) = services.find(|(_, service)| {
            service.load_balancer
                && service.pool_in(in_force).is_some()
                && service.pool_in(config).is_none()
        })?;
        Some((name, service.addresses().collect()))
    }

    /// A Service is new or has changed.
    pub fn apply_service(&mut self, name: ObjectName, service: Service) -> Touched {
        if self.services.get(&name) == Some(&service) {
            return Touched::default();
        }
        let mut touched = self.drop_service(&name);
        if service.load_balancer {
            for address in service.addresses() {
                let sharers = self.by_address.entry(address).or_default();
                touched.extend(sharers.iter().cloned());
                sharers.insert(name.clone());
            }
        }
        touched.insert(name.clone());
        self.services.insert(name, service);
        Touched::Some(touched)
    }

    /// A Service is gone.
    pub fn delete_service(&mut self, name: &ObjectName) -> Touched {
        let mut touched = self.drop_service(name);
        touched.insert(name.clone());
        Touched::Some(touched)
    }

    /// Takes a Service out and names those that share an address with it.
    fn drop_service(&mut self, name: &ObjectName) -> BTreeSet<ObjectName> {
        let mut touched = BTreeSet::new();
        let Some(service) = self.services.remove(name) else {
            return touched;
        };
        for address in service.addresses() {
            if let Some(sharers) = self.by_address.get_mut(&address) {
                sharers.remove(name);
                touched.extend(sharers.iter().cloned());
                if sharers.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
        touched
    }

    /// The EndpointSlice `slice` of `service` is new or has changed. For an Endpoints object both have the same name.
    pub fn apply_endpoints(
        &mut self,
        slice: ObjectName,
        service: ObjectName,
        endpoints: Endpoints,
    ) -> Touched {
        let mut touched = Touched::default();
        if self
            .slices
            .get(&slice)
            .is_some_and(|former| *former != service)
        {
            touched = self.delete_endpoints(&slice);
        }
        let slices = self.endpoints.entry(service.clone()).or_default();
        if slices.get(&slice) != Some(&endpoints) {
            slices.insert(slice.clone(), endpoints);
            touched.merge(self.with_sharers(&service));
        }
        self.slices.insert(slice, service);
        touched
    }

    /// The EndpointSlice `slice` is gone.
    pub fn delete_endpoints(&mut self, slice: &ObjectName) -> Touched {
        let Some(service) = self.slices.remove(slice) else {
            return Touched::default();
        };
        if let Some(slices) = self.endpoints.get_mut(&service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.endpoints.remove(&service);
            }
        }
        self.with_sharers(&service)
    }

    /// A Node is new or has changed.
    pub fn apply_node(&mut self, name: String, node: Node) -> Touched {
        if self.nodes.get(&name) == Some(&node) {
            return Touched::default();
        }
        self.nodes.insert(name, node);
        self.nodes_changed()
    }

    /// A Node is gone.
    pub fn delete_node(&mut self, name: &str) -> Touched {
        if self.nodes.remove(name).is_none() {
            return Touched::default();
        }
        self.nodes_changed()
    }

    /// The speakers' pods, all of them; `None` where they cannot be listed, which leaves the Nodes' readiness alone.
    pub fn set_speakers(&mut self, speakers: Option<Vec<SpeakerPod>>) -> Touched {
        if self.speakers == speakers {
            return Touched::default();
        }
        self.speakers = speakers;
        Touched::all_if(self.find_live())
    }

    /// The Services known now.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.keys()
    }

    /// One Service.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The names of the nodes that may announce, endpoints aside.
    pub fn live(&self) -> &BTreeSet<String> {
        &self.live
    }

    /// What keeps a node from being live; none if it is.
    pub(crate) fn not_live(&self, name: &str) -> Option<NotEligible> {
        let Some(node) = self.nodes.get(name) else {
            return Some(NotEligible::UnknownNode);
        };
        if !node.ready {
            Some(NotEligible::NodeNotReady)
        } else if node.network_unavailable {
            Some(NotEligible::NetworkUnavailable)
        } else if !self.spoken_for.is_empty() && !self.spoken_for.contains(name) {
            Some(NotEligible::SpeakerNotReady)
        } else {
            None
        }
    }

    /// The Node that has `address` as its own.
    pub(crate) fn node_with(&self, address: IpAddr) -> Option<&str> {
        self.node_addresses.get(&address).map(String::as_str)
    }

    /// The LoadBalancer Services that have `address`.
    pub(crate) fn sharers(&self, address: IpAddr) -> impl Iterator<Item = (&ObjectName, &Service)> {
        let names = self.by_address.get(&address).into_iter().flatten();
        names.filter_map(|name| self.services.get_key_value(name))
    }

    /// All endpoints of a Service together.
    pub(crate) fn endpoints_of(&self, service: &ObjectName) -> Endpoints {
        let mut all = Endpoints::default();
        for endpoints in self.endpoints.get(service).into_iter().flatten() {
            all.merge(endpoints.1);
        }
        all
    }

    fn with_sharers(&self, name: &ObjectName) -> Touched {
        let addresses = self
            .services
            .get(name)
            .into_iter()
            .flat_map(Service::addresses);
        let sharers = addresses.flat_map(|address| self.sharers(address));
        let mut touched: BTreeSet<_> = sharers.map(|(name, _)| name.clone()).collect();
        touched.insert(name.clone());
        Touched::Some(touched)
    }

    fn nodes_changed(&mut self) -> Touched {
        let addresses = self.nodes.iter().flat_map(|(name, node)| {
            let own = node.addresses.iter();
            own.map(move |address| (*address, name.clone()))
        });
        let former = mem::replace(&mut self.node_addresses, addresses.collect());
        let live_changed = self.find_live();
        Touched::all_if(live_changed || former != self.node_addresses)
    }

    /// Finds who is live again; true if that is not who was.
    ///
    /// Speakers count only if there is one: where no pod is known Ready on a known node, the Nodes' readiness alone
    /// decides. Either the pods are unknown or not the speakers' (the label selector does not fit them), or the news of
    /// ours is late: whoever decides here is a speaker that runs, so a list without any Ready one is out of date.
    fn find_live(&mut self) -> bool {
        let pods = self.speakers.iter().flatten();
        self.spoken_for = pods
            .filter(|pod| pod.ready && self.nodes.contains_key(&pod.node))
            .map(|pod| pod.node.clone())
            .collect();
        let names = self
            .nodes
            .keys()
            .filter(|name| self.not_live(name).is_none());
        let live = names.cloned().collect();
        mem::replace(&mut self.live, live) != self.live
    }
}
