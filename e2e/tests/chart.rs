//! The chart without a cluster: rendered by the real Helm, compared with what `config/deploy` says elsewhere, with
//! MetalLB's chart of the newest release, and with docs/helm.md.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use ferrolb_e2e::artifact::metallb::NEWEST;
use ferrolb_e2e::artifact::module::Module;
use ferrolb_e2e::artifact::{controlplane, ferrolb_image};
use ferrolb_e2e::deploy::chart::{Helm, metallbs, ours};
use ferrolb_e2e::deploy::{manifests, project, rights};
use ferrolb_e2e::steps::Steps;
use objects::{object, objects};
use serde_json::{Value, json};

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
fn values_become_flags_and_variables() {
    let made = rendered(&[
        "--set",
        "loadBalancerClass=example.com/lan,tls.minVersion=VersionTLS12,tls.curvePreferences=29",
        "--set",
        "tls.cipherSuites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,prometheus.metricsPort=9121",
        "--set",
        "tls.controllerMetricsTLSSecret=cert-c,tls.speakerMetricsTLSSecret=cert-s",
        "--set",
        "speaker.ignoreExcludeLB=true,speaker.wanConfig=true,speaker.logLevel=debug,speaker.secretName=key",
        "--set",
        "speaker.memberlist.mlBindPort=7947,speaker.memberlist.mlBindAddrOverride=10.0.0.1",
        "--set",
        "speaker.livenessProbe.port=18000,speaker.readinessProbe.port=18000,speaker.memberlist.mlSecretKeyPath=/key",
    ]);
    let (controller, speaker) = (chart_pod(&made, "controller"), chart_pod(&made, "speaker"));
    for (pod, certificate) in [(controller, "cert-c"), (speaker, "cert-s")] {
        for flag in [
            "--lb-class=example.com/lan",
            "--tls-min-version=VersionTLS12",
            "--tls-curve-preferences=29",
            "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "--port=9121",
            "--metrics-cert-dir=/etc/metrics",
        ] {
            assert!(flags(pod).contains(&flag), "{flag} in {:?}", flags(pod));
        }
        let volumes = named(pod, "/volumes");
        let secret = at(volumes["metrics-certificate"], "/secret/secretName");
        assert_eq!(secret, certificate);
        let mounts = named(pod, "/containers/0/volumeMounts");
        assert_eq!(mounts["metrics-certificate"]["mountPath"], "/etc/metrics");
    }
    for flag in [
        "--ignore-exclude-lb",
        "--ml-wan-config",
        "--log-level=debug",
        "--health-probe-port=18000",
    ] {
        assert!(flags(speaker).contains(&flag), "{flag}");
        assert!(!flags(controller).contains(&flag), "{flag}");
    }
    let probe = at(speaker, "/containers/0/livenessProbe/httpGet");
    assert_eq!(
        probe,
        &json!({"path": "/healthz", "port": 18000, "host": "127.0.0.1"})
    );
    let given = variables(speaker);
    assert_eq!(given["METALLB_ML_BIND_PORT"], "7947");
    assert_eq!(given["METALLB_ML_BIND_ADDR"], "10.0.0.1");
    assert_eq!(given["METALLB_ML_SECRET_KEY_PATH"], "/key");
    assert_eq!(variables(controller)["METALLB_ML_SECRET_NAME"], "key");
    let secret = at(
        named(speaker, "/volumes")["memberlist"],
        "/secret/secretName",
    );
    assert_eq!(secret, "key");
    let mounts = named(speaker, "/containers/0/volumeMounts");
    assert_eq!(mounts["memberlist"]["mountPath"], "/key");
}

#[test]
fn values_say_where_and_how_the_pods_run() {
    let made = rendered(&[
        "--set",
        "imagePullSecrets[0].name=pull,prometheus.scrapeAnnotations=true,speaker.tolerateMaster=false",
        "--set",
        "speaker.nodeSelector.role=edge,speaker.runtimeClassName=rc,speaker.tolerations[0].operator=Exists",
        "--set",
        "speaker.priorityClassName=system-node-critical,controller.priorityClassName=system-cluster-critical",
        "--set",
        "speaker.image.repository=registry.example/speaker,speaker.image.tag=t,speaker.image.pullPolicy=Always",
        "--set",
        "speaker.labels.team=net,speaker.podAnnotations.note=n,speaker.resources.limits.memory=64Mi",
        "--set",
        "speaker.extraContainers[0].name=beside,controller.command=/controller,controller.strategy.type=Recreate",
        "--set",
        "speaker.affinity.podAffinity.x=1,controller.livenessProbe.enabled=false",
        "--set",
        "controller.serviceAccount.name=c,speaker.serviceAccount.annotations.a=b",
    ]);
    let (controller, speaker) = (chart_pod(&made, "controller"), chart_pod(&made, "speaker"));
    for (pod, pointer, expected) in [
        (speaker, "/imagePullSecrets/0/name", json!("pull")),
        (controller, "/imagePullSecrets/0/name", json!("pull")),
        (speaker, "/tolerations", json!([{"operator": "Exists"}])),
        (
            speaker,
            "/nodeSelector",
            json!({"kubernetes.io/os": "linux", "role": "edge"}),
        ),
        (speaker, "/runtimeClassName", json!("rc")),
        (speaker, "/priorityClassName", json!("system-node-critical")),
        (
            controller,
            "/priorityClassName",
            json!("system-cluster-critical"),
        ),
        (
            speaker,
            "/containers/0/image",
            json!("registry.example/speaker:t"),
        ),
        (speaker, "/containers/0/imagePullPolicy", json!("Always")),
        (
            speaker,
            "/containers/0/resources",
            json!({"limits": {"memory": "64Mi"}}),
        ),
        (speaker, "/containers/1/name", json!("beside")),
        (speaker, "/affinity", json!({"podAffinity": {"x": 1}})),
        (controller, "/containers/0/command", json!(["/controller"])),
        (controller, "/containers/0/livenessProbe", Value::Null),
        (controller, "/serviceAccountName", json!("c")),
        (speaker, "/serviceAccountName", json!("metallb-speaker")),
    ] {
        assert_eq!(at(pod, pointer), &expected, "{pointer}");
    }
    let workload = object(&made, "DaemonSet", "metallb-speaker").unwrap();
    assert_eq!(at(workload, "/spec/template/metadata/labels/team"), "net");
    let annotations = json!({
        "note": "n",
        "prometheus.io/scrape": "true",
        "prometheus.io/scheme": "https",
        "prometheus.io/port": "9120",
    });
    assert_eq!(
        at(workload, "/spec/template/metadata/annotations"),
        &annotations
    );
    let workload = object(&made, "Deployment", "metallb-controller").unwrap();
    assert_eq!(at(workload, "/spec/strategy"), &json!({"type": "Recreate"}));
    let account = object(&made, "ServiceAccount", "metallb-speaker").unwrap();
    assert_eq!(at(account, "/metadata/annotations/a"), "b");
    let may = rights::granted(&made).unwrap();
    assert!(may.iter().any(|right| right.account == "c"), "{may:?}");
}

#[test]
fn values_say_what_stands_around_the_pods() {
    let made = rendered(&[
        "--set",
        "networkpolicies.enabled=true,networkpolicies.defaultDeny=true,networkpolicies.apiPort=443",
        "--set",
        "crds.validationFailurePolicy=Ignore,speaker.podDisruptionBudget.minAvailable=2",
    ]);
    let budget = object(&made, "PodDisruptionBudget", "metallb-speaker").unwrap();
    assert_eq!(at(budget, "/spec/minAvailable"), 2);
    object(&made, "NetworkPolicy", "default-deny").unwrap();
    let policy = object(&made, "NetworkPolicy", "controller").unwrap();
    assert_eq!(at(policy, "/spec/egress/0/ports/0/port"), 443);
    let ports = named(chart_pod(&made, "controller"), "/containers/0/ports");
    for allowed in at(policy, "/spec/ingress/0/ports").as_array().unwrap() {
        let port = allowed["port"].as_str().unwrap();
        assert!(ports.contains_key(port), "no port is called {port}");
    }
    let name = "metallb-webhook-configuration";
    let hooks = object(&made, "ValidatingWebhookConfiguration", name).unwrap();
    assert_eq!(at(hooks, "/webhooks/0/failurePolicy"), "Ignore");
}

#[test]
fn what_is_switched_off_is_not_there() {
    let kinds = |settings: &[&str]| -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for object in rendered(settings) {
            *kinds
                .entry(object["kind"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
        kinds
    };
    let without = |settings: &[&str], gone: &[&str]| {
        let kinds = kinds(settings);
        for kind in gone {
            assert!(!kinds.contains_key(*kind), "{settings:?} has {kind}");
        }
    };
    without(
        &[],
        &[
            "NetworkPolicy",
            "PodMonitor",
            "ServiceMonitor",
            "PrometheusRule",
            "PodDisruptionBudget",
        ],
    );
    without(
        &["--set", "rbac.create=false"],
        &["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"],
    );
    without(
        &["--set", "controller.webhookMode=disabled"],
        &["ValidatingWebhookConfiguration", "Secret", "Service"],
    );
    without(
        &["--set", "speaker.excludeInterfaces.enabled=false"],
        &["ConfigMap"],
    );
    without(
        &["--set", "speaker.enabled=false"],
        &["DaemonSet", "ConfigMap"],
    );
    without(
        &["--set", "controller.enabled=false"],
        &["Deployment", "ValidatingWebhookConfiguration", "Secret"],
    );
    let quiet = rendered(&[
        "--set",
        "speaker.memberlist.enabled=false,speaker.nodeSelector.role=edge",
    ]);
    let speaker = chart_pod(&quiet, "speaker");
    assert!(!variables(speaker).contains_key("METALLB_ML_BIND_ADDR"));
    assert!(!named(speaker, "/volumes").contains_key("memberlist"));
    // Speakers are told from one another's pods even so.
    assert!(variables(speaker).contains_key("METALLB_ML_LABELS"));
    assert!(!variables(chart_pod(&quiet, "controller")).contains_key("METALLB_ML_SECRET_NAME"));
}

#[test]
fn monitors_scrape_a_port_that_is_there() {
    let whom = "prometheus.serviceAccount=prometheus-k8s,prometheus.namespace=monitoring";
    let pods = rendered(&["--set", "prometheus.podMonitor.enabled=true", "--set", whom]);
    let services = rendered(&[
        "--set",
        "prometheus.serviceMonitor.enabled=true",
        "--set",
        whom,
    ]);
    for (daemon, _) in DAEMONS {
        let ports = |objects| -> BTreeSet<String> {
            named(chart_pod(objects, daemon), "/containers/0/ports")
                .into_keys()
                .map(str::to_owned)
                .collect()
        };
        let full = format!("metallb-{daemon}");
        let monitor = object(&pods, "PodMonitor", &full).unwrap();
        let endpoint = at(monitor, "/spec/podMetricsEndpoints/0");
        assert!(ports(&pods).contains(endpoint["port"].as_str().unwrap()));
        let token = at(endpoint, "/authorization/credentials/name")
            .as_str()
            .unwrap();
        object(&pods, "Secret", token).unwrap();

        let monitor = object(&services, "ServiceMonitor", &format!("{full}-monitor")).unwrap();
        let endpoint = at(monitor, "/spec/endpoints/0");
        let service = at(monitor, "/spec/selector/matchLabels/name")
            .as_str()
            .unwrap();
        let service = object(&services, "Service", service).unwrap();
        assert_eq!(at(service, "/spec/ports/0/name"), &endpoint["port"]);
        let target = at(service, "/spec/ports/0/targetPort").as_str().unwrap();
        assert!(ports(&services).contains(target));
    }
    for objects in [&pods, &services] {
        let binding = object(objects, "RoleBinding", "metallb-prometheus").unwrap();
        assert_eq!(at(binding, "/subjects/0/namespace"), "monitoring");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_reason() {
    for (settings, reason) in [
        ("frrk8s.external=true", "speaks no BGP"),
        (
            "controller.strategy.rollingUpdate.maxSurge=25%",
            "two controllers",
        ),
        ("configInline.peers=x", "ferrolb convert"),
        ("existingConfigMap=config", "ferrolb convert"),
        (
            "prometheus.podMonitor.enabled=true",
            "prometheus.serviceAccount",
        ),
        (
            "prometheus.podMonitor.enabled=true,prometheus.serviceMonitor.enabled=true",
            "choose one",
        ),
        ("speaker.readinessProbe.port=1", "one port answers both"),
        // By the schema: a value misspelt, a word that is none, a number where there is none.
        ("speaker.tolerateMasters=false", "tolerateMasters"),
        ("controller.webhookMode=on", "webhookMode"),
        ("speaker.memberlist.mlBindPort=99999", "mlBindPort"),
        (
            "speaker.podDisruptionBudget.maxUnavailable=1",
            "maxUnavailable",
        ),
    ] {
        let said = refused(&["--set", settings]);
        assert!(said.contains(reason), "{settings}: {said}");
    }
}

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

fn values(path: &std::path::Path) -> BTreeMap<String, Value> {
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
