//! ConfigMaps, each with what becomes of it beside it.
//!
//! `inputs/NAME.yaml` must give `inputs/NAME.resources`, or `inputs/NAME.problems` if it cannot be converted; `data-*` are
//! bare configurations. With `UPDATE=1` in the environment the expectations are rewritten, to be read in a diff.

#![allow(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use ferrolb_cli::convert::convert;

#[test]
fn every_configmap_becomes_what_is_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs");
    let mut seen = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        seen += 1;
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let source = fs::read_to_string(&path).unwrap();
        let (kind, other, outcome) = match convert(&source, name.starts_with("data-")) {
            Ok(converted) => {
                let mut notes = String::new();
                for note in &converted.notes {
                    writeln!(notes, "# NOTE {note}").unwrap();
                }
                ("resources", "problems", notes + &converted.resources)
            }
            Err(error) => ("problems", "resources", format!("{error}\n")),
        };
        let expected = path.with_extension(kind);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &outcome).unwrap();
        }
        let text = fs::read_to_string(&expected).unwrap_or_default();
        if text != outcome || path.with_extension(other).exists() {
            eprintln!("{name}:\nexpected\n{text}\nfound\n{outcome}");
            wrong.push(name);
        }
    }
    assert!(seen >= 8, "the inputs are missing");
    assert!(wrong.is_empty(), "another outcome than expected: {wrong:?}");
}

/// What the program does with this input and these arguments: whether it succeeds, and what it writes.
fn run(arguments: &[&str], input: &str) -> (bool, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ferrolb"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

const DATA: &str = "address-pools: [{name: a, protocol: layer2, addresses: [10.0.0.0/24]}]";

#[test]
fn the_program_reads_and_writes_pipes_and_files() {
    let line = ["convert", "--source", "-", "--only-data", "--stdout"];
    let (success, piped, _) = run(&line, DATA);
    assert!(success && piped.contains("kind: IPAddressPool"), "{piped}");
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("in"), folder.path().join("out"));
    fs::write(&source, DATA).unwrap();
    let (source, target) = (source.to_str().unwrap(), target.to_str().unwrap());
    let line = [
        "convert",
        "--only-data",
        "--source",
        source,
        "--output",
        target,
    ];
    let (success, nothing, _) = run(&line, "");
    assert!(success && nothing.is_empty());
    assert_eq!(fs::read_to_string(target).unwrap(), piped);
}

#[test]
fn a_problem_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let line = [
        "convert",
        "--source",
        "-",
        "--only-data",
        "--output",
        target.to_str().unwrap(),
    ];
    let (success, nothing, problems) = run(&line, "address-pools: [{name: a}]");
    assert!(!success && nothing.is_empty() && !target.exists());
    assert!(problems.contains("address-pools[0].protocol"), "{problems}");
}
