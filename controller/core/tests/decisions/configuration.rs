//! Changes of the configuration while addresses are in use: metallb.md 3.4.

use ferrolb_config::Origin;
use ferrolb_controller_core::{FamilyPolicy, PoolUse, Request};

use crate::world::*;

#[test]
fn a_configuration_that_takes_addresses_away_is_refused_whole() {
    let mut world = World::new(&pools(&[
        ("a", "10.0.0.0/30", ""),
        ("b", "10.0.1.0/30", ""),
    ]));
    world.apply("x", &plain());
    world.apply("y", &plain());
    world.apply("z", &from_pool("b"));
    let refused = world
        .configure(&pools(&[
            ("b", "10.0.1.0/30", ""),
            ("c", "10.0.0.1/32", ""),
        ]))
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        r#"address-pools: service "default/x" cannot own "10.0.0.0" under new config; keep its addresses in one pool until the Service is deleted or asks for other addresses"#
    );
    let refused = world.configure("").unwrap_err();
    assert_eq!(refused.problems().len(), 3);
    // The last good one is in force.
    assert_eq!(world.give("w", &plain()), "10.0.0.2");
    assert_eq!(world.core.pools().len(), 2);
    // With the Service gone it is accepted.
    world.delete("x");
    world.delete("w");
    world
        .configure(&pools(&[
            ("b", "10.0.1.0/30", ""),
            ("c", "10.0.0.1/32", ""),
        ]))
        .unwrap();
}

#[test]
fn shrinking_renaming_splitting_and_swapping_are_free() {
    let mut world = World::new(&pools(&[
        ("a", "10.0.0.0/24", ""),
        ("b", "10.0.1.0/24", ""),
    ]));
    world.apply("x", &plain());
    world.apply("y", &from_pool("b"));
    for (document, pool) in [
        (
            pools(&[("a", "10.0.0.0/31", ""), ("b", "10.0.1.0/24", "")]),
            "a",
        ),
        (
            pools(&[("c", "10.0.0.0/31", ""), ("b", "10.0.1.0/24", "")]),
            "c",
        ),
        (
            pools(&[
                ("d", "10.0.0.1/32", ""),
                ("c", "10.0.0.0/32", ""),
                ("b", "10.0.1.0/24", ""),
            ]),
            "c",
        ),
        (
            pools(&[("a", "10.0.1.0/24", ""), ("b", "10.0.0.0/24", "")]),
            "b",
        ),
        (pools(&[("a", "10.0.0.0/16", "")]), "a"),
    ] {
        world.configure(&document).unwrap();
        let plan = world.apply("x", &plain());
        assert_eq!((plan.ingress, plan.pool.as_deref()), (None, Some(pool)));
    }
    assert_eq!(world.give("z", &plain()), "10.0.0.1");
}

#[test]
fn avoiding_buggy_addresses_counts_as_taking_them_away() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/24", "")]));
    world.apply("x", &plain());
    world
        .configure(&pools(&[("a", "10.0.0.0/24", "avoid-buggy-ips: true")]))
        .unwrap_err();
    world.delete("x");
    world
        .configure(&pools(&[("a", "10.0.0.0/24", "avoid-buggy-ips: true")]))
        .unwrap();
    assert_eq!(world.give("x", &plain()), "10.0.0.1");
}

#[test]
fn the_two_addresses_of_a_service_stay_in_one_pool() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30, 'fc00::/126'", "")]));
    world.apply("x", &dual(FamilyPolicy::RequireDualStack));
    let refused = world
        .configure(&pools(&[
            ("a", "10.0.0.0/30", ""),
            ("b", "'fc00::/126'", ""),
        ]))
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains(r#"cannot own ["10.0.0.0" "fc00::"] under new config"#)
    );
    let refused = world
        .configure(&pools(&[("a", "10.0.0.0/30", "")]))
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains(r#"cannot own "fc00::" under new config"#)
    );
}

#[test]
fn a_new_configuration_helps_waiting_services() {
    let mut world = World::new("");
    assert!(world.core.configured());
    assert_eq!(
        world.apply("x", &plain()).pending.as_deref(),
        Some("no available IPs")
    );
    world
        .configure(&pools(&[("a", "10.0.0.0/24", "")]))
        .unwrap();
    assert_eq!(world.core.waiting(), [name("x")]);
    assert_eq!(world.give("x", &plain()), "10.0.0.0");
}

#[test]
fn a_pool_that_turned_to_bgp_keeps_what_it_gave() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30, 'fc00::/126'", "")]));
    world.apply("x", &plain());
    world
        .configure(&pools(&[(
            "a",
            "10.0.0.0/30, 'fc00::/126'",
            "protocol: bgp",
        )]))
        .unwrap();
    assert_eq!(world.apply("x", &plain()).ingress, None);
    let why = r#"pool "a" has protocol bgp and gives out no new addresses"#;
    assert_eq!(
        world.apply("y", &plain()).pending,
        Some(format!("no available IPs; {why}"))
    );
    assert_eq!(
        world.apply("y", &from_pool("a")).pending.as_deref(),
        Some(why)
    );
    assert_eq!(
        world.apply("y", &asking(&["10.0.0.1"])).pending.as_deref(),
        Some(why)
    );
    // Not even a second address to one that has one.
    let plan = world.apply("x", &dual(FamilyPolicy::PreferDualStack));
    assert_eq!(world.shown("x"), "10.0.0.0");
    assert!(told(&plan)[0].ends_with(why));
    // Nor a place beside one that shares.
    assert!(
        world
            .apply(
                "z",
                &Request {
                    desired: Ok(ips(&["10.0.0.0"])),
                    ..sharing("k", &[81])
                }
            )
            .pending
            .is_some()
    );
}

#[test]
fn use_is_counted_for_each_pool_and_family() {
    let document = pools(&[
        ("a", "1.2.3.0/24, 'fc00::/120'", "avoid-buggy-ips: true"),
        ("b", "10.0.0.0/30", ""),
    ]);
    let mut world = World::new(&document);
    world.apply("x", &dual(FamilyPolicy::RequireDualStack));
    world.apply("y", &v6());
    world.apply(
        "s1",
        &Request {
            pool: Some("b".into()),
            ..sharing("k", &[1])
        },
    );
    world.apply(
        "s2",
        &Request {
            pool: Some("b".into()),
            ..sharing("k", &[2])
        },
    );
    let mut uses = [
        PoolUse {
            name: "a".into(),
            v4_total: 254,
            v6_total: 256,
            v4_in_use: 1,
            v6_in_use: 2,
            services: 2,
            origin: Origin::ConfigMap,
        },
        PoolUse {
            name: "b".into(),
            v4_total: 4,
            v6_total: 0,
            v4_in_use: 1,
            v6_in_use: 0,
            services: 2,
            origin: Origin::ConfigMap,
        },
    ];
    assert_eq!(world.core.pools(), uses);
    world.delete("s1");
    uses[1].services = 1;
    assert_eq!(world.core.pools(), uses);
    world.delete("s2");
    world.delete("x");
    let use_of_a = &world.core.pools()[0];
    assert_eq!(
        (
            use_of_a.v4_in_use,
            use_of_a.v6_in_use,
            world.core.pools()[1].v4_in_use
        ),
        (0, 1, 0)
    );
}
