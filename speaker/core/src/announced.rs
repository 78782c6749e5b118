//! What this node announces: what it may, by the verdicts, where it holds the address, by the arbiters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ferrolb_config::ObjectName;

use crate::decide::{Announcement, Verdict};
use crate::few::Few;
use crate::reason::Reason;

/// Something an operator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node announces the Service with these addresses, some of which it did not announce before.
    Announced(Announcement),
    /// This node no longer announces the Service with these addresses.
    Withdrawn(Announcement, Reason),
}

/// What this node may announce, what it holds, and so announces.
#[derive(Debug, Default)]
pub struct Announced {
    may: BTreeMap<ObjectName, Announcement>,
    /// Which of these have each address.
    by_address: HashMap<IpAddr, Few<ObjectName>>,
    /// The interfaces each address is held on; never none.
    held: HashMap<IpAddr, Few<String>>,
    /// What is announced, with the addresses held; never none.
    services: BTreeMap<ObjectName, Announcement>,
}

impl Announced {
    /// Nothing is announced.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over the verdict on one Service.
    pub fn apply(&mut self, name: &ObjectName, verdict: Verdict) -> Vec<Event> {
        let former = self.may.remove(name);
        for address in former.iter().flat_map(|former| &former.addresses) {
            if let Some(sharers) = self.by_address.get_mut(address) {
                sharers.remove(name);
                if sharers.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
        let reason = match verdict {
            Verdict::Silent(reason) => reason,
            Verdict::May(next) => {
                for address in &next.addresses {
                    let sharers = self.by_address.entry(*address).or_default();
                    sharers.insert(name.clone());
                }
                let same = former.is_some_and(|former| former.addresses == next.addresses);
                self.may.insert(name.clone(), next);
                if same {
                    Reason::InterfacesChanged
                } else {
                    Reason::LoadBalancerIpChanged
                }
            }
        };
        self.follow(name, reason)
    }

    /// The arbiter of an interface says that the address is held there from now on (`gone` none), or no longer, because of
    /// `gone`.
    pub fn hold(
        &mut self,
        address: IpAddr,
        interface: &str,
        gone: Option<Reason>,
    ) -> Vec<(ObjectName, Event)> {
        let interfaces = self.held.entry(address).or_default();
        if gone.is_some() {
            interfaces.remove(interface);
        } else {
            interfaces.insert(interface.to_owned());
        }
        if interfaces.is_empty() {
            self.held.remove(&address);
        }
        // Nothing is withdrawn where something was gained.
        let reason = gone.unwrap_or(Reason::InterfacesChanged);
        let sharers = self.by_address.get(&address).cloned().unwrap_or_default();
        let mut events = Vec::new();
        for name in sharers {
            let each = self.follow(&name, reason.clone()).into_iter();
            events.extend(each.map(|event| (name.clone(), event)));
        }
        events
    }

    /// Brings what is announced for a Service in line with what may be and what is held.
    fn follow(&mut self, name: &ObjectName, reason: Reason) -> Vec<Event> {
        let next = self
            .may
            .get(name)
            .and_then(|may| part(may, |address| self.holds(may, address)));
        let former = match &next {
            Some(next) => self.services.insert(name.clone(), next.clone()),
            None => self.services.remove(name),
        };
        let lost = former
            .as_ref()
            .and_then(|former| part(former, |address| !has(next.as_ref(), address)));
        let gained = next
            .iter()
            .flat_map(|next| &next.addresses)
            .any(|address| !has(former.as_ref(), address));
        let withdrawn = lost.map(|lost| Event::Withdrawn(lost, reason));
        let announced = next.filter(|_| gained).map(Event::Announced);
        withdrawn.into_iter().chain(announced).collect()
    }

    /// Whether the address is held where `may` may be announced.
    fn holds(&self, may: &Announcement, address: &IpAddr) -> bool {
        let mut interfaces = self.held.get(address).into_iter().flatten();
        interfaces.any(|interface| may.reach.includes(interface))
    }

    /// What is announced for a Service now: with those of its addresses that are held on at least one interface within
    /// its reach.
    pub fn get(&self, name: &ObjectName) -> Option<&Announcement> {
        self.services.get(name)
    }

    /// What may be announced for a Service.
    pub fn may(&self, name: &ObjectName) -> Option<&Announcement> {
        self.may.get(name)
    }

    /// The Service's first address is announced from here. Where two nodes hold one of its addresses each, one of them
    /// leads.
    pub fn leads(&self, name: &ObjectName) -> bool {
        let first = |one: Option<&Announcement>| one.and_then(|one| one.addresses.first().copied());
        let announced = first(self.get(name));
        announced.is_some() && announced == first(self.may(name))
    }

    /// The interfaces on which an announced address of a Service is held, within its reach.
    pub fn interfaces(&self, name: &ObjectName) -> BTreeSet<&str> {
        let Some(announced) = self.get(name) else {
            return BTreeSet::new();
        };
        let held = announced
            .addresses
            .iter()
            .filter_map(|address| self.held.get(address));
        let names = held.flatten().map(String::as_str);
        names
            .filter(|name| announced.reach.includes(name))
            .collect()
    }

    /// The Services that may be announced with the address.
    pub fn with(&self, address: IpAddr) -> impl Iterator<Item = &ObjectName> {
        self.by_address.get(&address).into_iter().flatten()
    }

    /// What is held, and on which interface.
    pub fn held(&self) -> impl Iterator<Item = (IpAddr, String)> {
        let all = self.held.iter();
        all.flat_map(|(address, interfaces)| {
            let each = interfaces.iter();
            each.map(|interface| (*address, interface.clone()))
        })
    }

    /// The addresses held on an interface.
    pub fn held_on(&self, interface: &str) -> Vec<IpAddr> {
        let held = self.held.iter();
        let here = held.filter(|(_, interfaces)| interfaces.contains(interface));
        here.map(|(address, _)| *address).collect()
    }

    /// Whether the address is held on any interface.
    pub fn is_held(&self, address: IpAddr) -> bool {
        self.held.contains_key(&address)
    }
}

fn has(one: Option<&Announcement>, address: &IpAddr) -> bool {
    one.is_some_and(|one| one.addresses.contains(address))
}

/// An announcement with those of its addresses that fit; none if none does.
fn part(whole: &Announcement, fits: impl Fn(&IpAddr) -> bool) -> Option<Announcement> {
    let addresses: Vec<_> = whole.addresses.iter().copied().filter(fits).collect();
    (!addresses.is_empty()).then(|| Announcement {
        addresses,
        ..whole.clone()
    })
}

#[cfg(test)]
mod tests {
    use ferrolb_config::Origin;

    use super::{Announced, Announcement, Event, IpAddr, ObjectName, Reason, Verdict};
    use crate::reach::Reach;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn announcement(addresses: &[u8]) -> Announcement {
        Announcement {
            pool: "p".to_owned(),
            origin: Origin::ConfigMap,
            addresses: addresses.iter().map(|last| ip(*last)).collect(),
            reach: Reach::Everywhere,
        }
    }

    fn on(addresses: &[u8], interfaces: &[&str]) -> Announcement {
        let names = interfaces.iter().map(|name| (*name).to_owned());
        Announcement {
            reach: Reach::Only(names.collect()),
            ..announcement(addresses)
        }
    }

    fn may(addresses: &[u8]) -> Verdict {
        Verdict::May(announcement(addresses))
    }

    fn name(name: &str) -> ObjectName {
        ObjectName::new("ns", name)
    }

    fn elsewhere(last: u8) -> Reason {
        Reason::HeldElsewhere {
            address: ip(last),
            holder: Some("n2".to_owned()),
        }
    }

    /// What is told of the Service `a` alone.
    fn of_a(events: Vec<(ObjectName, Event)>) -> Vec<Event> {
        let each = events.into_iter();
        each.map(|(service, event)| {
            assert_eq!(service, name("a"));
            event
        })
        .collect()
    }

    #[test]
    fn what_may_be_is_announced_while_it_is_held() {
        let mut announced = Announced::new();
        assert_eq!(announced.apply(&name("a"), may(&[1, 2])), []);
        assert_eq!(announced.may(&name("a")), Some(&announcement(&[1, 2])));
        assert_eq!(announced.get(&name("a")), None);
        assert!(!announced.leads(&name("a")) && !announced.is_held(ip(1)));

        let second = of_a(announced.hold(ip(2), "eth0", None));
        assert_eq!(second, [Event::Announced(announcement(&[2]))]);
        assert!(!announced.leads(&name("a")), "another has the first");
        let first = of_a(announced.hold(ip(1), "eth0", None));
        assert_eq!(first, [Event::Announced(announcement(&[1, 2]))]);
        assert!(announced.leads(&name("a")) && announced.is_held(ip(1)));
        assert_eq!(announced.get(&name("a")), Some(&announcement(&[1, 2])));

        let lost = of_a(announced.hold(ip(1), "eth0", Some(elsewhere(1))));
        assert_eq!(lost, [Event::Withdrawn(announcement(&[1]), elsewhere(1))]);
        assert_eq!(announced.get(&name("a")), Some(&announcement(&[2])));
        assert!(!announced.leads(&name("a")) && !announced.is_held(ip(1)));
        let silent = announced.apply(&name("a"), Verdict::Silent(Reason::NoEndpoints));
        let withdrawn = Event::Withdrawn(announcement(&[2]), Reason::NoEndpoints);
        assert_eq!(silent, [withdrawn]);
        assert_eq!(announced.get(&name("a")), None);
        assert_eq!(announced.may(&name("a")), None);
        // The arbiter follows, and nothing is left to tell.
        assert!(announced.is_held(ip(2)));
        let gone = announced.hold(ip(2), "eth0", Some(Reason::NoEndpoints));
        assert_eq!(gone, []);
        assert!(!announced.is_held(ip(2)));
    }

    #[test]
    fn what_is_held_before_it_may_be_announced_is_announced_with_the_verdict() {
        let mut announced = Announced::new();
        assert_eq!(announced.hold(ip(1), "eth0", None), []);
        let events = announced.apply(&name("a"), may(&[1]));
        assert_eq!(events, [Event::Announced(announcement(&[1]))]);
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let mut announced = Announced::new();
        announced.apply(&name("a"), may(&[1, 2]));
        announced.hold(ip(1), "eth0", None);
        assert_eq!(announced.apply(&name("a"), may(&[1, 2])), []);
        assert_eq!(announced.hold(ip(1), "eth0", None), []);
        assert_eq!(announced.hold(ip(2), "eth0", Some(elsewhere(2))), []);
        let silent = Verdict::Silent(Reason::NoEndpoints);
        assert_eq!(announced.apply(&name("b"), silent), []);
    }

    #[test]
    fn another_interface_is_no_other_announcement() {
        let mut announced = Announced::new();
        announced.apply(&name("a"), may(&[1, 2]));
        announced.hold(ip(1), "eth0", None);
        assert_eq!(announced.hold(ip(1), "eth1", None), []);
        announced.hold(ip(2), "eth2", None);
        let interfaces = announced.interfaces(&name("a"));
        assert!(interfaces.into_iter().eq(["eth0", "eth1", "eth2"]));
        assert_eq!(announced.hold(ip(1), "eth0", Some(elsewhere(1))), []);
        assert_eq!(announced.get(&name("a")), Some(&announcement(&[1, 2])));
        let interfaces = announced.interfaces(&name("a"));
        assert!(interfaces.into_iter().eq(["eth1", "eth2"]));
        assert!(announced.interfaces(&name("b")).is_empty());
    }

    #[test]
    fn an_address_held_beyond_the_reach_of_a_service_is_not_announced_for_it() {
        let mut announced = Announced::new();
        announced.apply(&name("a"), Verdict::May(on(&[1], &["eth0"])));
        announced.apply(&name("b"), may(&[1]));
        let events = announced.hold(ip(1), "eth1", None);
        let told = (name("b"), Event::Announced(announcement(&[1])));
        assert_eq!(events, [told]);
        assert!(announced.interfaces(&name("a")).is_empty());
        let events = announced.hold(ip(1), "eth0", None);
        let told = (name("a"), Event::Announced(on(&[1], &["eth0"])));
        assert_eq!(events, [told]);
        assert!(announced.interfaces(&name("a")).into_iter().eq(["eth0"]));
        // Its advertisement names another one, where nothing is held yet; then one where it is.
        let events = announced.apply(&name("a"), Verdict::May(on(&[1], &["eth2"])));
        let former = on(&[1], &["eth0"]);
        assert_eq!(
            events,
            [Event::Withdrawn(former, Reason::InterfacesChanged)]
        );
        let both = on(&[1], &["eth1", "eth2"]);
        let events = announced.apply(&name("a"), Verdict::May(both.clone()));
        assert_eq!(events, [Event::Announced(both)]);
    }

    #[test]
    fn a_shared_address_comes_and_goes_for_all_that_may_be_announced() {
        let mut announced = Announced::new();
        announced.apply(&name("a"), may(&[1]));
        announced.apply(&name("b"), may(&[2, 1]));
        let told: Vec<_> = announced.hold(ip(1), "eth0", None);
        let expected = ["a", "b"].map(|one| (name(one), Event::Announced(announcement(&[1]))));
        assert_eq!(told, expected);
        let deleted = announced.apply(&name("a"), Verdict::Silent(Reason::ServiceDeleted));
        let withdrawn = Event::Withdrawn(announcement(&[1]), Reason::ServiceDeleted);
        assert_eq!(deleted, [withdrawn]);
        assert_eq!(announced.get(&name("b")), Some(&announcement(&[1])));
        let told = announced.hold(ip(1), "eth0", Some(elsewhere(1)));
        let withdrawn = Event::Withdrawn(announcement(&[1]), elsewhere(1));
        assert_eq!(told, [(name("b"), withdrawn)]);
    }

    #[test]
    fn changed_addresses_tell_what_goes_and_what_comes() {
        let mut announced = Announced::new();
        for last in 1..4 {
            announced.hold(ip(last), "eth0", None);
        }
        announced.apply(&name("a"), may(&[1, 2]));
        let events = announced.apply(&name("a"), may(&[2, 3]));
        assert_eq!(
            events,
            [
                Event::Withdrawn(announcement(&[1]), Reason::LoadBalancerIpChanged),
                Event::Announced(announcement(&[2, 3]))
            ]
        );
        // In another order they are the same, but another one leads.
        assert_eq!(announced.apply(&name("a"), may(&[3, 2])), []);
        assert_eq!(announced.get(&name("a")), Some(&announcement(&[3, 2])));
        assert!(announced.leads(&name("a")));
    }
}
