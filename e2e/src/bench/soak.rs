//! Both cores are kept busy and the speakers held back, nothing is broken, and every change of owner is one too many.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    System, end, load, save,
    stage::{self, ASKER, Stage},
};
use crate::{
    Lab,
    deploy::{self, NAMESPACE},
    observe::{
        http,
        prober::{Prober, now},
    },
};

/// Each address is asked for this often.
const PERIOD: Duration = Duration::from_millis(50);
/// Processes that compute for nothing, for each of the machine's cores.
const BURNERS: usize = 2;
/// The metrics of FerroLB's speakers that tell of doubts and moves have one of these in their names.
const TELLING: [&str; 8] = [
    "suspic", "suspect", "refut", "takeover", "owner", "move", "conflict", "detect",
];

/// What a soak showed.
#[derive(Debug, Clone, Serialize)]
pub struct Soak {
    /// Who announced.
    pub system: System,
    /// The cluster's size.
    pub nodes: usize,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The machine's load at the end.
    pub load: f64,
    /// Addresses held.
    pub addresses: usize,
    /// Changes of owner, with the seconds since the start: none has a cause.
    pub changes: Vec<String>,
    /// The longest time, in milliseconds, a question for any address waited for its answer.
    pub gap: f64,
    /// How the limit held each node's speaker back; one that was restarted is left out.
    pub throttled: BTreeMap<String, Throttled>,
    /// Containers of the system that were restarted meanwhile: these are causes.
    pub restarts: u64,
    /// What the speakers' own metrics of doubts and moves grew by.
    pub metrics: BTreeMap<String, f64>,
}

/// What the kernel says of a limited group.
#[derive(Debug, Clone, Serialize)]
pub struct Throttled {
    /// Periods in which it was held back.
    pub periods: u64,
    /// Seconds it waited in all.
    pub seconds: f64,
}

/// Lets each system soak for `time` on `nodes` nodes, each speaker with so many thousandths of a CPU; writes what it showed
/// to a file and prints one line for each.
///
/// # Errors
/// The lab cannot be raised, or the speakers cannot be limited.
pub fn run(plan: &super::Plan, nodes: u8, time: Duration, millicpu: u32) -> Result<()> {
    let lab = stage::raise(&plan.lab, nodes, plan.keep)?;
    for &system in &plan.systems {
        let stage = Stage::install(&lab, system, plan.as_is)?;
        let soak = soak(&stage, time, millicpu)?;
        save(&format!("failover-soak-{}.json", system.file()), &soak)?;
        let held_back: u64 = soak.throttled.values().map(|of| of.periods).sum();
        println!(
            "{}: {:.0} s under load {:.0}, speakers held back {held_back} times: {} changes of owner without cause, {} restarts, longest wait for an answer {:.0} ms; {:?}",
            system.title(),
            soak.seconds,
            soak.load,
            soak.changes.len(),
            soak.restarts,
            soak.gap,
            soak.metrics
        );
    }
    end(lab, plan.keep)
}

fn soak(stage: &Stage<'_>, time: Duration, millicpu: u32) -> Result<Soak> {
    let lab = stage.lab;
    let owners = stage.settled(None)?;
    let addresses: Vec<Ipv4Addr> = owners.keys().copied().collect();
    let mut groups = BTreeMap::new();
    for node in lab.nodes() {
        let group = lab.throttle(stage.speaker(&node)?, millicpu)?;
        groups.insert(node, group);
    }
    let (before, restarts) = (metrics(stage)?, restarted(lab)?);
    let begun = Instant::now();
    let prober = Prober::start(lab, ASKER, &addresses, PERIOD)?;
    let start = now();
    let mut burners = burn(time)?;
    let mut told = Instant::now();
    while begun.elapsed() < time {
        thread::sleep(Duration::from_secs(1));
        if told.elapsed() > Duration::from_mins(1) {
            told = Instant::now();
            let minutes = begun.elapsed().as_secs() / 60;
            lab.steps()
                .say(&format!("soaking for {minutes} min, load {:.0}", load()));
        }
    }
    let (loaded, end) = (load(), now());
    for burner in &mut burners {
        burner.kill()?;
        burner.wait()?;
    }
    let traces = prober.stop()?;
    let mut changes = Vec::new();
    for (address, trace) in &traces {
        for change in trace.handovers(&(start..end)) {
            let after = change.at.saturating_sub(start).as_secs_f64();
            let (from, to) = (stage.name(change.from), stage.name(change.to));
            changes.push(format!(
                "{after:.1} s: {address} {from} -> {to}, {} changes",
                change.changes
            ));
        }
    }
    let waits = traces
        .values()
        .map(|trace| trace.longest_wait(&(start..end)));
    let after = metrics(stage)?;
    Ok(Soak {
        system: stage.system,
        nodes: lab.nodes().len(),
        seconds: begun.elapsed().as_secs_f64(),
        load: loaded,
        addresses: addresses.len(),
        changes,
        gap: super::milliseconds(waits.max().unwrap_or_default()),
        throttled: groups
            .into_iter()
            .filter_map(|(node, group)| Some((node, throttled(&group)?)))
            .collect(),
        restarts: restarted(lab)?.saturating_sub(restarts),
        metrics: after
            .into_iter()
            .map(|(name, value)| {
                let before = before.get(&name).copied().unwrap_or_default();
                (name, value - before)
            })
            .collect(),
    })
}

/// Processes of our own that do nothing but compute; each ends by itself some time after `time`.
fn burn(time: Duration) -> Result<Vec<Child>> {
    let cores = thread::available_parallelism()?.get();
    let seconds = (time + Duration::from_mins(1)).as_secs().to_string();
    (0..cores * BURNERS)
        .map(|_| {
            Command::new(std::env::current_exe()?)
                .args(["burn", &seconds])
                .stdin(Stdio::null())
                .spawn()
                .context("cannot start what keeps the cores busy")
        })
        .collect()
}

/// Computes for nothing for so long.
pub fn compute(time: Duration) {
    let begun = Instant::now();
    let mut number = 1_u64;
    while begun.elapsed() < time {
        for _ in 0..100_000 {
            number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005));
        }
    }
}

/// Reads `cpu.stat` of either version of cgroups; `None` once the group is gone, with a container that was restarted.
fn throttled(path: &PathBuf) -> Option<Throttled> {
    let text = fs::read_to_string(path).ok()?;
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(is, _)| *is == name)?;
        value.parse::<u64>().ok()
    };
    let waited = value("throttled_time")
        .map(Duration::from_nanos)
        .or_else(|| value("throttled_usec").map(Duration::from_micros))?;
    Some(Throttled {
        periods: value("nr_throttled")?,
        seconds: waited.as_secs_f64(),
    })
}

/// How often containers of the system were restarted so far.
fn restarted(lab: &Lab) -> Result<u64> {
    let path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let text = lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", path])?;
    Ok(text
        .split_whitespace()
        .filter_map(|count| count.parse::<u64>().ok())
        .sum())
}

/// The sums, over all speakers, of their metrics of doubts and moves; MetalLB has none.
fn metrics(stage: &Stage<'_>) -> Result<BTreeMap<String, f64>> {
    let mut sums = BTreeMap::new();
    if stage.system == System::MetalLb {
        return Ok(sums);
    }
    let patience = Duration::from_secs(20);
    for node in stage.lab.nodes() {
        let address = stage.lab.address(&node)?.into();
        let text = stage
            .lab
            .wait_for("a speaker's metrics", deploy::PATIENCE, || {
                let answer = http::get(stage.lab, ASKER, address, 7472, "/metrics", patience)?;
                Ok(Some(answer.body))
            })?;
        for (name, value) in telling(&text) {
            *sums.entry(name).or_default() += value;
        }
    }
    Ok(sums)
}

/// The series of a Prometheus text that tell of doubts and moves, without labels and buckets.
fn telling(text: &str) -> impl Iterator<Item = (String, f64)> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let name = series.split('{').next()?;
            let tells =
                TELLING.iter().any(|word| name.contains(word)) && !name.ends_with("_bucket");
            tells.then_some((name.to_owned(), value.parse().ok()?))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_telling_metrics_are_summed() {
        let text = "# TYPE a_suspicions_total counter\na_suspicions_total{peer=\"n1\"} 2\n\
            a_suspicions_total{peer=\"n2\"} 1\nprocess_open_fds 9\na_takeover_seconds_bucket{le=\"1\"} 3\n";
        let found: Vec<_> = telling(text).collect();
        let expected = [2.0, 1.0].map(|value| ("a_suspicions_total".to_owned(), value));
        assert_eq!(found, expected);
    }
}
