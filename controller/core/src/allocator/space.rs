//! What is in use of one pool, and the lowest address that is not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_config::{Family, Origin, Pool};

use super::free::Runs;
use super::numbering::Numbering;
use super::sharing::{Shared, Tenancy, Terms};
use crate::family::Families;

/// What an address is good for, whoever has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// To be given out.
    Open,
    /// To be given out where no open one is left: a stranger answers for it.
    Last,
    /// Given to nobody: it belongs to a node, or somebody still shows it.
    Closed,
}

/// Which addresses are looked among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Among {
    /// Those that no stranger answers for.
    Undisputed,
    /// The same, and where there is none the others.
    All,
}

/// Addresses that can be given out, to one alone or to sharers.
#[derive(Debug, Default)]
struct Disputed {
    free: BTreeSet<u128>,
    shared: Shared,
}

/// The addresses of one family of a pool.
#[derive(Debug)]
struct Side {
    numbering: Numbering,
    /// Addresses that nobody is to have alone: held by a Service, disputed, closed, or several of these.
    taken: Runs,
    /// Held addresses that a further Service may share.
    shared: Shared,
    /// Those that come last.
    disputed: Disputed,
    /// Number of held addresses.
    held: u64,
}

impl Side {
    fn new(pool: &Pool, family: Family) -> Self {
        Self {
            numbering: Numbering::new(pool, family),
            taken: Runs::default(),
            shared: Shared::default(),
            disputed: Disputed::default(),
            held: 0,
        }
    }

    fn lowest(&self, terms: &Terms, among: Among) -> Option<IpAddr> {
        let free = self.taken.lowest_free(self.numbering.most()?);
        let open = free.into_iter().chain(self.shared.lowest(terms)).min();
        let last = || {
            let free = self.disputed.free.first().copied();
            let shared = self.disputed.shared.lowest(terms);
            free.into_iter().chain(shared).min()
        };
        let number = match among {
            Among::Undisputed => open,
            Among::All => open.or_else(last),
        };
        self.numbering.address(number?)
    }
}

/// One pool's addresses.
#[derive(Debug)]
pub(super) struct Space {
    v4: Side,
    v6: Side,
    /// Which family's address comes first of two.
    order: Order,
    /// Number of Services whose addresses are all of this pool.
    pub(super) services: u64,
}

/// The order of two addresses from one pool. It matters: the first one decides which node answers.
#[derive(Debug)]
enum Order {
    /// As the pool's ranges supply them (MetalLB 0.12).
    Ranges,
    /// IPv4 first (MetalLB since 0.14.9).
    V4First,
}

impl Space {
    /// The space of a pool with nothing in use.
    pub(super) fn new(pool: &Pool) -> Self {
        Self {
            v4: Side::new(pool, Family::V4),
            v6: Side::new(pool, Family::V6),
            order: match pool.origin() {
                Origin::ConfigMap => Order::Ranges,
                Origin::Resource => Order::V4First,
            },
            services: 0,
        }
    }

    fn side(&self, family: Family) -> &Side {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn side_mut(&mut self, address: IpAddr) -> Option<(&mut Side, u128)> {
        let side = match Family::of(address) {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        };
        let (number, _) = side.numbering.number(address)?;
        Some((side, number))
    }

    /// Number of held addresses of a family.
    pub(super) fn held(&self, family: Family) -> u64 {
        self.side(family).held
    }

    /// Enters what is known about an address. It must not be entered already.
    pub(super) fn enter(&mut self, address: IpAddr, tenancy: Option<&Tenancy>, standing: Standing) {
        let Some((side, number)) = self.side_mut(address) else {
            return;
        };
        if tenancy.is_some() || standing != Standing::Open {
            side.taken.insert(number);
        }
        if tenancy.is_some() {
            side.held += 1;
        }
        match (standing, tenancy) {
            (Standing::Open, Some(tenancy)) => side.shared.insert(tenancy, number),
            (Standing::Last, Some(tenancy)) => side.disputed.shared.insert(tenancy, number),
            (Standing::Last, None) => {
                side.disputed.free.insert(number);
            }
            (Standing::Open, None) | (Standing::Closed, _) => {}
        }
    }

    /// Undoes an [`enter`](Self::enter) with the same arguments, whatever the standing was.
    pub(super) fn leave(&mut self, address: IpAddr, tenancy: Option<&Tenancy>) {
        let Some((side, number)) = self.side_mut(address) else {
            return;
        };
        side.taken.remove(number);
        side.disputed.free.remove(&number);
        if let Some(tenancy) = tenancy {
            side.held = side.held.saturating_sub(1);
            side.shared.remove(tenancy, number);
            side.disputed.shared.remove(tenancy, number);
        }
    }

    /// The lowest addresses of these families that a newcomer on these terms may have, in the order of the pool; all
    /// families or none.
    pub(super) fn lowest(
        &self,
        families: Families,
        terms: &Terms,
        among: Among,
    ) -> Option<Vec<IpAddr>> {
        let lowest = |side: &Side| side.lowest(terms, among);
        match families {
            Families::Single(family) => Some(vec![lowest(self.side(family))?]),
            Families::Dual => {
                let (v4, v6) = (lowest(&self.v4)?, lowest(&self.v6)?);
                let v4_first = match self.order {
                    Order::Ranges => self.range_of(v4) < self.range_of(v6),
                    Order::V4First => true,
                };
                Some(if v4_first { vec![v4, v6] } else { vec![v6, v4] })
            }
        }
    }

    /// Which range of the pool an address lies in.
    fn range_of(&self, address: IpAddr) -> Option<usize> {
        self.side(Family::of(address))
            .numbering
            .number(address)
            .map(|(_, range)| range)
    }
}
