//! When Services may have one address: metallb.md 5.5.

use std::collections::BTreeSet;

use ferrolb_controller_core::{Port, Request, Transport};

use crate::world::*;

fn local(key: &str, ports: &[u16], selector: &str) -> Request {
    Request {
        backend: selector.into(),
        ..sharing(key, ports)
    }
}

#[test]
fn who_may_share() {
    let wants = |request: Request| Request {
        desired: Ok(ips(&["10.0.0.0"])),
        ..request
    };
    for (what, one, other, may) in [
        (
            "same key, other port",
            sharing("k", &[80]),
            sharing("k", &[443]),
            true,
        ),
        (
            "same key, same port",
            sharing("k", &[80]),
            sharing("k", &[80, 443]),
            false,
        ),
        (
            "other key",
            sharing("k", &[80]),
            sharing("l", &[443]),
            false,
        ),
        (
            "key in capitals",
            sharing("k", &[80]),
            sharing("K", &[443]),
            false,
        ),
        (
            "one without key",
            sharing("k", &[80]),
            Request {
                ports: tcp(&[443]),
                ..plain()
            },
            false,
        ),
        (
            "the other without key",
            plain(),
            sharing("k", &[443]),
            false,
        ),
        (
            "both with an empty key",
            sharing("", &[80]),
            sharing("", &[443]),
            false,
        ),
        ("no key and empty key", plain(), sharing("", &[443]), false),
        (
            "Local with equal selectors",
            local("k", &[80], "a=b"),
            local("k", &[443], "a=b"),
            true,
        ),
        (
            "Local with other selectors",
            local("k", &[80], "a=b"),
            local("k", &[443], "a=c"),
            false,
        ),
        (
            "Cluster and Local",
            sharing("k", &[80]),
            local("k", &[443], "a=b"),
            false,
        ),
        (
            "Cluster and Local without selector",
            sharing("k", &[80]),
            local("k", &[443], ""),
            true,
        ),
        (
            "without any port",
            sharing("k", &[]),
            sharing("k", &[]),
            true,
        ),
    ] {
        let mut world = World::new(&pools(&[("a", "10.0.0.0/30", "")]));
        world.apply("one", &wants(one));
        let plan = world.apply("other", &wants(other));
        assert_eq!(plan.pending.is_none(), may, "{what}: {plan:?}");
        assert_eq!(world.shown("one"), "10.0.0.0");
    }
}

#[test]
fn transports_have_their_own_ports() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/32", "")]));
    for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
        let ports = BTreeSet::from([Port {
            transport,
            number: 53,
        }]);
        let request = Request {
            ports: ports.clone(),
            ..sharing("dns", &[])
        };
        assert_eq!(
            world.give(&format!("{transport}").to_lowercase(), &request),
            "10.0.0.0"
        );
        let plan = world.apply(
            "late",
            &Request {
                desired: Ok(ips(&["10.0.0.0"])),
                ..request
            },
        );
        assert_eq!(
            plan.pending,
            Some(format!(
                "port {transport}/53 is already in use on \"10.0.0.0\""
            ))
        );
    }
    assert_eq!(
        world.core.holders(ip("10.0.0.0")),
        [name("sctp"), name("tcp"), name("udp")]
    );
    assert_eq!(world.core.pools()[0].v4_in_use, 1);
}

#[test]
fn namespaces_do_not_matter() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30", "")]));
    world.apply("one", &sharing("k", &[80]));
    let other = ferrolb_config::ObjectName::new("elsewhere", "one");
    let plan = world.core.decide(&other, Some(&sharing("k", &[443])));
    assert_eq!(plan.ingress, Some(ips(&["10.0.0.0"])));
}

#[test]
fn the_lowest_compatible_address_is_taken() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/29", "")]));
    world.apply("alone", &plain());
    assert_eq!(world.give("k1", &sharing("k", &[80])), "10.0.0.1");
    assert_eq!(world.give("k2", &sharing("k", &[80])), "10.0.0.2");
    assert_eq!(world.give("k3", &sharing("k", &[443])), "10.0.0.1");
    assert_eq!(world.give("k4", &sharing("k", &[443])), "10.0.0.2");
    assert_eq!(world.give("l1", &sharing("l", &[443])), "10.0.0.3");
    // A free address below the partners' is lower.
    world.delete("alone");
    assert_eq!(world.give("k5", &sharing("k", &[8080])), "10.0.0.0");
    assert_eq!(world.give("k6", &sharing("k", &[80])), "10.0.0.0");
}

#[test]
fn a_sole_owner_may_change_its_terms_in_place() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30", "")]));
    world.apply("a", &sharing("k", &[80]));
    for changed in [
        sharing("l", &[80]),
        sharing("l", &[81]),
        plain(),
        local("l", &[81], "a=b"),
    ] {
        let plan = world.apply("a", &changed);
        assert_eq!(
            (plan.ingress.as_ref(), plan.revisit, told(&plan).len()),
            (None, true, 0)
        );
    }
    assert_eq!(world.shown("a"), "10.0.0.0");
}

#[test]
fn one_of_several_cannot_change_its_key_in_place() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30", "")]));
    world.apply("a", &sharing("k", &[80]));
    world.apply("b", &sharing("k", &[81]));
    world.apply("c", &sharing("k", &[82]));
    let plan = world.apply("b", &sharing("l", &[81]));
    assert_eq!(
        (world.shown("b").as_str(), plan.revisit),
        ("10.0.0.1", true)
    );
    assert_eq!(
        told(&plan),
        [
            r#"Normal ClearAssignment: current IP for "default/b" not allowed by config, will attempt for new IP assignment: can't change sharing key for "default/b", address also in use by default/a,default/c"#,
            r#"Normal IPAllocated: Assigned IP ["10.0.0.1"]"#,
        ]
    );
    // Ports may change as long as nobody else has them.
    assert_eq!(world.give("a", &sharing("k", &[80, 81])), "10.0.0.0");
    assert_eq!(world.give("a", &sharing("k", &[82])), "10.0.0.2");
}

#[test]
fn the_key_goes_with_its_last_service() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/32", "")]));
    world.apply("a", &sharing("k", &[80]));
    world.apply("b", &sharing("k", &[81]));
    world.delete("a");
    assert!(world.apply("c", &sharing("l", &[82])).pending.is_some());
    world.delete("b");
    assert_eq!(world.give("c", &sharing("l", &[82])), "10.0.0.0");
}

#[test]
fn a_changed_key_or_port_lets_waiting_services_in() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/32", "")]));
    world.apply("a", &sharing("k", &[80]));
    assert!(world.apply("b", &sharing("l", &[81])).pending.is_some());
    assert!(world.apply("a", &sharing("l", &[80])).revisit);
    assert_eq!(world.give("b", &sharing("l", &[81])), "10.0.0.0");
    assert!(world.apply("c", &sharing("l", &[81])).pending.is_some());
    assert!(world.apply("b", &sharing("l", &[82])).revisit);
    assert_eq!(world.give("c", &sharing("l", &[81])), "10.0.0.0");
}

#[test]
fn partners_do_not_follow_onto_an_address_of_a_node() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30", "")]));
    world.apply("a", &sharing("k", &[80]));
    world
        .core
        .reserve([(ip("10.0.0.0"), "node-a".to_string())].into());
    assert_eq!(world.give("b", &sharing("k", &[81])), "10.0.0.1");
    world.core.reserve([].into());
    assert_eq!(world.give("c", &sharing("k", &[82])), "10.0.0.0");
}

#[test]
fn many_partners_are_not_all_named() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/32", "")]));
    for port in 1..=20 {
        world.apply(&format!("s{port:02}"), &sharing("k", &[port]));
    }
    let plan = world.apply("x", &asking(&["10.0.0.0"]));
    assert!(
        plan.pending
            .unwrap()
            .ends_with("default/s07,default/s08 and 12 more")
    );
}
