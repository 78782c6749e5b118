//! For how long an address counts as disputed, and when a Service is told to leave one (`--on-conflict=reassign`).
//!
//! Speakers ask about an address only while a Service has it. So a report that ends while a Service has it says that the host
//! is gone; one that ends otherwise says nothing, and the address is given out last for a while. That is forgotten with
//! the process, for the next one learns as this did: the address is asked for before it is first answered for.
//!
//! Any host on the segment can answer for any address. What that moves is bounded: a Service once a minute, all together
//! ten times in ten minutes.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use ferrolb_config::ObjectName;
use ferrolb_controller_core::Stranger;

/// How long an address is given out last after a report about which nobody asks any more. It costs nothing but the order.
const REST: Duration = Duration::from_hours(1);
/// How often at most one Service is told to leave an address.
const EACH: Duration = Duration::from_mins(1);
/// How many times in [`WINDOW`] at most any Service is.
const MOST: usize = 10;
const WINDOW: Duration = Duration::from_mins(10);

/// What is known of disputed addresses.
#[derive(Debug, Default)]
pub struct Disputes {
    reassign: bool,
    /// What is reported now.
    standing: BTreeMap<IpAddr, Stranger>,
    resting: BTreeMap<IpAddr, Rest>,
    /// When a Service was told to leave an address last.
    told: BTreeMap<ObjectName, Instant>,
    /// When any was, the latest last.
    recent: VecDeque<Instant>,
    /// When time alone changes something next.
    wake: Option<Instant>,
}

/// An address about which nobody asks any more.
#[derive(Debug)]
struct Rest {
    host: String,
    /// None: not reckoned yet.
    until: Option<Instant>,
}

impl Disputes {
    /// Whether Services are moved at all.
    pub fn reassign(&mut self, reassign: bool) {
        self.reassign = reassign;
    }

    /// What speakers say of an address now: the host that has it, if any. `asked`: a speaker asks about the address and said
    /// so, so that nobody has it if it names none.
    pub fn report(&mut self, address: IpAddr, host: Option<&str>, asked: bool) {
        let Some(host) = host else {
            let ended = self.standing.remove(&address);
            if let Some(ended) = ended.filter(|_| !asked) {
                let host = ended.host;
                self.resting.insert(address, Rest { host, until: None });
            }
            return;
        };
        self.resting.remove(&address);
        let host = host.to_owned();
        self.standing
            .entry(address)
            .and_modify(|stranger| stranger.host.clone_from(&host))
            .or_insert(Stranger { host, leave: false });
    }

    /// All that is disputed, as the allocator is to know it.
    pub fn strangers(&self) -> BTreeMap<IpAddr, Stranger> {
        let resting = self.resting.iter().map(|(address, rest)| {
            let host = rest.host.clone();
            (*address, Stranger { host, leave: false })
        });
        let standing = self.standing.iter();
        let standing = standing.map(|(address, stranger)| (*address, stranger.clone()));
        resting.chain(standing).collect()
    }

    /// The addresses that are to be left.
    pub fn left(&self) -> impl Iterator<Item = IpAddr> {
        let left = self.standing.iter().filter(|(_, stranger)| stranger.leave);
        left.map(|(address, _)| *address)
    }

    /// When [`tick`](Self::tick) is due; none if only reports change anything.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.wake
    }

    /// What the time changes; whether it changed anything. `movable`: the Services that have an address and did not ask
    /// for it.
    pub fn tick(&mut self, now: Instant, movable: impl Fn(IpAddr) -> Vec<ObjectName>) -> bool {
        for rest in self.resting.values_mut() {
            rest.until.get_or_insert(now + REST);
        }
        let before = self.resting.len();
        let rests = |rest: &mut Rest| rest.until.is_some_and(|until| now < until);
        self.resting.retain(|_, rest| rests(rest));
        self.wake = self.resting.values().filter_map(|rest| rest.until).min();
        let told = self.reassign && self.tell(now, movable);
        told || self.resting.len() != before
    }

    /// Tells Services to leave disputed addresses, as many as may be.
    fn tell(&mut self, now: Instant, movable: impl Fn(IpAddr) -> Vec<ObjectName>) -> bool {
        self.told.retain(|_, at| now < *at + EACH);
        while self.recent.front().is_some_and(|at| now >= *at + WINDOW) {
            self.recent.pop_front();
        }
        let mut changed = false;
        let undecided = self.standing.iter_mut();
        for (address, stranger) in undecided.filter(|(_, stranger)| !stranger.leave) {
            let names = movable(*address);
            if names.is_empty() {
                continue;
            }
            let of_late = names.iter().filter_map(|name| self.told.get(name)).max();
            let full = self.recent.front().filter(|_| self.recent.len() >= MOST);
            let next = [of_late.map(|at| *at + EACH), full.map(|at| *at + WINDOW)];
            if let Some(next) = next.into_iter().flatten().max() {
                self.wake = Some(self.wake.map_or(next, |wake| wake.min(next)));
                continue;
            }
            stranger.leave = true;
            self.recent.push_back(now);
            self.told.extend(names.into_iter().map(|name| (name, now)));
            changed = true;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// Each address is that of a Service of its own.
    fn own(address: IpAddr) -> Vec<ObjectName> {
        vec![ObjectName::new("default", address.to_string())]
    }

    fn left(disputes: &Disputes) -> Vec<IpAddr> {
        disputes.left().collect()
    }

    #[test]
    fn what_nobody_asks_about_any_more_rests_for_an_hour() {
        let (mut disputes, start) = (Disputes::default(), Instant::now());
        disputes.report(ip(1), Some("x"), true);
        assert!(!disputes.tick(start, own) && disputes.next_deadline().is_none());
        assert_eq!(disputes.strangers().len(), 1);
        assert!(left(&disputes).is_empty(), "nobody moves unless asked to");
        // While a Service has it the end is an end.
        disputes.report(ip(1), None, true);
        assert!(disputes.strangers().is_empty());
        disputes.report(ip(1), Some("x"), false);
        disputes.report(ip(1), None, false);
        disputes.tick(start, own);
        assert_eq!(disputes.next_deadline(), Some(start + REST));
        assert!(!disputes.tick(start + SECOND, own));
        assert_eq!(disputes.strangers()[&ip(1)].host, "x");
        assert!(disputes.tick(start + REST, own));
        assert!(disputes.strangers().is_empty() && disputes.next_deadline().is_none());
    }

    #[test]
    fn a_service_is_told_once_a_minute() {
        let (mut disputes, start) = (Disputes::default(), Instant::now());
        disputes.reassign(true);
        let one = |_| vec![ObjectName::new("default", "a")];
        disputes.report(ip(1), Some("x"), true);
        assert!(disputes.tick(start, one));
        assert_eq!(left(&disputes), [ip(1)]);
        // It left, and the host follows.
        disputes.report(ip(1), None, false);
        disputes.report(ip(2), Some("x"), true);
        assert!(!disputes.tick(start + SECOND, one));
        assert_eq!(disputes.next_deadline(), Some(start + EACH));
        assert!(disputes.tick(start + EACH, one));
        assert_eq!(left(&disputes), [ip(2)]);
        // Another host: nothing new.
        disputes.report(ip(2), Some("y"), true);
        assert_eq!(left(&disputes), [ip(2)]);
    }

    #[test]
    fn ten_are_told_in_ten_minutes_and_who_asked_is_not_counted() {
        let (mut disputes, start) = (Disputes::default(), Instant::now());
        disputes.reassign(true);
        for last in 1..=30 {
            disputes.report(ip(last), Some("x"), true);
        }
        let odd = |address: IpAddr| match address {
            IpAddr::V4(four) if four.octets()[3] % 2 == 1 => own(address),
            _ => Vec::new(),
        };
        assert!(disputes.tick(start, odd));
        assert_eq!(left(&disputes).len(), 10);
        assert!(!disputes.tick(start + EACH, odd));
        assert_eq!(disputes.next_deadline(), Some(start + WINDOW));
        assert!(disputes.tick(start + WINDOW, odd));
        assert_eq!(left(&disputes).len(), 15);
        assert!(disputes.next_deadline().is_none());
    }
}
