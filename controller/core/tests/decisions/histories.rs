//! Random histories of a cluster, against the model.
//!
//! A status is written long after the decision, or never: the other Services are decided meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_config::{Family, ObjectName, read};
use ferrolb_controller_core::{Core, FamilyPolicy, Request};
use proptest::prelude::*;

use crate::model::Model;
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

/// Texts that somebody writes into a status by hand.
const TEXTS: [&str; 6] = [
    "10.0.0.0", "10.0.0.1", "10.0.0.2", "fc00::", "10.7.7.7", "x",
];

/// What happens to the cluster.
#[derive(Clone, Debug)]
enum Step {
    Apply(usize, Request),
    /// The write that is due succeeds; a watch tells so at once, or only before the next decision.
    Written(usize, bool),
    /// Somebody edits a status by hand.
    Edit(usize, Vec<usize>),
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
        12 => (0..8_usize, any::<bool>()).prop_map(|(service, told)| Step::Written(service, told)),
        1 => (0..8_usize, prop::collection::vec(0..TEXTS.len(), 0..3))
            .prop_map(|(service, texts)| Step::Edit(service, texts)),
        4 => (0..8_usize).prop_map(Step::Delete),
        3 => (0..DOCUMENTS.len()).prop_map(Step::Configure),
        1 => prop::collection::vec(0..ADDRESSES.len(), 0..3).prop_map(Step::Reserve),
        1 => (0..8_usize).prop_map(Step::Restart),
    ]
}

/// Two Services that publish or have the same address.
type Overlaps = BTreeSet<(ObjectName, ObjectName, IpAddr)>;

/// The model and the real thing beside each other.
struct Both {
    model: Model,
    world: World,
    /// Writes that have not succeeded yet.
    writes: BTreeMap<ObjectName, Vec<String>>,
    /// Who overlapped before the last decision.
    overlaps: Overlaps,
}

impl Both {
    fn status(&self, name: &ObjectName) -> Vec<String> {
        self.world.status.get(name).cloned().unwrap_or_default()
    }

    /// Decides these Services and then, as often as a plan says so, those that wait.
    fn decide(&mut self, names: Vec<ObjectName>) {
        let mut names = names;
        // A waiting Service has nothing to release; at most it is seen that its status was written. One more round is
        // all that can follow.
        for _ in 0..3 {
            let mut revisit = false;
            for name in &names {
                revisit |= self.decide_one(name);
                self.check_overlaps();
            }
            if !revisit {
                self.check_revisits();
                return;
            }
            names = self.world.core.waiting();
        }
        panic!("deciding again does not come to an end");
    }

    /// Decides a Service, and leaves the write for later. Whether to decide those that wait.
    fn decide_one(&mut self, name: &ObjectName) -> bool {
        let before = self.model.held.get(name).cloned().unwrap_or_default();
        let status = self.status(name);
        self.model.decide(name, &status);
        let Some(request) = self.model.requests.get(name).cloned() else {
            self.writes.remove(name);
            return self.world.delete(&name.name).revisit;
        };
        let plan = self.world.decide(&name.name, &request);
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
        self.due(name, plan.ingress);
        plan.revisit
    }

    /// The newest plan replaces what was to be written before.
    fn due(&mut self, name: &ObjectName, ingress: Option<Vec<IpAddr>>) {
        self.writes.remove(name);
        if let Some(ingress) = ingress {
            let texts = ingress.iter().map(ToString::to_string).collect();
            self.writes.insert(name.clone(), texts);
        }
    }

    /// The pairs of Services that show or have one address, and whether both have it, for which their terms must
    /// allow it.
    fn overlapping(&self) -> BTreeMap<(ObjectName, ObjectName, IpAddr), bool> {
        let mut users: BTreeMap<IpAddr, BTreeMap<ObjectName, bool>> = BTreeMap::new();
        for (name, status) in &self.world.status {
            for address in status.iter().filter_map(|text| text.parse().ok()) {
                users
                    .entry(address)
                    .or_default()
                    .insert(name.clone(), false);
            }
        }
        for (name, held) in &self.model.held {
            for address in held {
                users
                    .entry(*address)
                    .or_default()
                    .insert(name.clone(), true);
            }
        }
        let mut overlapping = BTreeMap::new();
        for (address, users) in users {
            for (one, has) in &users {
                for (other, other_has) in users.range(one.clone()..).skip(1) {
                    let share = *has && *other_has;
                    let terms = &self.model.terms;
                    assert!(
                        !share || Model::share(&terms[one], &terms[other]),
                        "shared against the rules"
                    );
                    overlapping.insert((one.clone(), other.clone(), address), share);
                }
            }
        }
        overlapping
    }

    /// No decision brings a Service onto an address that another one shows or has, other than to share it.
    fn check_overlaps(&mut self) {
        let overlapping = self.overlapping();
        for (pair, share) in &overlapping {
            assert!(*share || self.overlaps.contains(pair), "{pair:?}");
        }
        self.overlaps = overlapping.into_keys().collect();
    }

    /// Nobody waits for what it could get.
    fn check_revisits(&self) {
        for name in &self.model.waiting {
            let mut model = self.model.clone();
            model.decide(name, &self.status(name));
            assert!(model.waiting.contains(name), "{name} waits for nothing");
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Apply(service, request) => {
                let name = name(&format!("s{service}"));
                self.model.requests.insert(name.clone(), request);
                self.decide(vec![name]);
            }
            Step::Written(service, told) => {
                let name = name(&format!("s{service}"));
                if let Some(status) = self.writes.remove(&name) {
                    self.world.status.insert(name.clone(), status);
                    self.decide(told.then_some(name).into_iter().collect());
                }
            }
            Step::Edit(service, texts) => {
                let name = name(&format!("s{service}"));
                if self.model.requests.contains_key(&name) {
                    let texts: Vec<&str> = texts.iter().map(|index| TEXTS[*index]).collect();
                    self.world.show(&name.name, &texts);
                    self.overlaps = self.overlapping().into_keys().collect();
                    self.decide(vec![name]);
                }
            }
            Step::Delete(service) => {
                let name = name(&format!("s{service}"));
                self.model.requests.remove(&name);
                self.world.status.remove(&name);
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

    /// All writes succeed in the end, and then nobody shows what it does not have.
    fn finish(&mut self) {
        for _ in 0..10 {
            let names: Vec<ObjectName> = self.writes.keys().cloned().collect();
            for name in &names {
                let status = self.writes.remove(name);
                self.world
                    .status
                    .extend(status.map(|status| (name.clone(), status)));
            }
            self.decide(self.model.requests.keys().cloned().collect());
            self.check();
            if self.writes.is_empty() {
                let overlapping = self.overlapping();
                assert!(overlapping.values().all(|share| *share), "{overlapping:?}");
                return;
            }
        }
        panic!("writing does not come to an end");
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
        self.model.restart();
        self.writes.clear();
        for name in &names {
            let request = self.model.requests[name].clone();
            let plan = self.world.decide(&name.name, &request);
            assert!(
                plan.ingress.is_none() || !request.balancer,
                "nothing is written before the barrier is lifted"
            );
            self.due(name, plan.ingress);
            let status = self.status(name);
            self.model.hold(name, &status);
            self.check_overlaps();
        }
        self.world.core.all_seen();
        let waiting = self.world.core.waiting();
        assert_eq!(waiting, self.model.waiting, "who waits for the barrier");
        self.decide(waiting);
    }

    /// What must hold after every step.
    fn check(&self) {
        let mut users: BTreeMap<IpAddr, Vec<ObjectName>> = BTreeMap::new();
        for name in self.model.requests.keys() {
            let held = self.model.held.get(name).cloned().unwrap_or_default();
            let expected: Vec<String> = held.iter().map(ToString::to_string).collect();
            let status = self.status(name);
            assert_eq!(
                self.writes.get(name).unwrap_or(&status),
                &expected,
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
        let mut both = Both {
            model: Model::default(),
            world: World::new(DOCUMENTS[start]),
            writes: BTreeMap::new(),
            overlaps: BTreeSet::new(),
        };
        both.model.config = read(DOCUMENTS[start]).unwrap();
        for step in steps {
            both.step(step);
            both.check();
        }
        both.finish();
    }
}
