//! One Service as the allocator sees it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ferrolb_config::Labels;

/// Kubernetes `ServicePort.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// `TCP`, the default.
    Tcp,
    /// `UDP`.
    Udp,
    /// `SCTP`.
    Sctp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// One entry of `spec.ports` as clients of the load balancer see it. Displayed as `TCP/80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// `protocol`.
    pub transport: Transport,
    /// `port`, 1–65535.
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport, self.number)
    }
}

/// Kubernetes `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FamilyPolicy {
    /// `SingleStack`, and what an unset field means.
    #[default]
    SingleStack,
    /// `PreferDualStack`: an address of each family of the cluster IPs if there is one, else of one family.
    PreferDualStack,
    /// `RequireDualStack`: an address of each family or none.
    RequireDualStack,
}

/// One Service, in the allocator's language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `metadata.labels`, by which pools select (`serviceAllocation.serviceSelectors`).
    pub labels: Labels,
    /// `spec.type` is `LoadBalancer` and the Service's class is ours to serve.
    pub balancer: bool,
    /// `status.loadBalancer.ingress[].ip` in order, entries without `ip` left out; `Err` is a text that is no address.
    pub current: Vec<Result<IpAddr, String>>,
    /// `status.loadBalancer.ingress` says more than `ip` and the default `ipMode: VIP`, such as host names: it is written
    /// anew, as MetalLB does.
    pub surplus: bool,
    /// The pool as the annotation `metallb.io/ip-allocated-from-pool` of the Service names it; `None` if it is not there.
    pub noted_pool: Option<String>,
    /// The keys of its annotations that start with the prefix MetalLB calls deprecated since 0.14.9.
    pub deprecated: BTreeSet<String>,
    /// `spec.clusterIPs`, or `[spec.clusterIP]` where a server does not know the list. `None` (the text) is possible.
    pub cluster_ips: Vec<String>,
    /// `spec.ipFamilyPolicy`.
    pub policy: FamilyPolicy,
    /// The addresses asked for by annotation or `spec.loadBalancerIP`, none if nothing is asked for; `Err` says what is
    /// wrong with the text.
    pub desired: Result<Vec<IpAddr>, String>,
    /// The pool asked for by annotation.
    pub pool: Option<String>,
    /// The sharing key of the `allow-shared-ip` annotation; `None` and the empty text both mean: not shared.
    pub sharing: Option<String>,
    /// What traffic to the Service reaches, as a key: empty for `externalTrafficPolicy: Cluster`, the selector as
    /// `k=v,k2=v2` with sorted keys for `Local`. Only Services with equal keys can share an address.
    pub backend: String,
    /// `spec.ports`.
    pub ports: BTreeSet<Port>,
}

impl Request {
    /// Whether the object bears anything that a Service without addresses does not.
    pub(crate) fn shows_anything(&self) -> bool {
        !self.current.is_empty() || self.surplus || self.noted_pool.is_some()
    }

    /// The addresses the status shows, canonical.
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        let shown = self.current.iter().flatten();
        shown.map(IpAddr::to_canonical).collect()
    }
}
