//! From the words of selectors to selectors that can be asked, with MetalLB's rules against repeating oneself.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::advertisement::{Advertisement, Allocation};
use crate::labels::{Labels, Requirement, Selector, any_matches};
use crate::pool::{Origin, Pool};
use crate::problem::Problem;
use crate::words::{AdvertisementWords, AllocationWords, SelectorWords};

/// The longest value of a label, and the longest name in its key.
const LONGEST_VALUE: usize = 63;
/// The longest domain in the key of a label.
const LONGEST_DOMAIN: usize = 253;

/// Where a list of the operator's stands and what it is called in MetalLB's messages.
struct List<'a> {
    place: &'a str,
    name: &'static str,
}

impl List<'_> {
    /// The place of one entry.
    fn entry(&self, index: usize) -> String {
        format!("{}.{}[{index}]", self.place, self.name)
    }

    /// Entries that are written twice.
    fn duplicates<T: Ord>(
        &self,
        items: &[T],
        describe: impl Fn(&T) -> String,
        problems: &mut Vec<Problem>,
    ) {
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            if !seen.insert(item) {
                let what = format!("duplicate definition of {}{}", self.name, describe(item));
                problems.push(Problem::new(
                    self.entry(index),
                    what,
                    "remove the repetition",
                ));
            }
        }
    }

    /// The selectors of a list.
    fn selectors(&self, items: &[SelectorWords], problems: &mut Vec<Problem>) -> Vec<Selector> {
        let plain = |_: &SelectorWords| String::new();
        let sorted: Vec<_> = items.iter().map(sorted).collect();
        self.duplicates(&sorted, plain, problems);
        let each = items.iter().enumerate();
        each.map(|(index, words)| selector(&self.entry(index), words, problems))
            .collect()
    }
}

/// The selector with its values in order, as repetitions are looked for.
fn sorted(words: &SelectorWords) -> SelectorWords {
    let mut sorted = words.clone();
    for (_, _, values) in &mut sorted.expressions {
        values.sort();
    }
    sorted
}

/// One selector; what cannot be asked becomes a problem and is left out.
pub(crate) fn selector(
    place: &str,
    words: &SelectorWords,
    problems: &mut Vec<Problem>,
) -> Selector {
    let mut requirements: BTreeSet<Requirement> = BTreeSet::new();
    for (key, value) in &words.labels {
        check_key(place, key, problems);
        check_value(place, value, problems);
        requirements.insert(Requirement::In(key.clone(), [value.clone()].into()));
    }
    let mut expressions = BTreeSet::new();
    for (index, (key, operator, values)) in words.expressions.iter().enumerate() {
        let place = format!("{place}.matchExpressions[{index}]");
        check_key(&place, key, problems);
        let set: BTreeSet<String> = values.iter().cloned().collect();
        for value in &set {
            check_value(&place, value, problems);
        }
        if set.len() != values.len() {
            let what = "duplicate definition of match expression value in label selector";
            problems.push(Problem::new(&place, what, "write each value once"));
        }
        let requirement = match (operator.as_str(), set.is_empty()) {
            ("In", false) => Requirement::In(key.clone(), set),
            ("NotIn", false) => Requirement::NotIn(key.clone(), set),
            ("Exists", true) => Requirement::Exists(key.clone()),
            ("DoesNotExist", true) => Requirement::DoesNotExist(key.clone()),
            ("In" | "NotIn", true) => {
                let what = format!("invalid label selector: operator {operator} without values");
                problems.push(Problem::new(&place, what, "list the values"));
                continue;
            }
            ("Exists" | "DoesNotExist", false) => {
                let what = format!("invalid label selector: operator {operator} with values");
                problems.push(Problem::new(&place, what, "remove the values"));
                continue;
            }
            _ => {
                let what = format!("invalid label selector: {operator:?} is not a valid operator");
                let remedy = "write In, NotIn, Exists or DoesNotExist";
                problems.push(Problem::new(&place, what, remedy));
                continue;
            }
        };
        if !expressions.insert(requirement.clone()) {
            let what = "duplicate definition of match expressions";
            problems.push(Problem::new(&place, what, "remove the repetition"));
        }
        requirements.insert(requirement);
    }
    Selector { requirements }
}

/// A label's key: a name, and before it a domain and "/" or nothing (Kubernetes: labels and selectors).
fn check_key(place: &str, key: &str, problems: &mut Vec<Problem>) {
    let (domain, name) = key.rsplit_once('/').unwrap_or(("example.org", key));
    let part = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        part.bytes().all(|byte| inner(byte) || byte == b'-')
            && part.bytes().next().is_some_and(inner)
            && part.bytes().next_back().is_some_and(inner)
    };
    let sound = domain.len() <= LONGEST_DOMAIN && domain.split('.').all(part);
    if key.is_empty() {
        let what = "invalid label selector: a label without a key";
        problems.push(Problem::new(place, what, "name the label"));
    } else if name.is_empty() || !is_value(name) || !sound {
        let what = format!("invalid label selector: {key:?} is not the key of a label");
        problems.push(Problem::new(
            place,
            what,
            "write the key as the object has it",
        ));
    }
}

/// A label's value.
fn check_value(place: &str, value: &str, problems: &mut Vec<Problem>) {
    if !is_value(value) {
        let what = format!("invalid label selector: {value:?} is not the value of a label");
        problems.push(Problem::new(
            place,
            what,
            "write the value as the object has it",
        ));
    }
}

/// Nothing, or up to 63 letters, digits, "-", "_" and ".", with a letter or digit at both ends.
fn is_value(text: &str) -> bool {
    let outer = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    text.len() <= LONGEST_VALUE
        && outer(text.bytes().next())
        && outer(text.bytes().next_back())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// `spec.serviceAllocation` of the pool at `place`.
pub(crate) fn allocation(
    place: &str,
    words: &AllocationWords,
    problems: &mut Vec<Problem>,
) -> Allocation {
    let place = format!("{place}.serviceAllocation");
    let list = |name| List {
        place: &place,
        name,
    };
    let namespaces: BTreeSet<String> = words.namespaces.iter().cloned().collect();
    if namespaces.len() != words.namespaces.len() {
        let what = "duplicate definition in namespaces field";
        let place = format!("{place}.namespaces");
        problems.push(Problem::new(place, what, "write each namespace once"));
    }
    Allocation {
        priority: (words.priority != 0).then_some(words.priority),
        namespaces,
        namespace_selectors: list("namespaceSelectors")
            .selectors(&words.namespace_selectors, problems),
        service_selectors: list("serviceSelectors").selectors(&words.service_selectors, problems),
    }
}

/// Gives the pools the advertisements that speak of them. `labels` are those of each pool, in the same order.
pub(crate) fn advertise(
    pools: &mut [Pool],
    labels: &[Labels],
    mut words: Vec<AdvertisementWords>,
    problems: &mut Vec<Problem>,
) {
    words.sort_by(|one, other| one.name.cmp(&other.name));
    for words in words {
        let list = |name| List {
            place: &words.place,
            name,
        };
        let quoted = |name: &String| format!(" {name:?}");
        list("ipAddressPools").duplicates(&words.pools, quoted, problems);
        let pool_selectors =
            list("ipAddressPoolSelectors").selectors(&words.pool_selectors, problems);
        let advertisement = Arc::new(Advertisement {
            name: words.name.clone(),
            nodes: list("nodeSelectors").selectors(&words.node_selectors, problems),
            services: list("serviceSelectors").selectors(&words.service_selectors, problems),
            interfaces: words.interfaces.iter().cloned().collect(),
            preferred: preferred(&words, problems),
        });
        let all = words.pools.is_empty() && pool_selectors.is_empty();
        for (pool, labels) in pools.iter_mut().zip(labels) {
            let named = words.pools.contains(&pool.name);
            if pool.origin == Origin::Resource
                && (all || named || any_matches(&pool_selectors, labels))
            {
                pool.advertisements.push(Arc::clone(&advertisement));
            }
        }
    }
}

/// `spec.preferredNodeSelectors`.
fn preferred(words: &AdvertisementWords, problems: &mut Vec<Problem>) -> Vec<(u32, Selector)> {
    let mut preferred = Vec::new();
    for (index, (weight, preference)) in words.preferred.iter().enumerate() {
        let place = format!("{}.preferredNodeSelectors[{index}]", words.place);
        if let Ok(weight @ 1..=100) = u32::try_from(*weight) {
            let place = format!("{place}.preference");
            preferred.push((weight, selector(&place, preference, problems)));
        } else {
            let what = format!("weight {weight} is not between 1 and 100");
            let place = format!("{place}.weight");
            problems.push(Problem::new(place, what, "write 1 to 100"));
        }
    }
    preferred
}
