//! From the words of selectors to selectors that can be asked, with MetalLB's rules against repeating oneself.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::advertisement::{Advertisement, Allocation};
use crate::labels::{Labels, Requirement, Selector, any_matches};
use crate::pool::{Origin, Pool};
use crate::problem::Problem;
use crate::words::{AdvertisementWords, AllocationWords, SelectorWords};

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
        self.duplicates(items, plain, problems);
        let each = items.iter().enumerate();
        each.map(|(index, words)| selector(&self.entry(index), words, problems))
            .collect()
    }
}

/// One selector; what cannot be asked becomes a problem and is left out.
fn selector(place: &str, words: &SelectorWords, problems: &mut Vec<Problem>) -> Selector {
    let mut requirements: BTreeSet<Requirement> = BTreeSet::new();
    for (key, value) in &words.labels {
        check_key(place, key, problems);
        requirements.insert(Requirement::In(key.clone(), [value.clone()].into()));
    }
    for (index, (key, operator, values)) in words.expressions.iter().enumerate() {
        let place = format!("{place}.matchExpressions[{index}]");
        check_key(&place, key, problems);
        let set: BTreeSet<String> = values.iter().cloned().collect();
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
        if !requirements.insert(requirement) {
            let what = "duplicate definition of match expressions";
            problems.push(Problem::new(&place, what, "remove the repetition"));
        }
    }
    Selector { requirements }
}

fn check_key(place: &str, key: &str, problems: &mut Vec<Problem>) {
    if key.is_empty() {
        let what = "invalid label selector: a label without a key";
        problems.push(Problem::new(place, what, "name the label"));
    }
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
        list("interfaces").duplicates(&words.interfaces, quoted, problems);
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
