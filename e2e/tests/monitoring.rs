//! What we ship for Prometheus and Grafana, without a cluster: the alerts do what they say, and everything asked for is in
//! the table of docs/metrics.md, which `scraping::` holds against the daemons.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use ferrolb_e2e::artifact::prometheus::Prometheus;
use ferrolb_e2e::deploy::metrics::Row;
use ferrolb_e2e::deploy::{manifests, metrics, project};
use ferrolb_e2e::observe::exposition::Exposition;
use ferrolb_e2e::observe::queries::{is_of_gateway, missing, missing_of_gateway, named, panels};
use ferrolb_e2e::steps::Steps;
use serde_json::Value;

fn shipped(name: &str) -> String {
    let path = manifests(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file of YAML with one document.
fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&shipped(name)).unwrap()
}

/// Every string under the key `expr`, at any depth.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get("expr") {
                found.push(text.clone());
            }
            fields.values().for_each(|field| expressions(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

/// The series of the table, as if they had been scraped.
fn documented() -> Exposition {
    let text = fs::read_to_string(project().join("docs/metrics.md")).unwrap();
    let rows = metrics::documented(&text).unwrap();
    Exposition {
        types: BTreeMap::new(),
        samples: rows.into_iter().map(sample).collect(),
    }
}

/// What is asked for of a series: of a histogram its buckets.
fn sample(row: Row) -> (String, BTreeSet<String>) {
    if row.kind != "histogram" {
        return (row.name, row.labels);
    }
    let mut labels = row.labels;
    labels.insert("le".to_owned());
    (format!("{}_bucket", row.name), labels)
}

#[test]
fn alerts_are_the_same_with_and_without_the_operator() {
    let rules = yaml("prometheus/rules.yaml");
    assert_eq!(rules["spec"], yaml("prometheus/standalone/alerts.yaml"));
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() {
    let steps = Steps::start();
    let prometheus = Prometheus::fetch(&steps).unwrap();
    let room = manifests("prometheus/standalone");
    for (verb, file) in [("check", "alerts.yaml"), ("test", "alerts-test.yaml")] {
        let mut command = prometheus.promtool();
        command.args([verb, "rules", file]).current_dir(&room);
        steps
            .run(&format!("promtool {verb} {file}"), &mut command)
            .unwrap();
    }
    // Every alert is tried both ways.
    let alerts = yaml("prometheus/standalone/alerts.yaml");
    let tests = yaml("prometheus/standalone/alerts-test.yaml");
    let mut fired = BTreeSet::new();
    let mut quiet = BTreeSet::new();
    let tried = tests["tests"].as_array().unwrap().iter();
    for case in tried.flat_map(|test| test["alert_rule_test"].as_array().unwrap()) {
        let name = case["alertname"].as_str().unwrap();
        let alarmed = !case["exp_alerts"].as_array().unwrap().is_empty();
        (if alarmed { &mut fired } else { &mut quiet }).insert(name);
    }
    let groups = alerts["groups"].as_array().unwrap().iter();
    for rule in groups.flat_map(|group| group["rules"].as_array().unwrap()) {
        let name = rule["alert"].as_str().unwrap();
        assert!(fired.contains(name), "no test shows that {name} fires");
        assert!(
            quiet.contains(name),
            "no test shows when {name} does not fire"
        );
    }
}

#[test]
fn alerts_and_dashboard_ask_for_what_is_served() {
    let served = documented();
    let mut asked = Vec::new();
    expressions(&yaml("prometheus/rules.yaml"), &mut asked);
    let alerts = asked.len();
    assert!(alerts > 8, "{alerts} alerts");
    let dashboard = panels(&shipped("grafana/ferrolb.json")).unwrap();
    let questions = dashboard.into_iter().flat_map(|panel| panel.expressions);
    asked.extend(questions.filter(|expression| !is_of_gateway(expression)));
    assert!(asked.len() > alerts + 20, "{} questions", asked.len());
    let missing: Vec<_> = asked
        .iter()
        .flat_map(|expression| missing(expression, &served))
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn the_dashboard_asks_gateways_for_what_envoy_serves() {
    let page = project().join("e2e/tests/inputs/envoy.txt");
    let page = fs::read_to_string(page).unwrap();
    let missing = missing_of_gateway(&shipped("grafana/ferrolb.json"), &page).unwrap();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn the_dashboard_shows_every_series_of_ours() {
    let dashboard = panels(&shipped("grafana/ferrolb.json")).unwrap();
    let shown: BTreeSet<_> = dashboard
        .iter()
        .flat_map(|panel| &panel.expressions)
        .flat_map(|expression| named(expression).selectors)
        .map(|(series, _)| series)
        .collect();
    let absent: Vec<_> = documented()
        .samples
        .into_keys()
        .filter(|name| name.starts_with("ferrolb_") && !shown.contains(name))
        // A number of sockets, which is of use only where something else is wrong.
        .filter(|name| name != "ferrolb_layer2_interfaces")
        .collect();
    assert!(absent.is_empty(), "no panel shows {absent:?}");
}

#[test]
fn ports_of_the_monitors_are_ports_of_the_pods() {
    // Ours, and those of MetalLB's newest manifest.
    for (monitors, port) in [
        ("prometheus/podmonitors.yaml", "monitoring"),
        ("prometheus/https/podmonitors.yaml", "metricshttps"),
    ] {
        let text = shipped(monitors);
        let monitors = text.matches("kind: PodMonitor").count();
        assert_eq!(text.matches(&format!("port: {port}")).count(), monitors);
        let scrape = shipped("prometheus/standalone/scrape.yaml");
        let kept = format!("(controller|speaker);{port}");
        assert_eq!(scrape.matches(&kept).count(), 1, "{kept}");
    }
    for daemon in ["base/controller.yaml", "base/speaker.yaml"] {
        assert!(shipped(daemon).contains("{name: monitoring, containerPort: 7472}"));
    }
}

#[test]
fn the_kustomizations_name_files_that_exist() {
    for folder in ["prometheus", "prometheus/https", "grafana"] {
        let kustomization = yaml(&format!("{folder}/kustomization.yaml"));
        let files: Vec<PathBuf> = ["/resources", "/configMapGenerator/0/files"]
            .into_iter()
            .filter_map(|pointer| kustomization.pointer(pointer)?.as_array())
            .flatten()
            .map(|name| manifests(folder).join(name.as_str().unwrap()))
            .collect();
        assert!(!files.is_empty(), "{folder}");
        for file in files {
            assert!(file.exists(), "{}", file.display());
        }
    }
}
