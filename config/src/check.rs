//! From words to a configuration, or to every problem they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::address::{AddressRange, number};
use crate::advertisement::Advertisement;
use crate::bgp::{check_advertisements, check_bgp};
use crate::pool::{Config, Origin, Pool, Protocol};
use crate::problem::{Problem, Refused};
use crate::selectors::{advertise, allocation};
use crate::words::{BgpWords, PoolWords, Word, Words};

/// How many overlaps are named one by one. A document with thousands of equal entries has millions of them, and no
/// operator reads more than this many before mending the first.
const MOST_OVERLAPS: usize = 64;

/// A range that was read, with what is needed to speak about it.
struct Entry {
    range: AddressRange,
    place: String,
    pool: String,
}

impl Entry {
    fn describe(&self) -> String {
        format!("{} of pool {:?}", self.range, self.pool)
    }
}

/// Gives words their meaning.
///
/// # Errors
/// Every problem of the words: those their reader found and those of what they say.
pub fn check(words: Words) -> Result<Config, Refused> {
    let mut problems = words.problems;
    check_bgp(&words.bgp, &mut problems);
    let communities = communities(&words.bgp);
    let mut pools = Vec::new();
    let mut labels = Vec::new();
    let mut entries = Vec::new();
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for mut pool in words.pools {
        problems.append(&mut pool.problems);
        if let Word::Said(name) = &pool.name
            && !name.is_empty()
        {
            if let Some(first) = names.get(name) {
                let what =
                    format!("duplicate definition of pool {name:?}, which {first} defines already");
                problems.push(Problem::new(
                    format!("{}.name", pool.place),
                    what,
                    "give each pool its own name",
                ));
            } else {
                names.insert(name.clone(), pool.place.clone());
            }
        }
        if let Some(checked) = check_pool(&pool, &communities, &mut problems, &mut entries) {
            pools.push(checked);
            labels.push(pool.labels);
        }
    }
    check_overlaps(&entries, &mut problems);
    advertise(&mut pools, &labels, words.advertisements, &mut problems);
    Refused::unless_empty(problems)?;
    Ok(Config::new(pools))
}

/// The names that advertisements may call communities by.
fn communities(words: &BgpWords) -> BTreeMap<&str, &str> {
    let named = words.communities.iter();
    named
        .map(|(name, _, value)| match value {
            Word::Said(value) => (name.as_str(), value.as_str()),
            // What it means is unknown, and its problem noted.
            Word::Absent | Word::Unreadable => (name.as_str(), name.as_str()),
        })
        .collect()
}

/// One pool; `None` if it has a problem.
fn check_pool(
    words: &PoolWords,
    communities: &BTreeMap<&str, &str>,
    problems: &mut Vec<Problem>,
    entries: &mut Vec<Entry>,
) -> Option<Pool> {
    let place = &words.place;
    let name = match &words.name {
        Word::Said(name) if !name.is_empty() => Some(name.clone()),
        Word::Unreadable => None,
        Word::Said(_) | Word::Absent => {
            let remedy = "give the pool a name, which Services can ask for";
            problems.push(Problem::new(
                format!("{place}.name"),
                "missing pool name",
                remedy,
            ));
            None
        }
    };
    let protocol = match words.origin {
        Origin::ConfigMap => check_protocol(words, problems),
        // How a custom resource is announced is said by others; it gives addresses whoever does.
        Origin::Resource => Some(Protocol::Layer2),
    };
    if protocol == Some(Protocol::Layer2) && !words.bgp_advertisements.is_empty() {
        problems.push(Problem::new(
            format!("{place}.bgp-advertisements"),
            "cannot have bgp-advertisements configuration element in a layer2 address pool",
            "remove bgp-advertisements from this pool",
        ));
    }
    let known_as = name.clone().unwrap_or_else(|| place.clone());
    let ranges = check_addresses(words, &known_as, problems, entries);
    if protocol == Some(Protocol::Bgp) {
        check_advertisements(words, &ranges, communities, problems);
    }
    let allocation = words
        .allocation
        .as_ref()
        .map(|words| allocation(place, words, problems));
    let protocol = protocol?;
    Some(Pool {
        name: name?,
        protocol,
        ranges,
        origin: words.origin,
        allocation,
        advertisements: match (words.origin, protocol) {
            (Origin::ConfigMap, Protocol::Layer2) => vec![Arc::new(Advertisement::default())],
            // Whoever announces a pool that is a custom resource says so in another one.
            (Origin::Resource, _) | (Origin::ConfigMap, Protocol::Bgp) => Vec::new(),
        },
        auto_assign: said(&words.auto_assign).unwrap_or(true),
        avoid_buggy_ips: said(&words.avoid_buggy_ips).unwrap_or(false),
    })
}

fn check_protocol(words: &PoolWords, problems: &mut Vec<Problem>) -> Option<Protocol> {
    let place = format!("{}.protocol", words.place);
    let what = match &words.protocol {
        Word::Unreadable => return None,
        Word::Said(protocol) => match protocol.as_str() {
            "layer2" => return Some(Protocol::Layer2),
            "bgp" => return Some(Protocol::Bgp),
            "" => "address pool is missing the protocol field".into(),
            other => format!("unknown protocol {other:?}"),
        },
        Word::Absent => "address pool is missing the protocol field".into(),
    };
    problems.push(Problem::new(place, what, "write protocol: layer2"));
    None
}

/// The ranges that could be read, which are also added to `entries`.
fn check_addresses(
    words: &PoolWords,
    pool: &str,
    problems: &mut Vec<Problem>,
    entries: &mut Vec<Entry>,
) -> Vec<AddressRange> {
    let place = format!("{}.addresses", words.place);
    let empty: &[Word<String>] = &[];
    let addresses = match &words.addresses {
        Word::Said(addresses) => addresses,
        Word::Absent => empty,
        Word::Unreadable => return Vec::new(),
    };
    if addresses.is_empty() {
        let remedy = "list at least one CIDR or range under addresses";
        problems.push(Problem::new(&place, "pool has no prefixes defined", remedy));
    }
    let mut ranges = Vec::new();
    for (index, word) in addresses.iter().enumerate() {
        let place = format!("{place}[{index}]");
        let text = match word {
            Word::Said(text) => text.as_str(),
            Word::Absent => "",
            Word::Unreadable => continue,
        };
        match AddressRange::parse(text) {
            Ok(range) => {
                ranges.push(range);
                entries.push(Entry {
                    range,
                    place,
                    pool: pool.to_string(),
                });
            }
            Err(error) => problems.push(Problem::new(place, error.to_string(), error.remedy())),
        }
    }
    ranges
}

/// Finds overlaps between any two entries. Each is a problem of the later entry.
fn check_overlaps(entries: &[Entry], problems: &mut Vec<Problem>) {
    let mut order: Vec<(usize, &Entry)> = entries.iter().enumerate().collect();
    order.sort_by_key(|(index, entry)| (entry.range.family(), number(entry.range.first()), *index));
    let mut pairs = Vec::new();
    let mut rest = order.as_slice();
    'all: while let Some((&(index, entry), tail)) = rest.split_first() {
        rest = tail;
        // Sorted by start: those that overlap with this one follow it without a gap.
        for &(other_index, other) in tail
            .iter()
            .take_while(|(_, other)| entry.range.overlaps(&other.range))
        {
            if pairs.len() > MOST_OVERLAPS {
                break 'all;
            }
            pairs.push(if index < other_index {
                (other_index, other, entry)
            } else {
                (index, entry, other)
            });
        }
    }
    pairs.sort_by_key(|(index, _, _)| *index);
    for (_, later, earlier) in pairs.iter().take(MOST_OVERLAPS) {
        let what = format!(
            "{} overlaps with {} ({})",
            later.describe(),
            earlier.describe(),
            earlier.place
        );
        problems.push(Problem::new(
            &later.place,
            what,
            "let each address belong to one entry only",
        ));
    }
    if pairs.len() > MOST_OVERLAPS {
        problems.push(Problem::new(
            "address-pools",
            "more entries overlap than are named here",
            "mend those first",
        ));
    }
}

/// The value of a word that was said.
fn said<T: Copy>(word: &Word<T>) -> Option<T> {
    match word {
        Word::Said(value) => Some(*value),
        Word::Absent | Word::Unreadable => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, addresses: &[&str]) -> PoolWords {
        PoolWords {
            place: format!("IPAddressPool metallb-system/{name}"),
            name: Word::Said(name.into()),
            protocol: Word::Said("layer2".into()),
            addresses: Word::Said(
                addresses
                    .iter()
                    .map(|text| Word::Said((*text).into()))
                    .collect(),
            ),
            ..PoolWords::default()
        }
    }

    fn places(words: Words) -> Vec<String> {
        check(words)
            .unwrap_err()
            .problems()
            .iter()
            .map(|problem| problem.place.clone())
            .collect()
    }

    #[test]
    fn words_of_any_notation_become_pools() {
        let words = Words {
            pools: vec![pool("b", &["10.0.0.0/24"]), pool("a", &["fc00::/64"])],
            ..Words::default()
        };
        let config = check(words).unwrap();
        assert_eq!(
            config.pools().iter().map(Pool::name).collect::<Vec<_>>(),
            ["b", "a"]
        );
        assert!(
            config
                .pools()
                .iter()
                .all(|pool| pool.auto_assign() && !pool.avoid_buggy_ips())
        );
    }

    #[test]
    fn what_could_not_be_read_is_reported_once() {
        let mut broken = pool("a", &[]);
        broken
            .problems
            .push(Problem::new("here", "unreadable", "write it"));
        (broken.name, broken.protocol, broken.addresses) =
            (Word::Unreadable, Word::Unreadable, Word::Unreadable);
        assert_eq!(
            places(Words {
                pools: vec![broken],
                ..Words::default()
            }),
            ["here"]
        );
    }

    #[test]
    fn places_are_those_of_the_notation() {
        let words = Words {
            pools: vec![
                pool("a", &["x", "10.0.0.0/24"]),
                pool("b", &["10.0.0.9/32"]),
            ],
            ..Words::default()
        };
        assert_eq!(
            places(words),
            [
                "IPAddressPool metallb-system/a.addresses[0]",
                "IPAddressPool metallb-system/b.addresses[0]"
            ]
        );
    }

    #[test]
    fn overlaps_of_thousands_of_entries_are_found_in_bounded_work() {
        let same = vec!["10.0.0.0/8"; 5000];
        let problems = places(Words {
            pools: vec![pool("a", &same)],
            ..Words::default()
        });
        assert_eq!(problems.len(), MOST_OVERLAPS + 1);
    }
}
