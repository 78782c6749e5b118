//! A model of the decisions that finds everything by walking over lists.
//!
//! It knows the rules of metallb.md 5.3–5.5 and what a status that is not written yet keeps others from, and nothing of
//! numbers, runs and indexes: a pool is the list of its addresses, the assignments are a table that is searched from end
//! to end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_config::{Config, Family, Labels, ObjectName, Origin, Pool, Protocol};
use ferrolb_controller_core::{FamilyPolicy, Request};

use crate::world::*;

/// What a status shows; nothing if it has a text that is no address.
fn parsed(status: &[String]) -> Option<Vec<IpAddr>> {
    status.iter().map(|text| text.parse().ok()).collect()
}

/// The model.
#[derive(Clone, Default)]
pub struct Model {
    pub config: Config,
    pub nodes: BTreeSet<IpAddr>,
    /// Addresses that strangers answer for, and whether Services are to leave them.
    pub strangers: BTreeMap<IpAddr, bool>,
    /// The labels of the Namespaces that are known.
    pub namespaces: BTreeMap<String, Labels>,
    pub requests: BTreeMap<ObjectName, Request>,
    pub held: BTreeMap<ObjectName, Vec<IpAddr>>,
    /// The terms an address is held on, which are those of the last decision that kept or gave it.
    pub terms: BTreeMap<ObjectName, Request>,
    pub waiting: Vec<ObjectName>,
    /// The status of each Service as it was when it was decided last.
    seen: BTreeMap<ObjectName, Vec<String>>,
    /// The status that the last decision wanted to replace.
    replaced: BTreeMap<ObjectName, Vec<String>>,
    /// What the Service that is decided has or shows.
    own: Vec<IpAddr>,
    /// What it has and looks for others in place of.
    left: Vec<IpAddr>,
}

impl Model {
    fn has(&self, name: &ObjectName, address: IpAddr) -> bool {
        let held = self.held.get(name);
        held.is_some_and(|held| held.contains(&address))
    }

    /// Whether a status showed this address when its Service was decided last.
    fn showed(&self, name: &ObjectName, address: IpAddr) -> bool {
        let seen = self.seen.get(name);
        seen.is_some_and(|seen| seen.contains(&address.to_string()))
    }

    /// Whether the Service that is decided has the address, or nobody shows it who does not have it.
    fn is_open(&self, name: &ObjectName, address: IpAddr) -> bool {
        let lingers = |other: &ObjectName| self.showed(other, address) && !self.has(other, address);
        self.own.contains(&address)
            || !self
                .seen
                .keys()
                .any(|other| other != name && lingers(other))
    }

    fn pool_of(&self, addresses: &[IpAddr]) -> Option<&Pool> {
        self.config
            .pools()
            .iter()
            .find(|pool| addresses.iter().all(|address| pool.contains(*address)))
    }

    /// Whether nobody else stands against the Service having this address.
    fn may(&self, name: &ObjectName, request: &Request, address: IpAddr) -> bool {
        self.held
            .iter()
            .filter(|(other, held)| *other != name && held.contains(&address))
            .all(|(other, _)| Self::share(request, &self.terms[other]))
    }

    pub fn share(one: &Request, other: &Request) -> bool {
        let key = |request: &Request| request.sharing.clone().unwrap_or_default();
        !key(one).is_empty()
            && key(one) == key(other)
            && one.backend == other.backend
            && one.ports.is_disjoint(&other.ports)
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
        let pool = self.pool_of(addresses);
        let wishes = !request.desired.as_ref().unwrap().is_empty();
        if wishes && pool.is_some_and(|pool| pool.origin() == Origin::ConfigMap) {
            return true;
        }
        request
            .pool
            .as_deref()
            .is_none_or(|asked| pool.map(Pool::name) == Some(asked))
    }

    /// Whether the pool is there for the Service.
    fn admitted(&self, name: &ObjectName, request: &Request, pool: &Pool) -> bool {
        let labels = self.namespaces.get(&*name.namespace);
        pool.allocation()
            .is_none_or(|allocation| allocation.admits(&name.namespace, labels, &request.labels))
    }

    /// Whether the Service may keep what it has from the pool: yes if only labels that are not known could speak against.
    fn stays(&self, name: &ObjectName, request: &Request, pool: &Pool) -> bool {
        let known = self.namespaces.contains_key(&*name.namespace);
        let doubt = pool
            .allocation()
            .is_some_and(|allocation| allocation.may_admit(&name.namespace, &request.labels));
        self.admitted(name, request, pool) || (!known && doubt)
    }

    /// Whether the configuration leaves a Service these addresses.
    pub fn leaves(&self, name: &ObjectName, addresses: &[IpAddr]) -> bool {
        let request = &self.requests[name];
        let stays = |pool: &Pool| self.stays(name, request, pool);
        request.pool.is_none() && self.pool_of(addresses).is_some_and(stays)
    }

    /// What the annotation of a Service with these addresses is to say.
    pub fn noted(&self, addresses: &[IpAddr]) -> Option<String> {
        let pool = self.pool_of(addresses).filter(|_| !addresses.is_empty())?;
        (pool.origin() == Origin::Resource).then(|| pool.name().to_string())
    }

    fn keeps(&self, name: &ObjectName, request: &Request, held: &[IpAddr]) -> bool {
        let wished = request.desired.as_deref().unwrap();
        let added = request.policy == FamilyPolicy::PreferDualStack
            && request.cluster_ips.len() == 2
            && wished.len() == 1;
        Self::serves(request, held)
            && self
                .pool_of(held)
                .is_some_and(|pool| self.stays(name, request, pool))
            && self.asked_pool_fits(request, held)
            && held.iter().all(|address| self.may(name, request, *address))
            && wished.iter().all(|address| held.contains(address))
            && (wished.is_empty() || wished.len() == held.len() || added)
    }

    /// The lowest address of each family in the pool, in the pool's order; disputed ones only if so said, and only where
    /// there is no other.
    fn lowest(
        &self,
        name: &ObjectName,
        request: &Request,
        pool: &Pool,
        families: &[Family],
        disputed: bool,
    ) -> Option<Vec<IpAddr>> {
        if pool.protocol() == Protocol::Bgp {
            return None;
        }
        // There are few Services: what is free is found among the first of each range.
        let all = pool
            .ranges()
            .iter()
            .flat_map(|range| range.iter_from(range.first()).take(600));
        let open = all.filter(|address| {
            pool.contains(*address)
                && !self.nodes.contains(address)
                && self.may(name, request, *address)
                && self.is_open(name, *address)
                && !self.left.contains(address)
        });
        let open: Vec<IpAddr> = open.collect();
        let lowest = |family: &Family| {
            let mut own = open.iter().filter(|one| Family::of(**one) == *family);
            let quiet = |one: &&IpAddr| !self.strangers.contains_key(*one);
            let found = own.clone().find(quiet);
            found.or_else(|| own.next().filter(|_| disputed)).copied()
        };
        let mut found: Vec<IpAddr> = families.iter().map(lowest).collect::<Option<_>>()?;
        if pool.origin() == Origin::Resource {
            found.sort_by_key(|address| Family::of(*address));
        } else {
            found.sort_by_key(|address| open.iter().position(|one| one == address));
        }
        Some(found)
    }

    /// What the Service is to leave, not having asked for it.
    pub fn leaves_to_strangers(&self, name: &ObjectName, held: &[IpAddr]) -> Vec<IpAddr> {
        let wished = self.requests[name].desired.clone().unwrap_or_default();
        let leaves = |one: &&IpAddr| self.strangers.get(*one) == Some(&true);
        let disputed = held.iter().filter(leaves);
        let disputed = disputed.filter(|one| !wished.contains(one));
        disputed.copied().collect()
    }

    /// The same addresses without disputed ones, or wholly others, if it may move and there are any.
    fn moved(&self, name: &ObjectName, request: &Request, held: &[IpAddr]) -> Option<Vec<IpAddr>> {
        let disputed = self.leaves_to_strangers(name, held);
        let shared = |one: &IpAddr| self.held.values().any(|other| other.contains(one));
        if disputed.is_empty() || held.iter().any(shared) {
            return None;
        }
        let pool = self.pool_of(held)?;
        if self.admitted(name, request, pool) {
            let each = held.iter().map(|one| {
                if !disputed.contains(one) {
                    return Some(*one);
                }
                let family = [Family::of(*one)];
                Some(self.lowest(name, request, pool, &family, false)?[0])
            });
            if let Some(others) = each.collect() {
                return Some(others);
            }
        }
        let asks = !request.desired.as_ref().unwrap().is_empty();
        let others = self.choose(name, request, false).filter(|_| !asks)?;
        let families = |all: &[IpAddr]| -> BTreeSet<Family> {
            all.iter().map(|one| Family::of(*one)).collect()
        };
        families(&others)
            .is_superset(&families(held))
            .then_some(others)
    }

    fn choose(&self, name: &ObjectName, request: &Request, disputed: bool) -> Option<Vec<IpAddr>> {
        let cluster = Self::cluster(request);
        let mut attempts = vec![cluster.clone()];
        if request.policy == FamilyPolicy::PreferDualStack && cluster.len() == 2 {
            attempts.extend(cluster.iter().map(|family| vec![*family]));
        }
        // One group after the other: the pool asked for, or those with each priority, those with none, all others.
        let priorities = (1..4).map(Some).chain([None]);
        let groups: Vec<Vec<&Pool>> = if let Some(asked) = &request.pool {
            vec![self.config.pool(asked).into_iter().collect()]
        } else {
            let automatic = || self.config.pools().iter().filter(|pool| pool.auto_assign());
            let pinned = priorities.flat_map(|priority| {
                automatic().filter(move |pool| {
                    pool.allocation()
                        .is_some_and(|allocation| allocation.priority() == priority)
                })
            });
            vec![
                pinned.collect(),
                automatic()
                    .filter(|pool| pool.allocation().is_none())
                    .collect(),
            ]
        };
        for group in &groups {
            for families in &attempts {
                let mut admitted = group
                    .iter()
                    .filter(|pool| self.admitted(name, request, pool));
                let found =
                    admitted.find_map(|pool| self.lowest(name, request, pool, families, disputed));
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    fn grant(&self, name: &ObjectName, request: &Request) -> Option<Vec<IpAddr>> {
        let wished = request.desired.clone().unwrap();
        if wished.is_empty() {
            let quiet = self.choose(name, request, false);
            return quiet.or_else(|| self.choose(name, request, true));
        }
        let pool = self.pool_of(&wished)?;
        let possible = Self::serves(request, &wished)
            && pool.protocol() == Protocol::Layer2
            && self.admitted(name, request, pool)
            && self.asked_pool_fits(request, &wished)
            && wished.iter().all(|address| {
                self.may(name, request, *address)
                    && self.is_open(name, *address)
                    && !self.nodes.contains(address)
            });
        possible.then_some(wished)
    }

    /// One address, or one of each family.
    fn is_set(addresses: &[IpAddr]) -> bool {
        let families: BTreeSet<bool> = addresses.iter().map(IpAddr::is_ipv4).collect();
        !addresses.is_empty() && families.len() == addresses.len()
    }

    /// Whether a status that shows what is not on record can be the Service's.
    fn is_claim(&self, shown: &[IpAddr], recorded: &[IpAddr]) -> bool {
        let layer2 = self
            .pool_of(shown)
            .is_some_and(|pool| pool.protocol() == Protocol::Layer2);
        Self::is_set(shown)
            && shown.iter().all(|address| {
                recorded.contains(address) || (layer2 && !self.nodes.contains(address))
            })
    }

    /// The addresses the Service keeps: those its status shows or those on record.
    fn kept(
        &self,
        name: &ObjectName,
        request: &Request,
        recorded: Option<Vec<IpAddr>>,
        status: &[String],
    ) -> Option<Vec<IpAddr>> {
        let replaced = self.replaced.get(name).is_some_and(|old| old == status);
        let shown = parsed(status).filter(|_| !replaced).unwrap_or_default();
        let on_record = recorded.clone().unwrap_or_default();
        let lacks_some = shown.iter().all(|address| on_record.contains(address));
        let claim = (recorded.is_none() || !lacks_some)
            && self.is_claim(&shown, &on_record)
            && self.keeps(name, request, &shown);
        if claim {
            return Some(shown);
        }
        recorded.filter(|held| self.keeps(name, request, held))
    }

    /// Decides a Service whose status this is.
    pub fn decide(&mut self, name: &ObjectName, status: &[String]) {
        let recorded = self.held.remove(name);
        self.own = recorded.clone().unwrap_or_default();
        self.own
            .extend(status.iter().filter_map(|text| text.parse::<IpAddr>().ok()));
        self.seen.insert(name.clone(), status.to_vec());
        let Some(request) = self
            .requests
            .get(name)
            .cloned()
            .filter(|request| request.balancer)
        else {
            self.replaced.remove(name);
            self.waiting.retain(|waiting| waiting != name);
            return;
        };
        let kept = self.kept(name, &request, recorded, status);
        self.settle(name, request, kept);
        let target = self.held.get(name).cloned().unwrap_or_default();
        if parsed(status).as_ref() == Some(&target) {
            self.replaced.remove(name);
        } else if !status.is_empty() {
            self.replaced.insert(name.clone(), status.to_vec());
        } else {
            self.replaced.remove(name);
        }
    }

    /// Gives the Service what it lacks.
    fn settle(&mut self, name: &ObjectName, request: Request, kept: Option<Vec<IpAddr>>) {
        match kept.or_else(|| self.grant(name, &request)) {
            Some(addresses) => {
                self.left.clone_from(&addresses);
                let others = self.moved(name, &request, &addresses);
                self.left.clear();
                let mut addresses = others.unwrap_or(addresses);
                if Self::lacks_one(&request, &addresses) {
                    let missing: Vec<Family> = Self::cluster(&request)
                        .into_iter()
                        .filter(|family| *family != Family::of(addresses[0]))
                        .collect();
                    let pool = self.pool_of(&addresses).unwrap();
                    let added = self
                        .admitted(name, &request, pool)
                        .then(|| self.lowest(name, &request, pool, &missing, false));
                    addresses.extend(added.flatten().unwrap_or_default());
                }
                self.held.insert(name.clone(), addresses);
                self.terms.insert(name.clone(), request);
                self.waiting.retain(|waiting| waiting != name);
            }
            None if self.waiting.contains(name) => {}
            None => self.waiting.push(name.clone()),
        }
    }

    fn lacks_one(request: &Request, addresses: &[IpAddr]) -> bool {
        request.policy == FamilyPolicy::PreferDualStack
            && request.cluster_ips.len() == 2
            && addresses.len() == 1
    }

    /// Forgets all but what the cluster tells, and the Namespaces, too, if they may not be seen now.
    pub fn restart(&mut self, namespaces_hidden: bool) {
        let namespaces = std::mem::take(&mut self.namespaces);
        *self = Self {
            config: std::mem::take(&mut self.config),
            nodes: std::mem::take(&mut self.nodes),
            strangers: std::mem::take(&mut self.strangers),
            namespaces: if namespaces_hidden {
                BTreeMap::new()
            } else {
                namespaces
            },
            requests: std::mem::take(&mut self.requests),
            ..Self::default()
        };
    }

    /// Before the restart barrier is lifted: holds what the status shows.
    pub fn hold(&mut self, name: &ObjectName, status: &[String], noted: Option<&String>) {
        self.seen.insert(name.clone(), status.to_vec());
        let request = self.requests[name].clone();
        if !request.balancer {
            return;
        }
        let shown = parsed(status).filter(|shown| {
            Self::is_set(shown)
                && self.pool_of(shown).is_some()
                && shown.iter().all(|ip| self.may(name, &request, *ip))
        });
        let settled = shown.as_ref().is_some_and(|shown| {
            self.keeps(name, &request, shown)
                && !Self::lacks_one(&request, shown)
                && self.leaves_to_strangers(name, shown).is_empty()
                && self.noted(shown).as_ref() == noted
        });
        if let Some(shown) = shown {
            self.held.insert(name.clone(), shown);
            self.terms.insert(name.clone(), request);
        }
        if !settled {
            self.waiting.push(name.clone());
        }
    }

    /// Whether the configuration takes no address away that is from a pool of the ConfigMap.
    pub fn accepts(&self, config: &Config) -> bool {
        let fits = |held: &Vec<IpAddr>| {
            config
                .pools()
                .iter()
                .any(|pool| held.iter().all(|address| pool.contains(*address)))
        };
        let sacred = |held: &&Vec<IpAddr>| {
            self.pool_of(held)
                .is_some_and(|pool| pool.origin() == Origin::ConfigMap)
        };
        self.held.values().filter(sacred).all(fits)
    }
}
