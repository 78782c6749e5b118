//! Documents as operators write them, each with its expected outcome beside it.
//!
//! `inputs/pass/NAME.yaml` must give the pools of `inputs/pass/NAME.pools`, `inputs/fail/NAME.yaml` the problems of
//! `inputs/fail/NAME.problems`. With `UPDATE=1` in the environment the expectations are rewritten, to be read in a diff.

#![allow(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use ferrolb_config::{Config, Family, Protocol, read};

/// The `.yaml` files of a folder under `inputs/`.
fn documents(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("inputs")
        .join(folder);
    let mut all: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    all.sort();
    all
}

/// Compares with the file beside the document, or writes it.
fn matches_file(document: &Path, extension: &str, outcome: &str) -> bool {
    let expected = document.with_extension(extension);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&expected, outcome).unwrap();
        return true;
    }
    let text = fs::read_to_string(&expected).unwrap_or_default();
    if text != outcome {
        eprintln!(
            "{}:\nexpected\n{text}\nfound\n{outcome}",
            document.display()
        );
    }
    text == outcome
}

/// One line for each pool.
fn describe(config: &Config) -> String {
    let mut text = String::new();
    for pool in config.pools() {
        let protocol = match pool.protocol() {
            Protocol::Layer2 => "layer2",
            Protocol::Bgp => "bgp",
        };
        let ranges: Vec<String> = pool.ranges().iter().map(ToString::to_string).collect();
        writeln!(
            text,
            "{:?} {protocol} auto-assign={} avoid-buggy-ips={} v4={} v6={}: {}",
            pool.name(),
            pool.auto_assign(),
            pool.avoid_buggy_ips(),
            pool.size(Family::V4),
            pool.size(Family::V6),
            ranges.join(", ")
        )
        .unwrap();
    }
    text
}

#[test]
fn good_documents_give_their_pools() {
    let documents = documents("pass");
    assert!(documents.len() >= 12, "the inputs are missing");
    let mut wrong = 0;
    for document in documents {
        let outcome = match read(&fs::read_to_string(&document).unwrap()) {
            Ok(config) => describe(&config),
            Err(refused) => format!("REFUSED\n{refused}\n"),
        };
        let matches = matches_file(&document, "pools", &outcome);
        wrong += u32::from(outcome.starts_with("REFUSED") || !matches);
    }
    assert_eq!(
        wrong, 0,
        "documents with another outcome than expected; see above"
    );
}

#[test]
fn bad_documents_give_their_problems() {
    let documents = documents("fail");
    assert!(documents.len() >= 30, "the inputs are missing");
    let mut wrong = 0;
    for document in documents {
        let outcome = match read(&fs::read_to_string(&document).unwrap()) {
            Ok(config) => format!("ACCEPTED\n{}", describe(&config)),
            Err(refused) => format!("{refused}\n"),
        };
        let matches = matches_file(&document, "problems", &outcome);
        wrong += u32::from(outcome.starts_with("ACCEPTED") || !matches);
    }
    assert_eq!(
        wrong, 0,
        "documents with another outcome than expected; see above"
    );
}
