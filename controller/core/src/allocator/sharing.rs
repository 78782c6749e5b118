//! When two Services may have one address.
//!
//! They may if both have the same sharing key, the same backend key and no port in common (MetalLB's rule, all
//! versions).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_config::ObjectName;

use super::refusal::Refusal;
use crate::request::Port;

/// What Services on one address must have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The sharing key; empty means not shared.
    pub(crate) sharing: String,
    /// The backend key.
    pub(crate) backend: String,
}

impl Key {
    fn shares_with(&self, other: &Self) -> bool {
        self.shares() && self == other
    }

    /// Whether the address is to be shared with anyone at all.
    pub(super) fn shares(&self) -> bool {
        !self.sharing.is_empty()
    }
}

/// How a Service uses its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) key: Key,
    pub(crate) ports: BTreeSet<Port>,
}

/// Who has an address: one Service, or several that share it.
#[derive(Debug)]
pub(super) struct Tenancy {
    /// The key of the Service that came or changed last; all have the same if there are several.
    pub(super) key: Key,
    /// In order. Not in a tree: nearly always there is one, and a tree's node has room for eleven.
    pub(super) holders: Vec<ObjectName>,
    /// In order of the ports, each once.
    ports: Vec<(Port, ObjectName)>,
}

impl Tenancy {
    /// The address's first Service.
    pub(super) fn new(key: Key) -> Self {
        Self {
            key,
            holders: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// Whether the Service may have the address on these terms, be it already here or not.
    pub(super) fn admits(
        &self,
        name: &ObjectName,
        terms: &Terms,
        address: IpAddr,
    ) -> Result<(), Refusal> {
        let alone = self.holders.iter().all(|holder| holder == name);
        if !alone && !terms.key.shares_with(&self.key) {
            let others = self
                .holders
                .iter()
                .filter(|holder| *holder != name)
                .cloned()
                .collect();
            return Err(Refusal::SharingKey {
                name: name.clone(),
                others,
            });
        }
        let taken = terms
            .ports
            .iter()
            .find(|port| self.holder_of(**port).is_some_and(|holder| holder != name));
        match taken {
            Some(port) => Err(Refusal::PortInUse {
                port: *port,
                address,
            }),
            None => Ok(()),
        }
    }

    /// Adds the Service, which was admitted and is not here.
    pub(super) fn enter(&mut self, name: &ObjectName, terms: &Terms) {
        self.key = terms.key.clone();
        if let Err(place) = self.holders.binary_search(name) {
            self.holders.reserve_exact(1);
            self.holders.insert(place, name.clone());
        }
        self.ports.reserve_exact(terms.ports.len());
        for port in &terms.ports {
            match self.place(*port) {
                Ok(place) => {
                    if let Some((_, holder)) = self.ports.get_mut(place) {
                        holder.clone_from(name);
                    }
                }
                Err(place) => self.ports.insert(place, (*port, name.clone())),
            }
        }
    }

    /// Removes the Service, which was here on these terms.
    pub(super) fn leave(&mut self, name: &ObjectName, terms: &Terms) {
        self.holders.retain(|holder| holder != name);
        self.ports.retain(|(port, _)| !terms.ports.contains(port));
    }

    /// Where a port is among those in use, or would be.
    fn place(&self, port: Port) -> Result<usize, usize> {
        self.ports.binary_search_by_key(&port, |(port, _)| *port)
    }

    /// Who uses a port.
    fn holder_of(&self, port: Port) -> Option<&ObjectName> {
        let place = self.place(port).ok()?;
        self.ports.get(place).map(|(_, holder)| holder)
    }

    /// The ports in use, as an index of addresses to share needs them.
    pub(super) fn signature(&self) -> BTreeSet<Port> {
        self.ports.iter().map(|(port, _)| *port).collect()
    }
}

/// The addresses of a pool that are open to sharing, by key and by the ports in use on them.
///
/// Addresses with the same ports in use are equally good for a newcomer, so only the lowest of each such group is
/// looked at: ten thousand addresses with port 80 in use are one group.
#[derive(Debug, Default)]
pub(super) struct Shared {
    groups: BTreeMap<Key, BTreeMap<BTreeSet<Port>, BTreeSet<u128>>>,
}

impl Shared {
    pub(super) fn insert(&mut self, tenancy: &Tenancy, number: u128) {
        if tenancy.key.shares() {
            let groups = self.groups.entry(tenancy.key.clone()).or_default();
            groups
                .entry(tenancy.signature())
                .or_default()
                .insert(number);
        }
    }

    pub(super) fn remove(&mut self, tenancy: &Tenancy, number: u128) {
        let Some(groups) = self.groups.get_mut(&tenancy.key) else {
            return;
        };
        let signature = tenancy.signature();
        if let Some(numbers) = groups.get_mut(&signature) {
            numbers.remove(&number);
            if numbers.is_empty() {
                groups.remove(&signature);
            }
        }
        if groups.is_empty() {
            self.groups.remove(&tenancy.key);
        }
    }

    /// The lowest address that a newcomer on these terms may share.
    pub(super) fn lowest(&self, terms: &Terms) -> Option<u128> {
        let groups = self.groups.get(&terms.key)?.iter();
        let open = groups.filter(|(ports, _)| ports.is_disjoint(&terms.ports));
        open.filter_map(|(_, numbers)| numbers.first().copied())
            .min()
    }
}
