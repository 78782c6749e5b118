//! Objects together, as the daemons read them, each set with its expected outcome beside it.
//!
//! `inputs/configurations/pass/NAME.yaml` must give the pools of `NAME.pools`, `fail/NAME.yaml` the problems of
//! `NAME.problems`. With `UPDATE=1` in the environment the expectations are rewritten, to be read in a diff.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ferrolb_config::{Advertisement, Config, Origin, Protocol, Words, check};
use ferrolb_config_api::{advertisement_words, pool_words};
use serde_json::Value;

/// What several documents say together.
fn words(text: &str) -> Words {
    let mut words = Words::default();
    for document in serde_saphyr::from_multiple::<Value>(text).unwrap() {
        let object = || serde_json::from_value(document.clone()).unwrap();
        words.append(match document["kind"].as_str().unwrap() {
            "ConfigMap" => ferrolb_config::words(document["data"]["config"].as_str().unwrap()),
            "IPAddressPool" => pool_words(&object()),
            "L2Advertisement" => advertisement_words(&object()),
            other => panic!("{other}"),
        });
    }
    words
}

/// One line for each pool.
fn describe(config: &Config) -> String {
    let mut text = String::new();
    for pool in config.pools() {
        let origin = match (pool.origin(), pool.protocol()) {
            (Origin::Resource, _) => "resource",
            (Origin::ConfigMap, Protocol::Layer2) => "configmap layer2",
            (Origin::ConfigMap, Protocol::Bgp) => "configmap bgp",
        };
        let allocation = pool.allocation().map_or("none".to_owned(), |allocation| {
            allocation
                .priority()
                .map_or("last".to_owned(), |priority| priority.to_string())
        });
        let ranges: Vec<String> = pool.ranges().iter().map(ToString::to_string).collect();
        let advertisements: Vec<&str> = pool.advertisements().map(Advertisement::name).collect();
        writeln!(
            text,
            "{:?} {origin} auto-assign={} avoid-buggy-ips={} priority={allocation} advertisements={advertisements:?}: {}",
            pool.name(),
            pool.auto_assign(),
            pool.avoid_buggy_ips(),
            ranges.join(", ")
        )
        .unwrap();
    }
    text
}

/// Compares all of a folder; whether they pass must be as the folder says.
fn compare(folder: &str, extension: &str, least: usize) {
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs/configurations");
    let (mut seen, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(inputs.join(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        seen += 1;
        let (passed, outcome) = match check(words(&fs::read_to_string(&path).unwrap())) {
            Ok(config) => (true, describe(&config)),
            Err(refused) => (false, format!("{refused}\n")),
        };
        let expected = path.with_extension(extension);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &outcome).unwrap();
        }
        let text = fs::read_to_string(&expected).unwrap_or_default();
        if text != outcome || passed != (folder == "pass") {
            eprintln!("{}:\nexpected\n{text}\nfound\n{outcome}", path.display());
            wrong.push(path);
        }
    }
    assert!(seen >= least, "the inputs are missing");
    assert!(wrong.is_empty(), "another outcome than expected: {wrong:?}");
}

#[test]
fn sound_objects_give_their_pools() {
    compare("pass", "pools", 4);
}

#[test]
fn unsound_objects_give_their_problems() {
    compare("fail", "problems", 7);
}
