//! What Services live among: Nodes, whose addresses are not given out, and Namespaces, by whose labels pools select.
//!
//! Both may be forbidden to us (the roles of MetalLB 0.7 to 0.12 grant neither), which holds nothing up.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ferrolb_config::{Config, Labels, ObjectName, Pool};
use ferrolb_runtime::watch::{Change, Unavailable};

use super::Reconciler;

/// What is known of them.
#[derive(Default)]
pub(super) struct Surroundings {
    nodes: BTreeMap<ObjectName, Vec<IpAddr>>,
    /// Every Node has been told at least once, or none may be seen.
    nodes_seen: bool,
    /// The same of Namespaces.
    namespaces_seen: bool,
    /// Namespaces may not be seen, which is still to be said when it matters.
    namespaces_hidden: bool,
}

impl Surroundings {
    /// Whether all was seen that may be seen.
    pub(super) fn seen(&self) -> bool {
        self.nodes_seen && self.namespaces_seen
    }

    /// Says once that pools select by what cannot be seen, if this configuration has any that select.
    pub(super) fn warn(&mut self, config: &Config) {
        let allocations = config.pools().iter().filter_map(Pool::allocation);
        if self.namespaces_hidden && allocations.count() > 0 {
            self.namespaces_hidden = false;
            tracing::warn!(
                op = "watch",
                resource = "namespaces",
                "cannot see Namespaces, so pools with serviceAllocation.namespaceSelectors give nothing new by them \
                 (Services keep what they have); grant list and watch on namespaces"
            );
        }
    }
}

impl Reconciler {
    pub(super) fn node(&mut self, change: Change<Vec<IpAddr>>) {
        match change {
            Change::Applied(name, addresses) => {
                if self.around.nodes.get(&name) == Some(&addresses) {
                    return;
                }
                self.around.nodes.insert(name, addresses);
            }
            Change::Deleted(name) => {
                if self.around.nodes.remove(&name).is_none() {
                    return;
                }
            }
            Change::Synced if self.around.nodes_seen => return,
            Change::Synced => self.around.nodes_seen = true,
            Change::Unavailable(why) => {
                if why == Unavailable::Forbidden && self.around.nodes.is_empty() {
                    tracing::warn!(
                        op = "watch",
                        resource = "nodes",
                        "cannot see Nodes, so an address that is a node's own may be given out (the speakers \
                         will not announce it); grant list and watch on nodes to have it skipped"
                    );
                    self.around.nodes_seen = true;
                    self.try_configure();
                }
                return;
            }
        }
        if !self.around.nodes_seen {
            return;
        }
        let owners: BTreeMap<_, _> = self
            .around
            .nodes
            .iter()
            .flat_map(|(node, own)| own.iter().map(|address| (*address, node.name.clone())))
            .collect();
        self.core.reserve(owners);
        self.try_configure();
        // Whoever was refused an address that was a node's may have it now.
        self.revisit = true;
        let holders: BTreeSet<_> = self
            .around
            .nodes
            .values()
            .flatten()
            .flat_map(|address| self.core.holders(*address))
            .collect();
        for name in holders {
            self.decide(&name);
        }
    }

    pub(super) fn namespace(&mut self, change: Change<Labels>) {
        let (name, labels) = match change {
            Change::Applied(name, labels) => (name.name.clone(), Some(labels)),
            Change::Deleted(name) => (name.name.clone(), None),
            Change::Synced => {
                self.around.namespaces_seen = true;
                self.around.namespaces_hidden = false;
                self.try_configure();
                return;
            }
            Change::Unavailable(_) => {
                // Those that were seen before stay as they were.
                if !self.around.namespaces_seen {
                    self.around.namespaces_hidden = true;
                    self.around.namespaces_seen = true;
                    self.try_configure();
                }
                return;
            }
        };
        if !self.core.label(&name, labels) || !self.core.configured() {
            return;
        }
        let residents: Vec<_> = self
            .services
            .keys()
            .filter(|service| *service.namespace == *name)
            .cloned()
            .collect();
        for service in residents {
            self.decide(&service);
        }
    }
}
