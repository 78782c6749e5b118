//! What a ConfigMap says about BGP, checked as MetalLB 0.12 checks it, and then not used: BGP is not spoken here.
//!
//! What MetalLB's two BGP implementations each refuse on their own (`native` refuses BFD, for example) is not refused,
//! since neither of them is at work.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use crate::address::{AddressRange, Family};
use crate::problem::Problem;
use crate::selectors::selector;
use crate::words::{BfdProfileWords, BgpWords, PeerWords, PoolWords, Word};

/// What a hold time is when none is written.
const HOLD_TIME: Duration = Duration::from_secs(90);
/// The shortest hold time that is not none at all (RFC 4271, 4.2).
const SHORTEST_HOLD_TIME: Duration = Duration::from_secs(3);

/// Collects problems at places below one place.
struct Place<'a> {
    place: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Place<'_> {
    fn problem(&mut self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let place = format!("{}.{key}", self.place);
        self.problems.push(Problem::new(place, what, remedy));
    }

    /// A whole number in a range. `None` if it is absent, unreadable or out of range.
    fn number(&mut self, key: &str, word: &Word<String>, least: u32, most: u32) -> Option<u32> {
        let text = said(word)?;
        let number = text.parse::<u32>().ok();
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let what = format!("invalid value {text:?}, must be in {least}-{most} range");
            self.problem(key, what, format!("write a number from {least} to {most}"));
        }
        number
    }

    /// An address, under the name MetalLB's message has for it.
    fn address(&mut self, key: &str, word: &Word<String>, name: &str) {
        if let Some(text) = said(word)
            && text.parse::<IpAddr>().is_err()
        {
            let what = format!("invalid {name} {text:?}");
            self.problem(key, what, "write an IP address");
        }
    }

    /// A duration. `None` if it is absent, unreadable or none.
    fn duration(&mut self, key: &str, word: &Word<String>, name: &str) -> Option<Duration> {
        let text = said(word)?;
        let duration = duration(text);
        if duration.is_none() {
            let what = format!("invalid {name} {text:?}");
            self.problem(key, what, "write a duration with its unit, as 90s or 1m30s");
        }
        duration
    }
}

/// Finds every problem of what is said about BGP outside of pools.
pub(crate) fn check_bgp(words: &BgpWords, problems: &mut Vec<Problem>) {
    let mut profiles = BTreeSet::new();
    for profile in &words.profiles {
        check_profile(profile, &mut profiles, problems);
    }
    let mut peers = HashMap::new();
    for peer in &words.peers {
        check_peer(peer, &profiles, problems);
        match peers.entry(peer.anywhere()) {
            Entry::Vacant(free) => drop(free.insert(&peer.place)),
            Entry::Occupied(taken) => {
                let what = format!("peer already exists as {}", taken.get());
                problems.push(Problem::new(&peer.place, what, "remove the repetition"));
            }
        }
    }
    for (_, place, value) in &words.communities {
        let text = match value {
            Word::Said(text) => text,
            Word::Absent => "",
            Word::Unreadable => continue,
        };
        if !is_community(text) {
            problems.push(invalid_community(place, text));
        }
    }
}

/// `bfd-profiles[]`.
fn check_profile<'a>(
    words: &'a BfdProfileWords,
    names: &mut BTreeSet<&'a str>,
    problems: &mut Vec<Problem>,
) {
    let mut at = Place {
        place: &words.place,
        problems,
    };
    match &words.name {
        Word::Unreadable => {}
        Word::Said(name) if !name.is_empty() => {
            if !names.insert(name) {
                let what = format!("found duplicate bfd profile name {name:?}");
                at.problem("name", what, "give each profile its own name");
            }
        }
        Word::Said(_) | Word::Absent => {
            at.problem("name", "missing bfd profile name", "name the profile");
        }
    }
    for (key, word, least, most) in [
        ("receive-interval", &words.receive_interval, 10, 60_000),
        ("transmit-interval", &words.transmit_interval, 10, 60_000),
        ("echo-interval", &words.echo_interval, 10, 60_000),
        ("detect-multiplier", &words.detect_multiplier, 2, 255),
        ("minimum-ttl", &words.minimum_ttl, 1, 254),
    ] {
        at.number(key, word, least, most);
    }
}

/// `peers[]`.
fn check_peer(words: &PeerWords, profiles: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
    let mut at = Place {
        place: &words.place,
        problems,
    };
    let mut asn = |key: &str, word: &Word<String>, what: &str| {
        let number = at.number(key, word, 0, u32::MAX);
        let missing = number == Some(0) || *word == Word::Absent;
        if missing {
            at.problem(key, what, "write the number of the autonomous system");
        }
        number.filter(|number| *number != 0)
    };
    let mine = asn("my-asn", &words.my_asn, "missing local ASN");
    let theirs = asn("peer-asn", &words.peer_asn, "missing peer ASN");
    if words.peer_address == Word::Absent {
        at.problem(
            "peer-address",
            "invalid peer IP \"\"",
            "write an IP address",
        );
    }
    at.address("peer-address", &words.peer_address, "peer IP");
    at.address("router-id", &words.router_id, "router ID");
    at.address("source-address", &words.source_address, "source IP");
    at.number("peer-port", &words.peer_port, 0, u32::from(u16::MAX));
    let hold = at.duration("hold-time", &words.hold_time, "hold time");
    let hold_is_sound = hold.is_none_or(|hold| {
        // What is left of it in whole seconds.
        hold.as_secs() == 0 || hold >= SHORTEST_HOLD_TIME
    });
    if !hold_is_sound {
        let text = said(&words.hold_time).unwrap_or_default();
        let what = format!("invalid hold time {text:?}: must be 0 or >=3s");
        at.problem("hold-time", what, "write at least 3s");
    }
    let keepalive = at.duration("keepalive-time", &words.keepalive_time, "keepalive time");
    if let Some(keepalive) = keepalive
        && keepalive > hold.unwrap_or(HOLD_TIME)
    {
        let what = "the keepalive time is longer than the hold time";
        at.problem("keepalive-time", what, "write a third of the hold time");
    }
    if let Some(profile) = said(&words.bfd_profile)
        && !profile.is_empty()
        && !profiles.contains(profile)
    {
        let what = format!("peer referencing non existing bfd profile {profile:?}");
        at.problem("bfd-profile", what, "name one of bfd-profiles");
    }
    if words.ebgp_multihop == Word::Said(true) && mine.is_some() && mine == theirs {
        let what = "invalid ebgp-multihop parameter set for an ibgp peer";
        at.problem("ebgp-multihop", what, "remove it: both sides have one ASN");
    }
    for (index, words_of) in words.node_selectors.iter().enumerate() {
        let place = format!("{}.node-selectors[{index}]", words.place);
        let mut found = Vec::new();
        selector(&place, words_of, &mut found);
        problems.extend(found.into_iter().map(|problem| {
            Problem {
                place: problem
                    .place
                    .replace("matchExpressions", "match-expressions"),
                ..problem
            }
        }));
    }
}

/// Finds every problem of `bgp-advertisements` of a pool whose entries could be read as `ranges`.
pub(crate) fn check_advertisements(
    pool: &PoolWords,
    ranges: &[AddressRange],
    communities: &BTreeMap<&str, &str>,
    problems: &mut Vec<Problem>,
) {
    let mut earlier = HashMap::new();
    for (index, words) in pool.bgp_advertisements.iter().enumerate() {
        let mut at = Place {
            place: &words.place,
            problems,
        };
        for (key, word, family) in [
            ("aggregation-length", &words.aggregation_length, Family::V4),
            (
                "aggregation-length-v6",
                &words.aggregation_length_v6,
                Family::V6,
            ),
        ] {
            let most = u32::from(family.bits());
            if let Some(length) = at.number(key, word, 0, most) {
                check_aggregation(&mut at, key, length, ranges, family);
            }
        }
        at.number("localpref", &words.local_pref, 0, u32::MAX);
        let mut seen = BTreeSet::new();
        for (index, word) in words.communities.iter().enumerate() {
            let key = format!("communities[{index}]");
            let Some(text) = said(word) else {
                continue;
            };
            let known = communities.get(text).copied();
            if known.is_none() && !is_community(text) {
                let place = format!("{}.{key}", words.place);
                at.problems.push(invalid_community(&place, text));
            }
            if !seen.insert(known.unwrap_or(text)) {
                let what = format!("duplicate definition of community {text:?}");
                at.problem(&key, what, "name each community once");
            }
        }
        if let Some(same) = earlier.get(&words.anywhere()) {
            let what = format!(
                "duplicate definition of bgpadvertisements. advertisement {same} and {} are equal",
                index + 1
            );
            let remedy = "remove the repetition";
            problems.push(Problem::new(&words.place, what, remedy));
        } else {
            earlier.insert(words.anywhere(), index + 1);
        }
    }
}

/// No entry may be a smaller block than what is advertised of it. A range is as large as its largest block.
fn check_aggregation(
    at: &mut Place<'_>,
    key: &str,
    length: u32,
    ranges: &[AddressRange],
    family: Family,
) {
    let of_family = ranges.iter().filter(|range| range.family() == family);
    for range in of_family {
        let cidrs = range.cidrs();
        let shortest = cidrs.iter().map(ipnetwork::IpNetwork::prefix).min();
        if let Some(shortest) = shortest
            && length < u32::from(shortest)
        {
            let what = format!(
                "invalid aggregation length {length}: prefix {shortest} in this pool is more specific than the \
                 aggregation length for addresses {range}"
            );
            at.problem(key, what, format!("write at least {shortest}"));
        }
    }
}

/// Two numbers of 16 bits with a colon between them.
fn is_community(text: &str) -> bool {
    let number =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u16>().is_ok();
    text.split_once(':')
        .is_some_and(|(high, low)| number(high) && number(low))
}

fn invalid_community(place: &str, text: &str) -> Problem {
    let what = format!("invalid community string {text:?}");
    Problem::new(place, what, "write two numbers up to 65535 as 64512:1")
}

fn said(word: &Word<String>) -> Option<&str> {
    match word {
        Word::Said(text) => Some(text),
        Word::Absent | Word::Unreadable => None,
    }
}

/// A duration as Go writes it: numbers with units, one after the other; `0` needs none. Negative ones are none.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|character: char| !(character.is_ascii_digit() || character == '.'))?;
        let (number, after) = rest.split_at(end);
        let end = after
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, seconds) in [
            ("0", 0.0),
            ("90s", 90.0),
            ("1m30s", 90.0),
            ("1.5h", 5400.0),
            ("+3s", 3.0),
            ("2999ms", 2.999),
            (".5s", 0.5),
        ] {
            let duration = duration(text).unwrap();
            assert!((duration.as_secs_f64() - seconds).abs() < 1e-6, "{text}");
        }
        for text in ["", "120", "-3s", "s", "3 s", "3d", "1m 30s", "1..5s", "+"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_community_is_two_numbers() {
        for text in ["0:0", "65535:65535"] {
            assert!(is_community(text), "{text}");
        }
        for text in ["1", "1:", "1:2:3", "65536:1", "+1:1", "a:1", "1:-1"] {
            assert!(!is_community(text), "{text}");
        }
    }
}
