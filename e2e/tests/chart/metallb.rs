//! Beside MetalLB's chart: its values files, its names, and the table of docs/helm.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use ferrolb_e2e::artifact::ferrolb_image;
use ferrolb_e2e::artifact::metallb::NEWEST;
use ferrolb_e2e::artifact::module::Module;
use ferrolb_e2e::deploy::chart::{metallbs, ours};
use ferrolb_e2e::deploy::project;
use ferrolb_e2e::steps::Steps;
use serde_json::Value;

use crate::objects::{object, objects};
use crate::{DAEMONS, at, chart_pod, flags, helm, home, metallbs_values, rendered};

#[test]
fn values_files_of_older_charts_work_unchanged() {
    for (version, sum) in [
        (
            "v0.13.12",
            "h1:c2AprV1M3TP4NpHqENLpwuDJJDYVl0w1DGqOJJogH9I=",
        ),
        ("v0.15.3", "h1:jmTFharsaP9yBW0p/giOahfuVNTBIvwQqxx2eYxM6fc="),
    ] {
        let path = "go.universe.tf/metallb";
        let module = Module { path, version, sum };
        let sources = module.sources(&Steps::start()).unwrap();
        let values = sources.join("charts/metallb/values.yaml");
        let old =
            "prometheus.controllerMetricsTLSSecret=cert,controller.tlsMinVersion=VersionTLS12";
        let made = rendered(&["-f", values.to_str().unwrap(), "--set", old]);
        assert_eq!(made.len(), rendered(&[]).len(), "{version}");
        let controller = chart_pod(&made, "controller");
        assert!(flags(controller).contains(&"--tls-min-version=VersionTLS12"));
        let secret = at(controller, "/volumes/0/secret/secretName");
        assert_eq!(secret, "cert", "{version}");
    }
}

#[test]
fn metallbs_own_values_file_works_unchanged() {
    let values = metallbs_values();
    let values = values.to_str().unwrap();
    let made = rendered(&["-f", values]);
    let count = |objects: &[Value]| objects.len();
    assert_eq!(count(&made), count(&rendered(&[])));
    for (daemon, _) in DAEMONS {
        // Its image would be asked for under our version.
        let image = at(chart_pod(&made, daemon), "/containers/0/image");
        assert_eq!(
            format!("docker.io/{}", image.as_str().unwrap()),
            ferrolb_image(daemon)
        );
    }
    let workload = object(&made, "Deployment", "metallb-controller").unwrap();
    assert_eq!(at(workload, "/spec/strategy/rollingUpdate/maxSurge"), 0);
    // A pinned tag is MetalLB's, too.
    let tag = "controller.image.tag=v0.16.1,speaker.image.tag=v0.16.1";
    let pinned = rendered(&["-f", values, "--set", tag]);
    assert_eq!(chart_pod(&pinned, "speaker"), chart_pod(&made, "speaker"));
}

#[test]
fn objects_are_called_as_metallbs_chart_calls_them() {
    let steps = Steps::start();
    let theirs = metallbs(&steps, NEWEST).unwrap();
    let names = |objects: &[Value]| -> BTreeSet<(String, String)> {
        objects
            .iter()
            .map(|object| {
                let text = |pointer| at(object, pointer).as_str().unwrap_or_default().to_owned();
                (text("/kind"), text("/metadata/name"))
            })
            // Which role holds which rule is each one's own; what is selected and mounted is not.
            .filter(|(kind, _)| !kind.starts_with("Role"))
            .collect()
    };
    for (settings, full) in [
        ("frrk8s.enabled=false", "metallb"),
        (
            "frrk8s.enabled=false,nameOverride=x,fullnameOverride=y",
            "y",
        ),
    ] {
        let settings = ["--set", settings];
        let ours = rendered(&settings);
        let theirs = objects(&helm().render(&home(), &theirs, &settings).unwrap()).unwrap();
        assert_eq!(names(&ours), names(&theirs));
        for (daemon, kind) in DAEMONS {
            let name = format!("{full}-{daemon}");
            let selector =
                |objects| at(object(objects, kind, &name).unwrap(), "/spec/selector").clone();
            assert_eq!(
                selector(&ours),
                selector(&theirs),
                "{name}: can never be changed"
            );
        }
    }
}

/// Every value below, by its dotted path; an empty map is a value.
fn leaves(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    match value.as_object() {
        Some(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(field, &format!("{path}{dot}{name}"), found);
            }
        }
        _ => {
            found.insert(path.to_owned(), value.clone());
        }
    }
}

fn values(path: &Path) -> BTreeMap<String, Value> {
    let documents = objects(&fs::read_to_string(path).unwrap()).unwrap();
    let mut found = BTreeMap::new();
    leaves(&documents[0], "", &mut found);
    found
}

#[test]
fn the_table_of_values_is_complete_and_true() {
    let theirs = values(&metallbs_values());
    let own = values(&ours().join("values.yaml"));
    let text = fs::read_to_string(project().join("docs/helm.md")).unwrap();
    let rows: Vec<(&str, &str, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let value = cells.next()?.strip_suffix('`')?;
            let verdict = cells.next()?;
            let remark = cells.next()?.trim_end_matches('|').trim();
            ["same", "different", "not"]
                .contains(&verdict)
                .then_some((value, verdict, remark))
        })
        .collect();
    let covers = |row: &str, value: &str| match row.strip_suffix("*") {
        Some(start) => value.starts_with(start),
        None => row == value,
    };
    let mut problems = Vec::new();
    let mut counts = BTreeMap::<&str, usize>::new();
    for (value, default) in &theirs {
        let found: Vec<_> = rows.iter().filter(|(row, ..)| covers(row, value)).collect();
        let [(_, verdict, remark)] = found.as_slice() else {
            problems.push(format!("{value} stands in {} rows", found.len()));
            continue;
        };
        *counts.entry(verdict).or_default() += 1;
        let ours = own.get(value);
        // A map of ours that theirs fills by default is not the same either.
        let true_to_it = match *verdict {
            "same" => ours == Some(default),
            "different" => !remark.is_empty() && ours.is_some(),
            _ => !remark.is_empty() && ours.is_none(),
        };
        if !true_to_it {
            problems.push(format!(
                "{value} is {default} there and {ours:?} here: not {verdict}"
            ));
        }
    }
    for (row, ..) in &rows {
        if !theirs.keys().any(|value| covers(row, value)) {
            problems.push(format!("{row} is no value of MetalLB's chart"));
        }
    }
    for value in own.keys() {
        let named = format!("`{value}`");
        let parent = value.rsplit_once('.').map_or("", |(parent, _)| parent);
        if !theirs.contains_key(value)
            && !text.contains(&named)
            && !text.contains(&format!("`{parent}`"))
        {
            problems.push(format!("{value} is ours, and the page does not say so"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    eprintln!("{} values: {counts:?}", theirs.len());
}
