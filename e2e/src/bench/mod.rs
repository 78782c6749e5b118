//! The failover bench: nodes are lost and addresses moved on purpose, and what clients on the LAN see of it is measured, for
//! FerroLB and for MetalLB in the same lab. `docs/failover-bench.md` says what is measured and how.

pub mod answers;
pub mod losses;
pub mod moves;
pub mod random;
pub mod report;
pub mod services;
pub mod soak;
pub mod stage;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{Lab, artifact::binaries::target_directory};

/// Who announces the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum System {
    /// FerroLB by its own files, configured by the ConfigMap.
    #[serde(rename = "ferrolb")]
    FerroLb,
    /// The newest release of MetalLB by its own manifest.
    #[serde(rename = "metallb")]
    MetalLb,
}

/// Who is measured, as it is chosen on the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum On {
    /// FerroLB alone.
    Ferrolb,
    /// MetalLB alone.
    Metallb,
    /// One after the other.
    Both,
}

impl On {
    /// The systems in the order of their turns. Ours last: what is left over of the other's work would slow it down, not
    /// speed it up.
    pub fn systems(self) -> Vec<System> {
        match self {
            Self::Ferrolb => vec![System::FerroLb],
            Self::Metallb => vec![System::MetalLb],
            Self::Both => vec![System::MetalLb, System::FerroLb],
        }
    }
}

impl System {
    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::FerroLb => "FerroLB",
            Self::MetalLb => "MetalLB",
        }
    }

    /// Its name in the names of files.
    fn file(self) -> &'static str {
        match self {
            Self::FerroLb => "ferrolb",
            Self::MetalLb => "metallb",
        }
    }
}

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The lab's name.
    pub lab: String,
    /// The clusters' sizes, one after the other.
    pub nodes: Vec<u8>,
    /// How many nodes are lost in all, over all sizes, with each system.
    pub losses: usize,
    /// How many moves are asked for in all, over all sizes, with each system.
    pub moves: usize,
    /// Decides the order of the losses and who is lost.
    pub seed: u64,
    /// Who announces, by turns in the same lab.
    pub systems: Vec<System>,
    /// Use a lab of the right size that is up, and leave it up.
    pub keep: bool,
    /// Take the images of FerroLB that are on the nodes, and build none.
    pub as_is: bool,
}

/// Does everything in the plan; prints the tables on standard output at the end, and writes every sample to a file as
/// soon as it is there.
///
/// # Errors
/// A lab cannot be raised, something cannot be installed, or the cluster does not become whole again after a loss.
pub fn run(plan: &Plan) -> Result<()> {
    let sizes = plan.nodes.len().max(1);
    let mut losses = Vec::new();
    let mut moves = Vec::new();
    for &nodes in &plan.nodes {
        let lab = stage::raise(&plan.lab, nodes, plan.keep)?;
        for &system in &plan.systems {
            let stage = stage::Stage::install(&lab, system, plan.as_is)?;
            let name = format!("{}-{nodes}", system.file());
            let rounds = plan.losses.div_ceil(sizes);
            let found = losses::run(&stage, rounds, plan.seed, |found| {
                save(&format!("failover-losses-{name}.json"), found)
            })?;
            losses.extend(found);
            let rounds = plan.moves.div_ceil(sizes);
            let found = moves::run(&stage, rounds, |found| {
                save(&format!("failover-moves-{name}.json"), found)
            })?;
            moves.extend(found);
            lab.steps().say("so far:");
            eprintln!("{}", report::tables(&losses, &moves));
        }
        end(lab, plan.keep)?;
    }
    println!("{}", report::tables(&losses, &moves));
    Ok(())
}

/// Takes a lab down unless it is kept.
pub(crate) fn end(lab: Lab, keep: bool) -> Result<()> {
    if keep { Ok(()) } else { lab.down() }
}

/// Writes samples to `target/bench/NAME`.
pub(crate) fn save(name: &str, samples: &(impl Serialize + ?Sized)) -> Result<()> {
    let path = folder()?.join(name);
    fs::write(&path, serde_json::to_string_pretty(samples)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn folder() -> Result<PathBuf> {
    let folder = target_directory().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Milliseconds with their fraction.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The machine's load of the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|word| word.parse().ok());
    first.unwrap_or(f64::NAN)
}

/// How much of the machine's time its hypervisor has given to others, from a moment on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stolen {
    since: [u64; 2],
}

impl Stolen {
    /// From now on.
    pub fn watch() -> Self {
        Self {
            since: Self::read(),
        }
    }

    /// The share since then, 0 to 1.
    pub fn share(self) -> f64 {
        let [stolen, all] = Self::read();
        let [stolen_before, all_before] = self.since;
        // Ticks of minutes fit.
        let ticks = |now: u64, before| {
            f64::from(u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX))
        };
        ticks(stolen, stolen_before) / ticks(all, all_before).max(1.0)
    }

    /// Stolen and all ticks so far: the eighth and the sum of the first eight of `/proc/stat`, proc(5).
    fn read() -> [u64; 2] {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = first
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|word| word.parse().ok())
            .collect();
        [
            ticks.get(7).copied().unwrap_or_default(),
            ticks.iter().sum(),
        ]
    }
}
