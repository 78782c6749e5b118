//! One range of addresses: the text an operator writes for it, its order, its size.
//!
//! A range is kept as two numbers of its family, so that an IPv6 range costs what an IPv4 range costs. An IPv4 address
//! in its IPv6-mapped form (`::ffff:10.0.0.1`) is the IPv4 address everywhere.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// The IP version of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address; a mapped address (`::ffff:a.b.c.d`) is IPv4.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits of an address: 32 or 128.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// `ipv4` or `ipv6`, as MetalLB writes it in its messages.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}

/// Why a text is not a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Nothing was written.
    #[error("an empty text is no range of addresses")]
    Empty,
    /// One address without a prefix length.
    #[error("{text:?} is one address, not a range of addresses")]
    Single {
        /// What was written.
        text: String,
        /// The same address as a prefix.
        prefix: String,
    },
    /// The address of a prefix cannot be read.
    #[error("invalid CIDR {text:?}: {part:?} is not an IP address")]
    PrefixAddress {
        /// What was written.
        text: String,
        /// The part before the slash.
        part: String,
    },
    /// The length of a prefix cannot be read or is too long for the family.
    #[error("invalid CIDR {text:?}: {part:?} is not a prefix length from {least} to {most}")]
    PrefixLength {
        /// What was written.
        text: String,
        /// The part after the slash.
        part: String,
        /// The shortest possible length.
        least: u8,
        /// The longest possible length.
        most: u8,
    },
    /// Neither a prefix nor a range.
    #[error("invalid CIDR {text:?}")]
    Neither {
        /// What was written.
        text: String,
    },
    /// The start of a range cannot be read.
    #[error("invalid IP range {text:?}: invalid start IP {part:?}")]
    Start {
        /// What was written.
        text: String,
        /// The part before the first `-`.
        part: String,
    },
    /// The end of a range cannot be read.
    #[error("invalid IP range {text:?}: invalid end IP {part:?}")]
    End {
        /// What was written.
        text: String,
        /// The part after the first `-`.
        part: String,
    },
    /// The range ends before it starts.
    #[error("invalid IP range {first}-{last}: start IP \"{first}\" is after the end IP \"{last}\"")]
    Reversed {
        /// The start.
        first: IpAddr,
        /// The end.
        last: IpAddr,
    },
    /// One end is IPv4, the other IPv6.
    #[error("invalid IP range {first}-{last}: start and end are of different families")]
    Mixed {
        /// The start.
        first: IpAddr,
        /// The end.
        last: IpAddr,
    },
}

impl EntryError {
    /// What the operator can write instead.
    pub fn remedy(&self) -> String {
        match self {
            Self::Single { prefix, .. } => format!("write {prefix}"),
            Self::Empty | Self::Neither { .. } => {
                "write a CIDR such as 192.168.10.0/24 or a range such as 192.168.10.10-192.168.10.20".into()
            }
            Self::PrefixAddress { .. } | Self::Start { .. } | Self::End { .. } => {
                "write addresses as 192.168.10.10 (no leading zeros, no spaces inside) or fc00::10 (no zone)".into()
            }
            Self::PrefixLength { least, most, .. } => {
                format!("write a decimal number from {least} to {most} after the slash")
            }
            Self::Reversed { first, last } => format!("write {last}-{first}"),
            Self::Mixed { .. } => "write one entry for each family".into(),
        }
    }
}

/// A range of addresses of one family, both ends included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

impl AddressRange {
    /// The range from `first` to `last`, both included.
    ///
    /// # Errors
    /// [`EntryError::Mixed`] for ends of two families, [`EntryError::Reversed`] for `first` after `last`.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, EntryError> {
        let (first, last) = (first.to_canonical(), last.to_canonical());
        let family = Family::of(first);
        if family != Family::of(last) {
            return Err(EntryError::Mixed { first, last });
        }
        if first > last {
            return Err(EntryError::Reversed { first, last });
        }
        Ok(Self {
            family,
            first: number(first),
            last: number(last),
        })
    }

    /// Reads an entry of `addresses` as MetalLB 0.9.2 and later do: `a-b` with spaces allowed around its parts, or a
    /// CIDR without spaces, whose host bits are cleared.
    ///
    /// # Errors
    /// Says which part is wrong; [`EntryError::remedy`] says what to write.
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        let owned = || text.to_string();
        if text.trim().is_empty() {
            return Err(EntryError::Empty);
        }
        if let Some((start, end)) = text.split_once('-') {
            let (start, end) = (start.trim(), end.trim());
            let first = start.parse().map_err(|_| EntryError::Start {
                text: owned(),
                part: start.into(),
            })?;
            let last = end.parse().map_err(|_| EntryError::End {
                text: owned(),
                part: end.into(),
            })?;
            return Self::new(first, last);
        }
        let Some((address, length)) = text.split_once('/') else {
            return Err(match text.trim().parse::<IpAddr>() {
                Ok(address) => {
                    let address = address.to_canonical();
                    EntryError::Single {
                        text: owned(),
                        prefix: format!("{address}/{}", Family::of(address).bits()),
                    }
                }
                Err(_) => EntryError::Neither { text: owned() },
            });
        };
        let written: IpAddr = address.parse().map_err(|_| EntryError::PrefixAddress {
            text: owned(),
            part: address.into(),
        })?;
        let canonical = written.to_canonical();
        let family = Family::of(canonical);
        // A mapped address is written with 128 bits, of which IPv4 has the last 32.
        let beside = if written.is_ipv6() {
            128 - family.bits()
        } else {
            0
        };
        let (least, most) = (beside, beside + family.bits());
        let wrong = || EntryError::PrefixLength {
            text: owned(),
            part: length.into(),
            least,
            most,
        };
        let plain = length.bytes().all(|byte| byte.is_ascii_digit())
            && (length == "0" || !length.starts_with('0'));
        let bits: u8 = if plain {
            length.parse().map_err(|_| wrong())?
        } else {
            return Err(wrong());
        };
        let bits = bits
            .checked_sub(beside)
            .filter(|bits| *bits <= family.bits())
            .ok_or_else(wrong)?;
        let host = low_bits(family.bits() - bits);
        let first = number(canonical) & !host;
        Ok(Self {
            family,
            first,
            last: first | host,
        })
    }

    /// The family of all addresses of the range.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        address(self.family, self.first)
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        address(self.family, self.last)
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.family == Family::of(address) && (self.first..=self.last).contains(&number(address))
    }

    /// Whether any address lies in both ranges.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// Number of addresses; all of IPv6 (`::/0`) counts one less than it has, which is what the type can hold.
    #[allow(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// The addresses of the range from `start` on, in ascending order; none if `start` is no address of the range.
    /// The first one costs the same wherever it lies.
    pub fn iter_from(&self, start: IpAddr) -> impl Iterator<Item = IpAddr> + use<> {
        let family = self.family;
        // An inclusive range that is already over, for a start outside.
        let (from, to) = if self.contains(start) {
            (number(start), self.last)
        } else {
            (1, 0)
        };
        (from..=to).map(move |number| address(family, number))
    }

    /// The fewest prefixes that cover exactly this range, in ascending order; at most 254.
    pub fn cidrs(&self) -> Vec<IpNetwork> {
        let mut all = Vec::new();
        let mut next = Some(self.first);
        while let Some(start) = next {
            let (bits, end) = self.prefix_at(start);
            all.extend(network(self.family, start, bits));
            next = if end == self.last {
                None
            } else {
                Some(end + 1)
            };
        }
        all
    }

    /// Host bits and last address of the largest prefix that starts at `start` and stays in the range.
    fn prefix_at(&self, start: u128) -> (u8, u128) {
        let mut best = (0, start);
        for host in 1..=self.family.bits() {
            let mask = low_bits(host);
            if start & mask != 0 || start | mask > self.last {
                break;
            }
            best = (host, start | mask);
        }
        best
    }
}

/// The CIDR where the range is one, else `first-last`.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, end) = self.prefix_at(self.first);
        if end == self.last {
            write!(f, "{}/{}", self.first(), self.family.bits() - host)
        } else {
            write!(f, "{}-{}", self.first(), self.last())
        }
    }
}

/// The address as a number of its family (IPv4: 32 bits).
pub(crate) fn number(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of a number; of an IPv4 number only the low 32 bits count.
fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(
            u32::try_from(number & low_bits(32)).unwrap_or(u32::MAX),
        )),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

/// A number whose `count` lowest bits are set; `count` up to 128.
fn low_bits(count: u8) -> u128 {
    u128::MAX.checked_shr(128 - u32::from(count)).unwrap_or(0)
}

/// The prefix of `host` host bits at `start`.
fn network(family: Family, start: u128, host: u8) -> Option<IpNetwork> {
    let length = family.bits() - host;
    match address(family, start) {
        IpAddr::V4(v4) => Ipv4Network::new(v4, length).ok().map(IpNetwork::V4),
        IpAddr::V6(v6) => Ipv6Network::new(v6, length).ok().map(IpNetwork::V6),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn range(text: &str) -> AddressRange {
        AddressRange::parse(text).unwrap()
    }

    fn cidrs(text: &str) -> Vec<String> {
        range(text)
            .cidrs()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn host_bits_are_cleared_and_all_addresses_usable() {
        let range = range("192.168.99.100/28");
        assert_eq!(
            (range.first(), range.last(), range.len()),
            (ip("192.168.99.96"), ip("192.168.99.111"), 16)
        );
        assert_eq!(range.to_string(), "192.168.99.96/28");
    }

    #[test]
    fn ranges_have_the_cover_metallb_computes() {
        assert_eq!(
            cidrs("192.168.1.240-192.168.1.250"),
            ["192.168.1.240/29", "192.168.1.248/31", "192.168.1.250/32"]
        );
        assert_eq!(
            cidrs("192.168.0.150-192.168.0.200"),
            [
                "192.168.0.150/31",
                "192.168.0.152/29",
                "192.168.0.160/27",
                "192.168.0.192/29",
                "192.168.0.200/32"
            ]
        );
        assert_eq!(
            cidrs("fc00:f853:ccd:e799::-fc00:f853:ccd:e799::10"),
            ["fc00:f853:ccd:e799::/124", "fc00:f853:ccd:e799::10/128"]
        );
        assert_eq!(cidrs("10.0.0.5-10.0.0.5"), ["10.0.0.5/32"]);
        assert_eq!(cidrs("0.0.0.0-255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(cidrs("::/0"), ["::/0"]);
        assert_eq!(
            cidrs("::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe").len(),
            254
        );
    }

    #[test]
    fn sizes_of_the_reference() {
        for (text, size) in [
            ("192.168.1.240-192.168.1.250", 11),
            ("192.168.0.150-192.168.0.200", 51),
            ("fc00:f853:ccd:e799::-fc00:f853:ccd:e799::10", 17),
            ("10.0.0.5-10.0.0.5", 1),
            ("0.0.0.0/0", 1 << 32),
            ("::/0", u128::MAX),
        ] {
            assert_eq!(range(text).len(), size, "{text}");
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(range("::ffff:10.0.0.0/120"), range("10.0.0.0/24"));
        assert!(range("10.0.0.0/24").contains(ip("::ffff:10.0.0.9")));
        assert_eq!(Family::of(ip("::ffff:10.0.0.9")), Family::V4);
    }

    #[test]
    fn families_never_meet() {
        let (v4, v6) = (range("0.0.0.0/0"), range("::/0"));
        assert!(!v4.overlaps(&v6) && !v4.contains(ip("::1")) && !v6.contains(ip("10.0.0.1")));
    }

    #[test]
    fn iteration_starts_anywhere() {
        let range = range("fc00::/16");
        let some: Vec<_> = range.iter_from(ip("fc00:8000::ffff")).take(2).collect();
        assert_eq!(some, [ip("fc00:8000::ffff"), ip("fc00:8000::1:0")]);
        assert_eq!(range.iter_from(range.last()).count(), 1);
        assert_eq!(range.iter_from(ip("fe80::1")).count(), 0);
        assert_eq!(range.iter_from(ip("10.0.0.1")).count(), 0);
    }

    proptest! {
        #[test]
        fn a_range_is_what_it_displays(first: u32, last: u32) {
            let (first, last) = (first.min(last), first.max(last));
            let range = AddressRange::new(Ipv4Addr::from(first).into(), Ipv4Addr::from(last).into()).unwrap();
            prop_assert_eq!(AddressRange::parse(&range.to_string()).unwrap(), range);
            prop_assert_eq!(range.len(), u128::from(last - first) + 1);
        }

        #[test]
        fn the_cover_is_gapless_and_exact(first: u128, last: u128) {
            let (first, last) = (first.min(last), first.max(last));
            let range = AddressRange { family: Family::V6, first, last };
            let mut next = first;
            let cidrs = range.cidrs();
            for (index, cidr) in cidrs.iter().enumerate() {
                let part = AddressRange::parse(&cidr.to_string()).unwrap();
                prop_assert_eq!(part.first, next);
                prop_assert!(part.last <= last);
                prop_assert_eq!(part.last == last, index + 1 == cidrs.len());
                next = part.last.wrapping_add(1);
            }
        }

        #[test]
        fn any_text_is_a_range_or_an_error(text in "[0-9a-f:./ -]{0,24}") {
            if let Err(error) = AddressRange::parse(&text) {
                prop_assert!(!error.to_string().is_empty() && !error.remedy().is_empty());
            }
        }
    }
}
