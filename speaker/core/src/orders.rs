//! The orders of all nodes, kept for each address that was asked for.
//!
//! An order depends on nothing but the nodes' names and the address, so who is willing or eligible changes nothing in it.
//! Digests of a thousand names take longer than everything else a decision does, so they are worked out once for each
//! address; nodes that come and go find their place in what is kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::order::place;

/// Entries kept of all orders together, of two bytes each: 10 000 addresses in a cluster of 1 600 nodes. Orders beyond are
/// worked out each time.
const ROOM: usize = 16_000_000;

/// The number of a node: the same for as long as it is known. A cluster has 5 000 nodes at most; one beyond 65 536 would take
/// no part.
pub(crate) type Slot = u16;

/// The orders, and the nodes in them.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// The nodes by slot; none where it is free.
    names: Vec<Option<String>>,
    slots: HashMap<String, Slot>,
    kept: RefCell<HashMap<IpAddr, Arc<[Slot]>>>,
}

impl Orders {
    /// A node is known from now on.
    pub(crate) fn add(&mut self, name: &str) {
        if self.slots.contains_key(name) {
            return;
        }
        let free = self.names.iter().position(Option::is_none);
        let at = free.unwrap_or(self.names.len());
        let Ok(slot) = Slot::try_from(at) else {
            return;
        };
        let kept = self.kept.get_mut();
        if kept.len() * (self.slots.len() + 1) > ROOM {
            kept.clear();
        }
        for (address, order) in self.kept.take() {
            let key = address.to_string();
            let mine = (place(name, &key), name);
            let at = order.partition_point(|other| {
                let other = self.name(*other).unwrap_or_default();
                (place(other, &key), other) < mine
            });
            let (before, after) = order.split_at(at);
            let with = before.iter().chain([&slot]).chain(after);
            self.kept.get_mut().insert(address, with.copied().collect());
        }
        match self.names.get_mut(at) {
            Some(free) => *free = Some(name.to_owned()),
            None => self.names.push(Some(name.to_owned())),
        }
        self.slots.insert(name.to_owned(), slot);
    }

    /// A node is known no longer.
    pub(crate) fn remove(&mut self, name: &str) {
        let Some(slot) = self.slots.remove(name) else {
            return;
        };
        for order in self.kept.get_mut().values_mut() {
            let others = order.iter().filter(|other| **other != slot);
            *order = others.copied().collect();
        }
        if let Some(taken) = self.names.get_mut(usize::from(slot)) {
            *taken = None;
        }
    }

    /// The node with this number.
    pub(crate) fn name(&self, slot: Slot) -> Option<&str> {
        self.names.get(usize::from(slot))?.as_deref()
    }

    /// All nodes by their numbers, none where one is free.
    pub(crate) fn names(&self) -> impl Iterator<Item = Option<&str>> {
        self.names.iter().map(Option::as_deref)
    }

    /// All nodes in the order for `address`.
    pub(crate) fn of(&self, address: IpAddr) -> Arc<[Slot]> {
        if let Some(order) = self.kept.borrow().get(&address) {
            return order.clone();
        }
        let key = address.to_string();
        let all = self.slots.iter();
        let mut all: Vec<_> = all
            .map(|(name, slot)| (place(name, &key), name, *slot))
            .collect();
        all.sort_unstable();
        let order: Arc<[Slot]> = all.into_iter().map(|(_, _, slot)| slot).collect();
        let mut kept = self.kept.borrow_mut();
        if (kept.len() + 1) * order.len() <= ROOM {
            kept.insert(address, order.clone());
        }
        order
    }

    /// No Service has the address any more.
    pub(crate) fn forget(&mut self, address: IpAddr) {
        self.kept.get_mut().remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::Orders;
    use crate::order::place;

    /// All of them, one after the other the first among the rest.
    fn naive(mut names: Vec<String>, address: IpAddr) -> Vec<String> {
        let key = address.to_string();
        names.sort_by_key(|name| (place(name, &key), name.clone()));
        names
    }

    proptest! {
        /// Input: nodes that come and go, and orders asked for and forgotten in between.
        /// Output: always what is found by sorting the names.
        #[test]
        fn kept_orders_are_those_of_the_names(edits in prop::collection::vec((0_u8..4, 0_u8..12), 1..80)) {
            let mut orders = Orders::default();
            let mut known = std::collections::BTreeSet::new();
            for (edit, number) in edits {
                let name = format!("node-{number}");
                let address = IpAddr::from([10, 0, 0, number % 4]);
                match edit {
                    0 | 1 => {
                        orders.add(&name);
                        known.insert(name);
                    }
                    2 => {
                        orders.remove(&name);
                        known.remove(&name);
                    }
                    _ => orders.forget(address),
                }
                let found: Vec<_> = orders.of(address).iter().map(|slot| orders.name(*slot).unwrap().to_owned()).collect();
                prop_assert_eq!(found, naive(known.iter().cloned().collect(), address));
            }
        }
    }
}
