//! How fast questions are answered, by the responder as the speaker starts it and by the kernel in the same run.
//!
//! The measuring itself is a bench of the responder's own crate (`speaker/responder/benches/answers`), for it has to be built
//! as a release and needs no cluster; here it is run and its figures are put side by side. `docs/performance.md` says
//! what is measured and how.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{artifact::binaries, steps::Steps};

/// What was measured of one answerer in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// `arp` or `ndp`.
    pub protocol: String,
    /// `kernel`, `responder`, or `responder, groups joined`: with the groups of all addresses joined, as the speaker does where
    /// NDP is spoken.
    pub answerer: String,
    /// How many addresses it answers for.
    pub addresses: u32,
    /// What else goes on: `nothing`, `changes` (5000 addresses a second taken or let go), or that `and a busy thread`.
    pub beside: String,
    /// One question at a time.
    pub latency: Latency,
    /// 64 questions outstanding.
    pub rate: Rate,
    /// Microseconds of processor time of the responder's thread for each answer; none for the kernel, which answers on the
    /// time of who asks.
    pub processor: Option<f64>,
    /// Addresses taken or let go a second meanwhile.
    pub changes: f64,
    /// The machine's load of the last minute.
    pub load: f64,
}

/// Microseconds from a question to its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// At the middle.
    pub p50: Option<f64>,
    /// At the 99th percentile.
    pub p99: Option<f64>,
    /// Questions that were never answered.
    pub lost: usize,
}

/// Answers while many are asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rate {
    /// A second.
    pub per_second: f64,
    /// Questions that were never answered.
    pub lost: usize,
}

/// Measures, by turns, in network namespaces of its own; `quick`: one short round in place of five long ones.
///
/// # Errors
/// The bench cannot be built or run, as without root.
pub fn measure(steps: &Steps, quick: bool) -> Result<Vec<Row>> {
    let program = binaries::bench(steps, "ferrolb-speaker-responder", "lab", "answers")?;
    let mut command = std::process::Command::new(program);
    command.args(quick.then_some("quick"));
    let said = steps.run("measuring answers", &mut command)?;
    serde_json::from_str(&said).context("the bench of answers told no figures")
}

/// The same, with the samples in `target/bench/answers.json` and the table on standard output.
///
/// # Errors
/// As [`measure`], or the file cannot be written.
pub fn run(quick: bool) -> Result<()> {
    let rows = measure(&Steps::start(), quick)?;
    super::save("answers.json", &rows)?;
    println!("{}", table(&rows));
    Ok(())
}

/// What a [`Row`] is about but for who answers: protocol, addresses, what else goes on.
type About<'a> = (&'a str, u32, &'a str);

/// The figures as a table: of all rounds the middle one, and each beside the kernel's in the same run.
pub fn table(rows: &[Row]) -> String {
    let mut all: BTreeMap<About<'_>, BTreeMap<&str, Vec<&Row>>> = BTreeMap::new();
    for row in rows {
        let about = (row.protocol.as_str(), row.addresses, row.beside.as_str());
        let same = all.entry(about).or_default();
        same.entry(&row.answerer).or_default().push(row);
    }
    let mut text = String::from(
        "| protocol, addresses, answerer, beside | p50 µs | p99 µs | answers/s, 64 out | kernel's p50, p99 | kernel's answers/s | answers/s by the kernel's | µs of processor an answer | load |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for ((protocol, addresses, beside), of) in &all {
        // The kernel's table of its own addresses does not change.
        let idle = (*protocol, *addresses, "nothing");
        let kernel = of.get("kernel").or_else(|| all.get(&idle)?.get("kernel"));
        let kernel = kernel.map(Vec::as_slice).unwrap_or_default();
        for (answerer, ours) in of.iter().filter(|(name, _)| **name != "kernel") {
            let (rate, theirs) = (
                middle(ours, |row| Some(row.rate.per_second)),
                middle(kernel, |row| Some(row.rate.per_second)),
            );
            let _never_fails = writeln!(
                text,
                "| {protocol}, {addresses}, {answerer}, {beside} | {:.1} | {:.1} | {:.0} | {:.1}, {:.1} | {:.0} | {:.2} | {:.2} | {:.1} |",
                middle(ours, |row| row.latency.p50),
                middle(ours, |row| row.latency.p99),
                rate,
                middle(kernel, |row| row.latency.p50),
                middle(kernel, |row| row.latency.p99),
                theirs,
                rate / theirs,
                middle(ours, |row| row.processor),
                middle(ours, |row| Some(row.load)),
            );
        }
    }
    text
}

/// The middle one of the values there are; not a number if there are none.
fn middle(rows: &[&Row], value: impl Fn(&Row) -> Option<f64>) -> f64 {
    let mut values: Vec<f64> = rows.iter().filter_map(|row| value(row)).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(answerer: &str, per_second: f64) -> Row {
        Row {
            protocol: "arp".to_owned(),
            answerer: answerer.to_owned(),
            addresses: 1,
            beside: "nothing".to_owned(),
            latency: Latency {
                p50: Some(8.0),
                p99: None,
                lost: 0,
            },
            rate: Rate {
                per_second,
                lost: 0,
            },
            processor: None,
            changes: 0.0,
            load: 1.0,
        }
    }

    #[test]
    fn the_middle_round_stands_beside_the_kernels() {
        let ours = [1.0, 300.0, 200.0].map(|rate| row("responder", rate));
        let rows: Vec<_> = ours.into_iter().chain([row("kernel", 100.0)]).collect();
        let table = table(&rows);
        let line = table.lines().last().unwrap();
        assert!(
            line.starts_with(
                "| arp, 1, responder, nothing | 8.0 | NaN | 200 | 8.0, NaN | 100 | 2.00 |"
            ),
            "{line}"
        );
    }

    #[test]
    fn figures_are_read_as_the_bench_writes_them() {
        let text = r#"[{"protocol":"ndp","answerer":"kernel","addresses":10000,"beside":"nothing","latency":{"p50":3.1,"p90":3.2,"p99":null,"p999":4.0,"answered":10,"lost":1},"rate":{"per_second":2.5,"answered":5,"lost":0},"processor":null,"changes":0.0,"load":0.5}]"#;
        let rows: Vec<Row> = serde_json::from_str(text).unwrap();
        assert_eq!((rows[0].latency.lost, rows[0].addresses), (1, 10_000));
    }
}
