//! What alerts and dashboards ask Prometheus: the series they name, to be held against those that are served.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::exposition::Exposition;

/// Labels a series gets from how it is scraped, by the PodMonitors and the scrape configuration we ship, and those of
/// Prometheus' own series.
pub const LABELS_OF_SCRAPING: [&str; 6] = [
    "job",
    "instance",
    "namespace",
    "pod",
    "container",
    "alertname",
];
/// Series Prometheus makes itself.
pub const SERIES_OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];

/// Words before a list of labels in parentheses.
const BEFORE_LABELS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
/// Words that are neither functions nor series.
const OPERATORS: [&str; 7] = ["and", "or", "unless", "bool", "offset", "inf", "nan"];

/// A panel of a dashboard.
#[derive(Clone, Debug)]
pub struct Panel {
    /// The title of the row it stands in.
    pub row: String,
    /// Its own title.
    pub title: String,
    /// What it asks.
    pub expressions: Vec<String>,
}

/// What an expression names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Every series selected, with the labels its matchers name.
    pub selectors: Vec<(String, BTreeSet<String>)>,
    /// Labels it groups or joins by.
    pub groupings: BTreeSet<String>,
}

/// The panels of a dashboard in Grafana's JSON, in order; what stands before the first row belongs to a row without a
/// title.
///
/// # Errors
/// It is no dashboard.
pub fn panels(dashboard: &str) -> Result<Vec<Panel>> {
    let dashboard: Value = serde_json::from_str(dashboard).context("no JSON")?;
    let all = dashboard.get("panels").and_then(Value::as_array);
    let text = |value: &Value, key: &str| {
        let text = value.get(key).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let mut row = String::new();
    let mut panels = Vec::new();
    for panel in all.context("a dashboard without panels")? {
        if text(panel, "type") == "row" {
            row = text(panel, "title");
            continue;
        }
        let targets = panel.get("targets").and_then(Value::as_array);
        let expressions = targets
            .into_iter()
            .flatten()
            .map(|target| text(target, "expr"));
        panels.push(Panel {
            row: row.clone(),
            title: text(panel, "title"),
            expressions: expressions.collect(),
        });
    }
    Ok(panels)
}

/// What a PromQL expression names. It finds the series and labels of what we write; Prometheus itself says whether the
/// expression is right.
pub fn named(expression: &str) -> Named {
    let mut named = Named::default();
    let mut rest = expression;
    while let Some(letter) = rest.chars().next() {
        match letter {
            '"' | '\'' => rest = skip_quoted(rest),
            '[' => rest = rest.split_once(']').map_or("", |(_, after)| after),
            '{' => {
                let (labels, after) = matchers(rest);
                if let Some((_, known)) = named.selectors.last_mut() {
                    known.extend(labels);
                }
                rest = after;
            }
            _ if is_word(letter) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                rest = after;
                let next = after.trim_start();
                if BEFORE_LABELS.contains(&word) && next.starts_with('(') {
                    let (list, after) = next.split_once(')').unwrap_or((next, ""));
                    let labels = list.trim_start_matches('(').split(',');
                    let labels = labels.map(|label| label.trim().to_owned());
                    named
                        .groupings
                        .extend(labels.filter(|label| !label.is_empty()));
                    rest = after;
                } else if !next.starts_with('(')
                    && !is_aggregated(next)
                    && !OPERATORS.contains(&word.to_ascii_lowercase().as_str())
                    && !BEFORE_LABELS.contains(&word)
                    && !word.starts_with(|c: char| c.is_ascii_digit())
                {
                    named.selectors.push((word.to_owned(), BTreeSet::new()));
                }
            }
            _ => rest = rest.get(letter.len_utf8()..).unwrap_or_default(),
        }
    }
    named
}

/// What an expression names that `served` does not have, one sentence each; nothing if it can be answered.
pub fn missing(expression: &str, served: &Exposition) -> Vec<String> {
    let named = named(expression);
    let mut missing = Vec::new();
    let mut labels: BTreeSet<&str> = LABELS_OF_SCRAPING.into();
    for (series, matched) in &named.selectors {
        if SERIES_OF_PROMETHEUS.contains(&series.as_str()) {
            continue;
        }
        let Some(own) = served.samples.get(series) else {
            missing.push(format!("no series {series}, asked for by {expression}"));
            continue;
        };
        labels.extend(own.iter().map(String::as_str));
        let known =
            |label: &&String| own.contains(*label) || LABELS_OF_SCRAPING.contains(&label.as_str());
        for label in matched.iter().filter(|label| !known(label)) {
            missing.push(format!(
                "{series} has no label {label}, asked for by {expression}"
            ));
        }
    }
    for label in &named.groupings {
        // `le` is of every histogram; the rest must be of one of the series named.
        if !labels.contains(label.as_str()) {
            missing.push(format!(
                "nothing has the label {label}, grouped by in {expression}"
            ));
        }
    }
    missing
}

/// What a dashboard asks of Istio's gateways that an Envoy does not serve: `page` is its `:15090/stats/prometheus` after
/// at least one request went through it. Nothing if every question can be answered.
///
/// # Errors
/// `dashboard` is none, or asks nothing of gateways.
pub fn missing_of_gateway(dashboard: &str, page: &str) -> Result<Vec<String>> {
    let served = Exposition::of(page);
    let panels = panels(dashboard)?;
    let mut asked = panels
        .iter()
        .flat_map(|panel| &panel.expressions)
        .filter(|expression| is_of_gateway(expression))
        .peekable();
    asked.peek().context("no question about a gateway")?;
    Ok(asked
        .flat_map(|expression| missing(expression, &served))
        .collect())
}

/// Whether an expression asks an Istio gateway's Envoy and not us.
pub fn is_of_gateway(expression: &str) -> bool {
    let selectors = named(expression).selectors;
    selectors
        .iter()
        .any(|(series, _)| series.starts_with("envoy_"))
}

/// Whether the word before this is `sum` in `sum by (pool) (…)`.
fn is_aggregated(next: &str) -> bool {
    let word = next.split([' ', '(']).next();
    word.is_some_and(|word| matches!(word, "by" | "without"))
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':' | '.' | '$')
}

/// What follows the quoted text at the start.
fn skip_quoted(text: &str) -> &str {
    let Some(quote) = text.chars().next() else {
        return "";
    };
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return text.get(at + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}

/// The labels in the braces at the start, and what follows them.
fn matchers(text: &str) -> (Vec<String>, &str) {
    let mut labels = Vec::new();
    let mut rest = text.get(1..).unwrap_or_default();
    loop {
        rest = rest.trim_start_matches([',', ' ', '\n']);
        if let Some(after) = rest.strip_prefix('}') {
            return (labels, after);
        }
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (label, after) = rest.split_at(end);
        let Some(quote) = after.find(['"', '\'']) else {
            return (labels, "");
        };
        labels.push(label.to_owned());
        rest = skip_quoted(after.get(quote..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_and_labels_are_found_among_functions_and_words() {
        let named = named(
            "100 * sum by (pool, job) (rate(a_total{job=~\"x{}\", pool!='y'}[$__rate_interval])) \
             / on(pool) group_left() b > bool 1e3 and avg_over_time(c:d[5m] offset 1h) unless d",
        );
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let expected = [
            ("a_total".to_owned(), set(&["job", "pool"])),
            ("b".to_owned(), set(&[])),
            ("c:d".to_owned(), set(&[])),
            ("d".to_owned(), set(&[])),
        ];
        // `1h` after `offset` begins with a digit.
        assert_eq!(named.selectors, expected);
        assert_eq!(named.groupings, set(&["pool", "job"]));
    }

    #[test]
    fn what_is_not_served_is_named() {
        let served = Exposition::of("a{pool=\"x\"} 1\n");
        let nothing: [&str; 0] = [];
        assert_eq!(
            missing("sum by (pool, job) (a{pool=\"x\"})", &served),
            nothing
        );
        assert_eq!(missing("up{job=\"x\"} == 0", &served), nothing);
        for (expression, said) in [
            ("b", "no series b"),
            ("a{ip=\"1\"}", "a has no label ip"),
            ("sum by (ip) (a)", "nothing has the label ip"),
        ] {
            let missing = missing(expression, &served);
            assert!(
                matches!(missing.as_slice(), [one] if one.starts_with(said)),
                "{missing:?}"
            );
        }
    }

    #[test]
    fn panels_stand_in_rows() {
        let dashboard = r#"{"panels": [
            {"type": "stat", "title": "first", "targets": [{"expr": "a"}]},
            {"type": "row", "title": "Istio's gateway"},
            {"type": "table", "title": "second", "targets": [{"expr": "envoy_b"}, {"expr": "envoy_c"}]}]}"#;
        let panels = panels(dashboard).unwrap();
        assert_eq!(panels.len(), 2);
        assert_eq!(panels[0].row, "");
        assert_eq!(panels[1].expressions, ["envoy_b", "envoy_c"]);
        assert_eq!(panels[1].row, "Istio's gateway");
        let missing = missing_of_gateway(dashboard, "envoy_b 1\n").unwrap();
        assert_eq!(missing, ["no series envoy_c, asked for by envoy_c"]);
        assert!(missing_of_gateway(r#"{"panels": []}"#, "b 1\n").is_err());
    }
}
