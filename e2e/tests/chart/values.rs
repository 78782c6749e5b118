//! What each value does.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_e2e::deploy::rights;
use serde_json::{Value, json};

use crate::objects::object;
use crate::{DAEMONS, at, chart_pod, flags, named, refused, rendered, variables};

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
        "controller.onConflict=reassign",
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
    assert!(flags(controller).contains(&"--on-conflict=reassign"));
    let unsaid = rendered(&[]);
    let unsaid = flags(chart_pod(&unsaid, "controller"));
    assert!(!unsaid.iter().any(|flag| flag.starts_with("--on-conflict")));
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
        (
            controller,
            "/containers/0/resources",
            json!({"requests": {"cpu": "20m", "memory": "32Mi"}}),
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
        ("controller.onConflict=move", "onConflict"),
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
