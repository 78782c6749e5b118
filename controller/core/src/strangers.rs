//! Addresses that hosts outside the cluster answer for: they are given out last, and left for others if so told.
//!
//! Who may be moved is a Service whose address was chosen here. One that asks for its address gets what it asks for, and one
//! that shares it would be parted from the others. A disputed address is better than none: it is answered for as soon as the
//! stranger is gone.

use std::net::IpAddr;

use ferrolb_config::{Family, Protocol};

use crate::allocator::{Among, Claim};
use crate::converge::{Pass, Stack, Topic};
use crate::family::Families;
use crate::notice::{Level, quoted};

/// A host outside the cluster that answers for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Its hardware address, as text for people.
    pub host: String,
    /// Whether a Service that did not ask for the address and is alone on it is to have another, if there is one.
    pub leave: bool,
}

impl Pass<'_> {
    /// Which of these addresses the Service is to leave, given those it asks for.
    pub(crate) fn left_to_strangers(&self, addresses: &[IpAddr], wanted: &[IpAddr]) -> Vec<IpAddr> {
        let leaves = |address: &&IpAddr| {
            let stranger = self.core.allocator.stranger_at(**address);
            stranger.is_some_and(|stranger| stranger.leave) && !wanted.contains(address)
        };
        addresses.iter().filter(leaves).copied().collect()
    }

    /// Gives the Service others in place of addresses it is to leave.
    pub(crate) fn leave_strangers(&mut self, stack: Stack, wanted: &[IpAddr]) {
        let Some(holding) = self.core.allocator.holding(self.name) else {
            return;
        };
        let held = holding.addresses.clone();
        let disputed = self.left_to_strangers(&held, wanted);
        if disputed.is_empty() {
            return;
        }
        let hosts = self.name_hosts(&disputed);
        if let Some(partner) = self.partner(&held) {
            let message = format!(
                "{hosts}; the Service stays, because it shares an address with {partner}: change both, or take the host's \
                 address out of the pool"
            );
            self.stay(message);
            return;
        }
        let others = self
            .replaced(&held, &disputed)
            .or_else(|| self.moved(&held, stack, wanted));
        let assigned = others.filter(|others| {
            let (terms, others) = (self.terms.clone(), (*others).clone());
            let allocator = &mut self.core.allocator;
            allocator
                .assign(self.name, others, terms, Claim::New)
                .is_ok()
        });
        let Some(others) = assigned else {
            let message = format!(
                "{hosts}, and no other address is left for the Service: it stays, and moves when there is one"
            );
            self.stay(message);
            return;
        };
        let message = format!(
            "Reassigned from {} to {}: {hosts}",
            quoted(&held),
            quoted(&others)
        );
        self.note(Level::Warning, "AddressReassigned", message);
    }

    /// Who answers for what.
    fn name_hosts(&self, disputed: &[IpAddr]) -> String {
        let each = disputed.iter().map(|address| {
            let stranger = self.core.allocator.stranger_at(*address);
            let host = stranger.map_or("?", |stranger| stranger.host.as_str());
            format!("the host {host}, which is no speaker, answers for \"{address}\"")
        });
        each.collect::<Vec<_>>().join(", ")
    }

    /// Another Service on one of these addresses.
    fn partner(&self, held: &[IpAddr]) -> Option<String> {
        let all = held.iter();
        let mut all = all.flat_map(|address| self.core.allocator.holders(*address));
        let other = all.find(|holder| holder != self.name);
        other.map(|other| other.to_string())
    }

    /// The same addresses with others of the same pool for those disputed.
    fn replaced(&self, held: &[IpAddr], disputed: &[IpAddr]) -> Option<Vec<IpAddr>> {
        let allocator = &self.core.allocator;
        let pool = allocator.pool_of(held)?;
        if pool.protocol() != Protocol::Layer2 || self.admitted(pool).is_err() {
            return None;
        }
        let each = held.iter().map(|address| {
            if !disputed.contains(address) {
                return Some(*address);
            }
            let family = Families::Single(Family::of(*address));
            let found = allocator.lowest(pool, family, &self.terms, Among::Undisputed)?;
            found.first().copied()
        });
        each.collect()
    }

    /// Addresses of any pool that is there for the Service, of no fewer families than it has. Who asks for one of its
    /// addresses cannot leave it with the other.
    fn moved(&self, held: &[IpAddr], stack: Stack, wanted: &[IpAddr]) -> Option<Vec<IpAddr>> {
        if !wanted.is_empty() {
            return None;
        }
        let others = self.choose_among(stack, Among::Undisputed).ok()?;
        let covers = |address: &IpAddr| {
            let mut others = others.iter().copied();
            others.any(|other| Family::of(other) == Family::of(*address))
        };
        held.iter().all(covers).then_some(others)
    }

    fn stay(&mut self, message: String) {
        self.tell(
            Topic::Stranger,
            Level::Warning,
            "AddressNotReassigned",
            message,
        );
    }
}
