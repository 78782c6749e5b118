//! Which address a Service gets, where pools are custom resources that choose their Services and Services share.

use anyhow::{Context as _, Result, ensure};
use ferrolb_e2e::{
    deploy::{self, NAMESPACE, PATIENCE},
    observe::service::{stays_without, wait_event},
};
use serde_json::{Value, json};

use crate::world::World;

pub fn a_freed_address_goes_to_the_waiting(world: &World) -> Result<()> {
    let only = "192.168.99.120";
    world.configure(&[("one", &["192.168.99.120/32"])])?;
    world.balancer("first", json!({}))?;
    world.gets("first", &[only])?;
    world.balancer("second", json!({}))?;
    wait_event(
        world,
        "default",
        "Service",
        "second",
        "AllocationFailed",
        "no available IPs",
    )?;
    ensure!(stays_without(world, "second")?);
    world.patch("first", &json!({"spec": {"type": "ClusterIP"}}))?;
    world.gets("second", &[only])?;
    world.gets("first", &[])?;
    world.patch("first", &json!({"spec": {"type": "LoadBalancer"}}))?;
    world.keeps("first", &[])?;
    world.forget(&["second"])?;
    world.gets("first", &[only])
}

pub fn same_addresses_after_controller_restarts(world: &World) -> Result<()> {
    world.configure(&[("range", &["192.168.99.120/29"])])?;
    for (name, address) in [
        ("a", "192.168.99.120"),
        ("b", "192.168.99.121"),
        ("c", "192.168.99.122"),
        ("d", "192.168.99.123"),
        ("e", "192.168.99.124"),
    ] {
        world.balancer(name, json!({}))?;
        world.gets(name, &[address])?;
    }
    // A hole below, which a controller that forgot would fill with one of the others.
    world.forget(&["a"])?;
    for restart in 0..5 {
        // The one before may be at work before it is reported to run.
        let pod = world.wait_for("the controller's pod", PATIENCE, || {
            deploy::controller_pod(world).map(Some)
        })?;
        world.kubectl(&["-n", NAMESPACE, "delete", "pod", &pod])?;
        // The new one is at work when it gives the hole away.
        let name = format!("after-{restart}");
        world.balancer(&name, json!({}))?;
        world.gets(&name, &["192.168.99.120"])?;
        for (name, address) in [
            ("b", "192.168.99.121"),
            ("c", "192.168.99.122"),
            ("d", "192.168.99.123"),
            ("e", "192.168.99.124"),
        ] {
            let held = world.held(name)?;
            ensure!(held == [address], "restart {restart}: {name} has {held:?}");
        }
        world.forget(&[&name])?;
    }
    // Webhooks are the controller's.
    deploy::wait_ready(world)
}

pub fn sharing_is_reconsidered(world: &World) -> Result<()> {
    let only = "192.168.99.120";
    world.configure(&[("one", &["192.168.99.120/32"])])?;
    world.echo("shared", "n1")?;
    for (name, port) in [("first", 80), ("second", 81)] {
        world.dressed(
            name,
            json!({}),
            json!({"metallb.io/allow-shared-ip": "key"}),
            json!({
                "selector": {"app": "shared"},
                "ports": [{"name": "http", "port": port, "targetPort": 8080, "protocol": "TCP"}],
            }),
        )?;
        world.gets(name, &[only])?;
    }
    // Another policy, another backend: the one that changed has to go, and waits.
    let local = json!({"spec": {"externalTrafficPolicy": "Local"}});
    world.patch("second", &local)?;
    world.gets("second", &[])?;
    world.keeps("first", &[only])?;
    ensure!(world.held("second")?.is_empty());
    // The same policy and the same backend: both.
    world.patch("first", &local)?;
    for name in ["first", "second"] {
        world.gets(name, &[only])?;
    }
    world.answers("n1", only.parse::<std::net::Ipv4Addr>()?)?;
    // Other backends of the same policy do not share either.
    let other = json!({"spec": {"selector": {"app": "other"}}});
    world.patch("first", &other)?;
    world.gets("first", &[])?;
    world.keeps("second", &[only])?;
    world.patch("second", &other)?;
    for name in ["first", "second"] {
        world.gets(name, &[only])?;
    }
    // Nobody has an endpoint of that selector.
    world.silence(only.parse::<std::net::Ipv4Addr>()?)
}

pub fn services_of_a_deleted_pool_move_or_wait(world: &World) -> Result<()> {
    world.configure(&[("first", &["192.168.99.120/32"])])?;
    world.echo("a", "n1")?;
    world.balancer("a", json!({}))?;
    world.gets("a", &["192.168.99.120"])?;
    world.create(
        "IPAddressPool",
        "second",
        json!({"addresses": ["192.168.99.121/32"]}),
    )?;
    world.keeps("a", &["192.168.99.120"])?;
    world.delete("IPAddressPool", "first")?;
    world.gets("a", &["192.168.99.121"])?;
    world.owner([192, 168, 99, 121])?;
    world.silence([192, 168, 99, 120])?;
    world.delete("IPAddressPool", "second")?;
    world.gets("a", &[])?;
    world.silence([192, 168, 99, 121])?;
    // And what waits is served again.
    world.configure(&[("third", &["192.168.99.122/32"])])?;
    world.gets("a", &["192.168.99.122"])?;
    world.owner([192, 168, 99, 122]).map(drop)
}

/// A pool of one address that says which Services it is for.
fn pool(world: &World, name: &str, last: u8, allocation: Option<&Value>) -> Result<()> {
    let mut spec = json!({"addresses": [format!("192.168.99.{last}/32")]});
    if let (Some(fields), Some(allocation)) = (spec.as_object_mut(), allocation) {
        fields.insert("serviceAllocation".to_owned(), allocation.clone());
    }
    world.create("IPAddressPool", name, spec)
}

pub fn pools_by_namespace_priority_and_labels(world: &World) -> Result<()> {
    let team = "e2e-team";
    world.with_namespace(team, || {
        let namespaces = json!([team]);
        let by_name = json!([{"matchLabels": {"kubernetes.io/metadata.name": team}}]);
        let blue = json!([{"matchLabels": {"colour": "blue"}}]);
        for (case, condition) in [
            ("namespaces", json!({"namespaces": namespaces})),
            ("namespace labels", json!({"namespaceSelectors": by_name})),
            ("Service labels", json!({"serviceSelectors": blue})),
            (
                "both",
                json!({"namespaces": namespaces, "serviceSelectors": blue}),
            ),
        ] {
            chosen_in_order(world, team, &condition).with_context(|| format!("pools by {case}"))?;
        }
        Ok(())
    })
}

/// Two pools under a condition that only blue Services of `team` meet, and one under none: those Services use them up in
/// the order of their priorities, others get the third.
fn chosen_in_order(world: &World, team: &str, condition: &Value) -> Result<()> {
    world.clear_configuration()?;
    // Neither the names nor the addresses are in the order of the priorities.
    for (name, last, priority) in [("a", 121, 20), ("b", 120, 10)] {
        let mut allocation = condition.clone();
        if let Some(fields) = allocation.as_object_mut() {
            fields.insert("priority".to_owned(), json!(priority));
        }
        pool(world, name, last, Some(&allocation))?;
    }
    pool(world, "0-rest", 122, None)?;
    let none = json!({});
    // The outsider meets no half of a double condition either.
    let outsiders: &[(&str, Value)] = match (
        condition.get("serviceSelectors"),
        condition.get("namespaces"),
    ) {
        (Some(_), Some(_)) => &[
            ("outsider", json!({"colour": "blue"})),
            ("e2e-team/outsider", json!({"colour": "red"})),
        ],
        _ => &[("outsider", json!({"colour": "red"}))],
    };
    for (name, labels) in outsiders {
        world.dressed(name, labels.clone(), none.clone(), none.clone())?;
        world.gets(name, &["192.168.99.122"])?;
        world.forget(&[name])?;
    }
    let mut names = Vec::new();
    for (name, expected) in [
        ("one", "192.168.99.120"),
        ("two", "192.168.99.121"),
        ("three", "192.168.99.122"),
    ] {
        let name = format!("{team}/{name}");
        world.dressed(&name, json!({"colour": "blue"}), none.clone(), none.clone())?;
        world.gets(&name, &[expected])?;
        names.push(name);
    }
    // An outsider does not get what insiders leave.
    let last = names.pop().unwrap_or_default();
    world.forget(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    world.dressed("outsider", json!({"colour": "red"}), none.clone(), none)?;
    world.keeps("outsider", &[])?;
    world.forget(&["outsider", &last])
}

pub fn pools_by_priority_alone(world: &World) -> Result<()> {
    world.clear_configuration()?;
    pool(world, "a", 121, Some(&json!({"priority": 20})))?;
    pool(world, "b", 120, Some(&json!({"priority": 10})))?;
    for (name, expected) in [("one", "192.168.99.120"), ("two", "192.168.99.121")] {
        world.balancer(name, json!({}))?;
        world.gets(name, &[expected])?;
    }
    Ok(())
}

pub fn a_relabelled_namespace_uses_other_pools(world: &World) -> Result<()> {
    world.clear_configuration()?;
    let gold = json!({"priority": 10, "namespaceSelectors": [{"matchLabels": {"tier": "gold"}}]});
    let known = json!({"priority": 20, "namespaceSelectors": [{"matchLabels": {"known": "yes"}}]});
    pool(world, "gold", 121, Some(&gold))?;
    pool(world, "known", 120, Some(&known))?;
    let team = "e2e-relabelled";
    world.with_namespace(team, || {
        world.kubectl(&["label", "namespace", team, "known=yes"])?;
        let make = |name: &str| world.dressed(name, json!({}), json!({}), json!({}));
        let (before, after) = (format!("{team}/before"), format!("{team}/after"));
        make(&before)?;
        world.gets(&before, &["192.168.99.120"])?;
        // The pool that is left is not for this namespace, until it is labelled.
        make(&after)?;
        world.keeps(&after, &[])?;
        world.kubectl(&["label", "namespace", team, "tier=gold"])?;
        world.forget(&[&after])?;
        make(&after)?;
        world.gets(&after, &["192.168.99.121"])?;
        world.keeps(&before, &["192.168.99.120"])
    })
}

pub fn a_named_pool_serves_who_asks(world: &World) -> Result<()> {
    for name in ["four", "six"] {
        world.echo(name, "n1")?;
    }
    for auto_assign in [true, false] {
        world.configure(&[("other", &["192.168.99.110/32", "fd99::2:0/128"])])?;
        let create = |name: &str, addresses: Value| {
            let spec = json!({"addresses": addresses, "autoAssign": auto_assign});
            world.create("IPAddressPool", name, spec)
        };
        create("named-four", json!(["192.168.99.120/32"]))?;
        create("named-six", json!(["fd99::1:1/128"]))?;
        let asked = [
            ("four", "IPv4", "named-four", "192.168.99.120"),
            ("six", "IPv6", "named-six", "fd99::1:1"),
        ];
        for (name, family, pool, expected) in asked {
            world.dressed(
                name,
                json!({}),
                json!({"metallb.io/address-pool": pool}),
                json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": [family]}),
            )?;
            world.gets(name, &[expected])?;
            let service = world.service(name)?;
            let from = service.pointer("/metadata/annotations/metallb.io~1ip-allocated-from-pool");
            ensure!(from == Some(&json!(pool)), "{name} is from {from:?}");
        }
        // Another pool, asked for in the old words, changes nothing for the first two.
        create("next", json!(["192.168.99.121/32"]))?;
        world.dressed(
            "next",
            json!({}),
            json!({"metallb.universe.tf/address-pool": "next"}),
            json!({"selector": {"app": "four"}}),
        )?;
        world.gets("next", &["192.168.99.121"])?;
        for (name, _, _, expected) in asked {
            ensure!(world.held(name)? == [expected], "{name} changed");
            world.fetch(expected.parse::<std::net::IpAddr>()?)?;
        }
        world.fetch([192, 168, 99, 121])?;
        world.forget(&["four", "six", "next"])?;
    }
    Ok(())
}

pub fn pool_counts_grow_and_are_put_right(world: &World) -> Result<()> {
    world.configure(&[("counted", &["192.168.99.120/30", "fd99::1:0/126"])])?;
    // Assigned and available, the same of both families.
    let expect = |assigned: u8, available: u8| {
        let what = format!("{assigned} assigned and {available} available of both families");
        world.wait(&what, PATIENCE, || {
            let pool = world.object("IPAddressPool", "counted")?;
            let status = pool.get("status").context("no status")?;
            let expected = json!({
                "assignedIPv4": assigned, "availableIPv4": available,
                "assignedIPv6": assigned, "availableIPv6": available,
            });
            ensure!(*status == expected, "{status}");
            Ok(true)
        })
    };
    expect(0, 4)?;
    world.balancer("a", json!({"ipFamilyPolicy": "RequireDualStack"}))?;
    expect(1, 3)?;
    world.create(
        "IPAddressPool",
        "counted",
        json!({"addresses": ["192.168.99.120/29", "fd99::1:0/125"]}),
    )?;
    expect(1, 7)?;
    world.forget(&["a"])?;
    expect(0, 8)?;
    let wrong = json!({"status": {"assignedIPv4": 5, "availableIPv6": 5}}).to_string();
    let words = ["-n", NAMESPACE, "patch", "ipaddresspool", "counted"];
    world.kubectl(
        &[
            &words[..],
            &["--subresource=status", "--type=merge", "-p", &wrong],
        ]
        .concat(),
    )?;
    expect(0, 8)
}
