//! Samples as one table.

use std::{fmt::Write as _, time::Duration};

use super::{Bare, Measured, Results, Single, Size, cost::Cost, per_second};
use crate::bench::{System, report::Spread};

/// A question, and how a system's samples answer it.
type Row = (String, Box<dyn Fn(&Measured) -> Option<f64>>);

/// The table: a row for each question, MetalLB, FerroLB, and FerroLB's part of MetalLB's.
pub fn table(results: &Results) -> String {
    let mut text =
        String::from("| what | MetalLB | FerroLB | FerroLB / MetalLB |\n|---|---|---|---|\n");
    let of = |wanted: System| results.systems.iter().find(|one| one.system == wanted);
    let (theirs, ours) = (of(System::MetalLb), of(System::FerroLb));
    let sizes = results.systems.first().map(|one| &one.sizes);
    let sizes = sizes
        .into_iter()
        .flatten()
        .flat_map(|size| of_size(size.services));
    for (what, value) in of_one().into_iter().chain(sizes).chain(of_all()) {
        let (theirs, ours) = (theirs.and_then(&value), ours.and_then(&value));
        let cell = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), digits);
        let ratio = theirs.zip(ours).map(|(theirs, ours)| ours / theirs);
        let cells = [cell(theirs), cell(ours), cell(ratio)].join(" | ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {what} | {cells} |");
    }
    text + &loops(&results.bare)
}

fn loops(bare: &Bare) -> String {
    let written: Vec<_> = bare
        .written
        .iter()
        .map(|(at_once, rate)| format!("{rate:.0} ({at_once} at a time)"))
        .collect();
    format!(
        "\nThe API server alone: {:.0} Services made, and statuses written {} a second (load {:.1}).\n",
        bare.made,
        written.join(", "),
        bare.load
    )
}

fn row(what: &str, value: impl Fn(&Measured) -> Option<f64> + 'static) -> Row {
    (what.to_owned(), Box::new(value))
}

fn addressed(singles: &[Single]) -> Option<Spread> {
    Spread::of(singles.iter().map(|one| one.addressed))
}

fn answered(singles: &[Single]) -> Option<Spread> {
    Spread::of(singles.iter().filter_map(|one| one.answered))
}

fn of_one() -> Vec<Row> {
    vec![
        row("one Service: until its address, alone, ms p50", |one| {
            Some(addressed(&one.alone)?.p50)
        }),
        row(
            "one Service: until the first answer, alone, ms p50",
            |one| Some(answered(&one.alone)?.p50),
        ),
        row("the same, p99", |one| Some(answered(&one.alone)?.p99)),
    ]
}

fn of_size(services: usize) -> Vec<Row> {
    let at = move |what: &str, value: fn(&Size) -> Option<f64>| {
        row(&format!("{services} Services: {what}"), move |one| {
            let mut sizes = one.sizes.iter();
            value(sizes.find(|size| size.services == services)?)
        })
    };
    let cost = move |what: &str, value: fn(&Cost) -> f64| {
        row(&format!("{services} Services: {what}"), move |one| {
            let mut sizes = one.sizes.iter();
            Some(value(&sizes.find(|size| size.services == services)?.cost))
        })
    };
    let growth = [
        at("given an address in a second, as they are made", |size| {
            let time = Duration::from_secs_f64(size.addressed.max(0.001));
            Some(per_second(size.times.len(), time))
        }),
        at("seconds until all have an address", |size| {
            (size.with_address >= size.services).then_some(size.addressed)
        }),
        at("seconds until all are answered", |size| size.answered),
        at("seconds until events and statuses are written", |size| {
            Some(size.quiet)
        }),
        at("an answer meanwhile, ms p50", |size| {
            Some(Spread::of(size.meanwhile.iter().copied())?.p50)
        }),
        at("an answer meanwhile, ms p99", |size| {
            Some(Spread::of(size.meanwhile.iter().copied())?.p99)
        }),
    ];
    let rest = [
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
        cost("at rest, thousandths of a core, all daemons", |cost| {
            (cost.controller_cpu + cost.speakers_cpu) * 1000.0
        }),
        at("one more: until its address, ms p50", |size| {
            Some(addressed(&size.beside)?.p50)
        }),
        at("one more: until the first answer, ms p50", |size| {
            Some(answered(&size.beside)?.p50)
        }),
    ];
    let growth = growth.into_iter().filter(|_| services > 1);
    growth.chain(rest).collect()
}

fn of_all() -> Vec<Row> {
    vec![
        row(
            "Services that waited for a pool: given an address in a second",
            |one| {
                let time = Duration::try_from_secs_f64(one.at_once.seconds).ok()?;
                Some(per_second(one.at_once.with_address, time))
            },
        ),
        row(
            "all speakers killed: seconds until the first answer",
            |one| one.restart.speakers.0,
        ),
        row(
            "all speakers killed: seconds until all are answered",
            |one| one.restart.speakers.1,
        ),
        row(
            "controller killed: seconds until a new Service has its address",
            |one| Some(one.restart.controller),
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
