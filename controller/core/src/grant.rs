//! New addresses: the half of a decision that gives something out.

use std::net::IpAddr;

use ferrolb_config::{Family, Pool, Protocol};

use crate::allocator::{Claim, Refusal};
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
        self.core
            .allocator
            .admits(self.name, wanted, &self.terms, Claim::New)?;
        let pool = self.core.allocator.pool_of(wanted).map(Pool::name);
        match self.asked_pool() {
            Some(asked) if pool != Some(asked) => Err(Refusal::WrongPool {
                addresses: wanted.to_vec(),
                pool: asked.to_string(),
            }),
            _ => Ok(wanted.to_vec()),
        }
    }

    /// The lowest addresses of the pool asked for, or of the first pool that has some.
    fn choose(&self, stack: Stack) -> Result<Vec<IpAddr>, Refusal> {
        let allocator = &self.core.allocator;
        let asked = match self.asked_pool() {
            Some(name) => Some(
                allocator
                    .pool(name)
                    .ok_or_else(|| Refusal::UnknownPool(name.to_string()))?,
            ),
            None => None,
        };
        if let Some(pool) = asked.filter(|pool| pool.protocol() == Protocol::Bgp) {
            return Err(Refusal::Bgp {
                pool: pool.name().to_string(),
            });
        }
        let automatic = || allocator.pools().iter().filter(|pool| pool.auto_assign());
        let candidates: Vec<&Pool> = match asked {
            Some(pool) => vec![pool],
            None => automatic()
                .filter(|pool| pool.protocol() == Protocol::Layer2)
                .collect(),
        };
        let single = if self.prefers_dual(stack) {
            vec![stack.primary, other(stack.primary)]
        } else {
            Vec::new()
        };
        let attempts =
            std::iter::once(stack.families).chain(single.into_iter().map(Families::Single));
        for families in attempts {
            let mut found = candidates
                .iter()
                .filter_map(|pool| allocator.lowest(pool, families, &self.terms));
            if let Some(addresses) = found.next() {
                return Ok(addresses);
            }
        }
        if let Some(pool) = asked {
            let pool = pool.name().to_string();
            return Err(Refusal::PoolExhausted {
                pool,
                families: stack.families,
            });
        }
        let bgp = automatic().filter(|pool| pool.protocol() == Protocol::Bgp);
        Err(Refusal::Exhausted {
            bgp: bgp.map(|pool| pool.name().to_string()).collect(),
        })
    }

    /// Adds the second address of a Service that prefers two.
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
            Protocol::Layer2 => self
                .core
                .allocator
                .lowest(pool, missing, &self.terms)
                .ok_or_else(|| Refusal::PoolExhausted {
                    pool: pool.name().to_string(),
                    families: missing,
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

fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}
