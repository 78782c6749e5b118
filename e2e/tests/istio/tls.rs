//! TLS on port 443: ended by the gateway, or handed on to who the client asks for.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::istio::{
    NAMESPACE,
    curl::{self, Response},
};
use serde_json::json;

use crate::{
    objects::{gateway, tls_secret, to_httpbin, virtual_service},
    world::{CLIENT, FIRST, World},
};

/// A certificate for `host` that signs itself: its PEM, its key's, and the file a client trusts it by.
fn certificate(world: &World, host: &str) -> Result<(String, String, PathBuf)> {
    let made = rcgen::generate_simple_self_signed([host.to_owned()])?;
    let path = world.directory().join(format!("{host}.pem"));
    std::fs::write(&path, made.cert.pem())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem(), path))
}

/// Asks `https://host/path` at the gateway's address until the status is `status`, trusting one certificate alone.
fn ask(world: &World, status: u16, host: &str, path: &str, trusted: &Path) -> Result<Response> {
    let resolve = format!("{host}:443:{FIRST}");
    let trusted = trusted.to_str().context("a path that is no text")?;
    let url = format!("https://{host}{path}");
    let words = ["--resolve", &resolve, "--cacert", trusted, &url];
    curl::until(world, CLIENT, status, &words)
}

pub fn terminated_at_the_gateway(world: &World) -> Result<()> {
    let host = "secure.example.com";
    let (chain, key, trusted) = certificate(world, host)?;
    world.submit(&[
        tls_secret(NAMESPACE, "secure-credential", &chain, &key),
        gateway(
            "secure",
            &json!([{
                "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
                "tls": {"mode": "SIMPLE", "credentialName": "secure-credential"},
                "hosts": [host],
            }]),
        ),
        virtual_service(
            "secure",
            &[host],
            "secure",
            &json!([{"route": to_httpbin()}]),
        ),
    ])?;
    ask(world, 418, host, "/status/418", &trusted)?;
    let headers = ask(world, 200, host, "/headers", &trusted)?;
    ensure!(
        headers.header("server") == Some("istio-envoy"),
        "{headers:?}"
    );
    // The application got plain HTTP, and is told that the client spoke TLS.
    ensure!(
        headers.body.contains("\"X-Forwarded-Proto\": \"https\""),
        "{headers:?}"
    );
    Ok(())
}

pub fn passed_through_by_name(world: &World) -> Result<()> {
    let host = "passed.example.com";
    let (chain, key, trusted) = certificate(world, host)?;
    let labels = json!({"app": "passed", "e2e": "yes"});
    world.submit(&[
        tls_secret("default", "passed-certificate", &chain, &key),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "passed", "labels": labels},
            "spec": {"selector": {"app": "passed"}, "ports": [{"name": "tls", "port": 443, "targetPort": 8443}]},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "passed", "labels": labels},
            "spec": {
                "selector": {"matchLabels": {"app": "passed"}},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "volumes": [{"name": "certificate", "secret": {"secretName": "passed-certificate"}}],
                        "containers": [{
                            "name": "httpbin", "image": "lab/httpbin:1", "imagePullPolicy": "Never",
                            "env": [{"name": "TLS_DIRECTORY", "value": "/certificate"}],
                            "volumeMounts": [{"name": "certificate", "mountPath": "/certificate"}],
                            "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
                        }],
                    },
                },
            },
        }),
        gateway(
            "passed",
            &json!([{
                "port": {"number": 443, "name": "tls", "protocol": "TLS"},
                "tls": {"mode": "PASSTHROUGH"},
                "hosts": [host],
            }]),
        ),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "passed", "namespace": "default"},
            "spec": {
                "hosts": [host], "gateways": ["passed"],
                "tls": [{
                    "match": [{"port": 443, "sniHosts": [host]}],
                    "route": [{"destination": {"host": "passed", "port": {"number": 443}}}],
                }],
            },
        }),
    ])?;
    // Trusting the application's certificate alone shows who ended the TLS.
    let answer = ask(world, 418, host, "/status/418", &trusted)?;
    ensure!(
        answer.header("server").is_none(),
        "the gateway saw the request: {answer:?}"
    );
    Ok(())
}
