//! The kinds layer 2 is made of, checked by the same validator that the daemons use.

use std::collections::BTreeSet;

use ferrolb_config::{Problem, Words, check};
use ferrolb_config_api::{advertisement_words, pool_words};
use kube::api::DynamicObject;

use super::admission::Objects;

/// What is wrong with the configuration once the `IPAddressPool` `new` is in it that was not wrong before.
pub fn pool(new: &DynamicObject, objects: &Objects) -> Vec<String> {
    let others = objects
        .pools
        .iter()
        .filter(|pool| pool.metadata.name != new.metadata.name);
    let after = problems(others.chain([new]).collect());
    let known: BTreeSet<_> = problems(objects.pools.iter().collect())
        .into_iter()
        .collect();
    after
        .into_iter()
        .filter(|problem| !known.contains(problem))
        .map(|problem| in_metallbs_words(&problem))
        .collect()
}

/// What is wrong with the lists and selectors of an `L2Advertisement`, or of another kind with fields of the same names.
/// They get along with any pools and any other advertisements.
pub fn selectors(kind: &str, object: &DynamicObject) -> Vec<String> {
    let mut words = advertisement_words(object);
    let name = [&object.metadata.namespace, &object.metadata.name];
    let [namespace, name] = name.map(|part| part.as_deref().unwrap_or_default());
    for advertisement in &mut words.advertisements {
        advertisement.place = format!("{kind} {namespace}/{name}");
    }
    found(words).iter().map(in_metallbs_words).collect()
}

/// The pools are taken in the order of their names, as MetalLB means to: which of two that overlap is to blame must not
/// depend on the order of a list.
fn problems(mut pools: Vec<&DynamicObject>) -> Vec<Problem> {
    pools.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
    let mut words = Words::default();
    for pool in pools {
        words.append(pool_words(pool));
    }
    found(words)
}

fn found(words: Words) -> Vec<Problem> {
    match check(words) {
        Ok(_) => Vec::new(),
        Err(refused) => refused.problems().to_vec(),
    }
}

/// The problem, with the words in it that people and tools look for in MetalLB's refusals.
fn in_metallbs_words(problem: &Problem) -> String {
    let mut text = problem.to_string();
    for (ours, metallbs) in [
        (" overlaps with ", " overlaps with already defined CIDR "),
        (
            " is not a valid operator",
            " is not a valid label selector operator",
        ),
    ] {
        if !text.contains(metallbs) {
            text = text.replacen(ours, metallbs, 1);
        }
    }
    text
}
