//! Which address is chosen: order inside a pool, order of pools, what is left out.

use std::collections::BTreeMap;

use ferrolb_controller_core::{FamilyPolicy, Request};

use crate::world::*;

/// Takes addresses until there are none, and gives the last byte of each.
fn take_all(document: &str) -> Vec<String> {
    take_all_of(&plain(), document)
}

fn take_all_of(request: &Request, document: &str) -> Vec<String> {
    let mut world = World::new(document);
    let all = (0..2000).map(|number| world.give(&format!("s{number}"), request));
    all.take_while(|address| !address.is_empty()).collect()
}

#[test]
fn pools_are_used_up_in_metallbs_order() {
    for (addresses, count, first, last) in [
        ("192.168.99.100/28", 16, "192.168.99.96", "192.168.99.111"),
        (
            "192.168.1.240-192.168.1.250",
            11,
            "192.168.1.240",
            "192.168.1.250",
        ),
        (
            "192.168.0.150-192.168.0.200",
            51,
            "192.168.0.150",
            "192.168.0.200",
        ),
        ("10.0.0.5-10.0.0.5", 1, "10.0.0.5", "10.0.0.5"),
        ("1.2.3.8/31, 1.2.3.0/30", 6, "1.2.3.8", "1.2.3.3"),
        ("1.2.3.0/24", 256, "1.2.3.0", "1.2.3.255"),
        (
            "'fc00:f853:ccd:e799::-fc00:f853:ccd:e799::10'",
            17,
            "fc00:f853:ccd:e799::",
            "fc00:f853:ccd:e799::10",
        ),
    ] {
        let request = if addresses.contains("::") {
            v6()
        } else {
            plain()
        };
        let taken = take_all_of(&request, &pools(&[("a", addresses, "")]));
        assert_eq!(
            (taken.len(), taken[0].as_str(), taken[count - 1].as_str()),
            (count, first, last)
        );
    }
}

#[test]
fn buggy_addresses_are_skipped_and_refused() {
    let taken = take_all(&pools(&[("a", "1.2.3.0/24", "avoid-buggy-ips: true")]));
    assert_eq!(
        (taken.len(), taken[0].as_str(), taken[253].as_str()),
        (254, "1.2.3.1", "1.2.3.254")
    );
    let taken = take_all(&pools(&[(
        "a",
        "1.2.3.0/24, 1.2.4.0/25",
        "avoid-buggy-ips: true",
    )]));
    assert_eq!((taken.len(), taken[254].as_str()), (254 + 127, "1.2.4.1"));
    assert_eq!(
        take_all(&pools(&[("a", "1.2.3.0/24, 1.2.4.0/25", "")])).len(),
        384
    );

    let mut world = World::new(&pools(&[(
        "a",
        "1.2.3.0/24, 'fc00::/120'",
        "avoid-buggy-ips: true",
    )]));
    for address in ["1.2.3.0", "1.2.3.255"] {
        let text = format!("[\"{address}\"] is not allowed in config");
        assert_eq!(world.apply("a", &asking(&[address])).pending, Some(text));
    }
    assert_eq!(world.give("a", &v6()), "fc00::");
}

#[test]
fn freed_low_addresses_are_used_again_at_once() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/24", "")]));
    for service in ["a", "b", "c", "d"] {
        world.apply(service, &plain());
    }
    world.delete("b");
    assert_eq!(world.give("e", &plain()), "10.0.0.1");
    assert_eq!(world.give("f", &plain()), "10.0.0.4");
}

#[test]
fn pools_are_tried_in_the_order_of_the_document() {
    let document = pools(&[
        ("z", "10.0.2.0/32", ""),
        ("manual", "10.0.0.0/24", "auto-assign: false"),
        ("a", "10.0.1.0/32, 'fc00::/127'", ""),
    ]);
    let mut world = World::new(&document);
    assert_eq!(world.give("1", &plain()), "10.0.2.0");
    assert_eq!(world.give("2", &plain()), "10.0.1.0");
    let plan = world.apply("3", &plain());
    assert_eq!(
        told(&plan),
        [r#"Warning AllocationFailed: Failed to allocate IP for "default/3": no available IPs"#]
    );
    assert_eq!(world.give("4", &from_pool("manual")), "10.0.0.0");
    assert_eq!(world.give("5", &asking(&["10.0.0.7"])), "10.0.0.7");
    assert_eq!(world.give("6", &v6()), "fc00::");
}

#[test]
fn a_named_pool_that_is_used_up_is_named() {
    let mut world = World::new(&pools(&[
        ("a", "10.0.0.0/32", ""),
        ("b", "10.0.1.0/24", ""),
    ]));
    world.apply("1", &plain());
    let named = |request: Request| Request {
        pool: Some("a".into()),
        ..request
    };
    for (request, family) in [
        (plain(), "ipv4"),
        (v6(), "ipv6"),
        (dual(FamilyPolicy::RequireDualStack), "dual"),
        (dual(FamilyPolicy::PreferDualStack), "dual"),
    ] {
        let text = format!("no available IPs in pool \"a\" for {family} IPFamily");
        assert_eq!(world.apply("2", &named(request)).pending, Some(text));
    }
}

#[test]
fn an_address_is_given_once() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/24", "")]));
    world.apply("a", &plain());
    let text = r#"can't change sharing key for "default/b", address also in use by default/a"#;
    assert_eq!(
        world.apply("b", &asking(&["10.0.0.0"])).pending.as_deref(),
        Some(text)
    );
}

#[test]
fn the_services_waiting_are_known_in_their_order() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/32", "")]));
    for service in ["holder", "z", "a", "m"] {
        world.apply(service, &plain());
    }
    assert_eq!(world.core.waiting(), [name("z"), name("a"), name("m")]);
    // Trying again does not lose the place in the queue.
    world.apply("z", &from_pool("a"));
    assert!(world.delete("holder").revisit);
    assert_eq!(world.give("z", &plain()), "10.0.0.0");
    assert_eq!(world.core.waiting(), [name("a"), name("m")]);
    world.delete("a");
    world.apply(
        "m",
        &Request {
            balancer: false,
            ..plain()
        },
    );
    assert!(world.core.waiting().is_empty());
}

#[test]
fn addresses_of_nodes_are_not_given_out() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30, 'fc00::/126'", "")]));
    world.core.reserve(BTreeMap::from([
        (ip("10.0.0.0"), "node-a".into()),
        (ip("::ffff:10.0.0.1"), "node-b".into()),
        (ip("fc00::"), "node-a".into()),
        (ip("192.168.0.1"), "node-c".into()),
    ]));
    assert_eq!(world.give("1", &plain()), "10.0.0.2");
    assert_eq!(world.give("2", &v6()), "fc00::1");
    let plan = world.apply("3", &asking(&["10.0.0.1"]));
    assert_eq!(
        plan.pending.as_deref(),
        Some(r#""10.0.0.1" is an address of node "node-b""#)
    );
    // The node is gone.
    world
        .core
        .reserve(BTreeMap::from([(ip("10.0.0.0"), "node-a".into())]));
    assert_eq!(world.give("3", &asking(&["10.0.0.1"])), "10.0.0.1");
    assert_eq!(world.give("4", &v6()), "fc00::");
}

#[test]
fn huge_pools_are_no_work() {
    let mut world = World::new(&pools(&[(
        "a",
        "'::/0', 0.0.0.0/0",
        "avoid-buggy-ips: true",
    )]));
    assert_eq!(world.give("1", &v6()), "::");
    assert_eq!(world.give("2", &v6()), "::1");
    assert_eq!(world.give("3", &plain()), "0.0.0.1");
    let highest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    assert_eq!(
        world.give(
            "4",
            &Request {
                desired: Ok(ips(&[highest])),
                ..v6()
            }
        ),
        highest
    );
}

#[test]
fn ten_thousand_services_share_a_pool_of_65536() {
    let mut world = World::new(&pools(&[("a", "10.1.0.0/16", "")]));
    for number in 0..10_000_u32 {
        let expected = std::net::Ipv4Addr::from_bits(0x0a01_0000 + number).to_string();
        assert_eq!(world.give(&format!("s{number}"), &plain()), expected);
    }
    assert_eq!(world.core.pools()[0].v4_in_use, 10_000);
    assert!(world.delete("s5000").revisit);
    assert_eq!(world.give("late", &plain()), "10.1.19.136");
}

#[test]
fn ten_thousand_services_with_one_key_and_one_port() {
    // No two of them can share, and that must not be found out by asking each.
    let mut world = World::new(&pools(&[("a", "10.1.0.0/16", "")]));
    for number in 0..10_000 {
        world.apply(&format!("s{number}"), &sharing("k", &[80]));
    }
    assert_eq!(world.give("other", &sharing("k", &[443])), "10.1.0.0");
    assert_eq!(world.core.pools()[0].v4_in_use, 10_000);
}
