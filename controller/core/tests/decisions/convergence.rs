//! The steps of convergence (metallb 0.12), one test for each line.

use ferrolb_controller_core::{Core, FamilyPolicy, Plan, Request};

use crate::world::*;

const DOCUMENT: &str = "
address-pools:
- {name: first, protocol: layer2, addresses: [10.0.0.0/29, 'fc00::/125']}
- {name: second, protocol: layer2, addresses: [10.0.1.0/29], auto-assign: false}
";

#[test]
fn before_the_first_configuration_nothing_is_touched() {
    let mut core = Core::new();
    assert!(!core.configured());
    let shows = Request {
        current: vec![Ok(ip("10.9.9.9"))],
        ..plain()
    };
    let plan = core.decide(&name("a"), Some(&shows));
    assert_eq!(
        plan,
        Plan {
            pending: Some("no configuration yet".into()),
            ..Plan::default()
        }
    );
    let former = Request {
        balancer: false,
        ..shows
    };
    assert_eq!(core.decide(&name("a"), Some(&former)), Plan::default());
    assert_eq!(core.decide(&name("a"), None), Plan::default());
    assert!(core.waiting().is_empty());
}

#[test]
fn a_balancer_gets_the_first_address() {
    let mut world = World::new(DOCUMENT);
    let plan = world.apply("a", &plain());
    assert_eq!(plan.ingress, Some(ips(&["10.0.0.0"])));
    assert_eq!(plan.pool.as_deref(), Some("first"));
    assert_eq!((plan.pending, plan.revisit), (None, false));
    assert_eq!(world.core.holders(ip("10.0.0.0")), [name("a")]);
}

#[test]
fn other_types_get_nothing_and_former_balancers_are_cleared() {
    let mut world = World::new(DOCUMENT);
    let cluster_ip = Request {
        balancer: false,
        ..plain()
    };
    assert_eq!(world.apply("a", &cluster_ip), Plan::default());
    world.apply("a", &plain());
    let plan = world.apply("a", &cluster_ip);
    assert_eq!(
        plan,
        Plan {
            ingress: Some(Vec::new()),
            revisit: true,
            ..Plan::default()
        }
    );
    assert!(world.core.holders(ip("10.0.0.0")).is_empty());
    // Not ours any more, but its status was never cleared.
    world.show("b", &["whatever"]);
    assert_eq!(world.apply("b", &cluster_ip).ingress, Some(Vec::new()));
}

#[test]
fn deletion_releases() {
    let mut world = World::new(DOCUMENT);
    world.apply("a", &plain());
    assert_eq!(
        world.delete("a"),
        Plan {
            revisit: true,
            ..Plan::default()
        }
    );
    assert_eq!(world.delete("a"), Plan::default());
    assert_eq!(world.give("b", &plain()), "10.0.0.0");
}

#[test]
fn without_cluster_ips_there_is_no_address() {
    let mut world = World::new(DOCUMENT);
    world.apply("a", &plain());
    for cluster_ips in [vec![], vec![String::new()]] {
        world.show("a", &["10.0.0.0"]);
        let plan = world.apply(
            "a",
            &Request {
                cluster_ips,
                ..plain()
            },
        );
        assert_eq!(plan.ingress, Some(Vec::new()));
        assert_eq!(
            plan.pending.as_deref(),
            Some("the Service has no cluster IP")
        );
        assert!(plan.notices.is_empty());
    }
    assert_eq!(world.core.waiting(), [name("a")]);
}

#[test]
fn cluster_ips_without_family_change_nothing() {
    let mut world = World::new(DOCUMENT);
    world.apply("a", &plain());
    let headless = Request {
        cluster_ips: vec!["None".into()],
        ..plain()
    };
    let plan = world.apply("a", &headless);
    assert_eq!(
        (plan.ingress.as_ref(), plan.pending.as_ref(), plan.revisit),
        (None, None, false)
    );
    assert_eq!(
        told(&plan),
        [
            r#"Warning noclusterIPsIPFamily: Failed to retrieve ClusterIPs IPFamily for ["None"]: IPFamilyForAddresses: Invalid address ["None"]"#
        ]
    );
    let plan = world.apply("b", &headless);
    assert_eq!(plan.ingress, None);
    assert_eq!(
        told(&plan),
        [
            r#"Warning AllocationFailed: Failed to allocate IP for "default/b": IPFamilyForAddresses: Invalid address ["None"]"#
        ]
    );
    for (cluster_ips, error) in [
        (
            vec!["10.0.0.1", "10.0.0.2"],
            "same address family [\"10.0.0.1\" \"10.0.0.2\"]",
        ),
        (
            vec!["10.0.0.1", "fd00::1", "fd00::2"],
            "invalid ips length 3 [\"10.0.0.1\" \"fd00::1\" \"fd00::2\"]",
        ),
    ] {
        let cluster_ips = cluster_ips.into_iter().map(String::from).collect();
        let plan = world.apply(
            "b",
            &Request {
                cluster_ips,
                ..plain()
            },
        );
        assert_eq!(plan.pending, Some(format!("IPFamilyForAddresses: {error}")));
    }
}

#[test]
fn a_malformed_status_is_replaced() {
    for shown in [
        &["nonsense"][..],
        &["10.0.0.7", "x"],
        &["10.0.0.1", "10.0.0.2"],
        &["10.0.0.1", "fc00::1", "fc00::2"],
    ] {
        let mut world = World::new(DOCUMENT);
        world.show("a", shown);
        let plan = world.apply("a", &plain());
        assert_eq!(world.shown("a"), "10.0.0.0", "{shown:?}");
        assert_eq!(plan.notices[0].reason, "nolbIPsIPFamily");
        assert_eq!(plan.notices[1].reason, "IPAllocated");
        // With an address on record there is nothing to tell.
        world.show("a", shown);
        assert_eq!(told(&world.apply("a", &plain())), [""; 0]);
        assert_eq!(world.shown("a"), "10.0.0.0");
    }
}

#[test]
fn a_status_of_another_family_is_replaced() {
    let mut world = World::new(DOCUMENT);
    assert_eq!(world.give("a", &plain()), "10.0.0.0");
    let plan = world.apply("a", &v6());
    assert_eq!((world.shown("a").as_str(), plan.revisit), ("fc00::", true));
    assert_eq!(
        world.give("a", &dual(FamilyPolicy::RequireDualStack)),
        "10.0.0.0 fc00::"
    );
    assert_eq!(world.give("a", &plain()), "10.0.0.0");
}

#[test]
fn a_status_that_cannot_be_assigned_is_replaced() {
    let mut world = World::new(DOCUMENT);
    world.show("a", &["10.7.7.7"]);
    let plan = world.apply("a", &plain());
    assert_eq!(
        told(&plan),
        [
            r#"Normal ClearAssignment: current IP for "default/a" not allowed by config, will attempt for new IP assignment: ["10.7.7.7"] is not allowed in config"#,
            r#"Normal IPAllocated: Assigned IP ["10.0.0.0"]"#,
        ]
    );
}

#[test]
fn an_edited_status_wins_if_it_can_be_assigned() {
    let mut world = World::new(DOCUMENT);
    assert_eq!(world.give("a", &plain()), "10.0.0.0");
    world.give("b", &plain());
    // Somebody else's, outside of the pools, cleared: the address on record comes back without a word.
    for edited in [&["10.0.0.1"][..], &["10.9.9.9"], &[]] {
        world.show("a", edited);
        let plan = world.apply("a", &plain());
        assert_eq!(world.shown("a"), "10.0.0.0");
        // Only the end of what might have kept others from an address of a pool is worth a revisit.
        let revisit = edited == ["10.0.0.1"];
        assert_eq!((told(&plan).len(), plan.revisit), (0, revisit));
    }
    // A free one becomes the Service's.
    world.show("a", &["10.0.0.5"]);
    let plan = world.apply("a", &plain());
    assert_eq!((plan.ingress, plan.revisit), (None, true));
    assert_eq!(world.core.holders(ip("10.0.0.5")), [name("a")]);
    assert!(world.core.holders(ip("10.0.0.0")).is_empty());
}

#[test]
fn another_pool_annotation_moves_the_service() {
    let mut world = World::new(DOCUMENT);
    world.apply("a", &plain());
    let plan = world.apply("a", &from_pool("second"));
    assert_eq!(
        (world.shown("a").as_str(), plan.revisit),
        ("10.0.1.0", true)
    );
    assert_eq!(plan.pool.as_deref(), Some("second"));
    assert_eq!(
        told(&plan),
        [r#"Normal IPAllocated: Assigned IP ["10.0.1.0"]"#]
    );
    // Without the annotation it may stay, although the pool is not automatic.
    assert_eq!(world.give("a", &plain()), "10.0.1.0");
    // An empty annotation asks for nothing.
    assert_eq!(world.give("b", &from_pool("")), "10.0.0.0");
    let plan = world.apply("a", &from_pool("third"));
    assert_eq!(plan.ingress, Some(Vec::new()));
    assert_eq!(plan.pending.as_deref(), Some(r#"unknown pool "third""#));
}

#[test]
fn unreadable_wishes_leave_the_address_alone() {
    let mut world = World::new(DOCUMENT);
    world.apply("a", &plain());
    let wrong = Request {
        desired: Err("invalid metallb.io/loadBalancerIPs: \"x\"".into()),
        ..plain()
    };
    let plan = world.apply("a", &wrong);
    assert_eq!((plan.ingress.as_ref(), plan.pending.as_ref()), (None, None));
    let text = "Warning LoadBalancerFailed: invalid requested loadbalancer IPs: invalid metallb.io/loadBalancerIPs: \"x\"";
    assert_eq!(told(&plan), [text]);
    let plan = world.apply("b", &wrong);
    assert_eq!(told(&plan), [text]);
    assert!(plan.pending.is_some() && plan.ingress.is_none());
    for (wished, text) in [
        (
            &["10.0.0.1", "10.0.0.2"][..],
            "\"10.0.0.1\" \"10.0.0.2\" has the same family",
        ),
        (
            &["10.0.0.1", "fc00::1", "10.0.0.2"],
            "more than two addresses [\"10.0.0.1\" \"fc00::1\" \"10.0.0.2\"]",
        ),
    ] {
        let plan = world.apply("b", &asking(wished));
        assert_eq!(
            plan.pending,
            Some(format!("invalid requested loadbalancer IPs: {text}"))
        );
    }
}

#[test]
fn other_wishes_move_the_service() {
    let mut world = World::new(DOCUMENT);
    world.apply("a", &plain());
    assert_eq!(world.give("a", &asking(&["10.0.1.3"])), "10.0.1.3");
    assert_eq!(world.give("a", &asking(&["::ffff:10.0.1.3"])), "10.0.1.3");
    // Wishing nothing any more is no reason to move.
    assert_eq!(world.give("a", &plain()), "10.0.1.3");
    // What cannot be had costs the present address.
    let plan = world.apply("a", &asking(&["10.9.9.9"]));
    assert_eq!((plan.ingress, plan.revisit), (Some(Vec::new()), true));
    assert_eq!(
        plan.pending.as_deref(),
        Some(r#"["10.9.9.9"] is not allowed in config"#)
    );
}

#[test]
fn address_and_pool_must_fit_together() {
    let contrary = Request {
        pool: Some("second".into()),
        ..asking(&["10.0.0.3"])
    };
    // In the ConfigMap era the address wins.
    let mut world = World::new(DOCUMENT);
    assert_eq!(world.give("a", &contrary), "10.0.0.3");
    let pools = vec![
        resource("first", &["10.0.0.0/30"]),
        resource("second", &["10.0.1.0/30"]),
    ];
    let mut world = World::of(resources(pools));
    let text = r#"requested loadBalancer IP(s) ["10.0.0.3"] is not compatible with requested address pool second"#;
    assert_eq!(world.apply("a", &contrary).pending.as_deref(), Some(text));
    let fitting = Request {
        pool: Some("second".into()),
        ..asking(&["10.0.1.3"])
    };
    assert_eq!(world.give("a", &fitting), "10.0.1.3");
}

#[test]
fn wishes_of_another_family_are_refused() {
    let mut world = World::new(DOCUMENT);
    for (request, shown) in [
        (asking(&["fc00::1"]), r#"["fc00::1"]"#),
        (
            asking(&["10.0.0.1", "fc00::1"]),
            r#"["10.0.0.1" "fc00::1"]"#,
        ),
        (
            Request {
                desired: Ok(ips(&["10.0.0.1"])),
                ..dual(FamilyPolicy::RequireDualStack)
            },
            r#"["10.0.0.1"]"#,
        ),
    ] {
        let text = format!(
            "requested loadBalancer IP(s) {shown} does not match the ipFamily of the service"
        );
        assert_eq!(world.apply("a", &request).pending, Some(text));
    }
}

#[test]
fn a_mapped_status_is_written_plainly() {
    let mut world = World::new(DOCUMENT);
    world.show("a", &["::ffff:10.0.0.3"]);
    let plan = world.apply("a", &plain());
    assert_eq!(
        (plan.ingress.clone(), told(&plan).len()),
        (Some(ips(&["10.0.0.3"])), 0)
    );
}
