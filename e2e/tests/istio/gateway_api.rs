//! The Kubernetes Gateway API and Ingress: what asks for addresses without a Service of its own hand.

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    deploy::PATIENCE,
    istio::{curl, object},
    observe::service::wait_event,
};
use serde_json::{Value, json};

use crate::world::{CLIENT, FIRST, World};

/// A Gateway of class istio that takes HTTP on port 80, and a route to hostname-echo; `more` goes into the Gateway's spec.
fn gateway(name: &str, more: &Value) -> Vec<Value> {
    let mut gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "gatewayClassName": "istio",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    });
    if let (Some(spec), Some(more)) = (
        gateway.pointer_mut("/spec").and_then(Value::as_object_mut),
        more.as_object(),
    ) {
        spec.extend(more.clone());
    }
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "parentRefs": [{"name": name}],
            "rules": [{"backendRefs": [{"name": "hostname-echo", "port": 80}]}],
        },
    });
    vec![gateway, route]
}

/// A Gateway's condition `Programmed`: its status and reason.
fn programmed(world: &World, name: &str) -> Result<(String, String)> {
    let gateway = object(world, "default", "gateways.gateway.networking.k8s.io", name)?;
    let conditions = gateway
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let condition = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.get("type") == Some(&json!("Programmed")))
        .context("no condition Programmed")?;
    let text = |key| {
        condition
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Ok((text("status"), text("reason")))
}

/// Waits until a Gateway is programmed and returns its addresses as its status has them.
fn addresses(world: &World, name: &str) -> Result<Vec<String>> {
    world.wait(
        &format!("Gateway {name} to be programmed"),
        PATIENCE,
        || {
            let (status, reason) = programmed(world, name)?;
            ensure!(status == "True", "Programmed={status}, {reason}");
            Ok(true)
        },
    )?;
    let gateway = object(world, "default", "gateways.gateway.networking.k8s.io", name)?;
    let addresses = gateway
        .pointer("/status/addresses")
        .and_then(Value::as_array);
    let addresses = addresses.context("no addresses in the status")?.iter();
    addresses
        .map(|address| {
            ensure!(
                address.get("type") == Some(&json!("IPAddress")),
                "{address}"
            );
            let value = address.get("value").and_then(Value::as_str);
            Ok(value.context("an address without value")?.to_owned())
        })
        .collect()
}

/// The Service that istiod made for a Gateway prefers two families and could have both: its cluster addresses show it.
fn prefers_two(service: &Value) -> Result<()> {
    let policy = service
        .pointer("/spec/ipFamilyPolicy")
        .and_then(Value::as_str);
    let ips = service
        .pointer("/spec/clusterIPs")
        .and_then(Value::as_array);
    ensure!(
        policy == Some("PreferDualStack") && ips.is_some_and(|ips| ips.len() == 2),
        "{service:#}"
    );
    Ok(())
}

fn ingress(service: &Value) -> Vec<&str> {
    let entries = service
        .pointer("/status/loadBalancer/ingress")
        .and_then(Value::as_array);
    let entries = entries.into_iter().flatten();
    entries
        .filter_map(|entry| entry.get("ip")?.as_str())
        .collect()
}

pub fn a_gateway_makes_its_own_service(world: &World) -> Result<()> {
    world.submit(&gateway("web", &json!({})))?;
    let given = addresses(world, "web")?;
    let service = object(world, "default", "service", "web-istio")?;
    prefers_two(&service)?;
    ensure!(ingress(&service) == given, "{given:?}, {service:#}");
    let [address] = given.as_slice() else {
        anyhow::bail!("from a pool of one family: {given:?}");
    };
    ensure!(address != FIRST, "the ingress gateway has it");
    let url = format!("http://{address}/");
    let answer = curl::until(world, CLIENT, 200, &[&url])?;
    ensure!(answer.body.starts_with("hostname-echo-"), "{answer:?}");

    // What istiod does not write into the Service stays as an operator writes it, also when istiod writes again.
    let local = r#"{"spec": {"externalTrafficPolicy": "Local"}}"#;
    world.kubectl(&["patch", "service", "web-istio", "-p", local])?;
    let labelled = json!({"infrastructure": {"labels": {"written": "again"}}});
    world.submit(&gateway("web", &labelled))?;
    world.wait("istiod to write the Service again", PATIENCE, || {
        let service = object(world, "default", "service", "web-istio")?;
        let label = service.pointer("/metadata/labels/written");
        ensure!(label == Some(&json!("again")), "{label:?}");
        let policy = service.pointer("/spec/externalTrafficPolicy");
        Ok(policy == Some(&json!("Local")))
    })?;
    ensure!(
        addresses(world, "web")? == given,
        "another address than {given:?}"
    );
    Ok(())
}

/// MetalLB refuses this: one address asked for, and a Service that would also take two.
pub fn one_address_may_be_asked_for(world: &World) -> Result<()> {
    let by_field = json!({"addresses": [{"type": "IPAddress", "value": "192.168.99.105"}]});
    let by_annotation = json!({"infrastructure": {"annotations": {"metallb.io/loadBalancerIPs": "192.168.99.106"}}});
    world.submit(&gateway("field", &by_field))?;
    world.submit(&gateway("annotation", &by_annotation))?;
    for (name, address) in [
        ("field", "192.168.99.105"),
        ("annotation", "192.168.99.106"),
    ] {
        let addresses = addresses(world, name)?;
        ensure!(addresses == [address], "{name}: {addresses:?}");
        let service = object(world, "default", "service", &format!("{name}-istio"))?;
        prefers_two(&service)?;
        ensure!(ingress(&service) == [address], "{service:#}");
        let url = format!("http://{address}/");
        curl::until(world, CLIENT, 200, &[&url])?;
    }
    Ok(())
}

pub fn an_address_that_cannot_be_had_is_said(world: &World) -> Result<()> {
    let foreign = json!({"addresses": [{"type": "IPAddress", "value": "203.0.113.9"}]});
    world.submit(&gateway("foreign", &foreign))?;
    wait_event(
        world,
        "default",
        "Service",
        "foreign-istio",
        "AllocationFailed",
        "203.0.113.9",
    )?;
    world.wait(
        "the Gateway to say that it has no address",
        PATIENCE,
        || {
            let (status, reason) = programmed(world, "foreign")?;
            ensure!(status == "False", "Programmed={status}, {reason}");
            Ok(reason == "AddressNotAssigned")
        },
    )?;
    // Mended, it is served.
    let own = json!({"addresses": [{"type": "IPAddress", "value": "192.168.99.107"}]});
    world.submit(&gateway("foreign", &own))?;
    let addresses = addresses(world, "foreign")?;
    ensure!(addresses == ["192.168.99.107"], "{addresses:?}");
    Ok(())
}

pub fn an_ingress_shows_the_gateways_address(world: &World) -> Result<()> {
    let host = "ingress.example.com";
    world.submit(&[
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": "istio"},
            "spec": {"controller": "istio.io/ingress-controller"},
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "ingress", "namespace": "default"},
            "spec": {
                "ingressClassName": "istio",
                "rules": [{"host": host, "http": {"paths": [{
                    "path": "/status", "pathType": "Prefix",
                    "backend": {"service": {"name": "httpbin", "port": {"number": 8000}}},
                }]}}],
            },
        }),
    ])?;
    world.wait("the Ingress to show an address", PATIENCE, || {
        let ingress = object(world, "default", "ingress", "ingress")?;
        let address = ingress.pointer("/status/loadBalancer/ingress/0/ip");
        ensure!(address == Some(&json!(FIRST)), "{address:?}");
        Ok(true)
    })?;
    world.ask(418, host, "/status/418", &[])?;
    world.ask(404, host, "/get", &[]).map(drop)
}
