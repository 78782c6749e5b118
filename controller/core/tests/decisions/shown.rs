//! Addresses that were given up and are still in a status: nobody else gets them before the write.

use ferrolb_controller_core::{FamilyPolicy, Plan, Request};

use crate::world::*;

const DOCUMENT: &str = "
address-pools:
- {name: a, protocol: layer2, addresses: [10.0.0.0/31]}
- {name: b, protocol: layer2, addresses: [10.0.1.0/30], auto-assign: false}
";

fn cluster_ip() -> Request {
    Request {
        balancer: false,
        ..plain()
    }
}

/// A Service has the first of two addresses, another one the second, and a rival waits for any.
fn contested() -> World {
    let mut world = World::new(DOCUMENT);
    assert_eq!(world.give("former", &plain()), "10.0.0.0");
    assert_eq!(world.give("other", &plain()), "10.0.0.1");
    assert_eq!(world.give("rival", &plain()), "");
    world
}

/// `former`, that now asks for this, gives up its address: it is the rival's after the write, and not before.
fn hands_over(world: &mut World, request: &Request, write: &[&str]) {
    let plan = world.decide("former", request);
    assert_eq!(plan.ingress, Some(ips(write)));
    assert!(!plan.revisit, "there is nothing to be had yet");
    assert!(world.core.holders(ip("10.0.0.0")).is_empty());

    // The write hangs: whatever the rival asks for, it is not this address.
    assert_eq!(
        world.decide("rival", &plain()).pending.as_deref(),
        Some("no available IPs")
    );
    let refusal = r#""10.0.0.0" is still shown in the status of default/former"#;
    let plan = world.decide("rival", &asking(&["10.0.0.0"]));
    assert_eq!(
        told(&plan),
        [format!(
            r#"Warning AllocationFailed: Failed to allocate IP for "default/rival": {refusal}"#
        )]
    );
    assert_eq!(plan.pending.as_deref(), Some(refusal));
    assert!(world.core.waiting().contains(&name("rival")));

    world.show("former", write);
    let plan = world.decide("former", request);
    assert_eq!((plan.ingress, plan.revisit), (None, true), "it was written");
    assert_eq!(world.give("rival", &plain()), "10.0.0.0");
}

#[test]
fn another_address_asked_for() {
    let mut world = contested();
    hands_over(&mut world, &asking(&["10.0.1.2"]), &["10.0.1.2"]);
}

#[test]
fn an_address_asked_for_that_cannot_be_had() {
    let mut world = contested();
    hands_over(&mut world, &asking(&["10.9.9.9"]), &[]);
}

#[test]
fn another_pool() {
    let mut world = contested();
    hands_over(&mut world, &from_pool("b"), &["10.0.1.0"]);
}

#[test]
fn another_type() {
    let mut world = contested();
    hands_over(&mut world, &cluster_ip(), &[]);
}

#[test]
fn deletion_frees_at_once() {
    let mut world = contested();
    world.decide("former", &cluster_ip());
    assert!(world.delete("former").revisit);
    assert_eq!(world.give("rival", &plain()), "10.0.0.0");
}

#[test]
fn what_another_implementation_serves_blocks_nothing() {
    let mut world = contested();
    world.decide("former", &from_pool("b"));
    let plan = world.core.decide(&name("former"), None);
    assert_eq!(
        plan,
        Plan {
            revisit: true,
            ..Plan::default()
        }
    );
    assert_eq!(world.give("rival", &plain()), "10.0.0.0");
}

#[test]
fn what_was_never_written_is_free_at_once() {
    let mut world = World::new(DOCUMENT);
    world.decide("former", &plain());
    let plan = world.decide("former", &from_pool("b"));
    assert_eq!(
        (plan.ingress, plan.revisit),
        (Some(ips(&["10.0.1.0"])), true)
    );
    assert_eq!(world.give("rival", &plain()), "10.0.0.0");
}

#[test]
fn the_service_itself_may_take_its_address_back() {
    for given_up in [from_pool("b"), asking(&["10.9.9.9"]), cluster_ip()] {
        for back in [from_pool("a"), asking(&["10.0.0.0"])] {
            let mut world = contested();
            world.decide("former", &given_up);
            let plan = world.decide("former", &back);
            assert_eq!((plan.ingress, plan.pending), (None, None), "{given_up:?}");
            assert_eq!(world.core.holders(ip("10.0.0.0")), [name("former")]);
        }
    }
}

#[test]
fn partners_do_not_follow_onto_a_shown_address_and_stay_where_they_are() {
    let mut world = World::new(DOCUMENT);
    world.apply("one", &sharing("k", &[80]));
    world.apply("two", &sharing("k", &[81]));
    world.decide("one", &from_pool("b"));
    assert_eq!(world.give("two", &sharing("k", &[81, 82])), "10.0.0.0");
    assert_eq!(world.give("three", &sharing("k", &[83])), "10.0.0.1");
    world.apply("one", &from_pool("b"));
    assert_eq!(world.give("four", &sharing("k", &[84])), "10.0.0.0");
}

#[test]
fn a_holder_is_not_affected_by_who_else_shows_its_address() {
    let mut world = contested();
    world.show("edited", &["10.0.0.0"]);
    world.decide("edited", &cluster_ip());
    // Kept, and got again after all was given up in one decision.
    assert_eq!(world.give("former", &sharing("k", &[80])), "10.0.0.0");
    assert_eq!(world.give("former", &from_pool("a")), "10.0.0.0");
    let both = Request {
        desired: Ok(ips(&["10.0.0.0"])),
        ..dual(FamilyPolicy::PreferDualStack)
    };
    assert_eq!(world.give("former", &both), "10.0.0.0");
}

#[test]
fn of_two_that_only_show_an_address_the_first_to_claim_it_gets_it() {
    for (first, second) in [("one", "two"), ("two", "one")] {
        let mut world = World::new(DOCUMENT);
        for service in ["one", "two"] {
            world.show(service, &["10.0.0.0"]);
            assert_eq!(
                world.decide(service, &cluster_ip()).ingress,
                Some(Vec::new())
            );
        }
        assert_eq!(world.give("rival", &plain()), "10.0.0.1");
        let plan = world.decide("rival", &asking(&["10.0.0.0"]));
        assert_eq!(
            plan.pending.as_deref(),
            Some(r#""10.0.0.0" is still shown in the status of default/one,default/two"#)
        );
        assert_eq!(world.decide(first, &plain()).ingress, None);
        assert_eq!(world.core.holders(ip("10.0.0.0")), [name(first)]);
        let plan = world.decide(second, &plain());
        assert_ne!(plan.ingress, Some(ips(&["10.0.0.0"])));
    }
}

#[test]
fn who_shows_an_address_too_may_choose_it() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/31, 'fc00::/127'", "")]));
    world.show("edited", &["10.0.0.0"]);
    world.decide("edited", &cluster_ip());
    // What its status shows does not do, since an IPv6 address is missing, so both are chosen.
    world.show("two", &["10.0.0.0"]);
    let two = dual(FamilyPolicy::RequireDualStack);
    assert_eq!(world.give("two", &two), "10.0.0.0 fc00::");
}

#[test]
fn who_shows_a_released_address_too_is_decided_again_at_once() {
    let mut world = contested();
    // The rival's status is edited, and the write that clears it does not succeed.
    world.show("rival", &["10.0.0.0"]);
    assert_eq!(world.decide("rival", &plain()).ingress, Some(Vec::new()));
    assert!(world.decide("former", &from_pool("b")).revisit);
    assert_eq!(world.decide("rival", &plain()).ingress, None);
    assert_eq!(world.core.holders(ip("10.0.0.0")), [name("rival")]);
}

#[test]
fn all_that_can_be_read_counts_in_its_canonical_form() {
    let mut world = World::new(DOCUMENT);
    world.show("edited", &["x", "::ffff:10.0.0.0", "10.0.0.0"]);
    world.decide("edited", &cluster_ip());
    assert_eq!(world.give("rival", &plain()), "10.0.0.1");
    assert!(world.apply("edited", &cluster_ip()).revisit);
    assert_eq!(world.give("rival", &asking(&["10.0.0.0"])), "10.0.0.0");
}

#[test]
fn outside_of_the_pools_it_costs_nothing() {
    let mut world = contested();
    world.show("edited", &["10.7.7.7", "fc00::7"]);
    assert!(!world.apply("edited", &cluster_ip()).revisit);
    // A pool that comes to have the address while it is shown does not give it out.
    world.show("edited", &["10.7.7.6"]);
    world.decide("edited", &cluster_ip());
    let more = format!("{DOCUMENT}- {{name: c, protocol: layer2, addresses: [10.7.7.6/31]}}");
    world.configure(&more).unwrap();
    assert_eq!(world.give("rival", &plain()), "10.7.7.7");
    assert_eq!(world.give("late", &plain()), "");
    assert!(world.apply("edited", &cluster_ip()).revisit);
    assert_eq!(world.give("late", &plain()), "10.7.7.6");
}

#[test]
fn what_is_shown_before_the_barrier_is_blocked_after_it() {
    let mut world = World::restarted(DOCUMENT, &[("former", &["10.0.0.0"])]);
    world.decide("former", &cluster_ip());
    world.decide("rival", &plain());
    world.core.all_seen();
    assert_eq!(world.give("rival", &plain()), "10.0.0.1");
    assert_eq!(world.core.pools()[0].v4_in_use, 1);
}

#[test]
fn who_takes_up_what_it_only_showed_opens_it_to_those_who_may_share() {
    let mut world = World::new("");
    let wish = Request {
        desired: Ok(ips(&["10.0.0.0"])),
        ..sharing("key", &[1])
    };
    world.decide("wish", &wish);
    let two = Request {
        sharing: Some("key".into()),
        ports: tcp(&[2]),
        ..dual(FamilyPolicy::RequireDualStack)
    };
    world.show("two", &["10.0.0.0"]);
    world.decide("two", &two);
    world
        .configure(&pools(&[("a", "10.0.0.0/31, 'fc00::/127'", "")]))
        .unwrap();
    // The address is only shown at first, so nobody gets it; then it is held by one who shares.
    assert_eq!(world.decide("wish", &wish).ingress, None);
    let taken = world.decide("two", &two);
    assert_eq!(taken.ingress, Some(ips(&["10.0.0.0", "fc00::"])));
    assert!(taken.revisit);
    assert_eq!(world.give("wish", &wish), "10.0.0.0");
}

#[test]
fn why_a_given_up_address_is_not_replaced_is_the_same_before_and_after() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30, 'fc00::/126'", "")]));
    world.apply("former", &v6());
    world.show("edited", &["fc00::"]);
    world.decide("edited", &plain());
    // It gives its address up, which "edited" shows, and asks for it together with one that is taken.
    world.apply("taken", &asking(&["10.0.0.1"]));
    for wished in [["10.0.0.1", "fc00::"], ["fc00::", "10.0.0.1"]] {
        let both = Request {
            desired: Ok(ips(&wished)),
            ..dual(FamilyPolicy::RequireDualStack)
        };
        // Deciding again must say nothing new, which `decide` checks.
        assert!(world.decide("former", &both).pending.is_some());
    }
    // Nor if both are shown, and one of them was its own.
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30, 'fc00::/126'", "")]));
    world.apply("former", &plain());
    world.show("edited", &["10.0.0.0", "fc00::"]);
    world.decide("edited", &from_pool("none"));
    let both = Request {
        desired: Ok(ips(&["10.0.0.0", "fc00::"])),
        ..dual(FamilyPolicy::RequireDualStack)
    };
    let plan = world.decide("former", &both);
    let text = r#""10.0.0.0" is still shown in the status of default/edited"#;
    assert_eq!(plan.pending.as_deref(), Some(text));
}
