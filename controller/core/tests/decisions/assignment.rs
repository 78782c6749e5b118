//! The scenarios of MetalLB's end-to-end suite on assignment (metallb.md 9.2, `assignment.go` of 0.16.1), decided here
//! without a cluster: pools are custom resources, and whoever waits is decided again when a plan says so.

use std::collections::BTreeMap;

use ferrolb_config::{AllocationWords, Config, Labels, ObjectName, PoolWords, Word};
use ferrolb_controller_core::{Core, FamilyPolicy, Request};

use crate::world::*;

/// Services, pools and Namespaces, with a controller that decides as its daemon does.
struct Cluster {
    world: World,
    config: Config,
    requests: BTreeMap<ObjectName, Request>,
    namespaces: BTreeMap<String, Labels>,
}

impl Cluster {
    fn new(pools: Vec<PoolWords>) -> Self {
        let config = resources(pools);
        Self {
            world: World::of(config.clone()),
            config,
            requests: BTreeMap::new(),
            namespaces: BTreeMap::new(),
        }
    }

    /// Decides these Services, and those that wait as long as something is released.
    fn decide(&mut self, names: Vec<ObjectName>) {
        let mut names = names;
        for _ in 0..10 {
            let mut revisit = false;
            for name in &names {
                let request = self.requests[name].clone();
                revisit |= self.world.apply_named(name, &request).revisit;
            }
            if !revisit {
                return;
            }
            names = self.world.core.waiting();
        }
        panic!("deciding again does not come to an end");
    }

    fn decide_all(&mut self) {
        self.decide(self.requests.keys().cloned().collect());
    }

    fn set(&mut self, service: &str, request: Request) {
        self.set_in("default", service, request);
    }

    fn set_in(&mut self, namespace: &str, service: &str, request: Request) {
        let name = ObjectName::new(namespace, service);
        self.requests.insert(name.clone(), request);
        self.decide(vec![name]);
    }

    fn delete(&mut self, service: &str) {
        let name = name(service);
        self.requests.remove(&name);
        if self.world.delete_named(&name).revisit {
            self.decide(self.world.core.waiting());
        }
    }

    fn pools(&mut self, pools: Vec<PoolWords>) {
        self.config = resources(pools);
        self.world.core.configure(self.config.clone()).unwrap();
        self.decide_all();
    }

    fn label(&mut self, namespace: &str, pairs: &[(&str, &str)]) {
        self.namespaces.insert(namespace.into(), labels(pairs));
        if self.world.core.label(namespace, Some(labels(pairs))) {
            self.decide_all();
        }
    }

    fn restart(&mut self) {
        self.world.core = Core::new();
        self.world.core.configure(self.config.clone()).unwrap();
        for (namespace, labels) in &self.namespaces {
            self.world.core.label(namespace, Some(labels.clone()));
        }
        for (name, request) in &self.requests {
            self.world.decide_named(name, request);
        }
        self.world.core.all_seen();
        self.decide(self.world.core.waiting());
    }

    /// The addresses of a Service, separated by spaces.
    fn ip(&self, service: &str) -> String {
        self.ip_in("default", service)
    }

    fn ip_in(&self, namespace: &str, service: &str) -> String {
        let name = ObjectName::new(namespace, service);
        self.world
            .status
            .get(&name)
            .map(|addresses| addresses.join(" "))
            .unwrap_or_default()
    }

    /// The pool the annotation of a Service names.
    fn pool(&self, service: &str) -> Option<&str> {
        self.world.noted.get(&name(service)).map(String::as_str)
    }
}

fn cluster_ip() -> Request {
    Request {
        balancer: false,
        ..plain()
    }
}

fn local(selector: &str, ports: &[u16]) -> Request {
    Request {
        backend: selector.into(),
        ..sharing("key", ports)
    }
}

#[test]
fn frees_the_address_when_the_type_changes() {
    let mut cluster = Cluster::new(vec![resource("one", &["10.0.0.1/32"])]);
    cluster.set("first", plain());
    cluster.set("second", plain());
    assert_eq!(
        (cluster.ip("first"), cluster.ip("second")),
        ("10.0.0.1".into(), String::new())
    );
    cluster.set("first", cluster_ip());
    assert_eq!(
        (cluster.ip("first"), cluster.ip("second")),
        (String::new(), "10.0.0.1".into())
    );
    assert_eq!(
        (cluster.pool("first"), cluster.pool("second")),
        (None, Some("one"))
    );
}

#[test]
fn frees_the_address_when_the_service_is_deleted() {
    let mut cluster = Cluster::new(vec![resource("one", &["10.0.0.1/32"])]);
    cluster.set("first", plain());
    cluster.set("second", plain());
    cluster.delete("first");
    assert_eq!(cluster.ip("second"), "10.0.0.1");
}

#[test]
fn keeps_addresses_over_restarts() {
    let mut cluster = Cluster::new(vec![resource("p", &["10.0.0.0/28"])]);
    for service in ["d", "b", "c", "a"] {
        cluster.set(service, plain());
    }
    let before = cluster.world.status.clone();
    for _ in 0..5 {
        cluster.restart();
        assert_eq!(cluster.world.status, before);
    }
    assert_eq!(cluster.ip("d"), "10.0.0.0");
}

#[test]
fn reconsiders_services_when_sharing_and_conditions_change() {
    let mut cluster = Cluster::new(vec![resource("one", &["10.0.0.1/32"])]);
    let shared = || "10.0.0.1".to_string();
    let both = |cluster: &Cluster| (cluster.ip("first"), cluster.ip("second"));
    cluster.set("first", sharing("key", &[80]));
    cluster.set("second", sharing("key", &[81]));
    assert_eq!(both(&cluster), (shared(), shared()));
    // Local and Cluster do not share.
    cluster.set("second", local("app=x", &[81]));
    assert_eq!(both(&cluster), (shared(), String::new()));
    // Both Local with one selector do.
    cluster.set("first", local("app=x", &[80]));
    assert_eq!(both(&cluster), (shared(), shared()));
    // With two selectors they do not: the one that changed loses the address.
    cluster.set("first", local("app=y", &[80]));
    assert_eq!(both(&cluster), (String::new(), shared()));
    cluster.set("second", local("app=y", &[81]));
    assert_eq!(both(&cluster), (shared(), shared()));
}

#[test]
fn removing_all_pools_empties_the_status() {
    let mut cluster = Cluster::new(vec![
        resource("a", &["10.0.0.0/31"]),
        resource("b", &["10.0.1.0/31"]),
    ]);
    cluster.set("x", plain());
    cluster.set("y", from_pool("b"));
    cluster.pools(Vec::new());
    assert_eq!(
        (cluster.ip("x"), cluster.ip("y")),
        (String::new(), String::new())
    );
    assert_eq!((cluster.pool("x"), cluster.pool("y")), (None, None));
    cluster.pools(vec![resource("c", &["10.0.2.0/31"])]);
    assert_eq!(cluster.ip("x"), "10.0.2.0");
}

#[test]
fn reallocates_after_a_pool_is_deleted() {
    let (a, b) = (
        resource("a", &["10.0.0.0/31"]),
        resource("b", &["10.0.1.0/31"]),
    );
    let mut cluster = Cluster::new(vec![a, b.clone()]);
    cluster.set("x", plain());
    assert_eq!(
        (cluster.ip("x"), cluster.pool("x")),
        ("10.0.0.0".into(), Some("a"))
    );
    cluster.pools(vec![b]);
    assert_eq!(
        (cluster.ip("x"), cluster.pool("x")),
        ("10.0.1.0".into(), Some("b"))
    );
}

/// Two one-address pools with this allocation and priorities 20 and 10, and one for everybody.
fn by_priority(allocation: &AllocationWords) -> Vec<PoolWords> {
    let with = |priority| AllocationWords {
        priority,
        ..allocation.clone()
    };
    vec![
        pinned("later", &["10.0.2.0/32"], with(20)),
        pinned("sooner", &["10.0.1.0/32"], with(10)),
        resource("anybody", &["10.0.0.0/24"]),
    ]
}

/// Three Services of this kind in `namespace` use up the pools in the order of their priorities, and one that does not
/// match gets an address from the pool for everybody.
fn expect_by_priority(
    allocation: &AllocationWords,
    namespace: &str,
    matching: &Request,
    other: (&str, &Request),
) {
    let mut cluster = Cluster::new(by_priority(allocation));
    cluster.label("wanted", &[("team", "red")]);
    cluster.label("other", &[("team", "blue")]);
    cluster.set_in(other.0, "other", other.1.clone());
    assert_eq!(cluster.ip_in(other.0, "other"), "10.0.0.0");
    for (service, expected) in [("1", "10.0.1.0"), ("2", "10.0.2.0"), ("3", "10.0.0.1")] {
        cluster.set_in(namespace, service, matching.clone());
        assert_eq!(cluster.ip_in(namespace, service), expected);
    }
}

fn labelled(app: &str) -> Request {
    Request {
        labels: labels(&[("app", app)]),
        ..plain()
    }
}

#[test]
fn allocates_by_namespace() {
    let allocation = AllocationWords {
        namespaces: vec!["wanted".into()],
        ..AllocationWords::default()
    };
    expect_by_priority(&allocation, "wanted", &plain(), ("other", &plain()));
}

#[test]
fn allocates_by_priority_alone() {
    let mut pools = by_priority(&AllocationWords::default());
    pools.pop();
    let mut cluster = Cluster::new(pools);
    for (service, expected) in [("1", "10.0.1.0"), ("2", "10.0.2.0"), ("3", "")] {
        cluster.set(service, plain());
        assert_eq!(cluster.ip(service), expected);
    }
}

#[test]
fn allocates_by_namespace_and_namespace_labels() {
    // A namespace is there by its name or by its labels.
    let allocation = AllocationWords {
        namespaces: vec!["named".into()],
        namespace_selectors: selectors(&[("team", "red")]),
        ..AllocationWords::default()
    };
    expect_by_priority(&allocation, "wanted", &plain(), ("other", &plain()));
    expect_by_priority(&allocation, "named", &plain(), ("other", &plain()));
}

#[test]
fn allocates_by_service_labels() {
    let allocation = AllocationWords {
        service_selectors: selectors(&[("app", "x"), ("app", "y")]),
        ..AllocationWords::default()
    };
    expect_by_priority(&allocation, "any", &labelled("y"), ("any", &labelled("z")));
}

#[test]
fn allocates_by_namespace_and_service_labels_together() {
    let allocation = AllocationWords {
        namespaces: vec!["wanted".into()],
        service_selectors: selectors(&[("app", "x")]),
        ..AllocationWords::default()
    };
    expect_by_priority(
        &allocation,
        "wanted",
        &labelled("x"),
        ("wanted", &labelled("y")),
    );
    expect_by_priority(
        &allocation,
        "wanted",
        &labelled("x"),
        ("other", &labelled("x")),
    );
}

#[test]
fn a_relabelled_namespace_gets_the_pools_of_its_new_labels() {
    let allocation = AllocationWords {
        namespace_selectors: selectors(&[("team", "red")]),
        ..AllocationWords::default()
    };
    let mut cluster = Cluster::new(by_priority(&allocation));
    cluster.label("space", &[("team", "blue")]);
    cluster.set_in("space", "before", plain());
    assert_eq!(cluster.ip_in("space", "before"), "10.0.0.0");
    cluster.label("space", &[("team", "red")]);
    cluster.set_in("space", "after", plain());
    assert_eq!(cluster.ip_in("space", "after"), "10.0.1.0");
    // Who has an address keeps it.
    assert_eq!(cluster.ip_in("space", "before"), "10.0.0.0");
    // A pool that is not there for the namespace any more is left, as when it is deleted.
    cluster.label("space", &[]);
    assert_eq!(cluster.ip_in("space", "after"), "10.0.0.1");
}

const PREFER: FamilyPolicy = FamilyPolicy::PreferDualStack;
const REQUIRE: FamilyPolicy = FamilyPolicy::RequireDualStack;

fn v4_pool() -> PoolWords {
    resource("v4", &["10.0.0.0/30"])
}

fn v6_pool() -> PoolWords {
    resource("v6", &["fc00::/126"])
}

fn dual_pool() -> PoolWords {
    resource("both", &["fc00:1::/126", "10.0.1.0/30"])
}

#[test]
fn prefer_dual_stack_takes_a_dual_pool_where_there_is_one() {
    let mut cluster = Cluster::new(vec![v4_pool(), v6_pool(), dual_pool()]);
    cluster.set("x", dual(PREFER));
    // IPv4 comes first, whatever the order of the ranges.
    assert_eq!(cluster.ip("x"), "10.0.1.0 fc00:1::");
    assert_eq!(cluster.pool("x"), Some("both"));
}

#[test]
fn prefer_dual_stack_takes_ipv4_by_default() {
    let mut cluster = Cluster::new(vec![v6_pool(), v4_pool()]);
    cluster.set("x", dual(PREFER));
    assert_eq!(cluster.ip("x"), "10.0.0.0");
}

#[test]
fn prefer_dual_stack_takes_ipv6_where_it_is_primary() {
    let mut cluster = Cluster::new(vec![v4_pool(), v6_pool()]);
    let primary = Request {
        cluster_ips: vec!["fd00::1".into(), "10.96.0.1".into()],
        ..dual(PREFER)
    };
    cluster.set("x", primary);
    assert_eq!(cluster.ip("x"), "fc00::");
}

#[test]
fn prefer_dual_stack_gets_another_address_when_its_pool_becomes_dual() {
    let mut cluster = Cluster::new(vec![v4_pool()]);
    cluster.set("x", dual(PREFER));
    assert_eq!(cluster.ip("x"), "10.0.0.0");
    cluster.pools(vec![resource("v4", &["fc00::/126", "10.0.0.0/30"])]);
    assert_eq!(cluster.ip("x"), "10.0.0.0 fc00::");
}

#[test]
fn prefer_require_prefer_on_a_single_stack_pool_is_one_none_one() {
    let mut cluster = Cluster::new(vec![v4_pool()]);
    for (policy, expected) in [(PREFER, "10.0.0.0"), (REQUIRE, ""), (PREFER, "10.0.0.0")] {
        cluster.set("x", dual(policy));
        assert_eq!(cluster.ip("x"), expected);
    }
}

#[test]
fn prefer_dual_stack_does_not_jump_to_a_dual_pool() {
    let mut cluster = Cluster::new(vec![v4_pool()]);
    cluster.set("x", dual(PREFER));
    cluster.pools(vec![dual_pool(), v4_pool()]);
    assert_eq!(
        (cluster.ip("x"), cluster.pool("x")),
        ("10.0.0.0".into(), Some("v4"))
    );
}

#[test]
fn prefer_dual_stack_moves_when_its_pool_becomes_single() {
    let mut cluster = Cluster::new(vec![dual_pool()]);
    cluster.set("x", dual(PREFER));
    let other = resource("other", &["10.0.2.0/30", "fc00:2::/126"]);
    cluster.pools(vec![resource("both", &["10.0.1.0/30"]), other]);
    assert_eq!(
        (cluster.ip("x"), cluster.pool("x")),
        ("10.0.2.0 fc00:2::".into(), Some("other"))
    );
}

#[test]
fn asking_for_a_pool_works_with_and_without_auto_assign() {
    for auto_assign in [true, false] {
        for (request, addresses, expected) in [
            (plain(), "10.0.5.0/32", "10.0.5.0"),
            (v6(), "fc00:5::/128", "fc00:5::"),
        ] {
            let asked = PoolWords {
                auto_assign: Word::Said(auto_assign),
                ..resource("asked", &[addresses])
            };
            let asking = Request {
                pool: Some("asked".into()),
                ..request.clone()
            };
            let mut cluster = Cluster::new(vec![v4_pool(), v6_pool(), asked.clone()]);
            cluster.set("x", asking);
            assert_eq!(
                (cluster.ip("x"), cluster.pool("x")),
                (expected.into(), Some("asked"))
            );
            // Another pool and another Service change nothing about it.
            cluster.pools(vec![v4_pool(), v6_pool(), asked, dual_pool()]);
            cluster.set("y", request);
            assert_eq!(cluster.ip("x"), expected);
            assert_ne!(cluster.ip("y"), "");
        }
    }
}
