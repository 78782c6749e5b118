//! The definitions: as they are committed under `config/deploy/crds`, and beside MetalLB's.
//!
//! With `UPDATE=1` in the environment the committed files are rewritten, to be read in a diff.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ferrolb_config_api::definitions;
use serde_json::Value;

/// `config/deploy/crds`.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds")
}

#[test]
fn the_committed_definitions_are_those_of_the_types() {
    let mut files = BTreeSet::new();
    for definition in definitions().unwrap() {
        let name = format!(
            "metallb.io_{}.yaml",
            definition["spec"]["names"]["plural"].as_str().unwrap()
        );
        let text = serde_saphyr::to_string(&definition).unwrap();
        let text = format!(
            "# Generated from config/api/src by `UPDATE=1 cargo test -p ferrolb-config-api`.\n{text}"
        );
        let path = folder().join(&name);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "{name} is not up to date: UPDATE=1");
        files.insert(name);
    }
    // All of them are applied.
    let kustomization = fs::read_to_string(folder().join("kustomization.yaml")).unwrap();
    let listed: Value = serde_saphyr::from_str(&kustomization).unwrap();
    let listed = listed["resources"].as_array().unwrap().iter();
    let listed: BTreeSet<String> = listed.map(|name| name.as_str().unwrap().into()).collect();
    assert_eq!(listed, files);
}

/// What MetalLB 0.16.1 has, one line each: `PLURAL VERSION PATH TYPE [default=VALUE] [required]` of a property, or
/// `PLURAL VERSION column NAME JSONPATH TYPE PRIORITY`.
const METALLB: &str = include_str!("../inputs/metallb-0.16.1.paths");

#[test]
fn every_field_of_metallb_is_there_with_its_type_and_default() {
    let mut ours = BTreeMap::new();
    for definition in definitions().unwrap() {
        describe(&definition, &mut ours);
    }
    let theirs: BTreeMap<String, String> = METALLB.lines().map(split).collect();
    assert!(theirs.len() > 200, "the list is missing");
    for (path, kind) in &theirs {
        assert_eq!(ours.get(path), Some(kind), "{path}");
    }
    // Ours alone is what MetalLB is about to have.
    let alone = ours.keys().filter(|path| !theirs.contains_key(*path));
    for path in alone {
        let coming = "l2advertisements v1beta1 spec.preferredNodeSelectors";
        assert!(path.starts_with(coming), "{path}");
    }
}

/// A line as what is described and how.
fn split(line: &str) -> (String, String) {
    let words = if line.contains(" column ") {
        line.rfind('"').unwrap() + 1
    } else {
        let mut blanks = line.match_indices(' ');
        blanks.nth(2).unwrap().0
    };
    let (path, kind) = line.split_at(words);
    (path.to_owned(), kind.trim().to_owned())
}

fn describe(definition: &Value, lines: &mut BTreeMap<String, String>) {
    let plural = definition["spec"]["names"]["plural"].as_str().unwrap();
    for version in definition["spec"]["versions"].as_array().unwrap() {
        let base = format!("{plural} {}", version["name"].as_str().unwrap());
        let none = Vec::new();
        let columns = version["additionalPrinterColumns"].as_array();
        for column in columns.unwrap_or(&none) {
            let priority = column["priority"].as_i64().unwrap_or(0);
            let text = |key: &str| column[key].as_str().unwrap();
            lines.insert(
                format!("{base} column {}", column["name"]),
                format!("{} {} {priority}", text("jsonPath"), text("type")),
            );
        }
        let root = &version["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            if let Some(schema) = root["properties"].get(part) {
                walk(
                    &format!("{base} {part}"),
                    schema,
                    required(root, part),
                    lines,
                );
            }
        }
    }
}

fn required(schema: &Value, name: &str) -> bool {
    let names = schema["required"].as_array();
    names.is_some_and(|names| names.iter().any(|one| one == name))
}

fn walk(path: &str, schema: &Value, is_required: bool, lines: &mut BTreeMap<String, String>) {
    let mut kind = schema["type"].as_str().unwrap_or("none").to_owned();
    if let Some(default) = schema.get("default") {
        kind = format!("{kind} default={default}");
    }
    if is_required {
        kind += " required";
    }
    lines.insert(path.to_owned(), kind);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        walk(&path, property, required(schema, name), lines);
    }
    for (key, sign) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            walk(&format!("{path}{sign}"), &schema[key], false, lines);
        }
    }
}
