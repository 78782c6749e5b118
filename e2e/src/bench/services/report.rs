//! Samples as one table.

use std::{fmt::Write as _, time::Duration};

use super::{Bare, Results, Single, Size, asked::Asked, cost::Cost, per_second};
use crate::bench::{System, report::Spread};

/// A question, and how a system's samples answer it.
type Row = (&'static str, Box<dyn Fn(&Size) -> Option<f64>>);

/// The table: a row for each question and size, MetalLB, FerroLB, and FerroLB's part of MetalLB's.
pub fn table(results: &Results) -> String {
    let mut text =
        String::from("| what | MetalLB | FerroLB | FerroLB / MetalLB |\n|---|---|---|---|\n");
    let mut sizes: Vec<usize> = results.sizes.iter().map(|size| size.services).collect();
    sizes.dedup();
    let rows = rows();
    for services in sizes {
        let of = |system: System| {
            let mut seen = results.sizes.iter();
            seen.find(|one| one.system == system && one.services == services)
        };
        let (theirs, ours) = (of(System::MetalLb), of(System::FerroLb));
        for (what, value) in &rows {
            let (theirs, ours) = (theirs.and_then(value), ours.and_then(value));
            if theirs.or(ours).is_none() {
                continue;
            }
            let cell = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), digits);
            let ratio = theirs.zip(ours).map(|(theirs, ours)| ours / theirs);
            let cells = [cell(theirs), cell(ours), cell(ratio)].join(" | ");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {services}: {what} | {cells} |");
        }
    }
    text + &results.bare.as_ref().map(loops).unwrap_or_default()
}

fn loops(bare: &Bare) -> String {
    let written: Vec<_> = bare
        .written
        .iter()
        .map(|(at_once, rate)| format!("{rate:.0} ({at_once} at a time)"))
        .collect();
    format!(
        "\nThe API server alone: statuses written {} a second (load {:.1}).\n",
        written.join(", "),
        bare.load
    )
}

fn row(what: &'static str, value: impl Fn(&Size) -> Option<f64> + 'static) -> Row {
    (what, Box::new(value))
}

fn addressed(singles: &[Single]) -> Option<Spread> {
    Spread::of(singles.iter().map(|one| one.addressed))
}

fn answered(singles: &[Single]) -> Option<Spread> {
    Spread::of(singles.iter().filter_map(|one| one.answered))
}

fn rows() -> Vec<Row> {
    let cost = |what, value: fn(&Cost) -> f64| row(what, move |size| Some(value(&size.cost)));
    let asked = |what, value: fn(&Asked) -> f64| row(what, move |size| Some(value(&size.asked)));
    let kernels =
        |what, value: fn(&Asked) -> f64| row(what, move |size| Some(value(&size.kernels)));
    // Of one Service there is nothing between the first and the last.
    let many = |what, value: fn(&Size) -> Option<f64>| {
        row(what, move |size| value(size).filter(|_| size.services > 1))
    };
    let meanwhile = |size: &Size| Spread::of(size.meanwhile.iter().copied());
    let killed = |what, value: fn(&super::Restart) -> Option<f64>| {
        row(what, move |size| value(size.restart.as_ref()?))
    };
    vec![
        many("Services that waited given an address a second", |size| {
            let time = Duration::from_secs_f64(size.addressed.max(0.001));
            Some(per_second(size.with_address, time))
        }),
        many("Services with an address when it was given up", |size| {
            let count = u32::try_from(size.with_address).ok()?;
            (size.with_address < size.services).then(|| count.into())
        }),
        many("seconds until all have an address", |size| {
            (size.with_address >= size.services).then_some(size.addressed)
        }),
        many("seconds until all are answered", |size| size.answered),
        many("seconds until events and statuses are written", |size| {
            size.quiet
        }),
        row("an answer meanwhile, ms p50", move |size| {
            Some(meanwhile(size).filter(|_| size.services > 1)?.p50)
        }),
        row("an answer meanwhile, ms p99", move |size| {
            Some(meanwhile(size).filter(|_| size.services > 1)?.p99)
        }),
        cost("controller's resident memory, MiB", |cost| {
            mebi(cost.controller)
        }),
        cost("speaker's resident memory, MiB", |cost| mebi(cost.speaker)),
        cost("both daemons' resident memory, MiB", |cost| {
            mebi(cost.controller + cost.speaker)
        }),
        cost("both daemons' control groups, MiB", |cost| {
            mebi(cost.controller_group + cost.speaker_group)
        }),
        row("at rest, thousandths of a core, controller", |size| {
            size.quiet.map(|_| size.cost.controller_cpu * 1000.0)
        }),
        row("at rest, thousandths of a core, all speakers", |size| {
            size.quiet.map(|_| size.cost.speakers_cpu * 1000.0)
        }),
        row("one more: until its address, ms p50", |size| {
            Some(addressed(&size.beside)?.p50)
        }),
        row("one more: until the first answer, ms p50", |size| {
            Some(answered(&size.beside)?.p50)
        }),
        row("the same, p99", |size| Some(answered(&size.beside)?.p99)),
        asked("answers one at a time, µs p50", |asked| asked.p50),
        asked("answers one at a time, µs p99", |asked| asked.p99),
        asked("answers a second, 64 outstanding", |asked| asked.per_second),
        kernels("kernels' own, µs p50", |asked| asked.p50),
        kernels("kernels' own, µs p99", |asked| asked.p99),
        kernels("kernels' own, a second", |asked| asked.per_second),
        killed(
            "all speakers killed: seconds until the first answer",
            |one| one.speakers.0,
        ),
        killed(
            "all speakers killed: seconds until all are answered",
            |one| one.speakers.1,
        ),
        killed(
            "controller killed: seconds until a new Service has its address",
            |one| one.controller,
        ),
    ]
}

/// Three digits that count.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[allow(clippy::cast_precision_loss, reason = "memory has fewer KiB than 2^52")]
fn mebi(kibi: u64) -> f64 {
    kibi as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn three_digits_count() {
        let told = [1234.5, 12.34, 1.234, 0.1234].map(digits);
        assert_eq!(told, ["1234", "12.3", "1.23", "0.123"]);
    }
}
