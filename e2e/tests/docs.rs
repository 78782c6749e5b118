//! What the documentation promises is shown by tests that exist.

#![allow(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "docs/commands.rs"]
mod commands;

/// The chapters of `docs/compatibility.md`, each with at least one row.
const CHAPTERS: [&str; 17] = [
    "1.3", "2", "3.1", "3.2", "4.1", "4.2", "5.2", "5.4", "5.5", "5.7", "6.1", "6.5", "6.6", "6.7",
    "6.8", "7.1", "7.2",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// Every `.rs` file below, build output left out.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all tests: functions under a `#[test]` of some kind, and those the cluster's harness runs.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        let mut marked = false;
        for line in fs::read_to_string(file).unwrap().lines() {
            let line = line.trim_start();
            let mut rest = line;
            for word in ["pub(crate) ", "pub ", "async "] {
                rest = rest.strip_prefix(word).unwrap_or(rest);
            }
            if let Some(rest) = rest.strip_prefix("fn ") {
                if marked || rest.contains("(world: &World)") {
                    let name = rest.split(['(', '<']).next().unwrap_or_default();
                    names.insert(name.to_string());
                }
                marked = false;
            } else if line.starts_with("#[test") || line.starts_with("#[tokio::test") {
                marked = true;
            }
        }
    }
    names
}

/// The words between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_row_of_the_compatibility_table_names_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/compatibility.md")).unwrap();
    let tests_there_are = tests();
    let mut problems = Vec::new();
    let mut chapters = BTreeSet::new();
    let mut chapter = "";
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            chapter = title.split(' ').next().unwrap_or_default();
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        let [_, verdict, tests] = cells.as_slice() else {
            continue;
        };
        if *verdict == "FerroLB" || verdict.starts_with("---") {
            continue;
        }
        chapters.insert(chapter);
        if !["same", "better", "not"]
            .iter()
            .any(|word| verdict.starts_with(word))
        {
            problems.push(format!("neither same nor better nor not: {line}"));
        }
        let names = quoted(tests);
        if names.is_empty() {
            problems.push(format!("no test: {line}"));
        }
        for name in names {
            let there = if name.contains('/') {
                root().join(name).exists()
            } else {
                tests_there_are.contains(name.rsplit("::").next().unwrap_or_default())
            };
            if !there {
                problems.push(format!("no such test as {name}: {line}"));
            }
        }
    }
    for expected in CHAPTERS {
        if !chapters.contains(expected) {
            problems.push(format!("no row in chapter {expected}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_series_in_the_alerts_is_one_of_ours() {
    let rules = fs::read_to_string(root().join("config/deploy/prometheus/rules.yaml")).unwrap();
    let mut files = Vec::new();
    for folder in ["controller/src", "speaker/src", "runtime/src"] {
        sources(&root().join(folder), &mut files);
    }
    let texts: Vec<String> = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let expressions = rules
        .lines()
        .filter(|line| line.trim_start().starts_with("expr:"));
    let names: BTreeSet<&str> = expressions
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("metallb_") || word.starts_with("ferrolb_"))
        .collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        // Quoted where it is registered, or with its labels where it is tested.
        let forms = [format!("\"{name}\""), format!("{name}{{")];
        let known = |text: &String| forms.iter().any(|form| text.contains(form));
        assert!(texts.iter().any(known), "{name}");
    }
}
