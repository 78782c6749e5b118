//! A checked address pool and a checked configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::{AddressRange, Family, number};
use crate::advertisement::{Advertisement, Allocation};

/// How the addresses of a pool are made known to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// ARP and NDP.
    Layer2,
    /// BGP, which is not spoken here: such a pool is known, but gives out no addresses.
    Bgp,
}

/// Which kind of source a pool stands in. Each kind keeps the rules of its time for what happens to the Services of a
/// pool that goes away, and for which nodes announce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// MetalLB's ConfigMap (0.7–0.12).
    #[default]
    ConfigMap,
    /// An `IPAddressPool` (MetalLB since 0.13).
    Resource,
}

/// An address pool: a name and ranges that no other pool has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) ranges: Vec<AddressRange>,
    pub(crate) auto_assign: bool,
    pub(crate) avoid_buggy_ips: bool,
    pub(crate) origin: Origin,
    pub(crate) allocation: Option<Allocation>,
    pub(crate) advertisements: Vec<Arc<Advertisement>>,
}

impl Pool {
    /// The name, unique in its configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the addresses are announced.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The ranges in the order addresses are taken from them; at least one.
    pub fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }

    /// Whether Services that ask for nothing may get an address from here.
    pub fn auto_assign(&self) -> bool {
        self.auto_assign
    }

    /// Whether IPv4 addresses ending in .0 and .255 are left out.
    pub fn avoid_buggy_ips(&self) -> bool {
        self.avoid_buggy_ips
    }

    /// Which kind of source the pool stands in.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// To whom the pool gives addresses; `None` if it says nothing about that, which is not the same as an empty
    /// [`Allocation`]: pools that have one are tried first.
    pub fn allocation(&self) -> Option<&Allocation> {
        self.allocation.as_ref()
    }

    /// How the addresses of this pool are announced on layer 2, in the order of their names; without any, nobody
    /// announces them.
    pub fn advertisements(&self) -> impl Iterator<Item = &Advertisement> {
        self.advertisements.iter().map(AsRef::as_ref)
    }

    /// Whether a Service may have this address from the pool: it lies in a range and is not left out for being buggy.
    pub fn contains(&self, address: IpAddr) -> bool {
        !(self.avoid_buggy_ips && is_buggy(address)) && self.covers(address)
    }

    /// Whether the address lies in a range of the pool, buggy or not: the rule of MetalLB's speaker.
    pub fn covers(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// Number of addresses of a family that can be given out, those left out for being buggy not counted.
    pub fn size(&self, family: Family) -> u128 {
        let ranges = self.ranges.iter().filter(|range| range.family() == family);
        ranges.fold(0, |sum, range| {
            let buggy = if self.avoid_buggy_ips {
                buggy_in(range)
            } else {
                0
            };
            sum.saturating_add(range.len() - buggy)
        })
    }
}

/// Whether the address is IPv4 and ends in .0 or .255, which some consumer routers drop.
fn is_buggy(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => matches!(v4.octets(), [.., 0 | 255]),
        IpAddr::V6(_) => false,
    }
}

/// How many addresses of the range end in .0 or .255; none in IPv6.
fn buggy_in(range: &AddressRange) -> u128 {
    // Of the numbers below `end`: two for each full 256, and the .0 of a block that has begun.
    let below = |end: u128| (end >> 8) * 2 + u128::from(end & 0xff != 0);
    match range.family() {
        Family::V4 => below(number(range.last()) + 1) - below(number(range.first())),
        Family::V6 => 0,
    }
}

/// A configuration without a problem: pools with unique names whose ranges do not overlap.
///
/// The default is the empty configuration, which gives out nothing.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pools: Vec<Pool>,
    /// First address of each range, to the pool it belongs to: ranges do not overlap, so the range an address could lie
    /// in is the last one that does not start after it.
    starts: BTreeMap<(Family, u128), (AddressRange, usize)>,
}

/// Equal pools in the same order.
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.pools == other.pools
    }
}

impl Eq for Config {}

impl Config {
    /// Takes pools that were checked to have unique names and no overlap.
    pub(crate) fn new(pools: Vec<Pool>) -> Self {
        let mut starts = BTreeMap::new();
        for (index, pool) in pools.iter().enumerate() {
            for range in &pool.ranges {
                starts.insert((range.family(), number(range.first())), (*range, index));
            }
        }
        Self { pools, starts }
    }

    /// The pools in the order of the document.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// The pool that covers this address, buggy or not. Costs the logarithm of the number of ranges.
    pub fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        let key = (Family::of(address), number(address));
        let (_, (range, index)) = self.starts.range(..=key).next_back()?;
        if range.contains(address) {
            self.pools.get(*index)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(ranges: &[&str], avoid_buggy_ips: bool) -> Pool {
        Pool {
            name: "p".into(),
            protocol: Protocol::Layer2,
            ranges: ranges
                .iter()
                .map(|text| AddressRange::parse(text).unwrap())
                .collect(),
            auto_assign: true,
            avoid_buggy_ips,
            origin: Origin::ConfigMap,
            allocation: None,
            advertisements: Vec::new(),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn sizes_of_the_reference() {
        assert_eq!(pool(&["1.2.3.0/24"], true).size(Family::V4), 254);
        assert_eq!(
            pool(&["1.2.3.0/24", "1.2.4.0/25"], true).size(Family::V4),
            381
        );
        assert_eq!(
            pool(&["1.2.3.0/24", "1.2.4.0/25"], false).size(Family::V4),
            384
        );
        assert_eq!(pool(&["1.2.3.0/32"], true).size(Family::V4), 0);
        assert_eq!(
            pool(&["1.2.3.0/24", "fc00::/126"], true).size(Family::V6),
            4
        );
    }

    #[test]
    fn the_controller_avoids_buggy_addresses_the_speaker_does_not() {
        let pool = pool(&["1.2.3.0/24", "fc00::/120"], true);
        assert!(!pool.contains(ip("1.2.3.0")) && pool.covers(ip("1.2.3.0")));
        assert!(!pool.contains(ip("1.2.3.255")) && pool.covers(ip("1.2.3.255")));
        assert!(
            pool.contains(ip("1.2.3.1"))
                && pool.contains(ip("fc00::"))
                && pool.contains(ip("fc00::ff"))
        );
        assert!(!pool.contains(ip("1.2.4.1")) && !pool.covers(ip("1.2.4.1")));
    }

    #[test]
    fn an_address_has_one_pool() {
        let config = Config::new(vec![
            Pool {
                name: "a".into(),
                ..pool(&["10.0.0.0/24", "10.0.2.0/24"], true)
            },
            Pool {
                name: "b".into(),
                ..pool(&["10.0.1.0/24", "fc00::/64"], false)
            },
        ]);
        for (address, name) in [
            ("10.0.0.0", Some("a")),
            ("10.0.2.255", Some("a")),
            ("10.0.1.7", Some("b")),
            ("::ffff:10.0.1.7", Some("b")),
            ("fc00::1", Some("b")),
            ("10.0.3.0", None),
            ("9.255.255.255", None),
            ("fc00:0:0:1::", None),
        ] {
            assert_eq!(
                config.pool_of(ip(address)).map(Pool::name),
                name,
                "{address}"
            );
        }
        assert_eq!(config.pool("b").map(Pool::protocol), Some(Protocol::Layer2));
        assert!(config.pool("c").is_none());
    }

    proptest! {
        #[test]
        fn the_size_is_the_number_of_addresses_contained(first: u32, length in 0..2000_u32) {
            let range = AddressRange::new(
                IpAddr::V4(first.into()),
                IpAddr::V4(first.saturating_add(length).into()),
            ).unwrap();
            let pool = Pool { ranges: vec![range], ..pool(&[], true) };
            let counted = range.iter_from(range.first()).filter(|address| pool.contains(*address)).count();
            prop_assert_eq!(pool.size(Family::V4), counted as u128);
        }
    }
}
