//! The restart barrier: until every Service has been seen, they only get back what they have.

use ferrolb_controller_core::{FamilyPolicy, Request};

use crate::world::*;

const DOCUMENT: &str = "
address-pools:
- {name: a, protocol: layer2, addresses: [10.0.0.0/30, 'fc00::/126']}
- {name: old, protocol: bgp, addresses: [10.0.9.0/30]}
";

#[test]
fn addresses_survive_and_nothing_new_is_given() {
    let mut world = World::restarted(DOCUMENT, &[("late", &["10.0.0.0"]), ("bgp", &["10.0.9.1"])]);
    let plan = world.apply("new", &plain());
    assert!(plan.ingress.is_none() && plan.notices.is_empty());
    assert!(
        plan.pending
            .unwrap()
            .starts_with("waiting until every Service has been seen")
    );
    let plan = world.apply("late", &plain());
    assert_eq!(
        (plan.ingress, plan.pending, plan.pool.as_deref()),
        (None, None, Some("a"))
    );
    assert_eq!(world.apply("bgp", &plain()).pool.as_deref(), Some("old"));
    assert_eq!(world.core.waiting(), [name("new")]);
    world.core.all_seen();
    assert_eq!(world.give("new", &plain()), "10.0.0.1");
    assert!(world.core.waiting().is_empty());
}

#[test]
fn nothing_is_cleared_for_want_of_an_address() {
    let mut world = World::restarted(DOCUMENT, &[("outside", &["10.7.7.7"]), ("broken", &["x"])]);
    for service in ["outside", "broken"] {
        let plan = world.apply(service, &plain());
        assert!(plan.ingress.is_none() && plan.pending.is_some() && plan.notices.is_empty());
    }
    world.core.all_seen();
    assert_eq!(world.core.waiting(), [name("outside"), name("broken")]);
    assert_eq!(
        world.apply("outside", &plain()).notices[0].reason,
        "ClearAssignment"
    );
    assert_eq!(
        world.apply("broken", &plain()).notices[0].reason,
        "nolbIPsIPFamily"
    );
    assert_eq!(
        (world.shown("outside"), world.shown("broken")),
        ("10.0.0.0".into(), "10.0.0.1".into())
    );
}

#[test]
fn other_types_are_cleared_at_once() {
    let mut world = World::restarted(DOCUMENT, &[("former", &["10.0.0.0"])]);
    assert_eq!(
        world
            .apply(
                "former",
                &Request {
                    balancer: false,
                    ..plain()
                }
            )
            .ingress,
        Some(Vec::new())
    );
}

#[test]
fn an_address_not_wanted_any_more_is_held_until_it_can_be_replaced() {
    let status: &[(&str, &[&str])] = &[
        ("moved", &["10.0.0.0"]),
        ("six", &["10.0.0.1"]),
        ("headless", &["10.0.0.2"]),
    ];
    let mut world = World::restarted(DOCUMENT, status);
    let headless = Request {
        cluster_ips: vec!["None".into()],
        ..plain()
    };
    let wrong = Request {
        desired: Err("bad".into()),
        ..plain()
    };
    assert!(
        world
            .apply("moved", &asking(&["10.0.0.3"]))
            .pending
            .is_some()
    );
    assert!(world.apply("six", &v6()).pending.is_some());
    assert!(world.apply("headless", &headless).pending.is_some());
    assert_eq!(world.core.holders(ip("10.0.0.0")), [name("moved")]);
    assert_eq!(world.core.holders(ip("10.0.0.1")), [name("six")]);
    world.core.all_seen();
    assert_eq!(world.give("new", &asking(&["10.0.0.0"])), "");
    assert_eq!(world.give("moved", &asking(&["10.0.0.3"])), "10.0.0.3");
    assert_eq!(world.give("new", &asking(&["10.0.0.0"])), "10.0.0.0");
    assert_eq!(world.give("six", &v6()), "fc00::");
    assert_eq!(
        world.apply("headless", &headless).notices[0].reason,
        "noclusterIPsIPFamily"
    );
    assert_eq!(
        world.apply("headless", &wrong).notices[0].reason,
        "LoadBalancerFailed"
    );
    assert_eq!(world.shown("headless"), "10.0.0.2");
}

#[test]
fn of_two_services_with_one_address_the_first_seen_keeps_it() {
    let mut world = World::restarted(DOCUMENT, &[("one", &["10.0.0.0"]), ("two", &["10.0.0.0"])]);
    assert!(world.apply("two", &plain()).pending.is_none());
    let plan = world.apply("one", &plain());
    assert!(plan.ingress.is_none() && plan.pending.is_some());
    world.core.all_seen();
    assert_eq!(world.give("one", &plain()), "10.0.0.1");
    assert_eq!(world.shown("two"), "10.0.0.0");
}

#[test]
fn partners_find_each_other_again() {
    let mut world = World::restarted(DOCUMENT, &[("one", &["10.0.0.2"]), ("two", &["10.0.0.2"])]);
    assert!(world.apply("one", &sharing("k", &[80])).pending.is_none());
    assert!(world.apply("two", &sharing("k", &[81])).pending.is_none());
    world.core.all_seen();
    assert_eq!(world.give("one", &sharing("k", &[80])), "10.0.0.2");
    assert_eq!(world.core.holders(ip("10.0.0.2")).len(), 2);
}

#[test]
fn an_address_of_a_node_is_kept_by_who_had_it() {
    let mut world = World::restarted(DOCUMENT, &[("a", &["10.0.0.0"])]);
    world.core.reserve(
        [
            (ip("10.0.0.0"), "n".to_string()),
            (ip("10.0.0.1"), "n".to_string()),
        ]
        .into(),
    );
    assert_eq!(
        world.apply("a", &plain()).notices[0].reason,
        "AddressConflict"
    );
    world.core.all_seen();
    assert_eq!(world.apply("a", &plain()).ingress, None);
    // A status that names one afterwards is somebody's edit, and no claim.
    world.show("b", &["10.0.0.1"]);
    assert_eq!(world.give("b", &plain()), "10.0.0.2");
}

#[test]
fn a_second_address_waits_for_the_barrier() {
    let mut world = World::restarted(DOCUMENT, &[("a", &["10.0.0.3"])]);
    let prefers = dual(FamilyPolicy::PreferDualStack);
    let plan = world.apply("a", &prefers);
    assert!(plan.ingress.is_none() && plan.pending.is_some());
    world.core.all_seen();
    assert_eq!(world.core.waiting(), [name("a")]);
    assert_eq!(world.give("a", &prefers), "10.0.0.3 fc00::");
}
