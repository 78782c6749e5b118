//! Everything that is linked into the images may be passed on with them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};

/// Licences that ask for no more than that they are named. Another one needs a person's thought before it is added here.
const ALLOWED: [&str; 6] = [
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Zlib",
];

/// The packages linked into the program, each with its licence as its author wrote it.
fn linked() -> BTreeMap<String, Option<String>> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", &target])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        let list = list.as_array().unwrap().iter();
        list.map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry.clone()))
            .collect()
    };
    let packages = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let root = packages
        .iter()
        .find(|(_, package)| package["name"] == env!("CARGO_PKG_NAME"));
    let mut next = vec![root.unwrap().0.clone()];
    let mut seen = BTreeSet::new();
    let mut found = BTreeMap::new();
    while let Some(id) = next.pop() {
        let package = &packages[&id];
        let kinds = package["targets"].as_array().unwrap().iter();
        let runs_in_the_compiler = kinds
            .flat_map(|target| target["kind"].as_array().unwrap())
            .any(|kind| kind == "proc-macro");
        if runs_in_the_compiler || !seen.insert(id.clone()) {
            continue;
        }
        let name = format!(
            "{} {}",
            package["name"].as_str().unwrap(),
            package["version"].as_str().unwrap()
        );
        found.insert(name, package["license"].as_str().map(str::to_owned));
        for dependency in nodes[&id]["deps"].as_array().unwrap() {
            let mut kinds = dependency["dep_kinds"].as_array().unwrap().iter();
            if kinds.any(|kind| kind["kind"].is_null()) {
                next.push(dependency["pkg"].as_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// Whether a licence may be chosen that is allowed.
fn fits(license: &str) -> bool {
    let allowed = |requirement: &LicenseReq| {
        let id = requirement.license.id();
        // An exception only ever permits more.
        id.is_some_and(|id| ALLOWED.contains(&id.name))
    };
    Expression::parse_mode(license, ParseMode::LAX)
        .is_ok_and(|expression| expression.evaluate(allowed))
}

#[test]
fn every_crate_in_the_images_has_a_licence_of_the_list() {
    let linked = linked();
    assert!(linked.len() > 100, "{}", linked.len());
    let wrong: Vec<_> = linked
        .iter()
        .filter(|(_, license)| !license.as_deref().is_some_and(fits))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_licence_is_read_as_its_author_meant_it() {
    assert!(fits("MIT OR GPL-3.0-only"));
    assert!(fits("MIT/Apache-2.0"));
    assert!(fits("Apache-2.0 WITH LLVM-exception"));
    assert!(!fits("MIT AND GPL-3.0-only"));
    assert!(!fits("MPL-2.0"));
    assert!(!fits("whatever"));
}
