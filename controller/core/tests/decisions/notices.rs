//! What Services are told, and how often: metallb.md 5.7.

use ferrolb_controller_core::Request;

use crate::world::*;

#[test]
fn an_assignment_is_told_once() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30", "")]));
    // `apply` itself checks that nothing is told again.
    assert_eq!(
        told(&world.apply("a", &plain())),
        [r#"Normal IPAllocated: Assigned IP ["10.0.0.0"]"#]
    );
}

#[test]
fn a_failure_is_told_when_its_reason_changes() {
    let mut world = World::new(&pools(&[
        ("a", "10.0.0.0/32", ""),
        ("b", "10.0.1.0/32", "auto-assign: false"),
    ]));
    world.apply("a", &plain());
    let failed = |why: &str| {
        format!("Warning AllocationFailed: Failed to allocate IP for \"default/w\": {why}")
    };
    let exhausted = failed("no available IPs");
    assert_eq!(told(&world.apply("w", &plain())), [exhausted.as_str()]);
    assert_eq!(told(&world.apply("w", &plain())), [""; 0]);
    assert_eq!(
        told(&world.apply("w", &from_pool("c"))),
        [failed("unknown pool \"c\"")]
    );
    assert_eq!(told(&world.apply("w", &plain())), [exhausted.as_str()]);
    // After a success the same failure is news again.
    assert_eq!(world.give("w", &from_pool("b")), "10.0.1.0");
    world.delete("w");
    world.apply("x", &from_pool("b"));
    assert_eq!(told(&world.apply("w", &plain())), [exhausted.as_str()]);
}

#[test]
fn a_status_given_up_is_told_once_even_if_its_write_fails() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/32", "")]));
    world.apply("a", &plain());
    let stale = Request {
        current: vec![Ok(ip("10.7.7.7"))],
        ..plain()
    };
    let plan = world.core.decide(&name("b"), Some(&stale));
    let reasons: Vec<_> = plan.notices.iter().map(|notice| notice.reason).collect();
    assert_eq!(
        (reasons, plan.ingress),
        (
            vec!["ClearAssignment", "AllocationFailed"],
            Some(Vec::new())
        )
    );
    let plan = world.core.decide(&name("b"), Some(&stale));
    assert_eq!((plan.notices.len(), plan.ingress), (0, Some(Vec::new())));
}

#[test]
fn a_status_under_replacement_is_no_claim() {
    let mut world = World::new(&pools(&[
        ("a", "10.0.0.0/30", ""),
        ("b", "10.0.1.0/30", "auto-assign: false"),
    ]));
    let stale = |request: Request| Request {
        current: vec![Ok(ip("10.0.0.0"))],
        ..request
    };
    world.apply("a", &plain());
    let plan = world.core.decide(&name("a"), Some(&stale(from_pool("b"))));
    assert_eq!(plan.ingress, Some(ips(&["10.0.1.0"])));
    // The wish is withdrawn before the write is seen: the old address is not taken back, though it could be.
    let plan = world.core.decide(&name("a"), Some(&stale(plain())));
    assert_eq!(
        (plan.ingress, plan.notices.len(), plan.revisit),
        (Some(ips(&["10.0.1.0"])), 0, false)
    );
    // A pool that gives out nothing any more refuses a status it has just been taken from, and that is not news.
    world.apply("x", &asking(&["10.0.0.1"]));
    world
        .configure(&pools(&[
            ("a", "10.0.0.0/30", "protocol: bgp"),
            ("b", "10.0.1.0/30", ""),
        ]))
        .unwrap();
    let plan = world.apply("x", &asking(&["10.9.9.9"]));
    assert_eq!((plan.ingress, plan.notices.len()), (Some(Vec::new()), 1));
}

#[test]
fn a_conflict_with_a_node_is_told_when_it_changes() {
    let mut world = World::new(&pools(&[("a", "10.0.0.0/30", "")]));
    world.apply("a", &plain());
    let text = |node: &str| {
        format!(
            "Warning AddressConflict: \"10.0.0.0\" is also an address of node \"{node}\": give the node or the Service another address"
        )
    };
    world
        .core
        .reserve([(ip("10.0.0.0"), "n1".to_string())].into());
    let plan = world.apply("a", &plain());
    assert_eq!((told(&plan), plan.ingress), (vec![text("n1")], None));
    assert_eq!(told(&world.apply("a", &plain())), [""; 0]);
    world
        .core
        .reserve([(ip("10.0.0.0"), "n2".to_string())].into());
    assert_eq!(told(&world.apply("a", &plain())), [text("n2")]);
    world.core.reserve([].into());
    assert_eq!(told(&world.apply("a", &plain())), [""; 0]);
    world
        .core
        .reserve([(ip("10.0.0.0"), "n2".to_string())].into());
    assert_eq!(told(&world.apply("a", &plain())), [text("n2")]);
    // Once released it is not given out again.
    world.delete("a");
    assert_eq!(world.give("b", &plain()), "10.0.0.1");
}
