//! Pools that are custom resources: `serviceAllocation` (metallb.md 4.2, 5.4, 5.5), what happens to their Services when
//! they change (5.6), and what is written and told in their era only (5.2, 5.3, 5.7).

use std::collections::BTreeSet;

use ferrolb_config::{AllocationWords, PoolWords, Word};
use ferrolb_controller_core::{FamilyPolicy, Request};

use crate::world::*;

fn for_app(app: &str) -> AllocationWords {
    AllocationWords {
        service_selectors: selectors(&[("app", app)]),
        ..AllocationWords::default()
    }
}

fn labelled(app: &str, request: Request) -> Request {
    Request {
        labels: labels(&[("app", app)]),
        ..request
    }
}

#[test]
fn pools_for_certain_services_come_first_by_priority_then_in_their_order() {
    let mut world = World::of(resources(vec![
        resource("anybody", &["10.0.9.0/32"]),
        pinned("last", &["10.0.4.0/32"], priority(0)),
        pinned("b-second", &["10.0.3.0/32"], priority(2)),
        pinned("a-second", &["10.0.2.0/32"], priority(2)),
        pinned("first", &["10.0.1.0/32"], priority(1)),
        pinned("others", &["10.0.0.0/24"], for_app("x")),
    ]));
    // A pool that is full is no reason to fail: the next one is tried (MetalLB tries the best one only).
    for (index, expected) in [
        "10.0.1.0", "10.0.3.0", "10.0.2.0", "10.0.4.0", "10.0.9.0", "",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(world.give(&format!("s{index}"), &plain()), expected);
    }
}

#[test]
fn a_pinned_pool_with_one_family_is_preferred_to_any_other_with_two() {
    let document = || {
        vec![
            resource("both", &["10.0.0.0/30", "fc00::/126"]),
            pinned("v4", &["10.0.1.0/32"], priority(1)),
        ]
    };
    let mut world = World::of(resources(document()));
    assert_eq!(
        world.give("a", &dual(FamilyPolicy::PreferDualStack)),
        "10.0.1.0"
    );
    let mut world = World::of(resources(document()));
    let two = dual(FamilyPolicy::RequireDualStack);
    assert_eq!(world.give("a", &two), "10.0.0.0 fc00::");
}

#[test]
fn a_pool_without_auto_assign_takes_no_part_in_the_choice() {
    let pool = PoolWords {
        auto_assign: Word::Said(false),
        ..pinned("p", &["10.0.0.0/30"], priority(1))
    };
    let mut world = World::of(resources(vec![pool]));
    assert_eq!(world.give("a", &plain()), "");
    assert_eq!(world.give("a", &from_pool("p")), "10.0.0.0");
}

#[test]
fn asking_does_not_get_around_the_allocation() {
    let mut world = World::of(resources(vec![pinned("p", &["10.0.0.0/30"], for_app("x"))]));
    let text = "pool p not compatible for ip assignment";
    for (service, request) in [("a", from_pool("p")), ("b", asking(&["10.0.0.1"]))] {
        let plan = world.apply(service, &labelled("y", request.clone()));
        assert_eq!(
            told(&plan),
            [format!(
                r#"Warning AllocationFailed: Failed to allocate IP for "default/{service}": {text}"#
            )]
        );
        assert_ne!(world.give(service, &labelled("x", request)), "");
    }
    // Nor does an address that was written into the status by hand.
    world.show("c", &["10.0.0.2"]);
    let plan = world.apply("c", &labelled("y", plain()));
    assert_eq!(plan.ingress, Some(Vec::new()));
    assert_eq!(
        told(&plan)[0],
        format!(
            r#"Normal ClearAssignment: current IP for "default/c" not allowed by config, will attempt for new IP assignment: {text}"#
        )
    );
}

#[test]
fn a_namespace_that_cannot_be_seen_is_selected_by_none() {
    let anywhere = AllocationWords {
        namespace_selectors: vec![ferrolb_config::SelectorWords::default()],
        ..AllocationWords::default()
    };
    let mut world = World::of(resources(vec![pinned("p", &["10.0.0.0/30"], anywhere)]));
    assert_eq!(world.give("a", &from_pool("p")), "");
    assert!(world.core.label("default", Some(labels(&[]))));
    assert!(
        !world.core.label("default", Some(labels(&[]))),
        "nothing new"
    );
    assert_eq!(world.give("a", &from_pool("p")), "10.0.0.0");
}

#[test]
fn other_labels_move_a_service_to_its_pools() {
    let mut world = World::of(resources(vec![
        pinned("x", &["10.0.0.0/30"], for_app("x")),
        pinned("y", &["10.0.1.0/30"], for_app("y")),
    ]));
    assert_eq!(world.give("a", &labelled("x", plain())), "10.0.0.0");
    let plan = world.apply("a", &labelled("y", plain()));
    assert_eq!(
        (world.shown("a").as_str(), plan.revisit),
        ("10.0.1.0", true)
    );
    assert_eq!(plan.noted_pool.as_deref(), Some("y"));
    assert_eq!(
        told(&plan),
        [
            r#"Normal ClearAssignment: current IP for "default/a" not allowed by config, will attempt for new IP assignment: pool x not compatible for ip assignment"#,
            r#"Normal IPAllocated: Assigned IP ["10.0.1.0"]"#,
        ]
    );
}

#[test]
fn a_service_whose_pool_is_gone_is_moved_and_told_why() {
    let mut world = World::of(resources(vec![
        resource("a", &["10.0.0.0/30"]),
        resource("b", &["10.0.1.0/30"]),
    ]));
    world.apply("x", &plain());
    let left = resources(vec![resource("b", &["10.0.1.0/30"])]);
    world.core.configure(left).unwrap();
    assert_eq!(world.core.pools()[0].v4_in_use, 0);
    let plan = world.apply("x", &plain());
    assert_eq!(
        told(&plan),
        [
            r#"Normal ClearAssignment: current IP for "default/x" not allowed by config, will attempt for new IP assignment: ["10.0.0.0"] is not allowed in config"#,
            r#"Normal IPAllocated: Assigned IP ["10.0.1.0"]"#,
        ]
    );
    assert_eq!(
        (plan.pool.as_deref(), world.shown("x")),
        (Some("b"), "10.0.1.0".into())
    );
}

#[test]
fn an_address_that_changes_pools_is_kept_and_the_new_pool_noted() {
    let mut world = World::of(resources(vec![resource("a", &["10.0.0.0/30"])]));
    world.apply("x", &plain());
    let renamed = resources(vec![resource("b", &["10.0.0.0/24"])]);
    world.core.configure(renamed).unwrap();
    let plan = world.apply("x", &plain());
    assert_eq!(
        (world.shown("x").as_str(), told(&plan).len()),
        ("10.0.0.0", 0)
    );
    assert_eq!(world.noted[&name("x")], "b");
}

#[test]
fn which_rule_holds_is_up_to_the_pool_the_address_is_from() {
    let both = merged(
        "address-pools: [{name: old, protocol: layer2, addresses: [10.0.0.0/30]}]",
        vec![resource("new", &["10.0.1.0/30"])],
    );
    let mut world = World::of(both);
    world.apply("old", &from_pool("old"));
    world.apply("new", &from_pool("new"));
    assert_eq!(world.noted.len(), 1, "only where MetalLB notes it");
    // Without the ConfigMap's pool it is refused whole, without the other one it is not.
    let refused = world
        .core
        .configure(resources(vec![resource("new", &["10.0.1.0/30"])]));
    assert_eq!(refused.unwrap_err().problems().len(), 1);
    world
        .configure("address-pools: [{name: old, protocol: layer2, addresses: [10.0.0.0/30]}]")
        .unwrap();
    assert_eq!(world.give("new", &plain()), "10.0.0.1");
    assert_eq!(world.noted.len(), 0);
    // Converted: the same addresses in custom resources.
    world
        .core
        .configure(resources(vec![resource("old", &["10.0.0.0/30"])]))
        .unwrap();
    assert_eq!(world.give("new", &plain()), "10.0.0.1");
    assert_eq!(world.noted[&name("new")], "old");
}

#[test]
fn the_pool_is_noted_and_the_note_removed_with_the_address() {
    let mut world = World::of(resources(vec![resource("a", &["10.0.0.0/30"])]));
    let plan = world.apply("x", &plain());
    assert_eq!(plan.noted_pool.as_deref(), Some("a"));
    // A note that somebody removed or changed is put right, without a new address.
    for edit in [None, Some("b".to_string())] {
        world.write(&name("x"), vec!["10.0.0.0".into()], edit);
        let plan = world.apply("x", &plain());
        assert_eq!(plan.ingress, Some(ips(&["10.0.0.0"])));
        assert_eq!(world.noted[&name("x")], "a");
    }
    let other = Request {
        balancer: false,
        ..plain()
    };
    let plan = world.apply("x", &other);
    assert_eq!((plan.ingress, plan.noted_pool), (Some(Vec::new()), None));
    assert!(world.noted.is_empty());
}

#[test]
fn in_the_configmap_era_no_pool_is_noted() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30", "")]));
    assert_eq!(world.apply("x", &plain()).noted_pool, None);
    // What a newer MetalLB left is taken away, since it may be wrong.
    world.write(&name("x"), vec!["10.0.0.0".into()], Some("b".into()));
    world.apply("x", &plain());
    assert!(world.noted.is_empty());
}

#[test]
fn after_a_restart_a_missing_note_waits_for_the_barrier() {
    let config = resources(vec![resource("a", &["10.0.0.0/30"])]);
    let mut world = World::of(config.clone());
    world.core = ferrolb_controller_core::Core::new();
    world.core.configure(config).unwrap();
    world.show("x", &["10.0.0.0"]);
    let plan = world.decide("x", &plain());
    assert_eq!((plan.ingress, plan.pending.is_some()), (None, true));
    world.core.all_seen();
    assert_eq!(world.give("x", &plain()), "10.0.0.0");
    assert_eq!(world.noted[&name("x")], "a");
}

#[test]
fn deprecated_annotations_are_told_once_for_each_key_where_they_are_deprecated() {
    let keys =
        |keys: &[&str]| -> BTreeSet<String> { keys.iter().map(ToString::to_string).collect() };
    let (pool, key) = (
        "metallb.universe.tf/address-pool",
        "metallb.universe.tf/allow-shared-ip",
    );
    let request = Request {
        deprecated: keys(&[pool]),
        ..plain()
    };
    let mut world = World::of(resources(vec![
        resource("a", &["10.0.0.0/30"]),
        resource("b", &["10.0.1.0/30"]),
    ]));
    let about = |key: &str| {
        format!("Warning deprecatedAnnotation: Service uses deprecated annotation {key}")
    };
    let plan = world.apply("x", &request);
    assert_eq!(told(&plan)[1..], [about(pool)]);
    // Only in a pass that writes, and each key once.
    let request = Request {
        deprecated: keys(&[pool, key]),
        ..request
    };
    assert_eq!(told(&world.apply("x", &request)), [""; 0]);
    let moved = Request {
        pool: Some("b".into()),
        ..request.clone()
    };
    assert_eq!(told(&world.apply("x", &moved))[1..], [about(key)]);
    // In the ConfigMap era the prefix is the right one.
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30", "")]));
    assert_eq!(told(&world.apply("x", &request)).len(), 1);
}

#[test]
fn what_else_the_status_says_is_written_over() {
    for config in [
        resources(vec![resource("a", &["10.0.0.0/30"])]),
        ferrolb_config::read(&pools(&[("a", "10.0.0.0/30", "")])).unwrap(),
    ] {
        let mut world = World::of(config);
        world.apply("x", &plain());
        let surplus = Request {
            surplus: true,
            ..plain()
        };
        let plan = world.apply("x", &surplus);
        assert_eq!(
            (plan.ingress, plan.notices.len()),
            (Some(ips(&["10.0.0.0"])), 0)
        );
        let other = Request {
            balancer: false,
            ..surplus
        };
        world.show("y", &[]);
        assert_eq!(world.apply("y", &other).ingress, Some(Vec::new()));
    }
}

#[test]
fn texts_are_those_of_the_newer_releases() {
    let mut world = World::of(resources(vec![resource("a", &["10.0.0.0/32"])]));
    world.apply("holder", &plain());
    let pending = |world: &mut World, request: Request| {
        let request = Request {
            pool: Some("a".into()),
            ..request
        };
        world.apply("x", &request).pending.unwrap_or_default()
    };
    assert_eq!(pending(&mut world, plain()), "no available IPs in pool a");
    assert_eq!(pending(&mut world, v6()), "no available IPs in pool a");
    let two = dual(FamilyPolicy::RequireDualStack);
    assert_eq!(
        pending(&mut world, two),
        "no available IPs in pool a for dual IPFamily"
    );
    let headless = Request {
        cluster_ips: vec!["None".into()],
        ..plain()
    };
    assert_eq!(
        told(&world.apply("holder", &headless)),
        [
            r#"Warning noclusterIPsIPFamily: Failed to retrieve ClusterIPs IPFamily for ["None"] None: IPFamilyForAddresses: Invalid address ["None"]"#
        ]
    );
}

#[test]
fn two_addresses_are_ipv4_first_and_stay_in_the_order_they_are_in() {
    let mut world = World::of(resources(vec![resource(
        "a",
        &["fc00::/126", "10.0.0.0/30"],
    )]));
    let two = dual(FamilyPolicy::RequireDualStack);
    assert_eq!(world.give("x", &two), "10.0.0.0 fc00::");
    let wished = |addresses: &[&str]| Request {
        desired: Ok(ips(addresses)),
        ..two.clone()
    };
    assert_eq!(
        world.give("y", &wished(&["fc00::3", "10.0.0.3"])),
        "fc00::3 10.0.0.3"
    );
    // The same wish in another order is the same wish: the first address decides which node answers.
    assert_eq!(
        world.apply("y", &wished(&["10.0.0.3", "fc00::3"])).ingress,
        None
    );
    assert_eq!(world.apply("y", &two).ingress, None);
}

#[test]
fn preferring_two_on_a_single_stack_cluster_does_not_flap() {
    let mut world = World::of(resources(vec![resource(
        "a",
        &["10.0.0.0/30", "fc00::/126"],
    )]));
    let single = Request {
        policy: FamilyPolicy::PreferDualStack,
        ..plain()
    };
    assert_eq!(world.give("x", &single), "10.0.0.0");
    for _ in 0..3 {
        let plan = world.apply("x", &single);
        assert_eq!((plan.ingress, plan.notices.len()), (None, 0));
    }
}
