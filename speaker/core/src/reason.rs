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
    /// This node may announce it, and another answers for the address.
    #[error("{} answers for {address}", node_or_another(holder.as_deref()))]
    HeldElsewhere {
        /// The address.
        address: IpAddr,
        /// The node that answers, where it is known.
        holder: Option<String>,
    },
    /// This node may not announce, others may.
    #[error(
        "node {owner:?} comes first for its address; this node may not announce it because {why}"
    )]
    NotEligible {
        /// The first of the others.
        owner: String,
        /// What keeps this node out.
        why: NotEligible,
    },
    /// This node may announce, and has none of the interfaces it is to do so on.
    #[error("this node may announce it, and has none of the interfaces its L2Advertisements name: {}", named.join(", "))]
    NoInterface {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// `spec.interfaces` of the advertisements that select this node, in order.
        named: Vec<String>,
    },
    /// Announced before on interfaces that are no longer its own, and not yet on others.
    #[error("the interfaces the Service is announced on changed")]
    InterfacesChanged,
    /// Announced before with other addresses.
    #[error("the Service's addresses changed")]
    LoadBalancerIpChanged,
}

impl Reason {
    /// MetalLB's word for the `reason` key of a log line (`serviceWithdrawn`), which is also this reason's metric label.
    /// `notSynced`, `nodeAddress`, `noInterface` and `interfacesChanged` are ours: MetalLB does not know these cases, or takes no notice.
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
            | Self::HeldElsewhere { .. }
            | Self::NotEligible { .. } => "notOwner",
            Self::InterfacesChanged => "interfacesChanged",
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

/// What keeps one node out of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEligible {
    /// There is no Node object of its name.
    #[error("there is no Node of this node's name")]
    UnknownNode,
    /// The Node's network is not set up.
    #[error("its Node has the condition NetworkUnavailable")]
    NetworkUnavailable,
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

fn node_or_another(node: Option<&str>) -> String {
    node.map_or_else(
        || "another node".to_owned(),
        |node| format!("node {node:?}"),
    )
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn who_answers_is_named_where_it_is_known() {
        let held = |holder: Option<&str>| Reason::HeldElsewhere {
            address: [192, 0, 2, 1].into(),
            holder: holder.map(str::to_owned),
        };
        let named = held(Some("n2"));
        assert_eq!(named.to_string(), "node \"n2\" answers for 192.0.2.1");
        let unknown = held(None);
        assert_eq!(unknown.to_string(), "another node answers for 192.0.2.1");
        assert_eq!((named.word(), unknown.word()), ("notOwner", "notOwner"));
    }
}
