//! `BGPAdvertisement`, `Community` and `BFDProfile`, by MetalLB's rules (0.16). FerroLB keeps these objects for the day
//! MetalLB, or BGP, comes back; what MetalLB would not take then is refused now, with its words.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_config::{AddressRange, Family};
use ferrolb_config_api::{BFDProfile, BGPAdvertisement, Community, IPAddressPoolSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    ResourceExt as _,
    api::DynamicObject,
    core::{Selector, SelectorExt as _},
};
use serde::Deserialize as _;

use super::{
    admission::{BgpType, Objects},
    layer2,
};

/// What is wrong with `new`. `raw` is the same object.
pub fn advertisement(
    new: &BGPAdvertisement,
    raw: &DynamicObject,
    objects: &Objects,
    bgp: BgpType,
) -> Vec<String> {
    let spec = &new.spec;
    let mut problems = layer2::selectors("BGPAdvertisement", raw);
    problems.extend(repeated("peers", &spec.peers));
    // Without a colon it is the name of an alias, which may come later.
    let communities = spec.communities.iter().filter(|text| text.contains(':'));
    problems.extend(repeated("community", communities.clone()));
    for community in communities {
        match parse_community(community) {
            Ok(Width::Large) if bgp == BgpType::Native => problems.push(format!(
                "native BGP mode only supports legacy communities, BGP advertisement {:?} has non legacy community {community:?}",
                new.name_any()
            )),
            Ok(_) => {}
            Err(error) => problems.push(format!(
                "{error}; invalid community {community:?} in BGP advertisement"
            )),
        }
    }
    let lengths = Lengths::of(new);
    if !spec.service_selectors.is_empty() {
        for (name, length, default) in [
            ("aggregationLength", lengths.v4, 32),
            ("aggregationLengthV6", lengths.v6, 128),
        ] {
            if length != default {
                problems.push(format!(
                    "serviceSelectors and {name} are mutually exclusive, both cannot be set in {}",
                    new.name_any()
                ));
            }
        }
    }
    for (length, most, family) in [(lengths.v4, 32, "IPv4"), (lengths.v6, 128, "IPv6")] {
        if length > most {
            problems.push(format!("invalid aggregation length {length} for {family}"));
        }
    }
    for pool in objects.pools.iter().filter(|pool| reaches(new, pool)) {
        problems.extend(against_pool(new, lengths, pool, objects, bgp));
    }
    problems
}

/// What is wrong with `new` for one pool it advertises.
fn against_pool(
    new: &BGPAdvertisement,
    lengths: Lengths,
    pool: &DynamicObject,
    objects: &Objects,
    bgp: BgpType,
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut families = BTreeSet::new();
    for (text, range) in addresses(pool) {
        families.insert(range.family());
        let (length, v6) = match range.family() {
            Family::V4 => (lengths.v4, false),
            Family::V6 => (lengths.v6, true),
        };
        if v6 && bgp == BgpType::Native {
            problems.push(format!(
                "pool {:?} has ipv6 CIDR {range}, native bgp mode does not support ipv6",
                pool.name_any()
            ));
        }
        let shortest = range.cidrs().into_iter().map(|cidr| cidr.prefix()).min();
        if let Some(shortest) = shortest
            && length < i32::from(shortest)
        {
            problems.push(format!(
                "invalid aggregation length {length}: prefix {shortest} in this pool is more specific than the aggregation length for addresses {text}"
            ));
        }
    }
    let others = objects.bgp_advertisements.iter();
    for other in others.filter(|other| other.name_any() != new.name_any() && reaches(other, pool)) {
        if !compatible(new, other, &families, &objects.nodes) {
            let preference = |one: &BGPAdvertisement| one.spec.local_pref.unwrap_or_default();
            // MetalLB's spelling, which people search for.
            problems.push(format!(
                "invalid local preference {}: local preferernce {} was already set for the same type of BGP update. \
                 Check existing BGP advertisements with common pools and aggregation lengths ({:?} in pool {:?})",
                preference(new),
                preference(other),
                other.name_any(),
                pool.name_any()
            ));
        }
    }
    problems
}

/// Whether two advertisements of one pool can never make the same BGP update with different local preferences.
fn compatible(
    one: &BGPAdvertisement,
    other: &BGPAdvertisement,
    families: &BTreeSet<Family>,
    nodes: &[BTreeMap<String, String>],
) -> bool {
    let (a, b) = (&one.spec, &other.spec);
    // Which Services those with Service selectors advertise is not known here.
    if !a.service_selectors.is_empty() || !b.service_selectors.is_empty() {
        return true;
    }
    if a.local_pref.unwrap_or_default() == b.local_pref.unwrap_or_default() {
        return true;
    }
    let (mine, its) = (Lengths::of(one), Lengths::of(other));
    let differ = families.iter().all(|family| match family {
        Family::V4 => mine.v4 != its.v4,
        Family::V6 => mine.v6 != its.v6,
    });
    let apart = !a.peers.is_empty()
        && !b.peers.is_empty()
        && !a.peers.iter().any(|peer| b.peers.contains(peer));
    let meet = nodes
        .iter()
        .any(|node| selects(&a.node_selectors, node) && selects(&b.node_selectors, node));
    differ || apart || !meet
}

/// Whether an advertisement speaks of a pool: by name, by label, or because it names and selects none.
fn reaches(advertisement: &BGPAdvertisement, pool: &DynamicObject) -> bool {
    let spec = &advertisement.spec;
    if spec.ip_address_pools.is_empty() && spec.ip_address_pool_selectors.is_empty() {
        return true;
    }
    spec.ip_address_pools.contains(&pool.name_any())
        || any(&spec.ip_address_pool_selectors, pool.labels())
}

/// Whether a node with these labels is selected; without selectors every one is.
pub fn selects(selectors: &[LabelSelector], node: &BTreeMap<String, String>) -> bool {
    selectors.is_empty() || any(selectors, node)
}

fn any(selectors: &[LabelSelector], labels: &BTreeMap<String, String>) -> bool {
    selectors
        .iter()
        .filter_map(|selector| Selector::try_from(selector.clone()).ok())
        .any(|selector| selector.matches(labels))
}

/// The entries of a pool that can be read, as they are written and as they are meant.
fn addresses(pool: &DynamicObject) -> Vec<(String, AddressRange)> {
    let spec = pool.data.get("spec").map(IPAddressPoolSpec::deserialize);
    let addresses = spec.and_then(Result::ok).unwrap_or_default().addresses;
    let read = addresses.into_iter().filter_map(|text| {
        let range = AddressRange::parse(&text).ok()?;
        Some((text, range))
    });
    read.collect()
}

/// The aggregation lengths, each with its default.
#[derive(Clone, Copy)]
struct Lengths {
    v4: i32,
    v6: i32,
}

impl Lengths {
    fn of(advertisement: &BGPAdvertisement) -> Self {
        Self {
            v4: advertisement.spec.aggregation_length.unwrap_or(32),
            v6: advertisement.spec.aggregation_length_v6.unwrap_or(128),
        }
    }
}

/// What is wrong with a `Community`.
pub fn community(new: &Community, objects: &Objects, bgp: BgpType) -> Vec<String> {
    let others = objects.communities.iter();
    let others = others.filter(|other| other.name_any() != new.name_any());
    let mut names: BTreeSet<&str> = others
        .flat_map(|other| &other.spec.communities)
        .filter_map(|alias| alias.name.as_deref())
        .collect();
    let mut problems = Vec::new();
    for alias in &new.spec.communities {
        let name = alias.name.as_deref().unwrap_or_default();
        let value = alias.value.as_deref().unwrap_or_default();
        match parse_community(value) {
            Ok(Width::Large) if bgp == BgpType::Native => problems.push(format!(
                "native BGP mode only supports legacy communities, BGP community CR {:?} has non legacy community {value:?}",
                new.name_any()
            )),
            Ok(_) => {}
            Err(error) => problems.push(format!("parsing community {name:?}: {error}")),
        }
        if !names.insert(name) {
            problems.push(format!("duplicate definition of community {name:?}"));
        }
    }
    problems
}

/// Which of the two kinds a community is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// RFC 1997: 16 bits and 16 bits.
    Legacy,
    /// RFC 8092: three times 32 bits.
    Large,
}

fn parse_community(text: &str) -> Result<Width, String> {
    let sections: Vec<_> = text.split(':').collect();
    let section = |section: &str, most: u64| {
        let digits = !section.is_empty() && section.bytes().all(|byte| byte.is_ascii_digit());
        let number = section
            .parse::<u64>()
            .ok()
            .filter(|number| digits && *number <= most);
        number.map(drop).ok_or_else(|| {
            format!(
                "invalid community value: invalid section {section:?} of community {text:?}, write a number from 0 to {most}"
            )
        })
    };
    match sections.as_slice() {
        [high, low] => {
            section(high, u16::MAX.into())?;
            section(low, u16::MAX.into())?;
            Ok(Width::Legacy)
        }
        ["large", rest @ ..] if rest.len() == 3 => {
            for part in rest {
                section(part, u32::MAX.into())?;
            }
            Ok(Width::Large)
        }
        [_, _, _, _] => Err(format!(
            "invalid community value: invalid marker for large community, expected community to be of format \
             large:<uint32>:<uint32>:<uint32> but got {text:?} instead"
        )),
        _ => Err(format!("invalid community format: {text}")),
    }
}

fn repeated<'a>(what: &str, items: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    items
        .into_iter()
        .filter(|item| !seen.insert(*item))
        .map(|item| format!("duplicate definition of {what} {item:?}"))
        .collect()
}

/// What is wrong with a `BFDProfile`: the ranges its schema has, too.
pub fn profile(new: &BFDProfile) -> Vec<String> {
    let spec = &new.spec;
    let ranges = [
        ("detect multiplier", spec.detect_multiplier, 2, 255),
        ("receive interval", spec.receive_interval, 10, 60_000),
        ("transmit interval", spec.transmit_interval, 10, 60_000),
        ("minimum ttl", spec.minimum_ttl, 1, 254),
        ("echo interval", spec.echo_interval, 10, 60_000),
    ];
    let outside = ranges.into_iter().filter_map(|(what, value, least, most)| {
        let value = value.filter(|value| !(least..=most).contains(value))?;
        Some(format!(
            "invalid {what} value: invalid value {value}, must be in {least}-{most} range"
        ))
    });
    outside.collect()
}

/// Why a `BFDProfile` cannot be deleted.
pub fn profile_in_use(profile: &BFDProfile, objects: &Objects) -> Vec<String> {
    let name = profile.name_any();
    let users = objects
        .peers
        .iter()
        .filter(|peer| peer.spec.bfd_profile.as_ref() == Some(&name));
    users
        .map(|peer| {
            format!(
                "failed to delete BFDProfile {name}, used by BGPPeer {}",
                peer.name_any()
            )
        })
        .collect()
}
