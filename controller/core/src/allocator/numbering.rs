//! Addresses of a pool as consecutive numbers.
//!
//! The usable addresses of one family of a pool are numbered from 0 in the order they are given out: range after range,
//! upwards in each. Buggy addresses get no number where the pool avoids them, so nobody ever has to step over one. Both
//! directions are computed, nothing is listed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ferrolb_config::{Family, Pool};

/// One range of the pool.
#[derive(Debug)]
struct Stretch {
    /// The number of its first usable address.
    base: u128,
    /// Its first usable address, see [`Numbering::ordinal`].
    first: u128,
    /// How many usable addresses follow the first.
    more: u128,
    /// Which range of the pool it is.
    range: usize,
}

/// The numbering of one family of a pool.
#[derive(Debug)]
pub(super) struct Numbering {
    family: Family,
    /// IPv4 addresses ending in .0 and .255 have no number.
    skips_buggy: bool,
    /// In the order of their bases.
    stretches: Vec<Stretch>,
    /// First usable address of each stretch, to its place in `stretches`.
    starts: BTreeMap<u128, usize>,
}

impl Numbering {
    /// Numbers the addresses of this family.
    pub(super) fn new(pool: &Pool, family: Family) -> Self {
        let skips_buggy = pool.avoid_buggy_ips() && family == Family::V4;
        let mut numbering = Self {
            family,
            skips_buggy,
            stretches: Vec::new(),
            starts: BTreeMap::new(),
        };
        let mut base = 0_u128;
        for (range, addresses) in pool.ranges().iter().enumerate() {
            if addresses.family() != family {
                continue;
            }
            // The first usable address from the start on, and the last one up to the end.
            let first = numbering.round_up(addresses.first());
            let Some(last) = numbering
                .round_down(addresses.last())
                .filter(|last| *last >= first)
            else {
                continue;
            };
            numbering.starts.insert(first, numbering.stretches.len());
            numbering.stretches.push(Stretch {
                base,
                first,
                more: last - first,
                range,
            });
            // Only all of IPv6 can saturate here, and then no other range is left.
            base = base.saturating_add(last - first).saturating_add(1);
        }
        numbering
    }

    /// The highest number; `None` if the pool has no usable address of the family.
    pub(super) fn most(&self) -> Option<u128> {
        self.stretches
            .last()
            .map(|stretch| stretch.base + stretch.more)
    }

    /// The number of an address, and which range of the pool it lies in.
    pub(super) fn number(&self, address: IpAddr) -> Option<(u128, usize)> {
        if Family::of(address) != self.family {
            return None;
        }
        let ordinal = self.ordinal(address)?;
        let (_, index) = self.starts.range(..=ordinal).next_back()?;
        let stretch = self.stretches.get(*index)?;
        let offset = ordinal - stretch.first;
        (offset <= stretch.more).then(|| (stretch.base + offset, stretch.range))
    }

    /// The address of a number.
    pub(super) fn address(&self, number: u128) -> Option<IpAddr> {
        let index = self
            .stretches
            .partition_point(|stretch| stretch.base <= number)
            .checked_sub(1)?;
        let stretch = self.stretches.get(index)?;
        let ordinal = stretch.first
            + number
                .checked_sub(stretch.base)
                .filter(|offset| *offset <= stretch.more)?;
        Some(match self.family {
            Family::V4 => {
                let bits = if self.skips_buggy {
                    (ordinal / 254) << 8 | (ordinal % 254 + 1)
                } else {
                    ordinal
                };
                IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).ok()?))
            }
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(ordinal)),
        })
    }

    /// How many usable addresses of the whole family lie below this one; `None` if it is not usable itself.
    fn ordinal(&self, address: IpAddr) -> Option<u128> {
        let ordinal = self.round_up(address);
        (self.round_down(address) == Some(ordinal)).then_some(ordinal)
    }

    /// The ordinal of the first usable address not below this one.
    fn round_up(&self, address: IpAddr) -> u128 {
        match address.to_canonical() {
            IpAddr::V4(v4) if self.skips_buggy => {
                let (block, host) = (
                    u128::from(v4.to_bits() >> 8),
                    u128::from(v4.to_bits() & 0xff),
                );
                block * 254 + host.saturating_sub(1)
            }
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        }
    }

    /// The ordinal of the last usable address not above this one; none below 0.0.0.1.
    fn round_down(&self, address: IpAddr) -> Option<u128> {
        match address.to_canonical() {
            IpAddr::V4(v4) if self.skips_buggy => {
                let (block, host) = (
                    u128::from(v4.to_bits() >> 8),
                    u128::from(v4.to_bits() & 0xff),
                );
                (block * 254 + host.min(254)).checked_sub(1)
            }
            IpAddr::V4(v4) => Some(u128::from(v4.to_bits())),
            IpAddr::V6(v6) => Some(v6.to_bits()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_config::read;
    use proptest::prelude::*;

    use super::*;

    fn numbering(addresses: &str, avoid_buggy: bool, family: Family) -> (Pool, Numbering) {
        let document = format!(
            "address-pools: [{{name: a, protocol: layer2, addresses: [{addresses}], avoid-buggy-ips: {avoid_buggy}}}]"
        );
        let pool = read(&document).unwrap().pools()[0].clone();
        let numbering = Numbering::new(&pool, family);
        (pool, numbering)
    }

    #[test]
    fn ranges_are_numbered_in_their_order() {
        let (_, numbering) = numbering(
            "10.0.0.8/31, fc00::/64, 10.0.0.0-10.0.0.2",
            false,
            Family::V4,
        );
        let texts: Vec<_> = (0..=numbering.most().unwrap())
            .map(|n| numbering.address(n).unwrap().to_string())
            .collect();
        assert_eq!(
            texts,
            ["10.0.0.8", "10.0.0.9", "10.0.0.0", "10.0.0.1", "10.0.0.2"]
        );
        assert_eq!(numbering.address(5), None);
        assert_eq!(numbering.number("10.0.0.1".parse().unwrap()), Some((3, 2)));
        assert_eq!(numbering.number("10.0.0.3".parse().unwrap()), None);
        assert_eq!(numbering.number("fc00::".parse().unwrap()), None);
    }

    #[test]
    fn all_of_ipv6_fits() {
        let (_, numbering) = numbering("'::/0'", true, Family::V6);
        let last: IpAddr = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        assert_eq!(numbering.most(), Some(u128::MAX));
        assert_eq!(numbering.number(last), Some((u128::MAX, 0)));
        assert_eq!(numbering.address(u128::MAX), Some(last));
    }

    #[test]
    fn only_buggy_addresses_are_no_addresses() {
        let (_, numbering) = numbering(
            "0.0.0.0/32, 1.2.3.255-1.2.4.0, 255.255.255.255/32",
            true,
            Family::V4,
        );
        assert_eq!(numbering.most(), None);
        assert_eq!(numbering.number("1.2.3.255".parse().unwrap()), None);
        assert_eq!(numbering.number("0.0.0.0".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn numbers_are_the_usable_addresses_in_order(first: u32, length in 0..900_u32, gap in 1..600_u32, buggy: bool) {
            let first = first.min(u32::MAX - 4000);
            let at = |number: u32| Ipv4Addr::from_bits(number);
            // Two ranges, the upper one first.
            let (second, lengths) = (first + length + gap, length / 2);
            let text = format!("{}-{}, {}-{}", at(second), at(second + lengths), at(first), at(first + length));
            let (pool, numbering) = numbering(&text, buggy, Family::V4);
            let ranges = pool.ranges().iter().flat_map(|range| range.iter_from(range.first()));
            let usable: Vec<IpAddr> = ranges.filter(|address| pool.contains(*address)).collect();
            prop_assert_eq!(numbering.most(), (usable.len() as u128).checked_sub(1));
            for (number, address) in (0..).zip(&usable) {
                prop_assert_eq!(numbering.address(number), Some(*address));
                prop_assert_eq!(numbering.number(*address).map(|(number, _)| number), Some(number));
            }
            for number in first.saturating_sub(300)..second + lengths + 300 {
                let address = IpAddr::V4(at(number));
                prop_assert_eq!(numbering.number(address).is_some(), pool.contains(address));
            }
        }
    }
}
