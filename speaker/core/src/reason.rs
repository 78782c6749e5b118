//! Why this node does not announce a Service: MetalLB's word for logs and tools, and a sentence for people.

use std::net::IpAddr;

/// Why this node does not announce a Service. Displayed as a sentence that says what is the case and, where somebody
/// should act, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Not everything has been listed since the start.
    #[error("the cluster's objects have not all been listed yet")]
    NotSynced,
    /// There is no such Service any more.
    #[error("the Service was deleted")]
    ServiceDeleted,
    /// `spec.type` is something else.
    #[error("the Service is not of type LoadBalancer")]
    NotLoadBalancer,
    /// No configuration was ever accepted.
    #[error("no configuration has been read yet")]
    NoConfig,
    /// `status.loadBalancer.ingress` is empty.
    #[error("the Service has no address yet; the controller gives it one")]
    NoIpAllocated,
    /// An entry of `status.loadBalancer.ingress` has no valid `ip`.
    #[error("{0:?} in status.loadBalancer.ingress is not an IP address")]
    InvalidIp(String),
    /// No single pool covers all addresses.
    #[error("no single pool covers {}; add the address to a pool or let the controller give another", list(.0))]
    IpNotAllowed(Vec<IpAddr>),
    /// The pool's protocol is not layer2.
    #[error("pool {0:?} does not use layer2")]
    ProtocolChanged(String),
    /// No advertisement of the pool speaks of the Service.
    #[error(
        "no L2Advertisement for pool {0:?} selects the Service; add one, or correct its serviceSelectors"
    )]
    NotAdvertised(String),
    /// The address belongs to a Node: answering for it would take the node off the network.
    #[error("{address} is an address of node {node:?} itself; take it out of the pool")]
    NodeAddress {
        /// The address.
        address: IpAddr,
        /// The Node that has it in `status.addresses`.
        node: String,
    },
    /// No endpoint is ready or serving anywhere.
    #[error("the Service has no ready endpoint, so no node announces it")]
    NoEndpoints,
    /// No node at all may announce.
    #[error("no node may announce it; this one may not because {0}")]
    NoCandidate(NotEligible),
    /// Another node comes before this one.
    #[error("node {owner:?} announces it: it comes before this node in the order for {key}")]
    NotOwner {
        /// The owner.
        owner: String,
        /// The address whose text makes the order.
        key: String,
    },
    /// This node may not announce, another may.
    #[error("node {owner:?} holds its address; this node may not announce it because {why}")]
    NotEligible {
        /// The owner.
        owner: String,
        /// What keeps this node out.
        why: NotEligible,
    },
    /// This node owns the addresses, and has none of the interfaces they are to be announced on.
    #[error("this node announces it, and has none of the interfaces its L2Advertisements name: {}", named.join(", "))]
    NoInterface {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// `spec.interfaces` of the advertisements that select this node, in order.
        named: Vec<String>,
    },
    /// Announced before with other addresses.
    #[error("the Service's addresses changed")]
    LoadBalancerIpChanged,
}

impl Reason {
    /// MetalLB's word for the `reason` key of a log line (`serviceWithdrawn`), which is also this reason's metric label.
    /// `notSynced`, `nodeAddress` and `noInterface` are ours: MetalLB does not know these cases, or takes no notice.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotSynced => "notSynced",
            Self::ServiceDeleted => "serviceDeleted",
            Self::NotLoadBalancer => "notLoadBalancer",
            Self::NoConfig => "noConfig",
            Self::NoIpAllocated => "noIPAllocated",
            Self::InvalidIp(_) => "invalidIP",
            Self::IpNotAllowed(_) => "ipNotAllowed",
            Self::ProtocolChanged(_) => "protocolChanged",
            Self::NodeAddress { .. } => "nodeAddress",
            Self::NoInterface { .. } => "noInterface",
            Self::NotAdvertised(_)
            | Self::NoCandidate(NotEligible::NotSelected)
            | Self::NotEligible {
                why: NotEligible::NotSelected,
                ..
            } => "noMatchingAdvertisement",
            Self::NoEndpoints
            | Self::NoCandidate(_)
            | Self::NotOwner { .. }
            | Self::NotEligible { .. } => "notOwner",
            Self::LoadBalancerIpChanged => "loadBalancerIPChanged",
        }
    }

    /// The node whose speaker tells the Service's users, for reasons that hold on every node and that somebody should
    /// act on: one speaker says it, and not every one.
    pub fn spokesman(&self) -> Option<&str> {
        match self {
            Self::NodeAddress { node, .. } => Some(node),
            _ => None,
        }
    }
}

/// What keeps one node out, whatever its place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEligible {
    /// There is no Node object of its name.
    #[error("there is no Node of this node's name")]
    UnknownNode,
    /// The Node is not Ready.
    #[error("its Node is not Ready")]
    NodeNotReady,
    /// The Node's network is not set up.
    #[error("its Node has the condition NetworkUnavailable")]
    NetworkUnavailable,
    /// No speaker pod on it is Ready.
    #[error("no speaker pod on it is Ready")]
    SpeakerNotReady,
    /// Its speaker said goodbye, or gossip has not heard of it for too long.
    #[error("gossip has lost the speaker on it")]
    SpeakerGone,
    /// The Node has the label that excludes it.
    #[error("its Node has the label node.kubernetes.io/exclude-from-external-load-balancers")]
    Excluded,
    /// No advertisement that speaks of the Service selects it.
    #[error("no L2Advertisement for the Service selects its Node")]
    NotSelected,
    /// `externalTrafficPolicy: Local` without an endpoint there.
    #[error("externalTrafficPolicy is Local and no ready endpoint is on it")]
    NoLocalEndpoint,
    /// No endpoint is ready or serving on any node.
    #[error("the Service has no ready endpoint")]
    NoEndpoints,
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    texts.join(", ")
}
