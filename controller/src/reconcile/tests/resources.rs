//! The same with custom resources: Services move with their pools, Namespaces select, pools show how full they are.

use ferrolb_config::{
    AllocationWords, Config, Origin, PoolWords, SelectorWords, Word, Words, check,
};
use ferrolb_runtime::watch::Unavailable;
use serde_json::json;

use super::*;
use crate::translate;

fn resource(name: &str, addresses: &str) -> PoolWords {
    PoolWords {
        place: format!("IPAddressPool metallb-system/{name}"),
        origin: Origin::Resource,
        name: Word::Said(name.to_owned()),
        addresses: Word::Said(vec![Word::Said(addresses.to_owned())]),
        ..PoolWords::default()
    }
}

/// A pool for Namespaces with the label `team`.
fn for_team(name: &str, addresses: &str, team: &str) -> PoolWords {
    let selector = SelectorWords {
        labels: team_label(team),
        ..SelectorWords::default()
    };
    PoolWords {
        allocation: Some(AllocationWords {
            namespace_selectors: vec![selector],
            ..AllocationWords::default()
        }),
        ..resource(name, addresses)
    }
}

fn team_label<T: FromIterator<(String, String)>>(team: &str) -> T {
    [("team".to_owned(), team.to_owned())].into_iter().collect()
}

fn config(pools: Vec<PoolWords>) -> Config {
    let words = Words {
        pools,
        ..Words::default()
    };
    check(words).unwrap()
}

fn offer(pools: Vec<PoolWords>) -> Input {
    Input::Config(Source::Read(config(pools)), objects())
}

/// Everything has been seen, and these pools are in force.
fn started(pools: Vec<PoolWords>) -> Bench {
    let mut bench = bench();
    bench.take(Input::Node(Change::Synced));
    bench.take(Input::Namespace(Change::Synced));
    bench.take(Input::Strangers(Change::Synced));
    bench.take(Input::Service(Change::Synced));
    bench.take(offer(pools));
    bench
}

/// A Service as the API server has it.
fn object(object: serde_json::Value) -> Seen {
    translate::service(serde_json::from_value(object).unwrap(), None)
}

fn apply(bench: &mut Bench, service: &str, seen: Seen) -> Vec<Effect> {
    bench.take(Input::Service(Change::Applied(name(service), seen)))
}

fn pool_writes(effects: Vec<Effect>) -> Vec<pool_status::Write> {
    let writes = effects.into_iter().filter_map(|effect| match effect {
        Effect::WritePool(write) => Some(write),
        Effect::Write(_) | Effect::Event { .. } | Effect::Withdraw(..) => None,
    });
    writes.collect()
}

#[test]
fn the_pool_is_noted_with_the_address() {
    let mut bench = started(vec![resource("p", "10.0.0.1/32")]);
    let service = bench.applied("a", &[], &[]);
    let write = only(&bench.take(service));
    assert_eq!(write.noted_pool.as_deref(), Some("p"));
    // What was written is known before the watch tells it, the note included.
    assert!(bench.done(&write).is_empty());
}

/// What the API server adds to a status by itself is no reason to write it again.
#[test]
fn a_defaulted_ip_mode_is_no_difference() {
    let mut bench = started(vec![resource("p", "10.0.0.0/30")]);
    let seen = |ingress: serde_json::Value| {
        object(json!({
            "metadata": {"name": "a", "resourceVersion": "7",
                "annotations": {"metallb.io/ip-allocated-from-pool": "p"}},
            "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
    };
    let vip = json!([{"ip": "10.0.0.2", "ipMode": "VIP"}]);
    assert!(apply(&mut bench, "a", seen(vip)).is_empty());
    for other in [
        json!([{"ip": "10.0.0.2", "ipMode": "Proxy"}]),
        json!([{"ip": "10.0.0.2"}, {"hostname": "a.example"}]),
    ] {
        let write = only(&apply(&mut bench, "a", seen(other)));
        assert_eq!(write.ingress, [ip("10.0.0.2")]);
        let conflict = Input::Written(name("a"), write.id, Written::Conflict);
        bench.take(conflict);
    }
}

#[test]
fn services_move_when_their_pool_goes_also_one_that_is_being_written() {
    let (a, b) = (resource("a", "10.0.0.0/30"), resource("b", "10.0.1.0/30"));
    let mut bench = started(vec![a, b.clone()]);
    let service = bench.applied("still", &[], &[]);
    let write = only(&bench.take(service));
    bench.done(&write);
    let service = bench.applied("writing", &[], &[]);
    let under_way = only(&bench.take(service));
    let effects = bench.take(offer(vec![b]));
    let moved = only(&effects);
    assert_eq!(
        (moved.name.clone(), moved.ingress.clone()),
        (name("still"), vec![ip("10.0.1.0")])
    );
    assert_eq!(moved.noted_pool.as_deref(), Some("b"));
    assert_eq!(reasons(&effects), ["ClearAssignment", "IPAllocated"]);
    assert_eq!(bench.metrics.config_stale.get(), 0, "accepted");
    let effects = bench.done(&under_way);
    assert_eq!(only(&effects).ingress, [ip("10.0.1.1")]);
    assert_eq!(reasons(&effects), ["ClearAssignment", "IPAllocated"]);
}

#[test]
fn without_any_pool_the_status_is_emptied() {
    let mut bench = started(vec![resource("p", "10.0.0.0/30")]);
    let service = bench.applied("a", &["10.0.0.0"], &[]);
    bench.take(service);
    let noted = bench.applied("b", &[], &[]);
    let write = only(&bench.take(noted));
    bench.done(&write);
    let cleared = writes(&bench.take(offer(Vec::new())));
    let cleared: Vec<_> = cleared
        .into_iter()
        .map(|write| (write.name.name.clone(), write.ingress, write.noted_pool))
        .collect();
    assert_eq!(cleared, [("b".to_owned(), Vec::new(), None)]);
}

#[test]
fn a_namespace_that_is_relabelled_is_decided_again() {
    let pools = vec![
        for_team("red", "10.0.0.0/30", "red"),
        for_team("blue", "10.0.1.0/30", "blue"),
    ];
    let mut bench = started(pools);
    let service = bench.applied("a", &[], &[]);
    assert!(writes(&bench.take(service)).is_empty(), "no team");
    let label = |team: &str| {
        let namespace = ObjectName::new("", "default");
        Input::Namespace(Change::Applied(namespace, team_label(team)))
    };
    let write = only(&bench.take(label("red")));
    assert_eq!(write.ingress, [ip("10.0.0.0")]);
    bench.done(&write);
    assert!(bench.take(label("red")).is_empty(), "nothing new");
    assert_eq!(only(&bench.take(label("blue"))).ingress, [ip("10.0.1.0")]);
}

#[test]
fn namespaces_that_may_not_be_seen_are_selected_by_nobody() {
    let mut bench = bench();
    bench.take(Input::Node(Change::Synced));
    bench.take(Input::Strangers(Change::Synced));
    bench.take(Input::Service(Change::Synced));
    bench.take(offer(vec![
        for_team("red", "10.0.0.0/30", "red"),
        resource("all", "10.0.1.0/30"),
    ]));
    let service = bench.applied("a", &[], &[]);
    assert!(bench.take(service).is_empty(), "they may still be seen");
    let forbidden = Change::Unavailable(Unavailable::Forbidden);
    let write = only(&bench.take(Input::Namespace(forbidden)));
    assert_eq!(write.ingress, [ip("10.0.1.0")]);
}

#[test]
fn a_restart_without_sight_of_namespaces_takes_no_address_away() {
    for (team, expected) in [("red", None), ("blue", Some("10.0.1.0"))] {
        let mut bench = bench();
        bench.take(offer(vec![
            for_team("red", "10.0.0.0/30", "red"),
            resource("all", "10.0.1.0/30"),
        ]));
        bench.take(Input::Node(Change::Synced));
        bench.take(Input::Strangers(Change::Synced));
        let service = bench.applied("a", &["10.0.0.1"], &[]);
        bench.take(service);
        bench.take(Input::Service(Change::Synced));
        let forbidden = Change::Unavailable(Unavailable::Forbidden);
        let write = only(&bench.take(Input::Namespace(forbidden)));
        let noted = Some("red".to_owned());
        assert_eq!(
            (&*write.ingress, &write.noted_pool),
            (&[ip("10.0.0.1")][..], &noted)
        );
        bench.done(&write);
        // The right was granted: now it is known.
        let namespace = ObjectName::new("", "default");
        let seen = Change::Applied(namespace, team_label(team));
        let moved = writes(&bench.take(Input::Namespace(seen)));
        let moved: Vec<_> = moved.into_iter().flat_map(|write| write.ingress).collect();
        assert_eq!(moved, expected.map(ip).into_iter().collect::<Vec<_>>());
    }
}

/// MetalLB's filter leaves such a Service its address for ever.
#[test]
fn a_service_of_our_class_that_changes_its_type_lets_go() {
    let mut bench = started(vec![resource("p", "10.0.0.1/32")]);
    let seen = |spec: serde_json::Value, status: serde_json::Value| {
        let object = json!({
            "metadata": {"name": "a", "resourceVersion": "7"}, "spec": spec, "status": {"loadBalancer": status},
        });
        translate::service(serde_json::from_value(object).unwrap(), Some("mine"))
    };
    let balancer =
        json!({"type": "LoadBalancer", "loadBalancerClass": "mine", "clusterIP": "10.96.0.1"});
    let write = only(&apply(&mut bench, "a", seen(balancer, json!({}))));
    bench.done(&write);
    let waiting = bench.applied("b", &[], &[]);
    bench.take(waiting);
    // The class vanishes with the type.
    let other = json!({"type": "ClusterIP", "clusterIP": "10.96.0.1"});
    let mut seen = seen(other, json!({"ingress": [{"ip": "10.0.0.1"}]}));
    seen.version = (bench.version + 1).to_string();
    let write = only(&apply(&mut bench, "a", seen));
    assert_eq!((write.ingress.len(), write.noted_pool.clone()), (0, None));
    assert_eq!(only(&bench.done(&write)).name, name("b"));
}

#[test]
fn pools_show_how_full_they_are() {
    let mut bench = started(vec![resource("p", "10.0.0.0/30")]);
    let pool = ObjectName::new("metallb-system", "p");
    let shown = |version: u64, status: serde_json::Value| {
        let object = json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": "p", "resourceVersion": version.to_string()}, "status": status});
        pool_status::Seen::of(&serde_json::from_value(object).unwrap())
    };
    assert_eq!(
        pool_writes(bench.reconciler.show()),
        [],
        "no object, no status"
    );
    bench.take(Input::Pool(Change::Applied(
        pool.clone(),
        shown(1, json!(null)),
    )));
    let service = bench.applied("a", &[], &[]);
    bench.take(service);
    let mut due = pool_writes(bench.reconciler.show());
    assert_eq!(due.len(), 1);
    let write = due.remove(0);
    assert_eq!(
        (write.status.assigned_ipv4, write.status.available_ipv4),
        (1, 3)
    );
    let now = shown(2, serde_json::to_value(&write.status).unwrap());
    bench.take(Input::PoolWritten(
        pool,
        write.id,
        pool_status::Written::Done(now),
    ));
    assert_eq!(pool_writes(bench.reconciler.show()), []);
}
