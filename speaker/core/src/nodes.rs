//! Which nodes may announce at all, Services aside, which of those should rather not, and which are believed to live.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::net::IpAddr;

use ferrolb_config::{Labels, Origin};

use crate::facts::{Members, Node, SpeakerPod};
use crate::orders::Orders;
use crate::reason::NotEligible;
use crate::view::{Peer, Settings};

/// Why a node is to leave what it holds to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Leaving {
    /// Its annotation `ferrolb.io/move`.
    #[error("has the annotation ferrolb.io/move")]
    AskedTo,
    /// `spec.unschedulable`.
    #[error("is cordoned")]
    Cordoned,
    /// The condition `Ready` is not `True`.
    #[error("is not Ready")]
    NotReady,
    /// The pod of its speaker is not Ready.
    #[error("has a speaker that is not Ready")]
    SpeakerNotReady,
}

/// What is known of the cluster's nodes and of the speakers on them.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    known: BTreeMap<String, Node>,
    /// The Nodes' own addresses.
    addresses: HashMap<IpAddr, String>,
    /// None while unknown.
    speakers: Option<Vec<SpeakerPod>>,
    /// The known nodes with a Ready speaker. Empty where speakers are unknown, and where their pods say nothing.
    spoken_for: BTreeSet<String>,
    /// What gossip knows.
    members: Members,
    /// The nodes that may announce, and whether they are willing. Kept, because every Service asks.
    candidates: BTreeMap<String, bool>,
    settings: Settings,
    /// Every known node has the exclude label.
    all_excluded: bool,
    /// The orders of the known nodes.
    orders: Orders,
    /// How many changes there were.
    changes: u64,
}

/// The labels of a node without any, and of one that is not known.
static UNLABELLED: Labels = Labels::new();

impl Nodes {
    /// Knows no node.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// A Node is new or has changed; gives what was known of it, and whether that changes who may announce or is willing, whose
    /// an address is, or whom the exclude label keeps out.
    pub(crate) fn apply(&mut self, name: String, node: Node) -> (Option<Node>, bool) {
        self.orders.add(&name);
        let former = self.known.insert(name, node);
        let changed = self.changed();
        (former, changed)
    }

    /// Whether MetalLB's speakers are members.
    pub(crate) fn beside_metallb(&self) -> bool {
        !self.members.metallb.is_empty()
    }

    /// A Node is gone; true if that changes anything for a Service.
    pub(crate) fn delete(&mut self, name: &str) -> bool {
        self.orders.remove(name);
        self.known.remove(name).is_some() && self.changed()
    }

    /// The orders of the known nodes.
    pub(crate) const fn orders(&self) -> &Orders {
        &self.orders
    }

    /// No Service has the address any more.
    pub(crate) fn forget(&mut self, address: IpAddr) {
        self.orders.forget(address);
    }

    /// How many changes there were of anything known here.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// One Node.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.known.get(name)
    }

    /// The speakers' pods; true if that changes who is willing.
    pub(crate) fn set_speakers(&mut self, speakers: Option<Vec<SpeakerPod>>) -> bool {
        self.speakers = speakers;
        self.find_candidates()
    }

    /// What gossip knows of the speakers; true if that changes who is willing.
    pub(crate) fn set_members(&mut self, members: Members) -> bool {
        self.members = members;
        self.find_candidates()
    }

    /// A node that may announce, or what keeps it from that.
    pub(crate) fn candidate(&self, name: &str) -> Result<&Node, NotEligible> {
        let node = self.known.get(name).ok_or(NotEligible::UnknownNode)?;
        if node.network_unavailable {
            Err(NotEligible::NetworkUnavailable)
        } else {
            Ok(node)
        }
    }

    /// One of the nodes that may announce, and whether it is willing.
    pub(crate) fn willing(&self, name: &str) -> Option<(&Node, bool)> {
        Some((self.known.get(name)?, *self.candidates.get(name)?))
    }

    /// All nodes, as the arbiter of an interface wants to know them.
    pub(crate) fn peers(&self) -> impl Iterator<Item = Peer> {
        self.known.iter().map(|(name, node)| Peer {
            node: name.clone(),
            address: node.address(),
            live: self.lives(name, node),
            legacy: self.members.metallb.contains(name),
        })
    }

    /// Why a node that may announce is not willing: not to keep what it holds, nor to be given more.
    ///
    /// Who is not Ready, whose speaker is not, who is cordoned or was asked to move everything goes last, and does not fall
    /// out: what it holds it hands over, and where there is nobody else it is better than none. MetalLB's speakers look at none of this, so beside
    /// one everybody is willing.
    fn leaving(&self, name: &str, node: &Node) -> Option<Leaving> {
        if !self.members.metallb.is_empty() {
            None
        } else if node.moves_away {
            Some(Leaving::AskedTo)
        } else if self.settings.leave_cordoned && node.unschedulable {
            Some(Leaving::Cordoned)
        } else if !node.ready {
            Some(Leaving::NotReady)
        } else if !self.speaks(name) {
            Some(Leaving::SpeakerNotReady)
        } else {
            None
        }
    }

    /// Why a node is to leave what it holds to others, if it is.
    pub(crate) fn why_leaving(&self, name: &str) -> Option<Leaving> {
        self.leaving(name, self.known.get(name)?)
    }

    /// Whether the speaker on a node is Ready, where the pods tell.
    fn speaks(&self, name: &str) -> bool {
        self.spoken_for.is_empty() || self.spoken_for.contains(name)
    }

    /// What Kubernetes and gossip believe of a node, for where the wire does not tell.
    ///
    /// Gossip notices in seconds what Kubernetes notices in a minute, so who is gone by gossip is gone. Who is a member is
    /// not yet fit to answer: its sockets may fail, or it may still be reading; its pod's readiness tells. Beside MetalLB's
    /// speakers, which look at gossip alone, gossip alone counts.
    fn lives(&self, name: &str, node: &Node) -> bool {
        if node.network_unavailable || self.members.gone.contains(name) {
            false
        } else if self.members.metallb.is_empty() {
            node.ready && self.speaks(name)
        } else {
            self.members.live.contains(name)
        }
    }

    /// Whether the label `node.kubernetes.io/exclude-from-external-load-balancers` keeps a node from announcing addresses
    /// of a pool of this origin. MetalLB has heeded it since 0.13.11, so pools of the ConfigMap do not. Where every
    /// node has it, it would silence the cluster (a single control plane has it by default), which nobody wants: then
    /// it keeps nobody out.
    pub(crate) fn excludes(&self, node: &Node, origin: Origin) -> bool {
        origin == Origin::Resource
            && !self.settings.ignore_exclusion
            && !self.all_excluded
            && node.excluded()
    }

    /// The exclude label is not heeded although nobody said so: every node has it. The first of them by name, if so.
    pub(crate) fn exclusion_void(&self) -> Option<&str> {
        let (first, _) = self.known.first_key_value()?;
        (self.all_excluded && !self.settings.ignore_exclusion).then_some(first)
    }

    /// `metadata.labels` of a node.
    pub(crate) fn labels(&self, name: &str) -> &Labels {
        self.known
            .get(name)
            .map_or(&UNLABELLED, |node| &node.labels)
    }

    /// The node that has `address` as its own.
    pub(crate) fn with(&self, address: IpAddr) -> Option<&str> {
        self.addresses.get(&address).map(String::as_str)
    }

    /// Brings what follows from the nodes in line with them; true if a Service may notice.
    fn changed(&mut self) -> bool {
        let addresses = self.known.iter().flat_map(|(name, node)| {
            let own = node.addresses.iter();
            own.map(move |address| (*address, name.clone()))
        });
        let addresses_before = mem::replace(&mut self.addresses, addresses.collect());
        let excluded_before = self.all_excluded;
        self.all_excluded = !self.known.is_empty() && self.known.values().all(Node::excluded);
        let candidates_changed = self.find_candidates();
        candidates_changed
            || addresses_before != self.addresses
            || excluded_before != self.all_excluded
    }

    /// Finds again who may announce and is willing; true if that is not as it was.
    ///
    /// Speakers count only if there is one: where no pod is known Ready on a known node, the Nodes' readiness alone
    /// decides. Either the pods are unknown or not the speakers' (the label selector does not fit them), or the news of
    /// ours is late: whoever decides here is a speaker that runs, so a list without any Ready one is out of date.
    fn find_candidates(&mut self) -> bool {
        self.changes += 1;
        let pods = self.speakers.iter().flatten();
        self.spoken_for = pods
            .filter(|pod| pod.ready && self.known.contains_key(&pod.node))
            .map(|pod| pod.node.clone())
            .collect();
        let known = self.known.keys();
        let candidates = known.filter_map(|name| {
            let node = self.candidate(name).ok()?;
            Some((name.clone(), self.leaving(name, node).is_none()))
        });
        let candidates = candidates.collect();
        mem::replace(&mut self.candidates, candidates) != self.candidates
    }
}
