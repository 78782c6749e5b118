//! Services with two families.

use ferrolb_controller_core::{FamilyPolicy, Request};

use crate::world::*;

const PREFER: FamilyPolicy = FamilyPolicy::PreferDualStack;
const REQUIRE: FamilyPolicy = FamilyPolicy::RequireDualStack;

#[test]
fn both_addresses_come_from_one_pool() {
    let document = pools(&[
        ("v4", "10.0.0.0/30", ""),
        ("v6", "'fc00::/126'", ""),
        ("both", "10.0.1.0/31, 'fc01::/127'", ""),
    ]);
    for policy in [PREFER, REQUIRE] {
        let mut world = World::new(&document);
        assert_eq!(world.give("a", &dual(policy)), "10.0.1.0 fc01::");
        assert_eq!(
            told(&world.apply("b", &dual(policy))),
            [r#"Normal IPAllocated: Assigned IP ["10.0.1.1" "fc01::1"]"#]
        );
    }
}

#[test]
fn the_order_is_that_of_the_ranges() {
    let mut world = World::new(&pools(&[("a", "'fc00::/126', 10.0.0.0/30", "")]));
    assert_eq!(world.give("a", &dual(REQUIRE)), "fc00:: 10.0.0.0");
    // Requested addresses keep the order of the request.
    let wishing = Request {
        desired: Ok(ips(&["10.0.0.3", "fc00::3"])),
        ..dual(REQUIRE)
    };
    assert_eq!(world.give("b", &wishing), "10.0.0.3 fc00::3");
    let turned = Request {
        desired: Ok(ips(&["fc00::3", "10.0.0.3"])),
        ..dual(REQUIRE)
    };
    assert_eq!(world.apply("b", &turned).ingress, None);
}

#[test]
fn requiring_two_means_two_or_none() {
    let mut world = World::new(&pools(&[
        ("v4", "10.0.0.0/30", ""),
        ("v6", "'fc00::/126'", ""),
    ]));
    let plan = world.apply("a", &dual(REQUIRE));
    assert_eq!(
        (plan.ingress, plan.pending.as_deref()),
        (None, Some("no available IPs"))
    );
    let plan = world.apply(
        "b",
        &Request {
            policy: REQUIRE,
            ..plain()
        },
    );
    let text = "Service requires dual stack but not enough clusterips [10.96.0.1]";
    assert_eq!(
        told(&plan),
        [format!("Warning not enough clusterips: {text}")]
    );
    assert_eq!(plan.pending.as_deref(), Some(text));
    // Two addresses from two pools cannot be asked for either.
    let wishing = Request {
        desired: Ok(ips(&["10.0.0.0", "fc00::"])),
        ..dual(REQUIRE)
    };
    assert_eq!(
        world.apply("c", &wishing).pending.as_deref(),
        Some(r#"["10.0.0.0" "fc00::"] is not allowed in config"#)
    );
}

#[test]
fn preferring_two_takes_one_where_there_is_one() {
    let v6_first = Request {
        cluster_ips: vec!["fd00::1".into(), "10.96.0.1".into()],
        ..dual(PREFER)
    };
    let document = pools(&[("v6", "'fc00::/127'", ""), ("v4", "10.0.0.0/31", "")]);
    let mut world = World::new(&document);
    assert_eq!(world.give("a", &dual(PREFER)), "10.0.0.0");
    assert_eq!(world.give("b", &v6_first), "fc00::");
    assert_eq!(world.give("c", &dual(PREFER)), "10.0.0.1");
    // None of the first family is left.
    let plan = world.apply("d", &dual(PREFER));
    assert_eq!(world.shown("d"), "fc00::1");
    assert_eq!(
        told(&plan),
        [
            r#"Normal IPAllocated: Assigned IP ["fc00::1"]"#,
            r#"Normal AdditionalAssignFailed: cannot assign additional IP in PreferDualStack: no available IPs in pool "v6" for ipv4 IPFamily"#,
        ]
    );
    assert_eq!(
        world.apply("e", &dual(PREFER)).pending.as_deref(),
        Some("no available IPs")
    );
    assert_eq!(
        world.give(
            "f",
            &Request {
                pool: Some("v6".into()),
                ..dual(PREFER)
            }
        ),
        ""
    );
}

#[test]
fn the_second_address_is_added_later() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30, 'fc00::/128'", "")]));
    world.apply("six", &v6());
    assert_eq!(world.give("a", &dual(PREFER)), "10.0.0.0");
    assert!(world.delete("six").revisit);
    let plan = world.apply("a", &dual(PREFER));
    assert_eq!(world.shown("a"), "10.0.0.0 fc00::");
    assert_eq!(
        told(&plan),
        [r#"Normal IPAllocated: Assigned additional IP "fc00::""#]
    );
}

#[test]
fn one_requested_address_is_completed() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30, 'fc00::/126'", "")]));
    let wishing = Request {
        desired: Ok(ips(&["fc00::2"])),
        ..dual(PREFER)
    };
    let plan = world.apply("a", &wishing);
    assert_eq!(world.shown("a"), "fc00::2 10.0.0.0");
    assert_eq!(
        told(&plan),
        [
            r#"Normal IPAllocated: Assigned IP ["fc00::2"]"#,
            r#"Normal IPAllocated: Assigned additional IP "10.0.0.0""#,
        ]
    );
    // Another wish moves it, and nothing of the old pair is kept by accident.
    let other = Request {
        desired: Ok(ips(&["10.0.0.3"])),
        ..dual(PREFER)
    };
    assert_eq!(world.give("a", &other), "10.0.0.3 fc00::");
}

#[test]
fn becoming_dual_stack_keeps_the_address_if_two_are_preferred() {
    for (policy, expected) in [(PREFER, "10.0.0.2 fc00::"), (REQUIRE, "10.0.0.0 fc00::")] {
        let mut world = World::new(&pools(&[("a", "10.0.0.0/30, 'fc00::/126'", "")]));
        world.apply("x", &plain());
        world.apply("y", &plain());
        assert_eq!(world.give("a", &plain()), "10.0.0.2");
        world.delete("x");
        assert_eq!(world.give("a", &dual(policy)), expected);
    }
}

#[test]
fn preferring_two_on_a_single_stack_cluster_is_one() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30, 'fc00::/126'", "")]));
    let plan = world.apply(
        "a",
        &Request {
            policy: PREFER,
            ..plain()
        },
    );
    assert_eq!(
        (world.shown("a").as_str(), told(&plan).len()),
        ("10.0.0.0", 1)
    );
}

#[test]
fn two_families_share_with_their_keys() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30, 'fc00::/126'", "")]));
    let with = |ports: &[u16]| Request {
        sharing: Some("k".into()),
        ports: tcp(ports),
        ..dual(REQUIRE)
    };
    assert_eq!(world.give("a", &with(&[80])), "10.0.0.0 fc00::");
    assert_eq!(world.give("b", &with(&[81])), "10.0.0.0 fc00::");
    assert_eq!(
        world.give(
            "c",
            &Request {
                sharing: Some("k".into()),
                ports: tcp(&[82]),
                ..v6()
            }
        ),
        "fc00::"
    );
    assert_eq!(world.give("d", &with(&[82])), "10.0.0.0 fc00::1");
}
