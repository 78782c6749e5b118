//! The two stories that people tell, with their own commands.

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    deploy::PATIENCE,
    istio::{self, INGRESS, NAMESPACE, curl, object},
    observe::sole_answerer,
};

use crate::world::{CLIENT, FIRST, World};

/// minikube, MetalLB's ConfigMap with 192.168.99.100/28, Istio's ingress gateway, httpbin.
pub fn httpbin_behind_the_ingress_gateway(world: &World) -> Result<()> {
    let address = istio::address(world, NAMESPACE, INGRESS)?;
    ensure!(address == FIRST, "the gateway's address is {address}");
    let service = object(world, NAMESPACE, "service", INGRESS)?;
    let ports: Vec<_> = service
        .pointer("/spec/ports")
        .and_then(|ports| ports.as_array())
        .context("no ports")?
        .iter()
        .filter_map(|port| port.get("port")?.as_u64())
        .collect();
    ensure!(ports == [15021, 80, 443, 31400, 15443], "ports {ports:?}");
    let port = "jsonpath={.spec.ports[?(@.name==\"http2\")].port}";
    let port = world.kubectl(&["-n", NAMESPACE, "get", "service", INGRESS, "-o", port])?;
    ensure!(port == "80", "port http2 is {port}");
    // One node answers for it, whatever runs there.
    sole_answerer(world, CLIENT, address.parse::<std::net::Ipv4Addr>()?, &[])?;

    istio::apply(world, "httpbin-gateway.yaml")?;
    let host = "httpbin.example.com";
    let ok = world.ask(200, host, "/status/200", &[])?;
    ensure!(ok.header("server") == Some("istio-envoy"), "{ok:?}");
    ensure!(
        ok.header("x-envoy-upstream-service-time").is_some(),
        "{ok:?}"
    );
    let head = world.ask(200, host, "/status/200", &["-I"])?;
    ensure!(head.body.is_empty(), "{head:?}");
    let teapot = world.ask(418, host, "/status/418", &[])?;
    ensure!(teapot.body.contains("teapot"), "{teapot:?}");
    let delayed = world.ask(200, host, "/delay/2", &[])?;
    ensure!(
        delayed.seconds >= 2.0,
        "answered after {} s",
        delayed.seconds
    );
    // No route leads to it, and none to any other host.
    for (host, path) in [(host, "/headers"), ("other.example.com", "/status/200")] {
        let unrouted = world.ask(404, host, path, &[])?;
        ensure!(
            unrouted.header("server") == Some("istio-envoy"),
            "{unrouted:?}"
        );
    }
    let ready = curl::curl(
        world,
        CLIENT,
        &[&format!("http://{FIRST}:15021/healthz/ready")],
    )?;
    ensure!(ready.status == 200, "{ready:?}");

    // As a browser asks: by the bare address.
    istio::apply(world, "httpbin-gateway-any-host.yaml")?;
    let headers = world.ask(200, FIRST, "/headers", &[])?;
    let shown: serde_json::Value = serde_json::from_str(&headers.body)?;
    let host = shown
        .pointer("/headers/Host")
        .and_then(|host| host.as_str());
    ensure!(host == Some(FIRST), "{shown:#}");
    Ok(())
}

/// A cluster with a load balancer, hostname-echo behind an Istio Gateway.
pub fn hostname_echo_behind_a_gateway(world: &World) -> Result<()> {
    istio::apply(world, "hostname-echo-gateway.yaml")?;
    let address = istio::address(world, NAMESPACE, INGRESS)?;
    let url = format!("http://{address}/");
    curl::until(world, CLIENT, 200, &[&url])?;
    let pods = world.kubectl(&[
        "get",
        "pods",
        "-l",
        "app=hostname-echo",
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ])?;
    let pods: std::collections::BTreeSet<_> = pods.split_whitespace().map(str::to_owned).collect();
    ensure!(pods.len() == 3, "{pods:?}");
    // Envoy takes them in turn, each of its workers on its own.
    world.wait("every pod to be asked", PATIENCE, || {
        let heard = world.answering(&address, &url, 12)?;
        ensure!(heard == pods, "{heard:?} answered, not all of {pods:?}");
        Ok(true)
    })
}
