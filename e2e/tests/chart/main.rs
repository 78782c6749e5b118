//! The chart without a cluster: rendered by the real Helm, compared with what `config/deploy` says elsewhere, with
//! MetalLB's chart of the newest release, and with docs/helm.md.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

mod metallb;
#[path = "../objects/mod.rs"]
mod objects;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use ferrolb_e2e::artifact::metallb::NEWEST;
use ferrolb_e2e::artifact::{controlplane, ferrolb_image};
use ferrolb_e2e::deploy::chart::{Helm, metallbs, ours};
use ferrolb_e2e::deploy::{manifests, project, rights};
use ferrolb_e2e::steps::Steps;
use objects::{object, objects};
use serde_json::Value;

const DAEMONS: [(&str, &str); 2] = [("controller", "Deployment"), ("speaker", "DaemonSet")];

/// Where Helm keeps its things: a directory of the build's.
fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("helm")
}

fn helm() -> Helm {
    Helm::have(&Steps::start()).unwrap()
}

/// What our chart makes of these settings.
fn rendered(settings: &[&str]) -> Vec<Value> {
    objects(&helm().render(&home(), &ours(), settings).unwrap()).unwrap()
}

/// What our chart says to settings it must refuse.
fn refused(settings: &[&str]) -> String {
    let made = helm().render(&home(), &ours(), settings);
    format!("{:#}", made.unwrap_err())
}

/// What `kubectl apply -k` would apply.
fn kustomized(folder: &str) -> Vec<Value> {
    let kubernetes = controlplane::build(&Steps::start()).unwrap();
    let mut kubectl = Command::new(kubernetes);
    kubectl
        .args(["kubectl", "kustomize"])
        .arg(manifests(folder));
    let output = kubectl.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{folder}: {errors}");
    objects(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

fn metallbs_values() -> PathBuf {
    let chart = metallbs(&Steps::start(), NEWEST).unwrap();
    chart.join("values.yaml")
}

/// A daemon's pod: the chart's or the manifests'.
fn pod<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let workload = object(objects, kind, name).unwrap();
    workload.pointer("/spec/template/spec").unwrap()
}

fn chart_pod<'a>(objects: &'a [Value], daemon: &str) -> &'a Value {
    let kind = DAEMONS.iter().find(|(name, _)| *name == daemon).unwrap().1;
    pod(objects, kind, &format!("metallb-{daemon}"))
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// The container's arguments.
fn flags(pod: &Value) -> Vec<&str> {
    let flags = at(pod, "/containers/0/args").as_array().unwrap().iter();
    flags.map(|flag| flag.as_str().unwrap()).collect()
}

/// The items of a list by their name.
fn named<'a>(pod: &'a Value, pointer: &str) -> BTreeMap<&'a str, &'a Value> {
    let items = at(pod, pointer).as_array().into_iter().flatten();
    items
        .map(|item| (at(item, "/name").as_str().unwrap(), item))
        .collect()
}

/// The variables a container is given, with where each value comes from.
fn variables(pod: &Value) -> BTreeMap<&str, String> {
    named(pod, "/containers/0/env")
        .into_iter()
        .map(|(name, item)| {
            let from = at(item, "/valueFrom/fieldRef/fieldPath").as_str();
            let value = from.or_else(|| at(item, "/value").as_str());
            (name, value.unwrap_or_default().to_owned())
        })
        .collect()
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    let chart = ours();
    let chart = chart.to_str().unwrap();
    let values = metallbs_values();
    let values = values.to_str().unwrap();
    for settings in [&[][..], &["-f", values]] {
        let mut words = vec!["lint", "--strict", chart];
        words.extend(settings);
        let said = helm().run(&home(), &words).unwrap();
        assert!(said.contains("0 chart(s) failed"), "{said}");
    }
}

#[test]
fn the_definitions_are_those_of_the_manifests() {
    let wanted: Vec<_> = kustomized("crds");
    assert_eq!(wanted.len(), 9);
    for settings in [&[][..], &["--set", "controller.webhookMode=disabled"]] {
        let chart = rendered(settings);
        let definitions: Vec<_> = chart
            .iter()
            .filter(|object| object["kind"] == "CustomResourceDefinition")
            .collect();
        assert_eq!(definitions.len(), wanted.len());
        for definition in &wanted {
            let name = at(definition, "/metadata/name").as_str().unwrap();
            let mut found = object(&chart, "CustomResourceDefinition", name)
                .unwrap()
                .clone();
            // The controller converts peers, where it answers webhooks.
            let conversion = found["spec"].as_object_mut().unwrap().remove("conversion");
            let expected = name == "bgppeers.metallb.io" && settings.is_empty();
            assert_eq!(conversion.is_some(), expected, "{name}");
            assert_eq!(&found, definition, "{name}");
        }
    }
    assert!(
        !rendered(&["--set", "crds.enabled=false"])
            .iter()
            .any(|object| object["kind"] == "CustomResourceDefinition")
    );
}

#[test]
fn where_chart_and_manifests_say_the_same_they_agree() {
    let chart = rendered(&[]);
    let manifests = kustomized("overlays/crd");
    for (daemon, kind) in DAEMONS {
        let (one, other) = (chart_pod(&chart, daemon), pod(&manifests, kind, daemon));
        for same in [
            "/hostNetwork",
            "/nodeSelector",
            "/tolerations",
            "/terminationGracePeriodSeconds",
            "/securityContext/runAsNonRoot",
            "/securityContext/runAsUser",
            "/securityContext/fsGroup",
            "/containers/0/name",
            "/containers/0/image",
            "/containers/0/securityContext/allowPrivilegeEscalation",
            "/containers/0/securityContext/readOnlyRootFilesystem",
            "/containers/0/securityContext/capabilities",
            "/containers/0/livenessProbe/httpGet/path",
            "/containers/0/readinessProbe/httpGet/path",
            "/containers/0/readinessProbe/periodSeconds",
        ] {
            assert_eq!(at(one, same), at(other, same), "{daemon} {same}");
        }
        let seccomp = |pod| {
            let own = at(pod, "/containers/0/securityContext/seccompProfile/type");
            let pods = at(pod, "/securityContext/seccompProfile/type");
            own == "RuntimeDefault" || pods == "RuntimeDefault"
        };
        assert!(seccomp(one) && seccomp(other), "{daemon}");
        // The chart's names are those of its release.
        let mut theirs = variables(other);
        for (name, value) in [
            ("METALLB_DEPLOYMENT", "metallb-controller"),
            ("METALLB_ML_SECRET_NAME", "metallb-memberlist"),
            (
                "METALLB_ML_LABELS",
                "app.kubernetes.io/name=metallb,app.kubernetes.io/component=speaker",
            ),
        ] {
            theirs
                .entry(name)
                .and_modify(|there| value.clone_into(there));
        }
        let mut ours = variables(one);
        ours.remove("METALLB_ML_BIND_PORT");
        assert_eq!(ours, theirs, "{daemon}");
        let image = at(one, "/containers/0/image").as_str().unwrap();
        assert_eq!(format!("docker.io/{image}"), ferrolb_image(daemon));
    }
    let alerts = |objects: &[Value]| -> BTreeMap<String, (String, Value, Value)> {
        let rules = object(objects, "PrometheusRule", "metallb").unwrap();
        let rules = at(rules, "/spec/groups/0/rules").as_array().unwrap().iter();
        rules
            .map(|rule| {
                let name = rule["alert"].as_str().unwrap().to_owned();
                let expression = rule["expr"].as_str().unwrap().to_owned();
                let rest = (
                    expression,
                    rule["labels"].clone(),
                    rule["annotations"].clone(),
                );
                (name, rest)
            })
            .collect()
    };
    let with_alerts = rendered(&["--set", "prometheus.prometheusRule.enabled=true"]);
    assert_eq!(alerts(&with_alerts), alerts(&kustomized("prometheus")));
}

/// Rights without names, which differ, of the webhooks and of who reads the metrics, which the overlay has none of.
#[test]
fn the_charts_rights_are_the_manifests_and_those_of_what_they_lack() {
    let shorts = |objects: &[Value], full: &str| -> BTreeSet<String> {
        let rights = rights::granted(objects).unwrap();
        rights
            .iter()
            .map(|right| right.short().replace(full, ""))
            .collect()
    };
    let chart = shorts(&rendered(&[]), "metallb-");
    let overlay = shorts(&kustomized("overlays/crd"), "");
    let reviews = |daemon: &str| {
        [
            format!("{daemon} create tokenreviews.authentication.k8s.io"),
            format!("{daemon} create subjectaccessreviews.authorization.k8s.io"),
        ]
    };
    let more: BTreeSet<_> = reviews("controller")
        .into_iter()
        .chain(reviews("speaker"))
        .chain(
            [
                "controller list bgpadvertisements.metallb.io",
                "controller list bgppeers.metallb.io",
                "controller list communities.metallb.io",
                "controller list customresourcedefinitions.apiextensions.k8s.io",
                "controller patch customresourcedefinitions.apiextensions.k8s.io",
                "controller patch validatingwebhookconfigurations.admissionregistration.k8s.io",
                "controller update secrets",
                "controller watch customresourcedefinitions.apiextensions.k8s.io",
                "controller watch secrets",
                "controller watch validatingwebhookconfigurations.admissionregistration.k8s.io",
            ]
            .map(str::to_owned),
        )
        .collect();
    let found: BTreeSet<_> = chart.difference(&overlay).cloned().collect();
    assert_eq!(found, more);
    let lacking: Vec<_> = overlay.difference(&chart).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
}

#[test]
fn the_excluded_interfaces_are_the_speakers_own_list() {
    let made = rendered(&[]);
    let map = object(&made, "ConfigMap", "metallb-excludel2").unwrap();
    let text = map["data"]["excludel2.yaml"].as_str().unwrap();
    let listed = objects(text).unwrap();
    let listed: Vec<_> = listed[0]["announcedInterfacesToExclude"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pattern| pattern.as_str().unwrap())
        .collect();
    let source = fs::read_to_string(project().join("speaker/src/exclusions.rs")).unwrap();
    let (_, list) = source.split_once("const USUAL").unwrap();
    let (_, list) = list.split_once('=').unwrap();
    let (list, _) = list.split_once("];").unwrap();
    let own: Vec<_> = list.split('"').skip(1).step_by(2).collect();
    assert_eq!(listed, own);
}
