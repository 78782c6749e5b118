//! New addresses: the half of a decision that gives something out.

use std::net::IpAddr;

use ferrolb_config::{Allocation, Family, Origin, Pool, Protocol};

use crate::allocator::{Among, Claim, Refusal};
use crate::converge::{Pass, Stack, Topic};
use crate::family::Families;
use crate::notice::{Level, quoted};

impl Pass<'_> {
    /// Gives new addresses to a Service that has none.
    pub(crate) fn grant(&mut self, stack: Stack, wanted: &[IpAddr]) -> Result<(), Refusal> {
        let addresses = if wanted.is_empty() {
            self.choose(stack)?
        } else {
            self.requested(stack, wanted)?
        };
        self.core
            .allocator
            .assign(self.name, addresses.clone(), self.terms.clone(), Claim::New)?;
        self.note(
            Level::Normal,
            "IPAllocated",
            format!("Assigned IP {}", quoted(&addresses)),
        );
        Ok(())
    }

    /// The addresses asked for, if nothing stands against them.
    fn requested(&self, stack: Stack, wanted: &[IpAddr]) -> Result<Vec<IpAddr>, Refusal> {
        let serves = Families::of(wanted)
            .is_ok_and(|families| families.serve(stack.families, self.request.policy));
        if !serves {
            return Err(Refusal::WrongFamily(wanted.to_vec()));
        }
        let assignable = self.assignable(wanted, Claim::New);
        match (assignable, self.misses_pool(wanted, wanted)) {
            // That somebody still shows an address passes by itself, so it is said last.
            (Ok(()) | Err(Refusal::Shown { .. }), Some(asked)) => Err(Refusal::WrongPool {
                addresses: wanted.to_vec(),
                pool: asked.to_string(),
            }),
            (assignable, _) => assignable.map(|()| wanted.to_vec()),
        }
    }

    /// Addresses that no stranger answers for; where there are none left, others.
    fn choose(&self, stack: Stack) -> Result<Vec<IpAddr>, Refusal> {
        match self.choose_among(stack, Among::Undisputed) {
            Err(_) if self.core.allocator.is_disputed() => self.choose_among(stack, Among::All),
            chosen => chosen,
        }
    }

    /// The lowest addresses of the pool asked for, or of the first pool that has some.
    pub(crate) fn choose_among(&self, stack: Stack, among: Among) -> Result<Vec<IpAddr>, Refusal> {
        if let Some(asked) = self.asked_pool() {
            return self.choose_from(asked, stack, among);
        }
        let allocator = &self.core.allocator;
        let automatic = || allocator.pools().iter().filter(|pool| pool.auto_assign());
        // Those that are there for certain Services come first; the sort leaves pools of one priority in their order.
        let mut pinned: Vec<&Pool> = automatic()
            .filter(|pool| pool.allocation().is_some() && self.admitted(pool).is_ok())
            .collect();
        pinned.sort_by_key(|pool| {
            let priority = pool.allocation().and_then(Allocation::priority);
            (priority.is_none(), priority)
        });
        let free: Vec<&Pool> = automatic()
            .filter(|pool| pool.allocation().is_none())
            .collect();
        let mut found = [pinned, free]
            .into_iter()
            .filter_map(|pools| self.lowest(&pools, stack, among));
        if let Some(addresses) = found.next() {
            return Ok(addresses);
        }
        let bgp = automatic().filter(|pool| pool.protocol() == Protocol::Bgp);
        Err(Refusal::Exhausted {
            bgp: bgp.map(|pool| pool.name().to_string()).collect(),
        })
    }

    /// The lowest addresses of this pool.
    fn choose_from(&self, asked: &str, stack: Stack, among: Among) -> Result<Vec<IpAddr>, Refusal> {
        let allocator = &self.core.allocator;
        let pool = allocator
            .pool(asked)
            .ok_or_else(|| Refusal::UnknownPool(asked.to_string()))?;
        if pool.protocol() == Protocol::Bgp {
            return Err(Refusal::Bgp {
                pool: pool.name().to_string(),
            });
        }
        self.admitted(pool)?;
        self.lowest(&[pool], stack, among)
            .ok_or_else(|| used_up(pool, stack.families))
    }

    /// The lowest addresses of the first of these pools that has what the Service is to have; only then, if it may do
    /// with less, of the first that has less.
    fn lowest(&self, pools: &[&Pool], stack: Stack, among: Among) -> Option<Vec<IpAddr>> {
        let single = if self.prefers_dual(stack) {
            vec![stack.primary, other(stack.primary)]
        } else {
            Vec::new()
        };
        std::iter::once(stack.families)
            .chain(single.into_iter().map(Families::Single))
            .find_map(|families| {
                let allocator = &self.core.allocator;
                let mut found = pools
                    .iter()
                    .filter(|pool| pool.protocol() == Protocol::Layer2)
                    .filter_map(|pool| allocator.lowest(pool, families, &self.terms, among));
                found.next()
            })
    }

    /// Adds the second address of a Service that prefers two. It can do without, so a disputed one is none.
    pub(crate) fn complete(&mut self, stack: Stack) {
        let held = self
            .core
            .allocator
            .holding(self.name)
            .map(|holding| holding.addresses.clone());
        let Some([one]) = held.as_deref() else { return };
        if !self.prefers_dual(stack) {
            return;
        }
        let missing = Families::Single(other(Family::of(*one)));
        let Some(pool) = self.core.allocator.pool_of(&[*one]) else {
            return;
        };
        let added = match pool.protocol() {
            Protocol::Bgp => Err(Refusal::Bgp {
                pool: pool.name().to_string(),
            }),
            Protocol::Layer2 => self.admitted(pool).and_then(|()| {
                let allocator = &self.core.allocator;
                let lowest = allocator.lowest(pool, missing, &self.terms, Among::Undisputed);
                lowest.ok_or_else(|| exhausted(pool, missing))
            }),
        };
        let assigned = added.and_then(|mut added| {
            added.insert(0, *one);
            let last = added.last().copied();
            self.core
                .allocator
                .assign(self.name, added, self.terms.clone(), Claim::New)?;
            Ok(last)
        });
        match assigned {
            Ok(added) => {
                let added = added.map(|added| added.to_string()).unwrap_or_default();
                self.note(
                    Level::Normal,
                    "IPAllocated",
                    format!("Assigned additional IP \"{added}\""),
                );
            }
            Err(refusal) => {
                let message = format!("cannot assign additional IP in PreferDualStack: {refusal}");
                self.tell(
                    Topic::Additional,
                    Level::Normal,
                    "AdditionalAssignFailed",
                    message,
                );
            }
        }
    }
}

/// That the pool asked for has nothing left of these families.
fn used_up(pool: &Pool, families: Families) -> Refusal {
    match (pool.origin(), families) {
        (Origin::Resource, Families::Single(_)) => Refusal::PoolEmpty {
            pool: pool.name().to_string(),
        },
        (Origin::ConfigMap, _) | (_, Families::Dual) => exhausted(pool, families),
    }
}

/// The same, naming the families.
fn exhausted(pool: &Pool, families: Families) -> Refusal {
    Refusal::PoolExhausted {
        pool: pool.name().to_string(),
        origin: pool.origin(),
        families,
    }
}

fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}
