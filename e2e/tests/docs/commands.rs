//! Every command of the documents is run by a test or says why not, and what they name is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use ferrolb_e2e::artifact::ferrolb_image;
use ferrolb_e2e::docs::{Block, Fate, all};
use serde_json::Value;

use super::{quoted, root, sources};

/// Languages of blocks that a reader copies into a shell.
const SHELLS: [&str; 4] = ["sh", "bash", "shell", "console"];

/// README.md and every document: name and text.
fn documents() -> BTreeMap<String, String> {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let mut found = BTreeMap::from([("README.md".to_owned(), read("README.md"))]);
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let text = read(&format!("docs/{name}"));
        found.insert(name, text);
    }
    found
}

/// What is written outside of blocks of code.
fn prose(text: &str) -> Vec<&str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push(line);
        }
    }
    lines
}

/// All sources of the daemons and of the tests, without white space.
fn code(folders: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    for folder in folders {
        sources(&root().join(folder), &mut files);
    }
    let text = |file| fs::read_to_string(file).unwrap();
    let dense = |text: String| text.split_whitespace().collect::<String>();
    files.iter().map(text).map(dense).collect()
}

fn place(block: &Block) -> String {
    format!("{}:{}", block.doc, block.line)
}

#[test]
fn every_shell_block_is_run_or_says_why_not() {
    let blocks = all().unwrap();
    let tests = code(&["e2e/tests/cluster", "e2e/src/deploy"]);
    let run_in = |doc: &str| -> BTreeSet<&str> {
        let of = blocks.iter().filter(|block| block.doc == doc);
        let run = of.filter(|block| matches!(block.fate, Fate::Run { .. }));
        run.flat_map(|block| block.text.lines()).collect()
    };
    let mut problems = Vec::new();
    let mut run = 0;
    for block in &blocks {
        if block.language.is_empty() {
            problems.push(format!("{}: no language", place(block)));
        }
        if !SHELLS.contains(&block.language.as_str()) {
            continue;
        }
        match &block.fate {
            Fate::Run { part, .. } => {
                run += 1;
                // Both are named where one follows the other.
                let names = [format!("\"{}\"", block.doc), format!("\"{part}\"")];
                if !tests
                    .iter()
                    .any(|text| names.iter().all(|name| text.contains(name)))
                {
                    problems.push(format!("{}: no test follows part {part}", place(block)));
                }
            }
            Fate::SameAs(doc) => {
                let there = run_in(doc);
                for line in block.text.lines().filter(|line| !there.contains(line)) {
                    problems.push(format!("{}: {doc} does not run {line:?}", place(block)));
                }
            }
            Fate::NotRun(_) => {}
            Fate::Seen | Fate::Unmarked => {
                problems.push(format!(
                    "{}: neither lab=, same-as= nor not-run=",
                    place(block)
                ));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(run > 40, "{run} blocks are run");
}

#[test]
fn images_are_named_by_their_version() {
    for (name, text) in documents() {
        for program in ["controller", "speaker", "ferrolb"] {
            let image = ferrolb_image(program);
            let image = image.trim_start_matches("docker.io/");
            let untagged = format!("ferrolb/{program}:");
            for (at, _) in text.match_indices(&untagged) {
                let here = text.get(at..).unwrap_or_default();
                assert!(
                    here.starts_with(image),
                    "{name}: {}",
                    here.lines().next().unwrap()
                );
            }
        }
    }
}

/// The anchor GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let plain = heading.trim_start_matches('#').trim().to_lowercase();
    let plain = plain.replace("&lt;", "").replace("&gt;", "");
    let kept = plain
        .chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    let mut problems = Vec::new();
    for (name, text) in &documents {
        for line in prose(text) {
            for link in line.split("](").skip(1) {
                let link = link.split(')').next().unwrap_or_default();
                if link.starts_with("http") {
                    continue;
                }
                let (path, wanted) = link.split_once('#').unwrap_or((link, ""));
                let folder = if name == "README.md" { "" } else { "docs" };
                let there = root().join(folder).join(path);
                if !path.is_empty() && !there.exists() {
                    problems.push(format!("{name}: {link}"));
                    continue;
                }
                let file = if path.is_empty() { name } else { path };
                let file = file.rsplit('/').next().unwrap_or_default();
                let headings = documents
                    .get(file)
                    .map(|text| prose(text))
                    .unwrap_or_default();
                let mut headings = headings.iter().filter(|line| line.starts_with('#'));
                if !wanted.is_empty() && !headings.any(|heading| anchor(heading) == wanted) {
                    problems.push(format!("{name}: no such heading: {link}"));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn paths_exist() {
    let mut problems = Vec::new();
    let mut looked = 0;
    for (name, text) in documents() {
        let words = text.split(|c: char| c.is_whitespace() || "`()[]{},;:'\"|".contains(c));
        for word in words {
            let ours = ["config/deploy", "e2e/"]
                .iter()
                .any(|start| word.starts_with(start));
            if !ours || word.contains(['*', '<', '$', '…']) {
                continue;
            }
            looked += 1;
            if !root().join(word.trim_end_matches('.')).exists() {
                problems.push(format!("{name}: {word}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(looked > 20, "{looked}");
}

/// The words between `start` and `end` after it.
fn between<'a>(text: &'a str, start: &str, end: char) -> Vec<&'a str> {
    let pieces = text.split(start).skip(1);
    pieces.filter_map(|piece| piece.split(end).next()).collect()
}

#[test]
fn series_and_log_events_are_real() {
    let daemons = code(&[
        "controller/src",
        "controller/core/src",
        "runtime/src",
        "speaker",
    ]);
    let documents = documents();
    let metrics = documents.get("metrics.md").unwrap();
    let known: BTreeSet<&str> = quoted(metrics).into_iter().collect();
    let mut problems = Vec::new();
    let (mut series, mut events) = (0, 0);
    // Crates have such names, too.
    let crates = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    // Its tests have names that begin like series.
    let others = documents
        .iter()
        .filter(|(name, _)| *name != "compatibility.md");
    for (name, text) in others {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let ours = word.starts_with("metallb_") || word.starts_with("ferrolb_");
            // A word that ends so is the beginning of several, or of a pattern.
            if !ours || word.ends_with('_') || crates.contains(&word.replace('_', "-")) {
                continue;
            }
            let base = ["_sum", "_count", "_bucket"]
                .iter()
                .find_map(|end| word.strip_suffix(end).filter(|base| known.contains(base)));
            if text.contains(&format!("`{word}")) || base.is_some() {
                series += 1;
                if base.is_none() && !known.iter().any(|one| one.starts_with(word)) {
                    problems.push(format!("{name}: no series {word}"));
                }
            }
        }
        for list in between(text, "\"event\":\"", '"') {
            for event in list
                .trim_matches(['(', ')'])
                .split('|')
                .filter(|event| *event != "…")
            {
                events += 1;
                let there = format!("\"{event}\"");
                if !daemons.iter().any(|text| text.contains(&there)) {
                    problems.push(format!("{name}: no log event {event}"));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(series > 40 && events > 8, "{series} {events}");
}

/// One right: account, scope, resource with its group and names, verb.
type Right = (String, &'static str, String, String);

/// The text at a JSON pointer; empty if there is none.
fn word<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default()
}

/// What a list of an object holds.
fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    let found = object.get(key).and_then(Value::as_array);
    found.map(Vec::as_slice).unwrap_or_default()
}

/// What the manifests grant the accounts.
fn granted() -> BTreeSet<Right> {
    let folder = root().join("config/deploy");
    let files = ["base/rbac.yaml", "overlays/crd/rbac.yaml"];
    let text = |file: &&str| fs::read_to_string(folder.join(file)).unwrap();
    let texts: Vec<_> = files.iter().map(text).collect();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&texts.join("\n---\n")).unwrap();
    let words = |value: Option<&Value>| -> Vec<String> {
        let items = value.and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut rights = BTreeSet::new();
    for binding in objects
        .iter()
        .filter(|object| word(object, "/kind").ends_with("Binding"))
    {
        let scope = match word(binding, "/kind") {
            "ClusterRoleBinding" => "cluster",
            _ => "namespace",
        };
        let role = objects.iter().find(|object| {
            word(object, "/kind") == word(binding, "/roleRef/kind")
                && word(object, "/metadata/name") == word(binding, "/roleRef/name")
        });
        for rule in list(role.unwrap(), "rules") {
            let group = words(rule.get("apiGroups")).concat();
            let names = words(rule.get("resourceNames")).join(", ");
            for resource in words(rule.get("resources")) {
                let resource = match (resource.split_once('/'), group.as_str()) {
                    (_, "") => resource,
                    (Some((plural, part)), _) => format!("{plural}.{group}/{part}"),
                    (None, _) => format!("{resource}.{group}"),
                };
                let resource = match names.as_str() {
                    "" => resource,
                    names => format!("{resource} [{names}]"),
                };
                for verb in words(rule.get("verbs")) {
                    for subject in list(binding, "subjects") {
                        let account = word(subject, "/name").to_owned();
                        rights.insert((account, scope, resource.clone(), verb.clone()));
                    }
                }
            }
        }
    }
    rights
}

#[test]
fn the_table_of_rights_is_what_is_granted() {
    let documents = documents();
    let mut told = BTreeSet::new();
    for line in prose(documents.get("security.md").unwrap()) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [account, scope, resources, verbs, _] = cells.as_slice() else {
            continue;
        };
        let scope = match *scope {
            "cluster" => "cluster",
            "namespace" => "namespace",
            _ => continue,
        };
        let names = resources
            .split_once('[')
            .map(|(_, names)| format!(" [{names}"));
        for resource in quoted(resources) {
            let resource = format!("{resource}{}", names.as_deref().unwrap_or_default());
            for verb in verbs.split(", ") {
                told.insert((
                    (*account).to_owned(),
                    scope,
                    resource.clone(),
                    verb.to_owned(),
                ));
            }
        }
    }
    let granted = granted();
    let missing: Vec<_> = granted.difference(&told).collect();
    let invented: Vec<_> = told.difference(&granted).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not told: {missing:#?}\nnot granted: {invented:#?}"
    );
}
