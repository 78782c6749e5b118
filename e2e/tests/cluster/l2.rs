//! What is seen of an announced Service: traffic of both protocols, one owner for who shares, metrics, statuses.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    deploy::{self, NAMESPACE, PATIENCE},
    observe::http::series,
};
use serde_json::json;

use crate::world::{CLIENT, World};

pub fn mixed_protocols_on_one_address(world: &World) -> Result<()> {
    world.echo("a", "n2")?;
    let address = world.balanced(
        "a",
        json!({"ports": [
            {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
            {"name": "datagrams", "port": 80, "targetPort": 8080, "protocol": "UDP"},
        ]}),
    )?;
    world.fetch(address)?;
    ask_by_datagram(world, address.into())
}

/// Sends a datagram from the client until it is answered.
fn ask_by_datagram(world: &World, address: IpAddr) -> Result<()> {
    world.wait(&format!("UDP through {address}"), PATIENCE, || {
        let answer = world.within(CLIENT, || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.connect(SocketAddr::from((address, 80)))?;
            socket.send(b"who is there?")?;
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer)?;
            Ok(answer.get(..length).unwrap_or_default().to_vec())
        })?;
        ensure!(answer == b"who is there?", "{answer:?}");
        Ok(true)
    })
}

pub fn who_shares_an_address_has_one_announcer(world: &World) -> Result<()> {
    world.configure(&[("custom-ip-space", &["192.168.99.120/29", "fd99::1:0/125"])])?;
    world.echo("app", "n1")?;
    let key = json!({"metallb.io/allow-shared-ip": "key"});
    for (family, names, address) in [
        ("IPv4", ["four-a", "four-b"], "192.168.99.120"),
        ("IPv6", ["six-a", "six-b"], "fd99::1:0"),
    ] {
        for (name, port) in names.into_iter().zip([80, 81]) {
            world.dressed(
                name,
                json!({}),
                key.clone(),
                json!({
                    "ipFamilyPolicy": "SingleStack",
                    "ipFamilies": [family],
                    "selector": {"app": "app"},
                    "ports": [{"name": "http", "port": port, "targetPort": 8080, "protocol": "TCP"}],
                }),
            )?;
            world.gets(name, &[address])?;
        }
        let owner = world.owner(address.parse::<IpAddr>()?)?;
        for name in names {
            world.said_of(name, &owner)?;
        }
        // The address stays while one of them has it.
        let [first, _] = names;
        world.forget(&[first])?;
        ensure!(world.owner(address.parse::<IpAddr>()?)? == owner);
    }
    Ok(())
}

pub fn statuses_deleted_by_hand_come_back(world: &World) -> Result<()> {
    world.echo("a", "n1")?;
    let address = world.balanced("a", json!({}))?;
    let owner = world.owner(address)?;
    for (kind, pointer, expected) in [
        ("servicel2statuses", "/status/node", owner.as_str()),
        ("configurationstates", "/status/result", "Valid"),
    ] {
        let count = if kind == "servicel2statuses" {
            1
        } else {
            world.nodes().len() + 1
        };
        let complete = || {
            world.wait(&format!("{count} {kind}"), PATIENCE, || {
                let objects = world.objects(kind)?;
                let values: Vec<_> = objects
                    .iter()
                    .map(|object| object.pointer(pointer))
                    .collect();
                ensure!(
                    values == vec![Some(&json!(expected)); count],
                    "{pointer}: {values:?}"
                );
                Ok(true)
            })
        };
        complete()?;
        let plural = format!("{kind}.metallb.io");
        world.kubectl(&["-n", NAMESPACE, "delete", &plural, "--all"])?;
        complete()?;
    }
    ensure!(world.owner(address)? == owner, "the announcer changed");
    Ok(())
}

/// Rights as the manifests with Prometheus give them, and those of who reads: the plain manifest has none of them.
const RIGHTS: &str = r"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: e2e-metrics-review}
rules:
- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
- {apiGroups: [authorization.k8s.io], resources: [subjectaccessreviews], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-metrics-review}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: e2e-metrics-review}
subjects:
- {kind: ServiceAccount, name: controller, namespace: metallb-system}
- {kind: ServiceAccount, name: speaker, namespace: metallb-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: e2e-metrics-reader, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: e2e-metrics-reader}
rules:
- {nonResourceURLs: [/metrics], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-metrics-reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: e2e-metrics-reader}
subjects:
- {kind: ServiceAccount, name: e2e-metrics-reader, namespace: default}
";

pub fn metrics_of_a_service(world: &World) -> Result<()> {
    world.apply(RIGHTS)?;
    let result = count(world);
    world.kubectl_stdin(&["delete", "-f", "-"], RIGHTS)?;
    result
}

fn count(world: &World) -> Result<()> {
    let token = world.kubectl(&["-n", "default", "create", "token", "e2e-metrics-reader"])?;
    let metrics = |daemon: &str| read(world, token.trim(), daemon);
    let expect = |daemon: &str, expected: &[(&str, f64)]| {
        world.wait(&format!("the metrics of {daemon}"), PATIENCE, || {
            let text = metrics(daemon)?;
            for (name, value) in expected {
                let is = series(&text, name);
                ensure!(is == Some(*value), "{name} is {is:?}, not {value}");
            }
            Ok(true)
        })
    };
    let pool = |values: [f64; 6]| {
        let names = [
            "addresses",
            "ipv4_addresses",
            "ipv6_addresses",
            "addresses_in_use",
            "ipv4_addresses_in_use",
            "ipv6_addresses_in_use",
        ]
        .map(|name| format!("metallb_allocator_{name}_total{{pool=\"counted\"}}"));
        let expected: Vec<_> = names.iter().map(String::as_str).zip(values).collect();
        expect("controller", &expected)
    };
    world.configure(&[("counted", &["192.168.99.120/30", "fd99::1:0/125"])])?;
    pool([12.0, 4.0, 8.0, 0.0, 0.0, 0.0])?;
    world.echo("app", "n1")?;
    for (name, family, address) in [
        ("four", "IPv4", "192.168.99.120"),
        ("six", "IPv6", "fd99::1:0"),
    ] {
        world.balancer(
            name,
            json!({
                "ipFamilyPolicy": "SingleStack", "ipFamilies": [family], "selector": {"app": "app"},
            }),
        )?;
        world.gets(name, &[address])?;
        let owner = world.owner(address.parse::<IpAddr>()?)?;
        world.fetch(address.parse::<IpAddr>()?)?;
        let (four, six) = if family == "IPv4" {
            (1.0, 0.0)
        } else {
            (0.0, 1.0)
        };
        pool([12.0, 4.0, 8.0, 1.0, four, six])?;
        let announced = |node: &str| {
            format!(
                "metallb_speaker_announced{{ip=\"{address}\",node=\"{node}\",protocol=\"layer2\",service=\"default/{name}\"}}"
            )
        };
        expect(&owner, &[(&announced(&owner), 1.0)])?;
        let text = metrics(&owner)?;
        for counter in ["requests_received", "responses_sent", "gratuitous_sent"] {
            let counter = format!("metallb_layer2_{counter}{{ip=\"{address}\"}}");
            let is = series(&text, &counter);
            ensure!(is >= Some(1.0), "{counter} is {is:?}");
        }
        let shown = |node: &str| -> Result<bool> {
            let text = metrics(node)?;
            let mut lines = text.lines();
            Ok(lines.any(|line| {
                line.starts_with("metallb_speaker_announced{")
                    && line.contains(&format!("service=\"default/{name}\""))
            }))
        };
        for node in world.nodes() {
            ensure!(
                shown(&node)? == (node == owner),
                "{node}: {owner} announces"
            );
        }
        world.forget(&[name])?;
        world.wait("the series to go with the Service", PATIENCE, || {
            Ok(!shown(&owner)?)
        })?;
        pool([12.0, 4.0, 8.0, 0.0, 0.0, 0.0])?;
    }
    // Without a token nothing is told.
    let refused = read(world, "nobody", "controller");
    ensure!(refused.is_err(), "told to anybody");
    Ok(())
}

/// `/metrics` of the controller or of the speaker on a node, read as Prometheus reads it.
fn read(world: &World, token: &str, daemon: &str) -> Result<String> {
    let pod = if daemon == "controller" {
        deploy::controller_pod(world)?
    } else {
        deploy::speaker_pod(world, daemon)?
    };
    let path = "jsonpath={.status.podIP}";
    let address = world.kubectl(&["-n", NAMESPACE, "get", "pod", &pod, "-o", path])?;
    let address: IpAddr = address.trim().parse().context("no address of a pod")?;
    let url = format!("https://{}/metrics", SocketAddr::from((address, 9120)));
    let token = format!("Authorization: Bearer {token}");
    world.read(
        "n1",
        &[
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--insecure",
            "--max-time",
            "5",
            "--header",
            &token,
            &url,
        ],
    )
}
