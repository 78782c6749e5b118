//! How many instructions an answer takes, counted by callgrind: the same on a busy machine as on an idle one, where times are
//! not. Each must stay below its bar in `bars.txt`.
//!
//! Started without a word this program runs itself under valgrind once for each case; with the name of a case it does that
//! case, and callgrind counts what goes on inside of [`counted`] alone.
//!
//! What is counted is built as tests are, with assertions and overflow checks, but optimised as in a release (the root's
//! `[profile.dev.package]`).

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test without the harness by which the lints know one"
)]

mod cases;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::{env, thread};

use self::cases::CASES;

/// The most each case may take, by its name.
const BARS: &str = include_str!("bars.txt");

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    if let (Some("case"), Some(name)) = (arguments.next().as_deref(), arguments.next()) {
        let case = CASES.iter().find(|case| case.name == name);
        (case.expect("one of the cases").prepare)().run();
        return ExitCode::SUCCESS;
    }
    let counts: Vec<_> = thread::scope(|scope| {
        let all = CASES.iter();
        let running: Vec<_> = all
            .map(|case| (case, scope.spawn(|| count(case.name) / case.times)))
            .collect();
        let counted = running.into_iter();
        counted
            .map(|(case, count)| (case.name, count.join().expect("callgrind counts")))
            .collect()
    });
    let bars = bars();
    let mut above = false;
    for (name, count) in counts {
        let bar = bars.get(name).copied().unwrap_or_default();
        println!("{name:24} {count:6} instructions, at most {bar}");
        above |= count > bar;
    }
    if above {
        eprintln!(
            "above a bar: make it cheaper, or say in the commit why it is worth more and raise the bar in {}",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/instructions/bars.txt")
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn bars() -> BTreeMap<&'static str, u64> {
    let lines = BARS.lines().filter(|line| !line.starts_with('#'));
    let bar = |line: &'static str| {
        let (name, bar) = line.split_once(' ').expect("a name and a bar");
        (name, bar.trim().parse().expect("a number of instructions"))
    };
    lines.map(bar).collect()
}

/// Instructions of one run of a case.
fn count(case: &str) -> u64 {
    let program = env::current_exe().expect("this program has a path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=*counted*"])
        .arg(program)
        .args(["case", case])
        .output()
        .expect("valgrind is installed (make setup does it)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case}: {said}");
    let mut lines = said.lines();
    let collected = lines.find_map(|line| line.split_once("Collected : ").map(|(_, count)| count));
    collected
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("callgrind told no count: {said}"))
}
