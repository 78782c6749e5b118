//! Addresses that hosts outside the cluster answer for: given out last, and left where that is wanted.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_controller_core::{FamilyPolicy, Request, Stranger};

use crate::world::*;

const DOCUMENT: &str = "
address-pools:
- {name: a, protocol: layer2, addresses: [10.0.0.0/31, 'fc00::/127']}
- {name: b, protocol: layer2, auto-assign: no, addresses: [10.0.1.0/31]}
";
const HOST: &str = "02:00:00:00:00:09";

/// Tells of strangers, and whether their addresses are to be left.
fn dispute(world: &mut World, addresses: &[&str], leave: bool) -> BTreeSet<IpAddr> {
    let host = HOST.to_owned();
    let stranger = Stranger { host, leave };
    let each = addresses.iter().map(|text| (ip(text), stranger.clone()));
    world.core.dispute(each.collect())
}

fn names_of(world: &World, address: &str) -> usize {
    world.core.holders(ip(address)).len()
}

#[test]
fn a_disputed_address_is_given_last_and_keeps_who_has_it() {
    let mut world = World::new(DOCUMENT);
    assert_eq!(world.give("old", &plain()), "10.0.0.0");
    let changed = dispute(&mut world, &["10.0.0.0", "fc00::"], false);
    assert_eq!(changed, [ip("10.0.0.0"), ip("fc00::")].into());
    assert!(dispute(&mut world, &["10.0.0.0", "fc00::"], false).is_empty());
    // Who has it keeps it, and is told nothing here.
    let plan = world.apply("old", &plain());
    assert!(plan.ingress.is_none() && plan.notices.is_empty());
    world.delete("old");
    assert_eq!(world.give("new", &plain()), "10.0.0.1");
    // It is better than none.
    assert_eq!(world.give("last", &plain()), "10.0.0.0");
    assert_eq!(world.give("none", &plain()), "");
    // And given to who asks for it.
    world.delete("last");
    assert_eq!(world.give("wish", &asking(&["10.0.0.0"])), "10.0.0.0");
    // When the word ends it is as any other.
    world.delete("wish");
    world.delete("new");
    assert!(!dispute(&mut world, &[], false).is_empty());
    assert_eq!(world.give("again", &plain()), "10.0.0.0");
}

#[test]
fn a_second_address_may_as_well_be_missing() {
    let mut world = World::new(DOCUMENT);
    dispute(&mut world, &["fc00::", "fc00::1"], false);
    let prefers = dual(FamilyPolicy::PreferDualStack);
    assert_eq!(world.give("one", &prefers), "10.0.0.0");
    let requires = dual(FamilyPolicy::RequireDualStack);
    assert_eq!(world.give("two", &requires), "10.0.0.1 fc00::");
}

#[test]
fn sharers_look_for_another_place_first() {
    let mut world = World::new(DOCUMENT);
    assert_eq!(world.give("one", &sharing("k", &[80])), "10.0.0.0");
    dispute(&mut world, &["10.0.0.0"], false);
    assert_eq!(world.give("two", &sharing("k", &[81])), "10.0.0.1");
    assert_eq!(world.give("six", &v6()), "fc00::");
    assert_eq!(world.give("other", &sharing("l", &[80])), "");
    // With the same ports as on the other address.
    assert_eq!(world.give("three", &sharing("k", &[81])), "10.0.0.0");
}

#[test]
fn a_service_leaves_a_strangers_address_and_says_why() {
    let mut world = World::new(DOCUMENT);
    world.give("a", &plain());
    dispute(&mut world, &["10.0.0.0"], true);
    let plan = world.apply("a", &plain());
    assert_eq!(
        told(&plan),
        [
            "Warning AddressReassigned: Reassigned from [\"10.0.0.0\"] to [\"10.0.0.1\"]: the host 02:00:00:00:00:09, which is \
          no speaker, answers for \"10.0.0.0\""
        ]
    );
    assert_eq!(world.shown("a"), "10.0.0.1");
    assert_eq!(names_of(&world, "10.0.0.0"), 0);
}

#[test]
fn the_address_left_is_nobodys_until_the_status_is_written() {
    let mut world = World::new(DOCUMENT);
    world.give("a", &plain());
    dispute(&mut world, &["10.0.0.0"], true);
    let plan = world.decide("a", &plain());
    assert_eq!(plan.ingress, Some(ips(&["10.0.0.1"])));
    assert_eq!(world.give("b", &plain()), "");
    world.write(&name("a"), vec!["10.0.0.1".into()], None);
    assert!(world.apply("a", &plain()).revisit);
    assert_eq!(world.give("b", &plain()), "10.0.0.0");
}

#[test]
fn where_nothing_else_is_left_a_service_stays_and_says_so_once() {
    let mut world = World::new(DOCUMENT);
    world.give("a", &plain());
    world.give("b", &plain());
    dispute(&mut world, &["10.0.0.0"], true);
    let plan = world.apply("a", &plain());
    assert_eq!((plan.ingress, plan.notices.len()), (None, 1));
    let notice = &plan.notices[0];
    assert_eq!(notice.reason, "AddressNotReassigned");
    assert!(notice.message.contains(HOST) && notice.message.contains("no other address is left"));
    assert!(world.apply("a", &plain()).notices.is_empty());
    // Nor to what another stranger has.
    dispute(&mut world, &["10.0.0.0", "10.0.0.1"], true);
    world.delete("b");
    assert!(world.apply("a", &plain()).ingress.is_none());
    dispute(&mut world, &["10.0.0.0"], true);
    assert_eq!(world.give("a", &plain()), "10.0.0.1");
}

#[test]
fn who_asks_for_an_address_or_shares_it_stays() {
    let mut world = World::new(DOCUMENT);
    world.give("wish", &asking(&["10.0.0.0"]));
    dispute(&mut world, &["10.0.0.0"], true);
    let plan = world.apply("wish", &asking(&["10.0.0.0"]));
    assert!(plan.ingress.is_none() && plan.notices.is_empty());
    world.delete("wish");
    dispute(&mut world, &[], true);
    world.give("one", &sharing("k", &[80]));
    assert_eq!(world.give("two", &sharing("k", &[81])), "10.0.0.0");
    dispute(&mut world, &["10.0.0.0"], true);
    let plan = world.apply("one", &sharing("k", &[80]));
    assert!(plan.ingress.is_none() && plan.notices[0].message.contains("default/two"));
    // Alone it may.
    world.delete("two");
    assert_eq!(world.give("one", &sharing("k", &[80])), "10.0.0.1");
}

#[test]
fn of_two_addresses_only_the_disputed_one_is_replaced() {
    let mut world = World::new(DOCUMENT);
    let both = dual(FamilyPolicy::RequireDualStack);
    assert_eq!(world.give("a", &both), "10.0.0.0 fc00::");
    dispute(&mut world, &["fc00::"], true);
    assert_eq!(world.give("a", &both), "10.0.0.0 fc00::1");
    // Of two the one that was asked for stays, though it is disputed.
    let prefers = Request {
        desired: Ok(ips(&["10.0.0.1"])),
        ..dual(FamilyPolicy::PreferDualStack)
    };
    dispute(&mut world, &[], true);
    assert_eq!(world.give("b", &prefers), "10.0.0.1 fc00::");
    world.delete("a");
    dispute(&mut world, &["10.0.0.1", "fc00::"], true);
    assert_eq!(world.give("b", &prefers), "10.0.0.1 fc00::1");
}

#[test]
fn another_pool_is_taken_only_for_as_many_families() {
    let document = "
address-pools:
- {name: a, protocol: layer2, addresses: [10.0.0.0/32, 'fc00::/128']}
- {name: b, protocol: layer2, addresses: [10.0.1.0/32]}
- {name: c, protocol: layer2, addresses: [10.0.2.0/32, 'fc00:2::/128']}
";
    let mut world = World::new(document);
    let prefers = dual(FamilyPolicy::PreferDualStack);
    assert_eq!(world.give("a", &prefers), "10.0.0.0 fc00::");
    dispute(&mut world, &["10.0.0.0"], true);
    assert_eq!(world.give("a", &prefers), "10.0.2.0 fc00:2::");
    // Only single ones are left elsewhere.
    dispute(&mut world, &["10.0.0.0", "10.0.2.0"], true);
    let plan = world.apply("a", &prefers);
    assert_eq!(plan.notices[0].reason, "AddressNotReassigned");
    assert_eq!(world.shown("a"), "10.0.2.0 fc00:2::");
    // Of the pool asked for, whatever there is elsewhere.
    assert_eq!(world.give("p", &from_pool("b")), "10.0.1.0");
    dispute(&mut world, &["10.0.1.0"], true);
    assert!(world.apply("p", &from_pool("b")).ingress.is_none());
    assert_eq!(world.give("p", &plain()), "10.0.0.0");
}

#[test]
fn before_the_barrier_nobody_moves_and_who_will_waits() {
    let mut world = World::restarted(DOCUMENT, &[("a", &["10.0.0.0"]), ("b", &["10.0.0.1"])]);
    dispute(&mut world, &["10.0.0.0"], true);
    let plan = world.apply("a", &plain());
    assert!(plan.ingress.is_none() && plan.pending.is_some());
    world.core.all_seen();
    assert_eq!(world.core.waiting(), [name("a")]);
    assert_eq!(world.give("a", &plain()), "10.0.0.1");
}

#[test]
fn a_new_configuration_knows_them_too() {
    let mut world = World::new(DOCUMENT);
    dispute(&mut world, &["10.0.0.0", "10.0.1.0"], false);
    world
        .configure("address-pools: [{name: c, protocol: layer2, addresses: [10.0.1.0/31]}]")
        .unwrap();
    assert_eq!(world.give("a", &plain()), "10.0.1.1");
    assert_eq!(world.give("b", &plain()), "10.0.1.0");
}

#[test]
fn who_has_two_families_looks_on_where_a_pool_has_one_left() {
    let document = "
address-pools:
- {name: a, protocol: layer2, addresses: [10.0.0.0/31, 'fc00::/128']}
- {name: b, protocol: layer2, addresses: [10.0.1.0/32, 'fc00:1::/128']}
";
    let mut world = World::new(document);
    let prefers = dual(FamilyPolicy::PreferDualStack);
    assert_eq!(world.give("a", &prefers), "10.0.0.0 fc00::");
    assert_eq!(world.give("b", &plain()), "10.0.0.1");
    dispute(&mut world, &["fc00::"], true);
    // The address it keeps in its own pool is none to move to.
    assert_eq!(world.give("a", &prefers), "10.0.1.0 fc00:1::");
}
