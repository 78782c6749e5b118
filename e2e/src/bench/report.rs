//! Samples as tables.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{System, losses::Loss, moves, moves::Move};

/// A loss during which the hypervisor took this share of the machine or more shows the hypervisor.
const STOLEN: f64 = 0.05;

/// The middle, the 99th percentile and the greatest of some milliseconds, by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Half are this or less.
    pub p50: f64,
    /// 99 of 100 are this or less.
    pub p99: f64,
    /// All are this or less.
    pub max: f64,
}

impl Spread {
    /// The spread of some samples; `None` of none.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<_> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied()
        };
        Some(Self {
            p50: rank(50)?,
            p99: rank(99)?,
            max: rank(100)?,
        })
    }

    fn cell(spread: Option<Self>) -> String {
        spread.map_or_else(
            || "–".to_owned(),
            |Self { p50, p99, max }| format!("{p50:.0} / {p99:.0} / {max:.0}"),
        )
    }
}

/// Everything in Markdown.
pub fn tables(losses: &[Loss], moves: &[Move]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_losses(&mut text, losses);
    let _ = write_moves(&mut text, moves);
    text
}

fn write_losses(text: &mut String, losses: &[Loss]) -> std::fmt::Result {
    if losses.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "Losses: milliseconds without service, p50 / p99 / max.\n\n\
         | nodes | lost by | system | losses | addresses | ARP, each address | ARP, each loss | new connections | not taken over | two answered, at most | load | stolen |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    let mut groups: BTreeMap<(usize, &str, System), Vec<&Loss>> = BTreeMap::new();
    for loss in losses {
        let whole = loss.stolen < STOLEN;
        let kinds = [loss.kind.title(), "~all"].into_iter();
        for kind in kinds.chain(whole.then_some("~all with the whole machine")) {
            let group = (loss.nodes, kind, loss.system);
            groups.entry(group).or_default().push(loss);
        }
    }
    for ((nodes, kind, system), losses) in groups {
        let addresses = || losses.iter().flat_map(|loss| &loss.addresses);
        let doubled = addresses().map(|address| address.doubled);
        let missed = addresses().filter(|address| address.first.is_none());
        writeln!(
            text,
            "| {nodes} | {} | {} | {} | {} | {} | {} | {} | {} | {:.0} | {:.1} | {:.0} % |",
            kind.trim_start_matches('~'),
            system.title(),
            losses.len(),
            addresses().count(),
            Spread::cell(Spread::of(addresses().map(|address| address.blackout))),
            Spread::cell(Spread::of(losses.iter().map(|loss| loss.longest()))),
            Spread::cell(Spread::of(
                losses.iter().map(|loss| loss.connections.blackout)
            )),
            missed.count(),
            doubled.fold(0.0, f64::max),
            losses.iter().map(|loss| loss.load).fold(0.0, f64::max),
            losses.iter().map(|loss| loss.stolen).fold(0.0, f64::max) * 100.0,
        )?;
    }
    writeln!(text)
}

fn write_moves(text: &mut String, moves: &[Move]) -> std::fmt::Result {
    if moves.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "Planned moves: milliseconds at most; requests on new connections; open connections of four each time.\n\n\
         | nodes | cause | system | asked | moved | changes of owner | not clean | two answered | unanswered, p50 / p99 / max | requests | lost | slow | broken connections | load |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    let mut groups: BTreeMap<(usize, moves::Kind, System), Vec<&Move>> = BTreeMap::new();
    for one in moves {
        let group = (one.nodes, one.kind, one.system);
        groups.entry(group).or_default().push(one);
    }
    for ((nodes, kind, system), moves) in groups {
        let changes = || moves.iter().flat_map(|one| &one.changes);
        writeln!(
            text,
            "| {nodes} | {} | {} | {} | {} | {} | {} | {:.1} | {} | {} | {} | {} | {} | {:.1} |",
            kind.title(),
            system.title(),
            moves.len(),
            moves.iter().filter(|one| !one.changes.is_empty()).count(),
            changes().count(),
            changes().filter(|change| change.times != 1).count(),
            changes().map(|change| change.overlap).fold(0.0, f64::max),
            Spread::cell(Spread::of(moves.iter().map(|one| one.gap))),
            moves.iter().map(|one| one.requests).sum::<usize>(),
            moves.iter().map(|one| one.lost).sum::<usize>(),
            moves.iter().map(|one| one.slow).sum::<usize>(),
            moves.iter().map(|one| one.broken.len()).sum::<usize>(),
            moves.iter().map(|one| one.load).fold(0.0, f64::max),
        )?;
    }
    writeln!(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let spread = Spread::of((1..=200).rev().map(f64::from)).unwrap();
        let expected = Spread {
            p50: 100.0,
            p99: 198.0,
            max: 200.0,
        };
        assert_eq!(spread, expected);
        assert_eq!(Spread::of([7.0]).unwrap().p99.to_bits(), 7.0_f64.to_bits());
        assert_eq!(Spread::of([]), None);
    }
}
