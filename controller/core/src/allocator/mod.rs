//! The table of addresses: which Service has which, who else may have it, which is free.
//!
//! A plain record (`holdings`: Service to addresses; `tenancies`: address to Services; `shown`: what is not held and still
//! in a status) is the truth. A [`Space`] for each pool is derived from it, kept in step by every change, and only there to
//! find the lowest address quickly.
//!
//! A decision on a Service is a [`Turn`]: it begins with [`Allocator::open`] and ends with [`Allocator::close`].

mod free;
mod numbering;
mod refusal;
mod sharing;
mod shown;
mod space;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_config::{Config, Family, ObjectName, Origin, Pool, Problem, Protocol, Refused};

use self::sharing::Tenancy;
use self::shown::Shown;
use self::space::{Space, Standing};
use crate::family::Families;
use crate::notice::quoted;
use crate::plan::PoolUse;
use crate::strangers::Stranger;

pub(crate) use self::refusal::Refusal;
pub(crate) use self::sharing::{Key, Terms};
pub(crate) use self::space::Among;

/// What a Service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holding {
    /// One address, or one of each family, in the order they are published.
    pub(crate) addresses: Vec<IpAddr>,
    /// On what terms.
    pub(crate) terms: Terms,
}

/// Which claims to addresses are honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The Service had the address before we began to keep records: only the pools and other Services can be against.
    Old,
    /// The Service is to get the address now.
    New,
}

/// A decision on one Service, while it is under way.
#[must_use = "what the Service shows counts again only after `close`"]
pub(crate) struct Turn {
    /// What the Service had when it was decided last.
    held: Option<Holding>,
    /// What it showed without holding it when it was decided last.
    lingering: BTreeSet<IpAddr>,
    /// What its status shows now.
    current: BTreeSet<IpAddr>,
}

/// All assignments.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    config: Config,
    /// One for each pool of the configuration, by its name.
    spaces: BTreeMap<String, Space>,
    holdings: BTreeMap<ObjectName, Holding>,
    tenancies: BTreeMap<IpAddr, Tenancy>,
    shown: Shown,
    /// Addresses of nodes, with the node's name.
    nodes: BTreeMap<IpAddr, String>,
    /// Addresses that hosts outside the cluster answer for.
    strangers: BTreeMap<IpAddr, Stranger>,
}

impl Allocator {
    /// Takes a new configuration.
    ///
    /// # Errors
    /// If a Service could not keep its addresses from a pool of the ConfigMap; then nothing has changed. Addresses from
    /// another pool stay with their Service although no pool covers them any more, until it is decided.
    pub(crate) fn configure(&mut self, config: Config) -> Result<(), Refused> {
        let losses = self
            .holdings
            .iter()
            .filter(|(_, holding)| self.is_kept_by_all_means(&holding.addresses))
            .filter_map(|(name, holding)| loss(&config, name, &holding.addresses));
        Refused::unless_empty(losses.collect())?;
        self.spaces = config
            .pools()
            .iter()
            .map(|pool| (pool.name().to_string(), Space::new(pool)))
            .collect();
        self.config = config;
        let mut known: Vec<IpAddr> = self
            .tenancies
            .keys()
            .chain(self.nodes.keys())
            .chain(self.strangers.keys())
            .chain(self.shown.all())
            .copied()
            .collect();
        known.sort_unstable();
        known.dedup();
        for address in known {
            self.list(address);
        }
        for holding in self.holdings.values() {
            if let Some(space) = space_of_all(&self.config, &mut self.spaces, &holding.addresses) {
                space.services += 1;
            }
        }
        Ok(())
    }

    /// Whether the addresses are from a pool of the ConfigMap.
    fn is_kept_by_all_means(&self, addresses: &[IpAddr]) -> bool {
        self.pool_of(addresses)
            .is_some_and(|pool| pool.origin() == Origin::ConfigMap)
    }

    /// Replaces the addresses of nodes.
    pub(crate) fn reserve(&mut self, nodes: BTreeMap<IpAddr, String>) {
        let nodes: BTreeMap<IpAddr, String> = nodes
            .into_iter()
            .map(|(address, node)| (address.to_canonical(), node))
            .collect();
        let before = std::mem::take(&mut self.nodes);
        let mut touched: Vec<IpAddr> = before.keys().chain(nodes.keys()).copied().collect();
        touched.sort_unstable();
        touched.dedup();
        for address in &touched {
            self.unlist(*address);
        }
        self.nodes = nodes;
        for address in touched {
            self.list(address);
        }
    }

    /// The node an address belongs to.
    pub(crate) fn node_of(&self, address: IpAddr) -> Option<&str> {
        self.nodes.get(&address).map(String::as_str)
    }

    /// Replaces what is known of strangers; the addresses of which something else is known now.
    pub(crate) fn dispute(&mut self, strangers: BTreeMap<IpAddr, Stranger>) -> BTreeSet<IpAddr> {
        let strangers: BTreeMap<IpAddr, Stranger> = strangers
            .into_iter()
            .map(|(address, stranger)| (address.to_canonical(), stranger))
            .collect();
        let before = std::mem::take(&mut self.strangers);
        let either = before.keys().chain(strangers.keys());
        let changed = either.filter(|address| before.get(*address) != strangers.get(*address));
        let changed: BTreeSet<IpAddr> = changed.copied().collect();
        for address in &changed {
            self.unlist(*address);
        }
        self.strangers = strangers;
        for address in &changed {
            self.list(*address);
        }
        changed
    }

    /// The stranger that answers for an address.
    pub(crate) fn stranger_at(&self, address: IpAddr) -> Option<&Stranger> {
        self.strangers.get(&address)
    }

    /// Whether any stranger is known.
    pub(crate) fn is_disputed(&self) -> bool {
        !self.strangers.is_empty()
    }

    /// What a Service has.
    pub(crate) fn holding(&self, name: &ObjectName) -> Option<&Holding> {
        self.holdings.get(name)
    }

    /// Who has an address.
    pub(crate) fn holders(&self, address: IpAddr) -> Vec<ObjectName> {
        let tenancy = self.tenancies.get(&address.to_canonical());
        tenancy
            .map(|tenancy| tenancy.holders.clone())
            .unwrap_or_default()
    }

    /// How much of each pool is in use, in the order of the configuration.
    pub(crate) fn uses(&self) -> Vec<PoolUse> {
        let held = |pool: &Pool, family| {
            self.spaces
                .get(pool.name())
                .map_or(0, |space| space.held(family))
        };
        let uses = self.config.pools().iter().map(|pool| PoolUse {
            name: pool.name().to_string(),
            v4_total: pool.size(Family::V4),
            v6_total: pool.size(Family::V6),
            v4_in_use: held(pool, Family::V4),
            v6_in_use: held(pool, Family::V6),
            services: self
                .spaces
                .get(pool.name())
                .map_or(0, |space| space.services),
            origin: pool.origin(),
        });
        uses.collect()
    }

    /// The pools in the order of the configuration.
    pub(crate) fn pools(&self) -> &[Pool] {
        self.config.pools()
    }

    /// The pool of this name.
    pub(crate) fn pool(&self, name: &str) -> Option<&Pool> {
        self.config.pool(name)
    }

    /// The pool that all the addresses lie in.
    pub(crate) fn pool_of(&self, addresses: &[IpAddr]) -> Option<&Pool> {
        common_pool(&self.config, addresses)
    }

    /// Begins a decision on a Service whose status shows these addresses. Until it ends, what other Services show
    /// without holding it is open to the Service where it has or shows the address itself.
    pub(crate) fn open(&mut self, name: &ObjectName, current: BTreeSet<IpAddr>) -> Turn {
        let turn = Turn {
            held: self.holdings.get(name).cloned(),
            lingering: self.shown.of(name),
            current,
        };
        let held = turn.held.iter().flat_map(|holding| &holding.addresses);
        let claimable: BTreeSet<IpAddr> = held.chain(&turn.current).copied().collect();
        let touched: Vec<IpAddr> = turn
            .lingering
            .iter()
            .chain(claimable.difference(&turn.lingering))
            .filter(|address| self.shown.by(**address).is_some())
            .copied()
            .collect();
        self.relist(&touched, |shown| {
            shown.leave(name);
            shown.admit(claimable);
        });
        turn
    }

    /// Ends the decision: what the status shows and the Service does not hold is closed to all who do not have or show
    /// it too. Returns whether another Service may now get what it did not get before: an address is held on other
    /// terms, was released and is not shown any more, is not shown any more, or was only shown and is now held, so that
    /// it can be shared.
    pub(crate) fn close(&mut self, name: &ObjectName, turn: Turn) -> bool {
        let after = self.holdings.get(name);
        let has = |address: &IpAddr| after.is_some_and(|after| after.addresses.contains(address));
        let shown: BTreeSet<IpAddr> = turn
            .current
            .iter()
            .filter(|address| !has(address))
            .copied()
            .collect();
        let terms_changed = after.map(|after| &after.terms) != turn.held.as_ref().map(|h| &h.terms);
        let held = turn.held.iter().flat_map(|holding| &holding.addresses);
        let (kept, released): (Vec<IpAddr>, Vec<IpAddr>) = held.partition(|address| has(address));
        // Others that show a released address may claim it at once.
        let free = |address: &IpAddr| !shown.contains(address) || self.shown.by(*address).is_some();
        let cleared = |address: &IpAddr| {
            !shown.contains(address) && !has(address) && self.pool_of(&[*address]).is_some()
        };
        let opened =
            |address: &IpAddr| has(address) && after.is_some_and(|after| after.terms.key.shares());
        let gave_way = (terms_changed && !kept.is_empty())
            || released.iter().any(free)
            || turn
                .lingering
                .iter()
                .any(|address| cleared(address) || opened(address));

        let claimable = self.shown.admit(BTreeSet::new());
        let touched: Vec<IpAddr> = claimable
            .iter()
            .filter(|address| shown.contains(address) || self.shown.by(**address).is_some())
            .copied()
            .collect();
        self.relist(&touched, |index| index.enter(name, shown));
        gave_way
    }

    /// Whether the Service may have these addresses on these terms.
    ///
    /// # Errors
    /// The first reason it may not.
    pub(crate) fn admits(
        &self,
        name: &ObjectName,
        addresses: &[IpAddr],
        terms: &Terms,
        claim: Claim,
    ) -> Result<(), Refusal> {
        let Some(pool) = self.pool_of(addresses) else {
            return Err(Refusal::NotAllowed(addresses.to_vec()));
        };
        let own = self
            .holdings
            .get(name)
            .map(|holding| holding.addresses.as_slice())
            .unwrap_or_default();
        for &address in addresses {
            if claim == Claim::New && !own.contains(&address) {
                if pool.protocol() == Protocol::Bgp {
                    return Err(Refusal::Bgp {
                        pool: pool.name().to_string(),
                    });
                }
                if let Some(node) = self.nodes.get(&address) {
                    return Err(Refusal::NodeAddress {
                        address,
                        node: node.clone(),
                    });
                }
            }
            if let Some(tenancy) = self.tenancies.get(&address) {
                tenancy.admits(name, terms, address)?;
            }
        }
        // Said last, and of the first address that anyone shows: what a Service held it may claim only in the decision
        // that gives it up, and the reason why it gets nothing else is to be the same before and after.
        let closed = |address: &IpAddr| self.shown.against(*address).is_some();
        if claim == Claim::Old || !addresses.iter().any(closed) {
            return Ok(());
        }
        let shown = addresses.iter().find_map(|address| {
            let services = self.shown.by(*address)?;
            Some(Refusal::Shown {
                address: *address,
                services: services.iter().cloned().collect(),
            })
        });
        shown.map_or(Ok(()), Err)
    }

    /// Gives the Service exactly these addresses on these terms; what else it had is released.
    ///
    /// # Errors
    /// As [`admits`](Self::admits); then nothing has changed.
    pub(crate) fn assign(
        &mut self,
        name: &ObjectName,
        addresses: Vec<IpAddr>,
        terms: Terms,
        claim: Claim,
    ) -> Result<(), Refusal> {
        self.admits(name, &addresses, &terms, claim)?;
        let holding = Holding { addresses, terms };
        if self.holdings.get(name) == Some(&holding) {
            return Ok(());
        }
        self.release(name);
        for &address in &holding.addresses {
            self.unlist(address);
            let tenancy = self
                .tenancies
                .entry(address)
                .or_insert_with(|| Tenancy::new(holding.terms.key.clone()));
            tenancy.enter(name, &holding.terms);
            self.list(address);
        }
        if let Some(space) = space_of_all(&self.config, &mut self.spaces, &holding.addresses) {
            space.services += 1;
        }
        self.holdings.insert(name.clone(), holding);
        Ok(())
    }

    /// Releases what the Service has.
    pub(crate) fn release(&mut self, name: &ObjectName) {
        let Some(holding) = self.holdings.remove(name) else {
            return;
        };
        if let Some(space) = space_of_all(&self.config, &mut self.spaces, &holding.addresses) {
            space.services = space.services.saturating_sub(1);
        }
        for address in holding.addresses {
            self.unlist(address);
            if let Some(tenancy) = self.tenancies.get_mut(&address) {
                tenancy.leave(name, &holding.terms);
                if tenancy.holders.is_empty() {
                    self.tenancies.remove(&address);
                }
            }
            self.list(address);
        }
    }

    /// The lowest addresses of these families in a pool that a Service on these terms may have.
    pub(crate) fn lowest(
        &self,
        pool: &Pool,
        families: Families,
        terms: &Terms,
        among: Among,
    ) -> Option<Vec<IpAddr>> {
        let space = self.spaces.get(pool.name())?;
        space.lowest(families, terms, among)
    }

    /// Enters what is known about an address into the space of its pool.
    fn list(&mut self, address: IpAddr) {
        let closed = self.nodes.contains_key(&address) || self.shown.against(address).is_some();
        let standing = match self.strangers.get(&address) {
            _ if closed => Standing::Closed,
            Some(_) => Standing::Last,
            None => Standing::Open,
        };
        if let Some(space) = space_of(&self.config, &mut self.spaces, address) {
            space.enter(address, self.tenancies.get(&address), standing);
        }
    }

    /// Changes what is shown; `touched` are the addresses for which it makes a difference.
    fn relist(&mut self, touched: &[IpAddr], change: impl FnOnce(&mut Shown)) {
        for address in touched {
            self.unlist(*address);
        }
        change(&mut self.shown);
        for address in touched {
            self.list(*address);
        }
    }

    /// Takes an address out of the space of its pool, before what is known about it changes.
    fn unlist(&mut self, address: IpAddr) {
        if let Some(space) = space_of(&self.config, &mut self.spaces, address) {
            space.leave(address, self.tenancies.get(&address));
        }
    }
}

/// The space of the pool that covers an address.
fn space_of<'a>(
    config: &Config,
    spaces: &'a mut BTreeMap<String, Space>,
    address: IpAddr,
) -> Option<&'a mut Space> {
    spaces.get_mut(config.pool_of(address)?.name())
}

/// The space of the pool that can give out all of the addresses.
fn space_of_all<'a>(
    config: &Config,
    spaces: &'a mut BTreeMap<String, Space>,
    addresses: &[IpAddr],
) -> Option<&'a mut Space> {
    spaces.get_mut(common_pool(config, addresses)?.name())
}

/// The pool that can give out all of the addresses.
fn common_pool<'a>(config: &'a Config, addresses: &[IpAddr]) -> Option<&'a Pool> {
    let pool = config.pool_of(*addresses.first()?)?;
    addresses
        .iter()
        .all(|address| pool.contains(*address))
        .then_some(pool)
}

/// Why a Service could not keep its addresses under a configuration.
fn loss(config: &Config, name: &ObjectName, addresses: &[IpAddr]) -> Option<Problem> {
    if common_pool(config, addresses).is_some() {
        return None;
    }
    let lost = addresses
        .iter()
        .find(|address| common_pool(config, &[**address]).is_none());
    let what = match lost {
        Some(address) => format!("service \"{name}\" cannot own \"{address}\" under new config"),
        None => format!(
            "service \"{name}\" cannot own {} under new config, which puts them into different pools",
            quoted(addresses)
        ),
    };
    let remedy =
        "keep its addresses in one pool until the Service is deleted or asks for other addresses";
    Some(Problem::new("address-pools", what, remedy))
}
