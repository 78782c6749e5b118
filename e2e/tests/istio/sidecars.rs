//! An application in the mesh: a proxy is injected into its pod and takes its connections.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{
    objects::{gateway, http_server, virtual_service},
    world::World,
};

const NAMESPACE: &str = "meshed";

pub fn an_injected_application_is_reached_by_mutual_tls(world: &World) -> Result<()> {
    let host = "meshed.example.com";
    let labels = json!({"app": "httpbin"});
    world.submit(&[json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"istio-injection": "enabled"}},
    })])?;
    world.submit(&[
        // Nothing but the mesh's own TLS gets in.
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": "strict", "namespace": NAMESPACE},
            "spec": {"mtls": {"mode": "STRICT"}},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "httpbin", "namespace": NAMESPACE},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 8000, "targetPort": 8080}]},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "httpbin", "namespace": NAMESPACE},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{"name": "httpbin", "image": "lab/httpbin:1", "imagePullPolicy": "Never"}],
                    },
                },
            },
        }),
        gateway("meshed", &http_server(80, &[host])),
        virtual_service(
            "meshed",
            &[host],
            "meshed",
            &json!([{"route": [{"destination": {
                "host": format!("httpbin.{NAMESPACE}.svc.cluster.local"),
                "port": {"number": 8000},
            }}]}]),
        ),
    ])?;
    let judged = reached(world, host);
    world.kubectl(&["delete", "namespace", NAMESPACE])?;
    judged
}

fn reached(world: &World, host: &str) -> Result<()> {
    let deployment = "deployment/httpbin";
    world.kubectl(&[
        "-n",
        NAMESPACE,
        "rollout",
        "status",
        deployment,
        "--timeout=180s",
    ])?;
    let containers = "jsonpath={.items[*].spec.containers[*].name}";
    let containers = world.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", containers])?;
    ensure!(
        containers.contains("istio-proxy"),
        "no proxy among {containers}"
    );
    let answer = world.ask(200, host, "/headers", &[])?;
    let shown: Value = serde_json::from_str(&answer.body)?;
    // Who the application's proxy saw: the gateway, by its certificate.
    let certificate = shown
        .pointer("/headers/X-Forwarded-Client-Cert")
        .and_then(Value::as_str)
        .with_context(|| format!("no certificate of the client: {shown:#}"))?;
    ensure!(
        certificate.contains("/ns/istio-system/sa/istio-ingressgateway"),
        "{certificate}"
    );
    Ok(())
}
