//! The table of docs/metrics.md: what the daemons are said to serve, to be held against what they do.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use crate::observe::exposition::Exposition;

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The series.
    pub name: String,
    /// Its type, as Prometheus' text says it.
    pub kind: String,
    /// The names of its labels.
    pub labels: BTreeSet<String>,
    /// `controller`, `speaker`, or `both`.
    pub daemon: String,
}

/// The rows of the table, in order.
///
/// # Errors
/// There is no table, or a row has not six cells.
pub fn documented(page: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let lines = page
        .lines()
        .skip_while(|line| !line.starts_with("| name | type |"));
    for line in lines.skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, daemon, _, _] = cells.as_slice() else {
            anyhow::bail!("not name, type, labels, daemon, since, meaning: {line}");
        };
        rows.push(Row {
            name: name.trim_matches('`').to_owned(),
            kind: (*kind).to_owned(),
            labels: labels
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect(),
            daemon: (*daemon).to_owned(),
        });
    }
    ensure!(!rows.is_empty(), "no table of metrics");
    Ok(rows)
}

/// What differs between the table and what was scraped from a daemon (`controller` or `speaker`), one sentence each that
/// says what to do about it.
pub fn differences(rows: &[Row], daemon: &str, served: &Exposition) -> Vec<String> {
    let of_it = |row: &&Row| row.daemon == daemon || row.daemon == "both";
    let told: BTreeMap<_, _> = rows
        .iter()
        .filter(of_it)
        .map(|row| (row.name.as_str(), row))
        .collect();
    let mut problems = Vec::new();
    for (name, kind) in &served.types {
        let labels = served.samples.get(name).cloned().unwrap_or_default();
        let cells: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let cells = cells.join(" ");
        match told.get(name.as_str()) {
            None => problems.push(format!(
                "the {daemon} serves what docs/metrics.md does not have; add a row:\n| `{name}` | {kind} | {cells} | \
                 {daemon} | FerroLB … | … |"
            )),
            Some(row) if row.kind != *kind => problems.push(format!(
                "{name} of the {daemon} is a {kind}; docs/metrics.md says {}",
                row.kind
            )),
            Some(row) if row.labels != labels => problems.push(format!(
                "{name} of the {daemon} has the labels {cells}; docs/metrics.md says {:?}",
                row.labels
            )),
            Some(_) => {}
        }
    }
    for name in told.keys() {
        if !served.types.contains_key(*name) {
            problems.push(format!(
                "docs/metrics.md has {name}, but the {daemon} serves none; remove the row, or let the test bring it about"
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Metrics\n\n| you | do |\n|---|---|\n| a | b |\n\n| name | type | labels | daemon | since | what |\n\
                        |---|---|---|---|---|---|\n| `a_total` | counter | `ip` `node` | speaker | 1 | words |\n\
                        | `b` | gauge | | both | 1 | words |\n\n| no | row |\n";

    #[test]
    fn rows_are_read() {
        let rows = documented(PAGE).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].name, "a_total");
        assert_eq!(rows[0].labels, ["ip".to_owned(), "node".to_owned()].into());
        assert!(rows[1].labels.is_empty());
        assert!(documented("# Metrics\n").is_err());
        let short = PAGE.replace(" | words |", " |");
        assert!(documented(&short).is_err());
    }

    #[test]
    fn every_difference_is_said() {
        let rows = documented(PAGE).unwrap();
        let same = "# TYPE a_total counter\na_total{ip=\"1\",node=\"n\"} 1\n# TYPE b gauge\nb 1\n";
        let nothing: [&str; 0] = [];
        assert_eq!(
            differences(&rows, "speaker", &Exposition::of(same)),
            nothing
        );
        let mine = differences(
            &rows,
            "controller",
            &Exposition::of("# TYPE b gauge\nb 1\n"),
        );
        assert_eq!(mine, nothing, "a_total is the speaker's");
        for (page, said) in [
            (
                "# TYPE a_total counter\na_total{ip=\"1\",node=\"n\"} 1\n",
                "has b, but",
            ),
            (
                &format!("{same}# TYPE c gauge\nc{{x=\"1\"}} 1\n"),
                "| `c` | gauge | `x` |",
            ),
            (&same.replace("b gauge", "b counter"), "is a counter"),
            (
                &same.replace("ip=", "address="),
                "has the labels `address` `node`",
            ),
        ] {
            let said_now = differences(&rows, "speaker", &Exposition::of(page));
            assert!(
                matches!(said_now.as_slice(), [one] if one.contains(said)),
                "{said}: {said_now:?}"
            );
        }
    }
}
