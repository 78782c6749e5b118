//! What this node announces now, and what a verdict changes about it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ferrolb_config::ObjectName;

use crate::decide::{Announcement, Verdict};
use crate::reach::Reach;
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
    pub taken: Vec<(IpAddr, Reach)>,
    /// Addresses held before and now, on other interfaces than before.
    pub moved: Vec<(IpAddr, Reach)>,
    /// Addresses no Service here has any more: to be answered for no longer.
    pub released: Vec<IpAddr>,
}

/// What this node announces.
#[derive(Debug, Default)]
pub struct Announced {
    services: BTreeMap<ObjectName, Announcement>,
    /// Which announced Services have each address, and where they want it answered for.
    held: HashMap<IpAddr, BTreeMap<ObjectName, Reach>>,
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
        self.hold(name, former.as_ref(), next.as_ref(), &mut step);
        if let Some(next) = &next {
            self.services.insert(name.clone(), next.clone());
        }
        let addresses = |one: &Option<Announcement>| one.as_ref().map(|one| one.addresses.clone());
        if addresses(&former) == addresses(&next) {
            // A pool that was renamed is no change on the wire, and another interface no other announcement.
            return step;
        }
        if let Some(former) = former {
            step.events.push(Event::Withdrawn(former, reason));
        }
        if let Some(next) = next {
            step.events.push(Event::Announced(next));
        }
        step
    }

    /// Holds the addresses of `next` for a Service instead of those of `former`.
    fn hold(
        &mut self,
        name: &ObjectName,
        former: Option<&Announcement>,
        next: Option<&Announcement>,
        step: &mut Step,
    ) {
        let taken = next.into_iter().flat_map(|next| &next.addresses);
        for address in taken.clone() {
            let before = self.reach(*address);
            if let Some(next) = next {
                let holders = self.held.entry(*address).or_default();
                holders.insert(name.clone(), next.reach.clone());
            }
            match (before, self.reach(*address)) {
                (None, Some(reach)) => step.taken.push((*address, reach)),
                (before, Some(reach)) if before.as_ref() != Some(&reach) => {
                    step.moved.push((*address, reach));
                }
                _ => {}
            }
        }
        for address in former.into_iter().flat_map(|former| &former.addresses) {
            if taken.clone().any(|stays| stays == address) {
                continue;
            }
            let before = self.reach(*address);
            if let Some(holders) = self.held.get_mut(address) {
                holders.remove(name);
                if holders.is_empty() {
                    self.held.remove(address);
                }
            }
            match (before, self.reach(*address)) {
                (Some(_), None) => step.released.push(*address),
                (before, Some(reach)) if before.as_ref() != Some(&reach) => {
                    step.moved.push((*address, reach));
                }
                _ => {}
            }
        }
    }

    /// Where an address is answered for: wherever one of its Services wants it to be.
    fn reach(&self, address: IpAddr) -> Option<Reach> {
        let mut reaches = self.held.get(&address)?.values();
        let first = reaches.next()?.clone();
        Some(reaches.fold(first, |all, one| all.union(one)))
    }

    /// What is announced for a Service.
    pub fn get(&self, name: &ObjectName) -> Option<&Announcement> {
        self.services.get(name)
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
    use ferrolb_config::Origin;

    use super::{Announced, Announcement, Event, IpAddr, ObjectName, Reach, Reason, Step, Verdict};

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn announce(addresses: &[u8]) -> Announcement {
        Announcement {
            leads: true,
            pool: "p".to_owned(),
            origin: Origin::ConfigMap,
            addresses: addresses.iter().map(|last| ip(*last)).collect(),
            reach: Reach::Everywhere,
        }
    }

    fn only(names: &[&str]) -> Reach {
        Reach::Only(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn announce_on(addresses: &[u8], names: &[&str]) -> Verdict {
        Verdict::Announce(Announcement {
            leads: true,
            reach: only(names),
            ..announce(addresses)
        })
    }

    fn everywhere(addresses: &[u8]) -> Vec<(IpAddr, Reach)> {
        let each = addresses.iter();
        each.map(|last| (ip(*last), Reach::Everywhere)).collect()
    }

    fn name(name: &str) -> ObjectName {
        ObjectName::new("ns", name)
    }

    #[test]
    fn the_same_verdict_again_changes_nothing() {
        let mut announced = Announced::new();
        let step = announced.apply(&name("a"), Verdict::Announce(announce(&[1, 2])));
        assert_eq!(step.taken, everywhere(&[1, 2]));
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
        assert_eq!((step.taken, step.released), (everywhere(&[3]), vec![ip(1)]));
        assert_eq!(
            step.events,
            [
                Event::Withdrawn(announce(&[1, 2]), Reason::LoadBalancerIpChanged),
                Event::Announced(announce(&[2, 3]))
            ]
        );
    }

    #[test]
    fn other_interfaces_move_an_address_without_a_new_announcement() {
        let mut announced = Announced::new();
        let step = announced.apply(&name("a"), announce_on(&[1], &["eth0"]));
        assert_eq!(step.taken, [(ip(1), only(&["eth0"]))]);
        let step = announced.apply(&name("a"), announce_on(&[1], &["eth0", "eth1"]));
        let moved = Step {
            moved: vec![(ip(1), only(&["eth0", "eth1"]))],
            ..Step::default()
        };
        assert_eq!(step, moved);
        let same = announced.apply(&name("a"), announce_on(&[1], &["eth0", "eth1"]));
        assert_eq!(same, Step::default());
    }

    #[test]
    fn a_shared_address_is_answered_where_one_of_its_services_wants_it() {
        let mut announced = Announced::new();
        announced.apply(&name("a"), announce_on(&[1, 2], &["eth0"]));
        let second = announced.apply(&name("b"), announce_on(&[1], &["eth1"]));
        assert_eq!(second.moved, [(ip(1), only(&["eth0", "eth1"]))]);
        let all = announced.apply(&name("c"), Verdict::Announce(announce(&[1])));
        assert_eq!(all.moved, everywhere(&[1]));
        announced.apply(&name("c"), Verdict::Silent(Reason::ServiceDeleted));
        let gone = announced.apply(&name("a"), Verdict::Silent(Reason::NoEndpoints));
        assert_eq!(gone.moved, [(ip(1), only(&["eth1"]))]);
        assert_eq!(gone.released, [ip(2)]);
    }
}
