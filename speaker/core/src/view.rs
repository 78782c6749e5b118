//! All facts, indexed, and which Services a change of one touches.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::net::IpAddr;

use ferrolb_config::{Advertisement, Config, Labels, ObjectName, Origin, Pool};

use crate::facts::{Endpoints, Members, Node, Service, SpeakerPod};
use crate::few::Few;
use crate::field::Fields;
use crate::nodes::{Leaving, Nodes};

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
    /// The members of the gossip, once it has asked to be let in; told that there is none counts as listed.
    Members,
    /// The network interfaces of this speaker's node.
    Interfaces,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Services,
        Self::Endpoints,
        Self::Nodes,
        Self::Speakers,
        Self::Members,
        Self::Interfaces,
    ];
}

/// The Services whose verdict, or the order of nodes for whose addresses, a change may have altered.
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

/// What the operator set that decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The label `node.kubernetes.io/exclude-from-external-load-balancers` counts for nothing (`--ignore-exclude-lb`,
    /// MetalLB 0.13.12). False unless said.
    pub ignore_exclusion: bool,
    /// A cordoned Node (`spec.unschedulable`) hands over what it holds, and comes after all others. True unless said.
    pub leave_cordoned: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ignore_exclusion: false,
            leave_cordoned: true,
        }
    }
}

/// A node as Kubernetes and gossip know it, for the arbiters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub node: String,
    /// Its first `InternalIP`, IPv4 before IPv6, which its kernel answers for; none if it has none.
    pub address: Option<IpAddr>,
    /// Whether Kubernetes and gossip believe that it can answer.
    pub live: bool,
    /// Whether its speaker is MetalLB's.
    pub legacy: bool,
}

/// Everything a decision looks at. One task owns it; every change is synchronous and names what it touches.
#[derive(Debug, Default)]
pub struct View {
    config: Option<Config>,
    services: BTreeMap<ObjectName, Service>,
    /// Which Services have an address in their status: few, unless they share it.
    by_address: HashMap<IpAddr, Few<ObjectName>>,
    /// Service → slice → its endpoints.
    endpoints: HashMap<ObjectName, Vec<(ObjectName, Endpoints)>>,
    /// Slice → Service, to find the former Service of a slice that changed hands or went.
    slices: HashMap<ObjectName, ObjectName>,
    nodes: Nodes,
    /// Who may announce what, as far as nodes and configuration tell.
    fields: Fields,
    /// Names of the interfaces of the node this speaker runs on.
    interfaces: BTreeSet<String>,
    listed: BTreeSet<Kind>,
}

impl View {
    /// A view of nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            nodes: Nodes::new(settings),
            ..Self::default()
        }
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
        self.fields.clear();
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
    /// the same (0.7 to 0.12), but each looks only at what it announces itself, so that they come to differ; this looks
    /// at what every speaker sees. A pool that is a custom resource may go: the controller then moves its Services (0.14.2).
    pub fn left_out_by(&self, config: &Config) -> Option<(&ObjectName, Vec<IpAddr>)> {
        let in_force = self.config.as_ref()?;
        let mut services = self.services.iter();
        let (name, service) = services.find(|(_, service)| {
            service.load_balancer
                && service
                    .pool_in(in_force)
                    .is_some_and(|pool| pool.origin() == Origin::ConfigMap)
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
        let former = self.services.remove(&name);
        if service.load_balancer {
            for address in service.addresses() {
                let sharers = self.by_address.entry(address).or_default();
                touched.extend(sharers.iter().cloned());
                sharers.insert(name.clone());
            }
        }
        touched.insert(name.clone());
        self.services.insert(name, service);
        self.forget_addresses(former);
        Touched::Some(touched)
    }

    /// A Service is gone.
    pub fn delete_service(&mut self, name: &ObjectName) -> Touched {
        let mut touched = self.drop_service(name);
        let former = self.services.remove(name);
        self.forget_addresses(former);
        touched.insert(name.clone());
        Touched::Some(touched)
    }

    /// Lets go what is kept for the addresses of a former Service that no other has.
    fn forget_addresses(&mut self, former: Option<Service>) {
        for address in former.iter().flat_map(Service::addresses) {
            if !self.by_address.contains_key(&address) {
                self.nodes.forget(address);
            }
        }
    }

    /// Takes a Service out of what finds it by its addresses, and names those that share one with it.
    fn drop_service(&mut self, name: &ObjectName) -> BTreeSet<ObjectName> {
        let mut touched = BTreeSet::new();
        let Some(service) = self.services.get(name) else {
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
        // One text for all that know the name.
        let known = self.services.get_key_value(&service);
        let service = known.map_or(service, |(known, _)| known.clone());
        let slices = self.endpoints.entry(service.clone()).or_default();
        let known = slices.iter_mut().find(|(name, _)| *name == slice);
        let changed = match known {
            Some((_, former)) if *former == endpoints => false,
            Some((_, former)) => {
                *former = endpoints;
                true
            }
            None => {
                // Nearly always the only one.
                slices.reserve_exact(1);
                slices.push((slice.clone(), endpoints));
                true
            }
        };
        if changed {
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
            slices.retain(|(name, _)| name != slice);
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
        self.fields.clear();
        let labels = node.labels.clone();
        let excluded = node.excluded();
        let (former, changed) = self.nodes.apply(name, node);
        let matters = former.is_some_and(|former| {
            former.excluded() != excluded || self.told_apart(&former.labels, &labels)
        });
        Touched::all_if(changed || matters)
    }

    /// A Node is gone.
    pub fn delete_node(&mut self, name: &str) -> Touched {
        self.fields.clear();
        Touched::all_if(self.nodes.delete(name))
    }

    /// The speakers' pods, all of them; `None` where they cannot be listed, which leaves the Nodes' readiness alone.
    pub fn set_speakers(&mut self, speakers: Option<Vec<SpeakerPod>>) -> Touched {
        self.fields.clear();
        Touched::all_if(self.nodes.set_speakers(speakers))
    }

    /// What gossip knows of the speakers. Who is alive by it is told by [`peers`](Self::peers) alone; a Service is touched
    /// only where the first of MetalLB's speakers comes or the last goes.
    pub fn set_members(&mut self, members: Members) -> Touched {
        self.fields.clear();
        Touched::all_if(self.nodes.set_members(members))
    }

    /// The names of all interfaces of this speaker's node that may be announced on, be they up or not.
    pub fn set_interfaces(&mut self, interfaces: BTreeSet<String>) -> Touched {
        let former = mem::replace(&mut self.interfaces, interfaces);
        let mut named = self.advertisements().flat_map(Advertisement::interfaces);
        let differs = |name| former.contains(name) != self.interfaces.contains(name);
        Touched::all_if(former != self.interfaces && named.any(differs))
    }

    /// Whether some advertisement makes a difference between nodes with these labels.
    fn told_apart(&self, former: &Labels, now: &Labels) -> bool {
        former != now
            && self.advertisements().any(|one| {
                one.selects_node(former) != one.selects_node(now)
                    || one.preference(former) != one.preference(now)
            })
    }

    fn advertisements(&self) -> impl Iterator<Item = &Advertisement> {
        let pools = self.config.iter().flat_map(Config::pools);
        pools.flat_map(Pool::advertisements)
    }

    /// The Services known now.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.keys()
    }

    /// One Service.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// All nodes known, this speaker's own among them, in order of their names. A change of theirs that changes nobody's
    /// place in an order touches no Service.
    pub fn peers(&self) -> Vec<Peer> {
        self.nodes.peers().collect()
    }

    /// How many changes of nodes, speakers or gossip there were: as long as it is the same, so is what [`peers`](Self::peers)
    /// gives.
    pub fn changes_of_nodes(&self) -> u64 {
        self.nodes.changes()
    }

    /// The first node by name, if every node has the label that excludes it from announcing and nobody said to ignore it:
    /// then it is ignored all the same.
    pub fn exclusion_void(&self) -> Option<&str> {
        self.nodes.exclusion_void()
    }

    /// Why the node is to leave what it holds to others, if it is.
    pub fn leaving(&self, node: &str) -> Option<Leaving> {
        self.nodes.why_leaving(node)
    }

    /// Whether MetalLB's speakers are members, so that their rule holds.
    pub(crate) fn beside_metallb(&self) -> bool {
        self.nodes.beside_metallb()
    }

    /// What is known of nodes.
    pub(crate) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Who may announce what, as far as nodes and configuration tell.
    pub(crate) const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The names of the interfaces of this speaker's node.
    pub(crate) fn interfaces(&self) -> &BTreeSet<String> {
        &self.interfaces
    }

    /// The LoadBalancer Services that have `address`.
    pub(crate) fn sharers(&self, address: IpAddr) -> impl Iterator<Item = (&ObjectName, &Service)> {
        let names = self.by_address.get(&address).into_iter().flatten();
        names.filter_map(|name| self.services.get_key_value(name))
    }

    /// All endpoints of a Service together.
    pub(crate) fn endpoints_of(&self, service: &ObjectName) -> Cow<'_, Endpoints> {
        let mut slices = self.endpoints.get(service).into_iter().flatten();
        let Some((_, first)) = slices.next() else {
            return Cow::Owned(Endpoints::default());
        };
        let mut all = Cow::Borrowed(first);
        for (_, endpoints) in slices {
            all.to_mut().merge(endpoints);
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
}
