//! Hosts outside the cluster that answer for addresses: what speakers report reaches the conditions of Services and the
//! allocator.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use ferrolb_config::ObjectName;
use ferrolb_runtime::watch::Change;

use super::{Entry, Reconciler};
use crate::{
    args::OnConflict,
    conflicts::{self, Strangers},
};

impl Reconciler {
    /// The same, which is to do this where a host outside the cluster has a Service's address.
    #[must_use]
    pub fn on_conflict(mut self, what: OnConflict) -> Self {
        if what == OnConflict::Reassign {
            self.disputes.reassign(true);
            self.conflicts.need();
        }
        self
    }

    /// A speaker says something else about who has which address.
    pub(super) fn strangers(&mut self, change: Change<Strangers>) {
        let (seen, known) = (self.conflicts.enough_seen(), self.conflicts.known());
        let told = matches!(change, Change::Applied(..));
        let changed = self.conflicts.take(change);
        self.reported(changed, told);
        if self.conflicts.known() && !known {
            self.doubt_former();
        }
        if !seen {
            self.try_configure();
        }
    }

    /// Decides the Services that say something of conflicts, be it still so or not.
    fn doubt_former(&mut self) {
        let says = |entry: &Entry| conflicts::said(&entry.seen.conditions).is_some();
        let former = self.services.iter().filter(|(_, entry)| says(entry));
        let former: Vec<_> = former.map(|(name, _)| name.clone()).collect();
        for name in former {
            self.decide(&name);
        }
    }

    /// Something else is known of these addresses. `told`: a speaker said so, and did not just fall silent.
    fn reported(&mut self, changed: BTreeSet<IpAddr>, told: bool) {
        for address in &changed {
            let asked = told && !self.core.holders(*address).is_empty();
            let host = self.conflicts.with(*address);
            self.disputes.report(*address, host, asked);
        }
        self.dispute(changed);
    }

    /// Does what the time brings to addresses that strangers have.
    pub(super) fn pass_time(&mut self, now: Instant) {
        let silent = self.conflicts.tick(now);
        if !silent.is_empty() {
            self.reported(silent, false);
        }
        if !self.core.configured() {
            return;
        }
        let (core, services) = (&self.core, &self.services);
        let chosen = |name: &ObjectName, address: IpAddr| {
            let request = services.get(name).and_then(Entry::request);
            request.is_some_and(|request| {
                let desired = request.desired.as_ref();
                desired.is_ok_and(|desired| !desired.contains(&address))
            })
        };
        let movable = |address| {
            let mut holders = core.holders(address);
            holders.retain(|name| chosen(name, address));
            holders
        };
        if self.disputes.tick(now, movable) {
            self.dispute(BTreeSet::new());
        }
    }

    /// The Services that have an address which is to be left.
    pub(super) fn leaving(&self) -> Vec<ObjectName> {
        let left = self.disputes.left();
        left.flat_map(|address| self.core.holders(address))
            .collect()
    }

    /// Tells the allocator what is disputed, and decides those that have any such address of which something else is known
    /// now, or one of these.
    fn dispute(&mut self, mut changed: BTreeSet<IpAddr>) {
        changed.extend(self.core.dispute(self.disputes.strangers()));
        let holders: BTreeSet<ObjectName> = changed
            .into_iter()
            .flat_map(|address| self.core.holders(address))
            .collect();
        for name in holders {
            self.decide(&name);
        }
    }
}
