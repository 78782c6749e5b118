//! What is kept of each Kubernetes object: only what a decision looks at.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ferrolb_config::{Config, Labels, Pool};

use crate::few::Few;

/// The label that keeps a node from announcing, whatever its value.
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// `spec.externalTrafficPolicy` of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Any node forwards to any endpoint.
    #[default]
    Cluster,
    /// A node forwards only to endpoints on itself.
    Local,
}

/// The `ip` of one entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngressIp {
    /// An address. IPv4-mapped IPv6 is the IPv4 address it maps, as in Go.
    Valid(IpAddr),
    /// Anything else, as written; empty for an entry that has a host name only.
    Invalid(String),
}

impl From<&str> for IngressIp {
    fn from(text: &str) -> Self {
        text.parse::<IpAddr>().map_or_else(
            |_| Self::Invalid(text.to_owned()),
            |address| Self::Valid(address.to_canonical()),
        )
    }
}

impl fmt::Display for IngressIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid(address) => address.fmt(f),
            Self::Invalid(text) => text.fmt(f),
        }
    }
}

/// What is kept of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `spec.type` is `LoadBalancer`.
    pub load_balancer: bool,
    /// `status.loadBalancer.ingress[].ip`, in order: the first decides who owns them all.
    pub ingress: Vec<IngressIp>,
    /// `spec.externalTrafficPolicy`.
    pub traffic_policy: TrafficPolicy,
    /// `metadata.labels`, for the selectors of advertisements.
    pub labels: Labels,
    /// Where the operator wants its addresses (annotation `ferrolb.io/move`): the name of a node, which then comes first if it
    /// may answer and is willing; anything else changes no order.
    pub wanted_at: Option<String>,
}

impl Service {
    /// The valid ingress addresses, in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ingress.iter().filter_map(|ip| match ip {
            IngressIp::Valid(address) => Some(*address),
            IngressIp::Invalid(_) => None,
        })
    }

    /// The one pool that covers every ingress entry, whatever its protocol; none if there is no entry, or if one is not
    /// an address.
    pub(crate) fn pool_in<'a>(&self, config: &'a Config) -> Option<&'a Pool> {
        let pool = config.pool_of(self.addresses().next()?)?;
        let covered =
            |ip: &IngressIp| matches!(ip, IngressIp::Valid(address) if pool.covers(*address));
        self.ingress.iter().all(covered).then_some(pool)
    }
}

/// One endpoint of an EndpointSlice, or one address of an Endpoints object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// `nodeName`.
    pub node: Option<String>,
    /// `conditions.ready`, true where absent; for Endpoints: listed in `addresses`.
    pub ready: bool,
    /// `conditions.serving`: answers, though it may be terminating.
    pub serving: bool,
}

/// What is kept of the endpoints of one slice, or of several together: on which nodes, not how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    ready: Places,
    serving: Places,
}

/// Where endpoints of one condition are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// There is at least one, be its node known or not.
    pub(crate) any: bool,
    /// The nodes known to have one.
    pub(crate) nodes: Few<String>,
}

impl Places {
    fn add(&mut self, node: Option<&String>) {
        self.any = true;
        self.nodes.extend(node.cloned());
    }
}

impl FromIterator<Endpoint> for Endpoints {
    fn from_iter<I: IntoIterator<Item = Endpoint>>(endpoints: I) -> Self {
        let mut kept = Self::default();
        for endpoint in endpoints {
            if endpoint.ready {
                kept.ready.add(endpoint.node.as_ref());
            } else if endpoint.serving {
                kept.serving.add(endpoint.node.as_ref());
            }
        }
        kept
    }
}

impl Endpoints {
    /// Puts the endpoints of another slice to these.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.ready, &other.ready),
            (&mut self.serving, &other.serving),
        ] {
            mine.any |= theirs.any;
            mine.nodes.extend(theirs.nodes.iter().cloned());
        }
    }

    /// The endpoints that count: the ready ones, and only where there is none, those still serving while they terminate
    /// (MetalLB 0.14.5, kube-proxy since Kubernetes 1.26).
    pub(crate) fn usable(&self) -> &Places {
        if self.ready.any {
            &self.ready
        } else {
            &self.serving
        }
    }
}

/// What is kept of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a plain fact of its own"
)]
pub struct Node {
    /// Condition `Ready` is `True`.
    pub ready: bool,
    /// Condition `NetworkUnavailable` is `True`.
    pub network_unavailable: bool,
    /// `spec.unschedulable`: the Node is cordoned.
    pub unschedulable: bool,
    /// The operator wants everything moved away from it (annotation `ferrolb.io/move`).
    pub moves_away: bool,
    /// `status.addresses` of types `InternalIP` and `ExternalIP`.
    pub addresses: BTreeSet<IpAddr>,
    /// Those of type `InternalIP`, in order.
    pub internal: Vec<IpAddr>,
    /// `metadata.labels`, for the selectors of advertisements.
    pub labels: Labels,
}

impl Node {
    /// It has the label `node.kubernetes.io/exclude-from-external-load-balancers`, whatever its value.
    pub(crate) fn excluded(&self) -> bool {
        self.labels.contains_key(EXCLUDE)
    }

    /// The address its kernel is asked by: the first `InternalIP`, IPv4 before IPv6.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.internal.iter().copied().min_by_key(IpAddr::is_ipv6)
    }
}

/// What is kept of a pod of the speaker's DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerPod {
    /// `spec.nodeName`.
    pub node: String,
    /// Condition `Ready` is `True` and the pod is not being deleted.
    pub ready: bool,
    /// `status.podIP`, where its gossip is to be found.
    pub address: Option<IpAddr>,
}

/// What gossip knows of the nodes' speakers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Nodes whose speaker answers, or is not given up yet.
    pub live: BTreeSet<String>,
    /// Nodes whose speaker did, and has said goodbye or fallen silent since.
    pub gone: BTreeSet<String>,
    /// Those of the live whose speaker is MetalLB's. It knows nothing but gossip, so while there is one, gossip alone says
    /// who lives and nobody is put last, or the two kinds would not elect alike.
    pub metallb: BTreeSet<String>,
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Endpoints, IngressIp};

    #[test]
    fn ingress_text_is_read_as_go_reads_it() {
        for (text, canonical) in [
            ("192.168.1.240", Some("192.168.1.240")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("FC00:F853:0CCD:e799:0:0:0:1", Some("fc00:f853:ccd:e799::1")),
            ("", None),
            ("10.0.0.01", None),
            ("fe80::1%eth0", None),
            ("10.0.0.1/32", None),
        ] {
            let read = IngressIp::from(text);
            match canonical {
                Some(expected) => {
                    assert!(matches!(read, IngressIp::Valid(_)), "{text}");
                    assert_eq!(read.to_string(), expected);
                }
                None => assert_eq!(read, IngressIp::Invalid(text.to_owned())),
            }
        }
    }

    #[test]
    fn serving_counts_only_where_nothing_is_ready() {
        let endpoint = |node: &str, ready, serving| Endpoint {
            node: Some(node.to_owned()),
            ready,
            serving,
        };
        let mut endpoints =
            Endpoints::from_iter([endpoint("old", false, true), endpoint("gone", false, false)]);
        assert!(endpoints.usable().nodes.iter().eq(["old"]));
        endpoints.merge(&Endpoints::from_iter([endpoint("new", true, true)]));
        assert!(endpoints.usable().nodes.iter().eq(["new"]));
    }

    #[test]
    fn an_endpoint_without_node_counts_but_is_nowhere() {
        let endpoints = Endpoints::from_iter([Endpoint {
            node: None,
            ready: true,
            serving: true,
        }]);
        assert!(endpoints.usable().any);
        assert!(endpoints.usable().nodes.is_empty());
    }
}
