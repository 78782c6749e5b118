//! The IP families of a list of addresses.

use std::fmt;
use std::net::IpAddr;

use ferrolb_config::Family;

use crate::notice::quoted;
use crate::request::FamilyPolicy;

/// The families of a Service's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    /// One address of this family.
    Single(Family),
    /// One address of each family.
    Dual,
}

impl Families {
    /// The families of one or two addresses.
    ///
    /// # Errors
    /// MetalLB's text for a list that is no address set of a Service.
    pub(crate) fn of(addresses: &[IpAddr]) -> Result<Self, String> {
        match addresses {
            [one] => Ok(Self::Single(Family::of(*one))),
            [one, other] if Family::of(*one) == Family::of(*other) => {
                Err(format!("\"{one}\" \"{other}\" has the same family"))
            }
            [_, _] => Ok(Self::Dual),
            _ => Err(format!("more than two addresses {}", quoted(addresses))),
        }
    }

    /// The families of `spec.clusterIPs`, and which of them comes first.
    ///
    /// # Errors
    /// MetalLB's text for cluster IPs whose families are unknown, such as `None`.
    pub(crate) fn of_cluster(addresses: &[String]) -> Result<(Self, Family), String> {
        let parsed: Result<Vec<IpAddr>, _> = addresses.iter().map(|text| text.parse()).collect();
        let error = |what: &str| {
            Err(format!(
                "IPFamilyForAddresses: {what} {}",
                quoted(addresses)
            ))
        };
        match parsed.as_deref() {
            Ok([one]) => Ok((Self::Single(Family::of(*one)), Family::of(*one))),
            Ok([one, other]) if Family::of(*one) == Family::of(*other) => {
                error("same address family")
            }
            Ok([one, _]) => Ok((Self::Dual, Family::of(*one))),
            Ok(more) => error(&format!("invalid ips length {}", more.len())),
            Err(_) => error("Invalid address"),
        }
    }

    /// Whether addresses of these families serve a Service with cluster IPs of those families.
    pub(crate) fn serve(self, cluster: Self, policy: FamilyPolicy) -> bool {
        self == cluster || (cluster == Self::Dual && policy == FamilyPolicy::PreferDualStack)
    }
}

/// `ipv4`, `ipv6` or `dual`.
impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(family) => family.fmt(f),
            Self::Dual => f.write_str("dual"),
        }
    }
}
