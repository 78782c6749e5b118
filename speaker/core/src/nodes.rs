//! Which nodes live, as far as anybody can tell: the one place that says who may announce at all, Services aside.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::net::IpAddr;

use ferrolb_config::{Labels, Origin};

use crate::facts::{Members, Node, SpeakerPod};
use crate::reason::NotEligible;

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
    /// Names of the nodes that are live. Kept, because every Service asks.
    live: BTreeSet<String>,
    /// The exclude label counts for nothing, because the operator said so.
    ignore_exclusion: bool,
    /// Every known node has the exclude label.
    all_excluded: bool,
}

/// The labels of a node without any, and of one that is not known.
static UNLABELLED: Labels = Labels::new();

impl Nodes {
    /// Knows no node. `ignore_exclusion`: the label that excludes nodes counts for nothing (`--ignore-exclude-lb`).
    pub(crate) fn new(ignore_exclusion: bool) -> Self {
        Self {
            ignore_exclusion,
            ..Self::default()
        }
    }

    /// A Node is new or has changed; gives what was known of it, and whether that changes who is live, whose an address
    /// is, or whom the exclude label keeps out.
    pub(crate) fn apply(&mut self, name: String, node: Node) -> (Option<Node>, bool) {
        let former = self.known.insert(name, node);
        let changed = self.changed();
        (former, changed)
    }

    /// A Node is gone; true if that changes anything for a Service.
    pub(crate) fn delete(&mut self, name: &str) -> bool {
        self.known.remove(name).is_some() && self.changed()
    }

    /// One Node.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.known.get(name)
    }

    /// The speakers' pods; true if that changes who is live.
    pub(crate) fn set_speakers(&mut self, speakers: Option<Vec<SpeakerPod>>) -> bool {
        self.speakers = speakers;
        self.find_live()
    }

    /// What gossip knows of the speakers; true if that changes who is live.
    pub(crate) fn set_members(&mut self, members: Members) -> bool {
        self.members = members;
        self.find_live()
    }

    /// The names of the live nodes.
    pub(crate) fn live(&self) -> &BTreeSet<String> {
        &self.live
    }

    /// The live nodes.
    pub(crate) fn live_nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        let names = self.live.iter();
        names.filter_map(|name| Some((name.as_str(), self.known.get(name)?)))
    }

    /// A node that is live, or what keeps it from being.
    ///
    /// Gossip notices in seconds what Kubernetes notices in a minute, so who is gone by gossip is gone. Who is a member is
    /// not yet fit to answer: its sockets may fail, or it may still be reading; its pod's readiness tells. Beside MetalLB's
    /// speakers, which look at gossip alone, gossip alone counts.
    pub(crate) fn live_node(&self, name: &str) -> Result<&Node, NotEligible> {
        let node = self.known.get(name).ok_or(NotEligible::UnknownNode)?;
        if node.network_unavailable {
            Err(NotEligible::NetworkUnavailable)
        } else if self.members.gone.contains(name) {
            Err(NotEligible::SpeakerGone)
        } else if self.members.metallb {
            let member = self.members.live.contains(name);
            member.then_some(node).ok_or(NotEligible::SpeakerGone)
        } else if !node.ready {
            Err(NotEligible::NodeNotReady)
        } else if !self.spoken_for.is_empty() && !self.spoken_for.contains(name) {
            Err(NotEligible::SpeakerNotReady)
        } else {
            Ok(node)
        }
    }

    /// Whether the label `node.kubernetes.io/exclude-from-external-load-balancers` keeps a node from announcing addresses
    /// of a pool of this origin. MetalLB has heeded it since 0.13.11, so pools of the ConfigMap do not. Where every
    /// node has it, it would silence the cluster (a single control plane has it by default), which nobody wants: then
    /// it keeps nobody out.
    pub(crate) fn excludes(&self, node: &Node, origin: Origin) -> bool {
        origin == Origin::Resource
            && !self.ignore_exclusion
            && !self.all_excluded
            && node.excluded()
    }

    /// The exclude label is not heeded although nobody said so: every node has it. The first of them by name, if so.
    pub(crate) fn exclusion_void(&self) -> Option<&str> {
        let (first, _) = self.known.first_key_value()?;
        (self.all_excluded && !self.ignore_exclusion).then_some(first)
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
        let live_changed = self.find_live();
        live_changed || addresses_before != self.addresses || excluded_before != self.all_excluded
    }

    /// Finds who is live again; true if that is not who was.
    ///
    /// Speakers count only if there is one: where no pod is known Ready on a known node, the Nodes' readiness alone
    /// decides. Either the pods are unknown or not the speakers' (the label selector does not fit them), or the news of
    /// ours is late: whoever decides here is a speaker that runs, so a list without any Ready one is out of date.
    fn find_live(&mut self) -> bool {
        let pods = self.speakers.iter().flatten();
        self.spoken_for = pods
            .filter(|pod| pod.ready && self.known.contains_key(&pod.node))
            .map(|pod| pod.node.clone())
            .collect();
        let names = self
            .known
            .keys()
            .filter(|name| self.live_node(name).is_ok());
        let live = names.cloned().collect();
        mem::replace(&mut self.live, live) != self.live
    }
}
