//! What must be done for a Service, as data.

use std::net::IpAddr;

use ferrolb_config::Origin;

use crate::notice::Notice;

/// The outcome of one decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// `Some(list)`: write exactly these to `status.loadBalancer.ingress` in this order (an empty list clears it).
    /// `None`: leave the status and the annotation alone.
    pub ingress: Option<Vec<IpAddr>>,
    /// What the annotation `metallb.io/ip-allocated-from-pool` is to say whenever `ingress` is written; `None`: it is to
    /// be absent. Only addresses of pools that are custom resources are noted so, as in MetalLB since 0.13.9.
    pub noted_pool: Option<String>,
    /// The pool of the addresses held after this decision; `None` if none is held.
    pub pool: Option<String>,
    /// Events to post, in order.
    pub notices: Vec<Notice>,
    /// Why the Service has no address although it should; `None` if all is well. Until the restart barrier is lifted also
    /// set for a Service that keeps an address for now, but has to be decided again after it.
    pub pending: Option<String>,
    /// Something that others may have waited for was released, changed, or is not shown any more: decide all waiting
    /// Services again. What was released but is still shown in the status is announced so only by the decision that
    /// finds it gone from there.
    pub revisit: bool,
}

/// How much of a pool is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// The pool's name.
    pub name: String,
    /// IPv4 addresses that can be given out, buggy ones left out where the pool says so.
    pub v4_total: u128,
    /// IPv6 addresses that can be given out.
    pub v6_total: u128,
    /// Distinct IPv4 addresses held by Services.
    pub v4_in_use: u64,
    /// Distinct IPv6 addresses held by Services.
    pub v6_in_use: u64,
    /// Services that hold addresses of the pool.
    pub services: u64,
    /// Which kind of source the pool stands in.
    pub origin: Origin,
}
