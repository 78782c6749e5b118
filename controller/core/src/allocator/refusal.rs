//! Why a Service does not get an address. The texts are MetalLB's where it has one for the case.

use std::net::IpAddr;

use ferrolb_config::{ObjectName, Origin};

use crate::family::Families;
use crate::notice::quoted;
use crate::request::Port;

/// How many of the Services that have or show an address are named.
const MOST_NAMED: usize = 8;

/// Why an assignment is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The addresses do not lie in one pool, or are avoided as buggy there.
    #[error("{} is not allowed in config", quoted(.0))]
    NotAllowed(Vec<IpAddr>),
    /// The pool is there for other Services (`serviceAllocation`).
    #[error("pool {pool} not compatible for ip assignment")]
    NotAdmitted { pool: String },
    /// Somebody has the address, and not on terms that allow sharing.
    #[error(
        "can't change sharing key for \"{name}\", address also in use by {}",
        list(others)
    )]
    SharingKey {
        name: ObjectName,
        others: Vec<ObjectName>,
    },
    /// A Service that shares the address has the port.
    #[error("port {port} is already in use on \"{address}\"")]
    PortInUse { port: Port, address: IpAddr },
    /// The address was given up, but who gave it up still publishes it.
    #[error("\"{address}\" is still shown in the status of {}", list(services))]
    Shown {
        address: IpAddr,
        services: Vec<ObjectName>,
    },
    /// The address belongs to a node.
    #[error("\"{address}\" is an address of node {node:?}")]
    NodeAddress { address: IpAddr, node: String },
    /// The pool is there for BGP, which is not spoken here.
    #[error("pool {pool:?} has protocol bgp and gives out no new addresses")]
    Bgp { pool: String },
    /// The requested addresses are not of the families of the cluster IPs.
    #[error("requested loadBalancer IP(s) {} does not match the ipFamily of the service", quoted(.0))]
    WrongFamily(Vec<IpAddr>),
    /// Requested addresses and requested pool contradict each other.
    #[error(
        "requested loadBalancer IP(s) {} is not compatible with requested address pool {pool}",
        quoted(addresses)
    )]
    WrongPool {
        addresses: Vec<IpAddr>,
        pool: String,
    },
    /// No pool has the requested name.
    #[error("unknown pool {0:?}")]
    UnknownPool(String),
    /// The requested pool is used up.
    #[error("no available IPs in pool {} for {families} IPFamily", title(pool, *origin))]
    PoolExhausted {
        pool: String,
        origin: Origin,
        families: Families,
    },
    /// The requested pool has no address left, said as MetalLB 0.16 does for a single family.
    #[error("no available IPs in pool {pool}")]
    PoolEmpty { pool: String },
    /// All pools are used up; those named would be tried, were they not for BGP.
    #[error("no available IPs{}", closed(bgp))]
    Exhausted { bgp: Vec<String> },
}

/// The first Services of a list, and how many more there are.
fn list(services: &[ObjectName]) -> String {
    let named: Vec<_> = services
        .iter()
        .take(MOST_NAMED)
        .map(ToString::to_string)
        .collect();
    let more = services.len() - named.len();
    let named = named.join(",");
    if more == 0 {
        named
    } else {
        format!("{named} and {more} more")
    }
}

/// A pool's name as the releases of its origin print it.
fn title(pool: &str, origin: Origin) -> String {
    match origin {
        Origin::ConfigMap => format!("{pool:?}"),
        Origin::Resource => pool.to_string(),
    }
}

/// Why these pools were not tried.
fn closed(bgp: &[String]) -> String {
    let pools = bgp
        .iter()
        .map(|pool| format!("; {}", Refusal::Bgp { pool: pool.clone() }));
    pools.collect()
}
