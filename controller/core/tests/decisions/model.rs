//! Random histories of a cluster, against a model that finds everything by walking over lists.
//!
//! The model knows the rules of metallb.md 5.3–5.5, and nothing of numbers, runs and indexes: a pool is the list of its
//! addresses, the assignments are a table that is searched from end to end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_config::{Config, Family, ObjectName, Pool, Protocol, read};
use ferrolb_controller_core::{Core, FamilyPolicy, Plan, Request};
use proptest::prelude::*;

use crate::world::*;

/// Configurations to change between; many are refused while addresses are in use, which is part of the test.
const DOCUMENTS: [&str; 6] = [
    "",
    "address-pools:
- {name: a, protocol: layer2, addresses: [10.0.0.0/30, 'fc00::/127']}
- {name: b, protocol: layer2, auto-assign: no, avoid-buggy-ips: yes, addresses: ['fc00:1::/127', 10.0.0.254-10.0.1.2]}",
    "address-pools:
- {name: b, protocol: layer2, addresses: ['fc00::/127', 'fc00:1::/126', 10.0.0.254-10.0.1.2]}
- {name: a, protocol: layer2, addresses: [10.0.0.2/31, 10.0.0.0/31]}",
    "address-pools:
- {name: all, protocol: layer2, avoid-buggy-ips: yes, addresses: [10.0.0.0-10.0.1.2, 'fc00::/15']}",
    "address-pools:
- {name: a, protocol: bgp, addresses: [10.0.0.0/30, 'fc00::/127']}
- {name: b, protocol: layer2, addresses: [10.0.0.254-10.0.1.2, 'fc00:1::/127']}",
    "address-pools:
- {name: a, protocol: layer2, addresses: [10.0.0.0/24, 10.0.1.0/30, 'fc00::/64', 'fc00:1::/64']}",
];

/// Addresses that are asked for and that nodes have.
const ADDRESSES: [&str; 8] = [
    "10.0.0.0",
    "10.0.0.1",
    "10.0.0.3",
    "10.0.0.254",
    "10.0.1.1",
    "fc00::",
    "fc00::1",
    "fc00:1::1",
];

/// What happens to the cluster.
#[derive(Clone, Debug)]
enum Step {
    Apply(usize, Request),
    Delete(usize),
    Configure(usize),
    Reserve(Vec<usize>),
    /// The controller starts again and sees the Services from this one on, in a circle.
    Restart(usize),
}

fn request() -> impl Strategy<Value = Request> {
    let stack = prop_oneof![
        4 => Just(plain()),
        2 => Just(v6()),
        1 => Just(dual(FamilyPolicy::RequireDualStack)),
        2 => Just(dual(FamilyPolicy::PreferDualStack)),
        1 => Just(Request { cluster_ips: vec!["fd00::1".into(), "10.96.0.1".into()], ..dual(FamilyPolicy::PreferDualStack) }),
        1 => Just(Request { balancer: false, ..plain() }),
    ];
    let wishes = prop_oneof![
        4 => Just(Vec::new()),
        2 => (0..ADDRESSES.len()).prop_map(|one| vec![one]),
        1 => (0..5_usize, 5..ADDRESSES.len()).prop_map(|(v4, v6)| vec![v4, v6]),
    ];
    let pool = prop::option::weighted(0.2, prop::sample::select(vec!["a", "b", "all", "none"]));
    let sharing = prop::option::weighted(0.6, prop::sample::select(vec!["k", "l"]));
    let backend = prop::sample::select(vec!["", "", "", "app=x"]);
    let ports = prop::collection::btree_set(1..4_u16, 1..3);
    (stack, wishes, pool, sharing, backend, ports).prop_map(
        |(stack, wishes, pool, sharing, backend, ports)| Request {
            desired: Ok(wishes
                .into_iter()
                .map(|index| ip(ADDRESSES[index]))
                .collect()),
            pool: pool.map(String::from),
            sharing: sharing.map(String::from),
            backend: backend.into(),
            ports: tcp(&ports.into_iter().collect::<Vec<_>>()),
            ..stack
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..8_usize, request()).prop_map(|(service, request)| Step::Apply(service, request)),
        4 => (0..8_usize).prop_map(Step::Delete),
        3 => (0..DOCUMENTS.len()).prop_map(Step::Configure),
        1 => prop::collection::vec(0..ADDRESSES.len(), 0..3).prop_map(Step::Reserve),
        1 => (0..8_usize).prop_map(Step::Restart),
    ]
}

/// The model.
#[derive(Default)]
struct Model {
    config: Config,
    nodes: BTreeSet<IpAddr>,
    requests: BTreeMap<ObjectName, Request>,
    held: BTreeMap<ObjectName, Vec<IpAddr>>,
    /// The terms an address is held on, which are those of the last decision that kept or gave it.
    terms: BTreeMap<ObjectName, Request>,
    waiting: Vec<ObjectName>,
}

impl Model {
    fn pool_of(&self, addresses: &[IpAddr]) -> Option<&Pool> {
        self.config
            .pools()
            .iter()
            .find(|pool| addresses.iter().all(|address| pool.contains(*address)))
    }

    /// Whether nobody else stands against the Service having this address.
    fn may(&self, name: &ObjectName, request: &Request, address: IpAddr) -> bool {
        let key = |request: &Request| request.sharing.clone().unwrap_or_default();
        self.held
            .iter()
            .filter(|(other, held)| *other != name && held.contains(&address))
            .all(|(other, _)| {
                let terms = &self.terms[other];
                !key(request).is_empty()
                    && key(request) == key(terms)
                    && request.backend == terms.backend
                    && request.ports.is_disjoint(&terms.ports)
            })
    }

    fn cluster(request: &Request) -> Vec<Family> {
        request
            .cluster_ips
            .iter()
            .map(|text| Family::of(ip(text)))
            .collect()
    }

    fn serves(request: &Request, addresses: &[IpAddr]) -> bool {
        let have: BTreeSet<Family> = addresses
            .iter()
            .map(|address| Family::of(*address))
            .collect();
        let need: BTreeSet<Family> = Self::cluster(request).into_iter().collect();
        have == need
            || (request.policy == FamilyPolicy::PreferDualStack
                && need.len() == 2
                && have.len() == 1)
    }

    fn asked_pool_fits(&self, request: &Request, addresses: &[IpAddr]) -> bool {
        let pool = self.pool_of(addresses).map(Pool::name);
        request
            .pool
            .as_deref()
            .is_none_or(|asked| pool == Some(asked))
    }

    fn keeps(&self, name: &ObjectName, request: &Request, held: &[IpAddr]) -> bool {
        let wished = request.desired.as_deref().unwrap();
        let added = request.policy == FamilyPolicy::PreferDualStack
            && request.cluster_ips.len() == 2
            && wished.len() == 1;
        Self::serves(request, held)
            && self.pool_of(held).is_some()
            && self.asked_pool_fits(request, held)
            && held.iter().all(|address| self.may(name, request, *address))
            && wished.iter().all(|address| held.contains(address))
            && (wished.is_empty() || wished.len() == held.len() || added)
    }

    /// The lowest address of each family in the pool, in the pool's order.
    fn lowest(
        &self,
        name: &ObjectName,
        request: &Request,
        pool: &Pool,
        families: &[Family],
    ) -> Option<Vec<IpAddr>> {
        if pool.protocol() == Protocol::Bgp {
            return None;
        }
        let mut found: Vec<IpAddr> = Vec::new();
        let all = pool
            .ranges()
            .iter()
            .flat_map(|range| range.iter_from(range.first()).take(600));
        for address in
            all.filter(|address| pool.contains(*address) && !self.nodes.contains(address))
        {
            let family = Family::of(address);
            let open = families.contains(&family)
                && !found.iter().any(|found| Family::of(*found) == family);
            if open && self.may(name, request, address) {
                found.push(address);
            }
        }
        (found.len() == families.len()).then_some(found)
    }

    fn choose(&self, name: &ObjectName, request: &Request) -> Option<Vec<IpAddr>> {
        let cluster = Self::cluster(request);
        let mut attempts = vec![cluster.clone()];
        if request.policy == FamilyPolicy::PreferDualStack && cluster.len() == 2 {
            attempts.extend(cluster.iter().map(|family| vec![*family]));
        }
        let pools: Vec<&Pool> = match &request.pool {
            Some(asked) => self.config.pool(asked).into_iter().collect(),
            None => self
                .config
                .pools()
                .iter()
                .filter(|pool| pool.auto_assign())
                .collect(),
        };
        let mut tries = attempts
            .iter()
            .flat_map(|families| pools.iter().map(move |pool| (families, pool)));
        tries.find_map(|(families, pool)| self.lowest(name, request, pool, families))
    }

    fn grant(&self, name: &ObjectName, request: &Request) -> Option<Vec<IpAddr>> {
        let wished = request.desired.clone().unwrap();
        if wished.is_empty() {
            return self.choose(name, request);
        }
        let pool = self.pool_of(&wished)?;
        let possible = Self::serves(request, &wished)
            && pool.protocol() == Protocol::Layer2
            && self.asked_pool_fits(request, &wished)
            && wished
                .iter()
                .all(|address| self.may(name, request, *address) && !self.nodes.contains(address));
        possible.then_some(wished)
    }

    fn decide(&mut self, name: &ObjectName) {
        let Some(request) = self
            .requests
            .get(name)
            .cloned()
            .filter(|request| request.balancer)
        else {
            self.held.remove(name);
            self.waiting.retain(|waiting| waiting != name);
            return;
        };
        let kept = self
            .held
            .remove(name)
            .filter(|held| self.keeps(name, &request, held));
        match kept.or_else(|| self.grant(name, &request)) {
            Some(mut addresses) => {
                let lacks_one = request.policy == FamilyPolicy::PreferDualStack
                    && request.cluster_ips.len() == 2
                    && addresses.len() == 1;
                if lacks_one {
                    let missing: Vec<Family> = Self::cluster(&request)
                        .into_iter()
                        .filter(|family| *family != Family::of(addresses[0]))
                        .collect();
                    let pool = self.pool_of(&addresses).unwrap();
                    addresses.extend(
                        self.lowest(name, &request, pool, &missing)
                            .unwrap_or_default(),
                    );
                }
                self.held.insert(name.clone(), addresses);
                self.terms.insert(name.clone(), request);
                self.waiting.retain(|waiting| waiting != name);
            }
            None if self.waiting.contains(name) => {}
            None => self.waiting.push(name.clone()),
        }
    }

    /// Whether the configuration takes no address away.
    fn accepts(&self, config: &Config) -> bool {
        let fits = |held: &Vec<IpAddr>| {
            config
                .pools()
                .iter()
                .any(|pool| held.iter().all(|address| pool.contains(*address)))
        };
        self.held.values().all(fits)
    }
}

/// The model and the real thing beside each other.
struct Both {
    model: Model,
    world: World,
}

impl Both {
    /// Decides these Services and then, as often as a plan says so, those that wait.
    fn decide(&mut self, names: Vec<ObjectName>) {
        let mut names = names;
        // A waiting Service has nothing to release, so one more round is all that can follow.
        for _ in 0..3 {
            let mut revisit = false;
            for name in &names {
                let before = self.model.held.get(name).cloned().unwrap_or_default();
                self.model.decide(name);
                let plan = match self.model.requests.get(name).cloned() {
                    Some(request) => self.world.apply(&name.name, &request),
                    None => self.world.delete(&name.name),
                };
                let new = plan
                    .ingress
                    .iter()
                    .flatten()
                    .filter(|address| !before.contains(address));
                assert_eq!(
                    new.filter(|address| self.model.nodes.contains(address))
                        .count(),
                    0,
                    "a node's address"
                );
                revisit |= plan.revisit;
            }
            if !revisit {
                return;
            }
            names = self.world.core.waiting();
        }
        panic!("deciding again does not come to an end");
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Apply(service, request) => {
                let name = name(&format!("s{service}"));
                self.model.requests.insert(name.clone(), request);
                self.decide(vec![name]);
            }
            Step::Delete(service) => {
                let name = name(&format!("s{service}"));
                self.model.requests.remove(&name);
                self.decide(vec![name]);
            }
            Step::Configure(index) => {
                let config = read(DOCUMENTS[index]).unwrap();
                let accepted = self.world.core.configure(config.clone()).is_ok();
                assert_eq!(accepted, self.model.accepts(&config), "the in-use rule");
                if accepted {
                    self.model.config = config;
                }
                self.decide(self.model.requests.keys().cloned().collect());
            }
            Step::Reserve(indexes) => {
                self.model.nodes = indexes.iter().map(|index| ip(ADDRESSES[*index])).collect();
                self.reserve();
                self.decide(self.model.requests.keys().cloned().collect());
            }
            Step::Restart(first) => self.restart(first),
        }
    }

    fn reserve(&mut self) {
        let owners = self
            .model
            .nodes
            .iter()
            .map(|address| (*address, "node".to_string()));
        self.world.core.reserve(owners.collect());
    }

    fn restart(&mut self, first: usize) {
        self.world.core = Core::new();
        let before = self.world.status.clone();
        for (name, request) in &self.model.requests {
            let plan = self.world.core.decide(name, Some(request));
            assert_eq!(
                (plan.ingress, plan.notices),
                (None, Vec::new()),
                "no configuration, no decision"
            );
        }
        self.world
            .core
            .configure(self.model.config.clone())
            .unwrap();
        self.reserve();
        let mut names: Vec<ObjectName> = self.model.requests.keys().cloned().collect();
        if !names.is_empty() {
            let count = names.len();
            names.rotate_left(first % count);
        }
        for name in &names {
            let request = self.model.requests[name].clone();
            let plan: Plan = self.world.apply(&name.name, &request);
            assert!(
                plan.ingress.is_none(),
                "nothing is written before the barrier is lifted"
            );
        }
        assert_eq!(self.world.status, before, "addresses survive");
        self.world.core.all_seen();
        let waiting = self.world.core.waiting();
        // Those who waited before wait now in the order they were seen in.
        self.model.waiting = waiting
            .iter()
            .filter(|name| self.model.waiting.contains(name))
            .cloned()
            .collect();
        self.decide(waiting);
    }

    /// What must hold after every step.
    fn check(&self) {
        let mut users: BTreeMap<IpAddr, Vec<ObjectName>> = BTreeMap::new();
        for name in self.model.requests.keys() {
            let held = self.model.held.get(name).cloned().unwrap_or_default();
            let expected: Vec<String> = held.iter().map(ToString::to_string).collect();
            assert_eq!(
                self.world.shown(&name.name),
                expected.join(" "),
                "the addresses of {name}"
            );
            for address in held {
                users.entry(address).or_default().push(name.clone());
            }
        }
        for (address, users) in &users {
            assert_eq!(
                &self.world.core.holders(*address),
                users,
                "who has {address}"
            );
            for one in users {
                for other in users.iter().filter(|other| *other != one) {
                    let (one, other) = (&self.model.requests[one], &self.model.requests[other]);
                    assert!(
                        one.sharing.is_some() && one.sharing == other.sharing,
                        "shared without a common key"
                    );
                    assert!(
                        one.backend == other.backend && one.ports.is_disjoint(&other.ports),
                        "shared against the rules"
                    );
                }
            }
        }
        assert_eq!(self.world.core.waiting(), self.model.waiting);
        for (pool, reported) in self
            .model
            .config
            .pools()
            .iter()
            .zip(self.world.core.pools())
        {
            let count = |family| {
                let held = users
                    .keys()
                    .filter(|address| Family::of(**address) == family && pool.contains(**address));
                held.count() as u64
            };
            assert_eq!(
                (reported.v4_in_use, reported.v6_in_use),
                (count(Family::V4), count(Family::V6))
            );
            assert_eq!(reported.name, pool.name());
        }
    }
}

proptest! {
    #[test]
    fn every_history_goes_as_the_model_says(start in 0..DOCUMENTS.len(), steps in prop::collection::vec(step(), 1..40)) {
        let mut both = Both { model: Model::default(), world: World::new(DOCUMENTS[start]) };
        both.model.config = read(DOCUMENTS[start]).unwrap();
        for step in steps {
            both.step(step);
            both.check();
        }
    }
}
