//! What this node announces now, and what a verdict changes about it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ferrolb_config::ObjectName;

use crate::decide::{Announcement, Verdict};
use crate::reason::Reason;

/// Something an operator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node began to announce the Service.
    Announced(Announcement),
    /// This node no longer announces what it did.
    Withdrawn(Announcement, Reason),
}

/// What one verdict changed. Empty if it was the verdict before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What to tell, in order.
    pub events: Vec<Event>,
    /// Addresses nobody here held before: to be answered for from now on, and to be made known.
    pub taken: Vec<IpAddr>,
    /// Addresses no Service here has any more: to be answered for no longer.
    pub released: Vec<IpAddr>,
}

/// What this node announces.
#[derive(Debug, Default)]
pub struct Announced {
    services: BTreeMap<ObjectName, Announcement>,
    /// How many announced Services have each address.
    held: HashMap<IpAddr, usize>,
}

impl Announced {
    /// Nothing is announced.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over the verdict on one Service.
    pub fn apply(&mut self, name: &ObjectName, verdict: Verdict) -> Step {
        let mut step = Step::default();
        let former = self.services.remove(name);
        let (next, reason) = match verdict {
            Verdict::Announce(next) => (Some(next), Reason::LoadBalancerIpChanged),
            Verdict::Silent(reason) => (None, reason),
        };
        if let (Some(former), Some(next)) = (&former, &next)
            && former.addresses == next.addresses
        {
            // A pool that was renamed is no change on the wire.
            self.services.insert(name.clone(), next.clone());
            return step;
        }
        // The new ones first, so that an address that stays never counts as released.
        if let Some(next) = &next {
            for address in &next.addresses {
                let holders = self.held.entry(*address).or_default();
                *holders += 1;
                if *holders == 1 {
                    step.taken.push(*address);
                }
            }
        }
        if let Some(former) = former {
            for address in &former.addresses {
                if let Some(holders) = self.held.get_mut(address) {
                    *holders -= 1;
                    if *holders == 0 {
                        self.held.remove(address);
                        step.released.push(*address);
                    }
                }
            }
            step.events.push(Event::Withdrawn(former, reason));
        }
        if let Some(next) = next {
            self.services.insert(name.clone(), next.clone());
            step.events.push(Event::Announced(next));
        }
        step
    }

    /// The announced Services.
    pub fn services(&self) -> impl Iterator<Item = (&ObjectName, &Announcement)> {
        self.services.iter()
    }

    /// The addresses answered for.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = IpAddr> {
        self.held.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{Announced, Announcement, Event, IpAddr, ObjectName, Reason, Step, Verdict};

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn announce(addresses: &[u8]) -> Announcement {
        Announcement {
            pool: "p".to_owned(),
            addresses: addresses.iter().map(|last| ip(*last)).collect(),
        }
    }

    fn name(name: &str) -> ObjectName {
        ObjectName::new("ns", name)
    }

    #[test]
    fn the_same_verdict_again_changes_nothing() {
        let mut announced = Announced::new();
        let step = announced.apply(&name("a"), Verdict::Announce(announce(&[1, 2])));
        assert_eq!(step.taken, [ip(1), ip(2)]);
        assert_eq!(step.events, [Event::Announced(announce(&[1, 2]))]);
        assert_eq!(
            announced.apply(&name("a"), Verdict::Announce(announce(&[1, 2]))),
            Step::default()
        );
        assert_eq!(
            announced.apply(&name("b"), Verdict::Silent(Reason::NoEndpoints)),
            Step::default()
        );
    }

    #[test]
    fn a_shared_address_is_released_with_its_last_service() {
        let mut announced = Announced::new();
        announced.apply(&name("a"), Verdict::Announce(announce(&[1])));
        let second = announced.apply(&name("b"), Verdict::Announce(announce(&[1])));
        assert!(second.taken.is_empty());
        let first_gone = announced.apply(&name("a"), Verdict::Silent(Reason::ServiceDeleted));
        assert!(first_gone.released.is_empty());
        assert_eq!(
            first_gone.events,
            [Event::Withdrawn(announce(&[1]), Reason::ServiceDeleted)]
        );
        let last_gone = announced.apply(&name("b"), Verdict::Silent(Reason::NoEndpoints));
        assert_eq!(last_gone.released, [ip(1)]);
        assert_eq!(announced.addresses().len(), 0);
    }

    #[test]
    fn changed_addresses_withdraw_and_announce_and_keep_what_stays() {
        let mut announced = Announced::new();
        announced.apply(&name("a"), Verdict::Announce(announce(&[1, 2])));
        let step = announced.apply(&name("a"), Verdict::Announce(announce(&[2, 3])));
        assert_eq!((step.taken, step.released), (vec![ip(3)], vec![ip(1)]));
        assert_eq!(
            step.events,
            [
                Event::Withdrawn(announce(&[1, 2]), Reason::LoadBalancerIpChanged),
                Event::Announced(announce(&[2, 3]))
            ]
        );
    }
}
