//! The restart barrier: until every Service has been seen, they only get back what they have.

use ferrolb_config::AllocationWords;
use ferrolb_controller_core::{Core, FamilyPolicy, Request};

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

/// A pool for namespaces of team red and, if so said, Services of one app; and a pool for everybody.
fn for_red(apps: &[(&str, &str)]) -> ferrolb_config::Config {
    let red = AllocationWords {
        namespace_selectors: selectors(&[("team", "red")]),
        service_selectors: selectors(apps),
        ..AllocationWords::default()
    };
    resources(vec![
        pinned("red", &["10.0.0.0/30", "fc00::/126"], red),
        resource("all", &["10.0.1.0/30"]),
    ])
}

/// After a restart in which no Namespace may be seen, with this Service.
fn without_namespaces(apps: &[(&str, &str)], service: &str, request: &Request) -> World {
    let mut world = World::of(for_red(apps));
    world.core = Core::new();
    world.core.configure(for_red(apps)).unwrap();
    world.write(&name(service), vec!["10.0.0.1".into()], Some("red".into()));
    let plan = world.decide(service, request);
    assert_eq!((plan.ingress, plan.notices.len()), (None, 0));
    world.core.all_seen();
    world
}

#[test]
fn labels_that_are_not_known_take_no_address_away() {
    for (team, expected, reasons) in [
        ("red", "10.0.0.1", &[][..]),
        ("blue", "10.0.1.0", &["ClearAssignment", "IPAllocated"]),
    ] {
        let mut world = without_namespaces(&[], "a", &plain());
        assert!(world.core.waiting().is_empty());
        for _ in 0..2 {
            assert_eq!(world.apply("a", &plain()).ingress, None);
        }
        // Nothing new is given.
        assert_eq!(world.give("b", &plain()), "10.0.1.0");
        assert_eq!(world.give("c", &from_pool("red")), "");
        assert_eq!(world.give("d", &asking(&["10.0.0.2"])), "");
        assert!(world.core.label("default", Some(labels(&[("team", team)]))));
        world.delete("b");
        let plan = world.apply("a", &plain());
        let told: Vec<_> = plan.notices.iter().map(|notice| notice.reason).collect();
        assert_eq!((world.shown("a").as_str(), &*told), (expected, reasons));
        // Nor does it matter that the Namespace is hidden later.
        world.core.label("default", None);
        assert_eq!(world.apply("a", &plain()).ingress, None);
    }
}

#[test]
fn labels_that_are_not_known_excuse_nothing_else() {
    let app = |app: &str| Request {
        labels: labels(&[("app", app)]),
        ..plain()
    };
    let mut world = without_namespaces(&[("app", "x")], "a", &app("x"));
    assert_eq!(world.give("a", &app("x")), "10.0.0.1");
    assert_eq!(
        world.apply("a", &app("y")).notices[0].reason,
        "ClearAssignment"
    );
    assert_eq!(world.shown("a"), "10.0.1.0");
    // Nor is a pool for other namespaces by name one for this.
    let mut world = without_namespaces(&[], "a", &plain());
    let named = AllocationWords {
        namespaces: vec!["other".into()],
        ..AllocationWords::default()
    };
    let named = resources(vec![pinned("red", &["10.0.0.0/30"], named)]);
    world.core.configure(named).unwrap();
    assert_eq!(world.give("a", &plain()), "");
}

#[test]
fn without_labels_a_second_address_is_a_new_one() {
    let prefers = dual(FamilyPolicy::PreferDualStack);
    let mut world = World::of(for_red(&[]));
    world.core = Core::new();
    world.core.configure(for_red(&[])).unwrap();
    world.write(&name("a"), vec!["10.0.0.1".into()], Some("red".into()));
    assert!(world.decide("a", &prefers).pending.is_some());
    world.core.all_seen();
    let plan = world.apply("a", &prefers);
    assert_eq!(plan.notices[0].reason, "AdditionalAssignFailed");
    assert_eq!((plan.ingress, plan.pending), (None, None));
    world
        .core
        .label("default", Some(labels(&[("team", "red")])));
    assert_eq!(world.give("a", &prefers), "10.0.0.1 fc00::");
}
