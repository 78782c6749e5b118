//! Random histories of a cluster, against the model.
//!
//! A status is written long after the decision, or never: the other Services are decided meanwhile.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

use ferrolb_config::{Family, ObjectName};
use ferrolb_controller_core::{Core, Plan, Stranger};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use crate::model::Model;
use crate::steps::*;
use crate::world::*;

/// Two Services that publish or have the same address.
type Overlaps = BTreeSet<(ObjectName, ObjectName, IpAddr)>;

/// Whether what just happened may have cost a Service its address.
type Touched = dyn Fn(&Both, &ObjectName) -> bool;

/// The model and the real thing beside each other.
struct Both {
    model: Model,
    world: World,
    /// Writes that have not succeeded yet.
    writes: BTreeMap<ObjectName, (Vec<String>, Option<String>)>,
    /// Who overlapped before the last decision.
    overlaps: Overlaps,
    /// Those that were not decided since the configuration changed.
    undecided: BTreeSet<ObjectName>,
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
        // One more for each Service that takes up what it only showed, so that others may share it.
        for _ in 0..12 {
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
        self.undecided.remove(name);
        let before = self.model.held.get(name).cloned().unwrap_or_default();
        let status = self.status(name);
        self.model.decide(name, &status);
        let Some(request) = self.model.requests.get(name).cloned() else {
            self.writes.remove(name);
            return self.world.delete_named(name).revisit;
        };
        let plan = self.world.decide_named(name, &request);
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
        let revisit = plan.revisit;
        self.due(name, plan);
        revisit
    }

    /// The newest plan replaces what was to be written before.
    fn due(&mut self, name: &ObjectName, plan: Plan) {
        self.writes.remove(name);
        if let Some(ingress) = plan.ingress {
            let texts = ingress.iter().map(ToString::to_string).collect();
            self.writes.insert(name.clone(), (texts, plan.noted_pool));
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
        let decided = |name: &&ObjectName| !self.undecided.contains(*name);
        for name in self.model.waiting.iter().filter(decided) {
            let mut model = self.model.clone();
            model.decide(name, &self.status(name));
            assert!(model.waiting.contains(name), "{name} waits for nothing");
        }
    }

    /// The addresses of Services that were decided and written, and that no status was edited to show.
    fn settled(&self) -> BTreeMap<ObjectName, Vec<IpAddr>> {
        let overlapping = self.overlapping();
        let contested = |name: &ObjectName| {
            let mut pairs = overlapping.iter().filter(|(_, share)| !**share);
            pairs.any(|((one, other, _), _)| one == name || other == name)
        };
        let written = |(name, held): &(&ObjectName, &Vec<IpAddr>)| {
            let texts: Vec<String> = held.iter().map(ToString::to_string).collect();
            !self.undecided.contains(*name) && self.status(name) == texts && !contested(name)
        };
        let held = self.model.held.iter().filter(written);
        held.map(|(name, held)| (name.clone(), held.clone()))
            .collect()
    }

    /// One step, and whatever the model says: no Service loses its address by what happens to others.
    fn step(&mut self, step: Step) {
        let before = self.settled();
        let strangers = self.model.strangers.clone();
        let touched: Box<Touched> = match &step {
            Step::Apply(index, _)
            | Step::Edit(index, _)
            | Step::Note(index, _)
            | Step::Delete(index) => {
                let touched = service(*index);
                Box::new(move |_, name| *name == touched)
            }
            Step::Configure(..) => {
                let before = before.clone();
                Box::new(move |both, name| !both.model.leaves(name, &before[name]))
            }
            // That labels are not known any more costs nobody anything.
            Step::Label(index, _, true) => {
                let namespace = NAMESPACES[*index];
                Box::new(move |_, name| *name.namespace == *namespace)
            }
            Step::Label(..)
            | Step::Written(..)
            | Step::Reserve(_)
            | Step::Dispute(_)
            | Step::Restart(..) => Box::new(|_, _| false),
        };
        self.carry_out(step);
        for (name, addresses) in &before {
            let held = self.model.held.get(name).map(Vec::as_slice);
            let kept = held.is_some_and(|held| held.starts_with(addresses));
            // Who leaves a stranger's address has others, of which none is disputed that it did not have.
            let disputed = |one: &IpAddr| self.model.strangers.contains_key(one);
            let leaves = addresses.iter().any(|one| {
                strangers.get(one) == Some(&true) || self.model.strangers.get(one) == Some(&true)
            });
            let left = leaves
                && held.is_some_and(|held| {
                    let mut new = held.iter().filter(|one| !addresses.contains(one));
                    held.len() >= addresses.len() && !new.any(disputed)
                });
            assert!(
                kept || left || touched(self, name),
                "{name} lost {addresses:?}"
            );
        }
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Apply(index, request) => {
                let name = service(index);
                self.model.requests.insert(name.clone(), *request);
                self.decide(vec![name]);
            }
            Step::Written(index, told) => {
                let name = service(index);
                if let Some((status, noted)) = self.writes.remove(&name) {
                    self.world.write(&name, status, noted);
                    self.decide(told.then_some(name).into_iter().collect());
                }
            }
            Step::Edit(index, texts) => {
                let name = service(index);
                if self.model.requests.contains_key(&name) {
                    let texts = texts.iter().map(|index| TEXTS[*index].to_owned());
                    self.world.status.insert(name.clone(), texts.collect());
                    self.overlaps = self.overlapping().into_keys().collect();
                    self.decide(vec![name]);
                }
            }
            Step::Note(index, pool) => {
                let name = service(index);
                if self.model.requests.contains_key(&name) {
                    let status = self.status(&name);
                    self.world.write(&name, status, pool.map(Into::into));
                    self.decide(vec![name]);
                }
            }
            Step::Delete(index) => {
                let name = service(index);
                self.model.requests.remove(&name);
                self.world.status.remove(&name);
                self.decide(vec![name]);
            }
            Step::Configure(index, writing) => {
                let config = CONFIGS[index].clone();
                let accepted = self.world.core.configure(config.clone()).is_ok();
                assert_eq!(accepted, self.model.accepts(&config), "the in-use rule");
                if accepted {
                    self.model.config = config;
                    self.undecided.insert(service(writing));
                    let names = self.model.requests.keys().cloned();
                    self.decide(names.filter(|name| *name != service(writing)).collect());
                }
            }
            Step::Label(index, label, known) => {
                let namespace = NAMESPACES[index];
                let pairs: Vec<_> = label.map(|label| ("k", label)).into_iter().collect();
                let known = known.then(|| labels(&pairs));
                self.world.core.label(namespace, known.clone());
                match known {
                    Some(labels) => self.model.namespaces.insert(namespace.into(), labels),
                    None => self.model.namespaces.remove(namespace),
                };
                let names = self.model.requests.keys().cloned();
                self.decide(names.filter(|name| *name.namespace == *namespace).collect());
            }
            Step::Reserve(indexes) => {
                self.model.nodes = indexes.iter().map(|index| ip(ADDRESSES[*index])).collect();
                self.reserve();
                self.decide(self.model.requests.keys().cloned().collect());
            }
            Step::Dispute(indexes) => {
                let each = indexes.iter();
                let each = each.map(|(index, leave)| (ip(ADDRESSES[*index]), *leave));
                self.model.strangers = each.collect();
                let changed = self.dispute();
                let holders = changed.into_iter();
                let holders = holders.flat_map(|one| self.world.core.holders(one));
                let holders: BTreeSet<ObjectName> = holders.collect();
                self.decide(holders.into_iter().collect());
            }
            Step::Restart(first, namespaces_hidden) => self.restart(first, namespaces_hidden),
        }
    }

    /// All writes succeed in the end, and then nobody shows what it does not have.
    fn finish(&mut self) {
        for _ in 0..10 {
            let names: Vec<ObjectName> = self.writes.keys().cloned().collect();
            for name in &names {
                if let Some((status, noted)) = self.writes.remove(name) {
                    self.world.write(name, status, noted);
                }
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

    fn dispute(&mut self) -> BTreeSet<IpAddr> {
        let strangers = self.model.strangers.iter().map(|(address, leave)| {
            let host = "02:00:00:00:00:09".to_owned();
            let leave = *leave;
            (*address, Stranger { host, leave })
        });
        self.world.core.dispute(strangers.collect())
    }

    fn restart(&mut self, first: usize, namespaces_hidden: bool) {
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
        self.model.restart(namespaces_hidden);
        for (namespace, labels) in &self.model.namespaces {
            self.world.core.label(namespace, Some(labels.clone()));
        }
        self.reserve();
        self.dispute();
        let mut names: Vec<ObjectName> = self.model.requests.keys().cloned().collect();
        if !names.is_empty() {
            let count = names.len();
            names.rotate_left(first % count);
        }
        self.writes.clear();
        self.undecided.clear();
        for name in &names {
            let request = self.model.requests[name].clone();
            let plan = self.world.decide_named(name, &request);
            assert!(
                plan.ingress.is_none() || !request.balancer,
                "nothing is written before the barrier is lifted"
            );
            self.due(name, plan);
            let status = self.status(name);
            self.model.hold(name, &status, self.world.noted.get(name));
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
            let noted = self.world.noted.get(name).cloned();
            let (status, noted) = self
                .writes
                .get(name)
                .cloned()
                .unwrap_or_else(|| (self.status(name), noted));
            assert_eq!(status, expected, "the addresses of {name}");
            if !self.undecided.contains(name) {
                assert_eq!(noted, self.model.noted(&held), "the pool noted of {name}");
            }
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
            let all_of_it =
                |held: &&Vec<IpAddr>| held.iter().all(|address| pool.contains(*address));
            assert_eq!(
                reported.services,
                self.model.held.values().filter(all_of_it).count() as u64
            );
            assert_eq!(reported.name, pool.name());
        }
    }
}

impl Both {
    fn new(start: usize) -> Self {
        let config = CONFIGS[start].clone();
        let mut both = Self {
            model: Model::default(),
            world: World::of(config.clone()),
            writes: BTreeMap::new(),
            overlaps: BTreeSet::new(),
            undecided: BTreeSet::new(),
        };
        both.model.config = config;
        both
    }

    fn run(mut self, steps: Vec<Step>) {
        for step in steps {
            self.step(step);
            self.check();
        }
        self.finish();
    }
}

proptest! {
    // The same histories each time: a build never fails by chance. The soak below is there to look for others.
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_history_goes_as_the_model_says(start in 0..CONFIGS.len(), steps in prop::collection::vec(step(), 1..40)) {
        Both::new(start).run(steps);
    }
}

/// Random histories, other ones each time, until they have as many steps together as `SOAK_STEPS` says (a million by
/// default). `SOAK_SEED` repeats a run.
#[test]
#[ignore = "takes minutes; `make soak` runs it"]
fn soak() {
    let variable = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let wanted = variable("SOAK_STEPS").unwrap_or(1_000_000);
    let chance = RandomState::new().hash_one(0);
    let seed = variable("SOAK_SEED").unwrap_or(chance);
    println!("{wanted} steps, SOAK_SEED={seed}");
    let taken = Cell::new(0);
    let histories = (0..CONFIGS.len(), prop::collection::vec(step(), 1..200));
    let mut round = 0;
    while taken.get() < wanted {
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 100,
            rng_seed: RngSeed::Fixed(seed.wrapping_add(round)),
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let result = runner.run(&histories, |(start, steps)| {
            taken.set(taken.get() + steps.len() as u64);
            Both::new(start).run(steps);
            Ok(())
        });
        if let Err(failure) = result {
            panic!("SOAK_SEED={seed}: {failure}");
        }
        round += 1;
    }
    println!("{} steps in {} histories", taken.get(), round * 100);
}
