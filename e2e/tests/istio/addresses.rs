//! The gateway's address: whose request it brings, who shares it, who answers for it.

use std::{collections::BTreeSet, net::Ipv4Addr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    artifact::istio as built,
    deploy::{self, PATIENCE},
    istio::{self, INGRESS, NAMESPACE, curl},
    observe::{answerers, arp, http, sole_answerer},
};
use serde_json::{Value, json};

use crate::{
    objects::{gateway, gateway_on, http_server, to_hostname_echo, to_httpbin, virtual_service},
    world::{CLIENT, FIRST, World},
};

fn first() -> Result<Ipv4Addr> {
    Ok(FIRST.parse()?)
}

/// The nodes with a ready pod of the ingress gateway.
fn nodes_with_gateway(world: &World) -> Result<BTreeSet<String>> {
    let slices = world.kubectl(&[
        "-n",
        NAMESPACE,
        "get",
        "endpointslices",
        "-l",
        &format!("kubernetes.io/service-name={INGRESS}"),
        "-o",
        "jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.nodeName}{\" \"}{end}",
    ])?;
    Ok(slices.split_whitespace().map(str::to_owned).collect())
}

/// Who httpbin is told that the client is.
fn forwarded_for(world: &World, host: &str) -> Result<String> {
    let answer = world.ask(200, host, "/headers", &[])?;
    let shown: Value = serde_json::from_str(&answer.body)?;
    let header = shown
        .pointer("/headers/X-Forwarded-For")
        .and_then(Value::as_str);
    Ok(header.context("no X-Forwarded-For")?.to_owned())
}

pub fn local_policy_keeps_the_clients_address(world: &World) -> Result<()> {
    let host = "local.example.com";
    world.submit(&[
        gateway("local", &http_server(80, &[host])),
        virtual_service("local", &[host], "local", &json!([{"route": to_httpbin()}])),
    ])?;
    let client = world.address(CLIENT)?.to_string();
    let through_cluster = forwarded_for(world, host)?;
    ensure!(
        through_cluster != client,
        "policy Cluster hides the client: {through_cluster}"
    );

    let settings = [
        "--set",
        "service.externalTrafficPolicy=Local",
        "--set",
        "replicaCount=1",
    ];
    world.mesh.gateway(world, INGRESS, &settings)?;
    let judged = world
        .wait(
            "the node with the gateway to answer, alone",
            PATIENCE,
            || {
                let with_gateway = nodes_with_gateway(world)?;
                let answering = answerers(world, CLIENT, first()?)?;
                ensure!(
                    with_gateway.len() == 1 && answering == with_gateway,
                    "{with_gateway:?} have a gateway, {answering:?} answer"
                );
                Ok(true)
            },
        )
        .and_then(|()| forwarded_for(world, host));
    // For the tests to come, whatever came out.
    world.mesh.gateway(world, INGRESS, &[])?;
    let through_local = judged?;
    ensure!(
        through_local == client,
        "the client is {client}, seen as {through_local}"
    );
    Ok(())
}

pub fn two_gateways_share_an_address(world: &World) -> Result<()> {
    let share = "service.annotations.metallb\\.universe\\.tf/allow-shared-ip=mesh";
    world.mesh.gateway(world, INGRESS, &["--set", share])?;
    let values = built::sources().join("values-second-gateway.yaml");
    let values = values.to_str().context("a path that is no text")?;
    let second = "istio-second";
    let judged = world
        .mesh
        .gateway(world, second, &["-f", values])
        .and_then(|()| shared(world, second));
    world.mesh.remove_gateway(world, second)?;
    world.mesh.gateway(world, INGRESS, &[])?;
    judged
}

fn shared(world: &World, second: &str) -> Result<()> {
    let host = "shared.example.com";
    for name in [INGRESS, second] {
        let address = istio::address(world, NAMESPACE, name)?;
        ensure!(address == FIRST, "{name} has {address}");
    }
    world.submit(&[
        gateway("first", &http_server(80, &[host])),
        virtual_service("first", &[host], "first", &json!([{"route": to_httpbin()}])),
        gateway_on("second", "second", &http_server(8080, &[host])),
        virtual_service(
            "second",
            &[host],
            "second",
            &json!([{"route": to_hostname_echo()}]),
        ),
    ])?;
    let answer = world.ask(200, host, "/", &[])?;
    ensure!(answer.body == "httpbin\n", "port 80: {answer:?}");
    let header = format!("Host: {host}");
    let url = format!("http://{FIRST}:8080/");
    let answer = curl::until(world, CLIENT, 200, &["-H", &header, &url])?;
    ensure!(
        answer.body.starts_with("hostname-echo-"),
        "port 8080: {answer:?}"
    );
    sole_answerer(world, CLIENT, first()?, &[]).map(drop)
}

pub fn the_announcing_node_fails_under_load(world: &World) -> Result<()> {
    istio::apply(world, "hostname-echo-gateway.yaml")?;
    let owner = sole_answerer(world, CLIENT, first()?, &[])?;
    // With pods of the way there, one would measure how long kube-proxy goes on sending to the dead.
    istio::vacate(world, &owner)?;
    let url = format!("http://{FIRST}/");
    curl::until(world, CLIENT, 200, &[&url])?;
    ensure!(
        sole_answerer(world, CLIENT, first()?, &[])? == owner,
        "{owner} answers no more"
    );

    let answers = arp::Watch::start(world, CLIENT, first()?)?;
    let requests = http::Stream::start(world, CLIENT, first()?.into(), 80)?;
    thread::sleep(Duration::from_secs(2));
    world.unplug(&owner)?;
    let heir = sole_answerer(world, CLIENT, first()?, &[&owner]);
    let again = curl::until(world, CLIENT, 200, &[&url]);
    thread::sleep(Duration::from_secs(2));
    let answers = answers.stop(world)?;
    let requests = requests.stop()?;
    world.plug(&owner)?;
    world.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "nodes",
        "--all",
        "--timeout=180s",
    ])?;
    deploy::wait_ready(world)?;
    again?;
    eprintln!(
        "announcing node {owner} unplugged, then {}: longest gap between ARP answers {:.1} s; new connections through \
         the gateway: {} served, {} failed, longest gap {:.1} s",
        heir?,
        arp::longest_gap(&answers),
        requests.served,
        requests.lost,
        requests.longest_gap.as_secs_f64(),
    );
    // Back together there is one answerer again, and the way is open.
    sole_answerer(world, CLIENT, first()?, &[])?;
    curl::until(world, CLIENT, 200, &[&url]).map(drop)
}
