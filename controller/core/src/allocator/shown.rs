//! Addresses that a Service's status still shows although the Service does not hold them.
//!
//! Speakers and kube-proxy act on the status, so an address that was given up is in use until the write that takes it out
//! of the status has succeeded. Until then nobody else gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_config::ObjectName;

/// Who shows what without holding it.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The same pairs, by Service and by address; no set is empty.
    services: BTreeMap<ObjectName, BTreeSet<IpAddr>>,
    addresses: BTreeMap<IpAddr, BTreeSet<ObjectName>>,
    /// What the Service that is being decided may claim, whoever else shows it.
    claimable: BTreeSet<IpAddr>,
}

impl Shown {
    /// Enters what a Service shows and does not hold; nothing of it must be entered.
    pub(super) fn enter(&mut self, name: &ObjectName, shown: BTreeSet<IpAddr>) {
        for address in &shown {
            let services = self.addresses.entry(*address).or_default();
            services.insert(name.clone());
        }
        if !shown.is_empty() {
            self.services.insert(name.clone(), shown);
        }
    }

    /// Forgets what a Service shows.
    pub(super) fn leave(&mut self, name: &ObjectName) {
        for address in self.services.remove(name).unwrap_or_default() {
            if let Some(services) = self.addresses.get_mut(&address) {
                services.remove(name);
                if services.is_empty() {
                    self.addresses.remove(&address);
                }
            }
        }
    }

    /// Lets the Service that is being decided claim these addresses; returns those it could claim before.
    pub(super) fn admit(&mut self, claimable: BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        std::mem::replace(&mut self.claimable, claimable)
    }

    /// What this Service shows.
    pub(super) fn of(&self, name: &ObjectName) -> BTreeSet<IpAddr> {
        self.services.get(name).cloned().unwrap_or_default()
    }

    /// Those that show an address.
    pub(super) fn by(&self, address: IpAddr) -> Option<&BTreeSet<ObjectName>> {
        self.addresses.get(&address)
    }

    /// Those that keep the Service that is being decided from getting an address.
    pub(super) fn against(&self, address: IpAddr) -> Option<&BTreeSet<ObjectName>> {
        self.by(address)
            .filter(|_| !self.claimable.contains(&address))
    }

    /// All the addresses.
    pub(super) fn all(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.keys()
    }
}
