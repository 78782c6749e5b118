//! Whether the network learned that an address has moved: who asked for it of late, and the gateways, are told to their
//! face, and told again until an answer of theirs shows that they know.
//!
//! Gratuitous frames are told to all and believed by most: some hosts ignore them for a second after the last change, some
//! altogether, and a switch under load drops broadcasts first. A host that is asked a question *by* the address has to learn
//! where the address is to answer it (RFC 826), and where its answer arrives shows what it believes.
//!
//! A machine without clock or socket: [`Repair::asked`], [`Repair::taken`], [`Repair::released`] and [`Repair::heard`] say
//! what happens, [`Repair::due`] hands out what is to be said, [`Repair::next_deadline`] says when to ask again.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// From one telling to the next, the first being at once: 3 s in all. The second comes after the second in which Linux
/// ignores a change (`locktime`).
const AGAIN: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_millis(1800),
];

/// Pairs of host and address remembered of those who asked.
const REMEMBERED: usize = 4096;

/// How long ago a host may have asked: kernels forget what they do not use within minutes.
const RECENT: Duration = Duration::from_mins(10);

/// A host that asks again is noted anew only after this long, so that who asks often does not crowd out others.
const NOTED: Duration = Duration::from_mins(1);

/// Lessons under way at once; who is beyond them learns from gratuitous frames, as everybody does.
const UNDER_WAY: usize = 2048;

/// Tellings a second.
const PACE: u32 = 1000;

/// A host as others find it: its own address and its hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    /// Its address, of the same family as what it asks for.
    pub address: IpAddr,
    /// Where it is.
    pub mac: [u8; 6],
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// Ask the host, and only it, where it is, in the name of the address.
    Tell {
        /// The address that has moved.
        address: IpAddr,
        /// The host.
        host: Host,
    },
    /// The host has not shown that it knows: it may still send to where the address was.
    Unlearned {
        /// The address that has moved.
        address: IpAddr,
        /// The host.
        host: Host,
    },
}

#[derive(Clone, Copy, Debug)]
struct Pupil {
    mac: [u8; 6],
    due: Instant,
    told: usize,
}

/// Who is to learn what. One for each interface.
#[derive(Debug, Default)]
pub struct Repair {
    /// For each address who asked for it last, and when.
    askers: HashMap<IpAddr, HashMap<IpAddr, ([u8; 6], Instant)>>,
    /// The same by address and host in order of time, with what was noted again since.
    order: VecDeque<(Instant, (IpAddr, IpAddr))>,
    /// By address and host.
    pupils: BTreeMap<(IpAddr, IpAddr), Pupil>,
    /// The same by time.
    agenda: BTreeSet<(Instant, (IpAddr, IpAddr))>,
    /// When all that was said so far will have been said at the pace.
    paid_until: Option<Instant>,
}

impl Repair {
    /// Nobody has asked for anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// A host asked everybody for an address of ours: should it move here, it is told.
    pub fn asked(&mut self, address: IpAddr, host: Host, now: Instant) {
        let noted = |(mac, at): &([u8; 6], Instant)| {
            *mac == host.mac && now.saturating_duration_since(*at) < NOTED
        };
        let askers = self.askers.entry(address).or_default();
        if askers.get(&host.address).is_some_and(noted) {
            return;
        }
        askers.insert(host.address, (host.mac, now));
        self.order.push_back((now, (address, host.address)));
        while self.order.len() > REMEMBERED
            || self
                .order
                .front()
                .is_some_and(|(at, _)| now.saturating_duration_since(*at) > RECENT)
        {
            let Some((at, (address, host))) = self.order.pop_front() else {
                break;
            };
            if let Some(askers) = self.askers.get_mut(&address) {
                // Unless it asked again since.
                if askers.get(&host).is_some_and(|(_, last)| *last == at) {
                    askers.remove(&host);
                }
                if askers.is_empty() {
                    self.askers.remove(&address);
                }
            }
        }
    }

    /// The address is answered for here from now on: whoever asked for it of late is told, and the `gateways`.
    pub fn taken(&mut self, address: IpAddr, gateways: &[Host], now: Instant) {
        if self.pupils.len() >= UNDER_WAY {
            return;
        }
        let askers = self.askers.get(&address).into_iter().flatten();
        let askers = askers.filter(|(_, (_, at))| now.saturating_duration_since(*at) <= RECENT);
        let askers = askers.map(|(host, (mac, _))| Host {
            address: *host,
            mac: *mac,
        });
        let hosts: BTreeSet<Host> = askers
            .chain(gateways.iter().copied())
            .filter(|host| host.address.is_ipv4() == address.is_ipv4())
            .collect();
        for host in hosts {
            if self.pupils.len() >= UNDER_WAY {
                return;
            }
            let pair = (address, host.address);
            self.end(pair);
            let pupil = Pupil {
                mac: host.mac,
                due: now,
                told: 0,
            };
            self.pupils.insert(pair, pupil);
            self.agenda.insert((now, pair));
        }
    }

    /// The address is not answered for here any more: what others believe about it is not ours to teach.
    pub fn released(&mut self, address: IpAddr) {
        let first = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let last = IpAddr::V6(Ipv6Addr::from(u128::MAX));
        let pairs = self.pupils.range((address, first)..=(address, last));
        for pair in pairs.map(|(pair, _)| *pair).collect::<Vec<_>>() {
            self.end(pair);
        }
    }

    /// A host sent something to the address that arrived here, and nowhere else: it knows.
    pub fn heard(&mut self, address: IpAddr, host: IpAddr) {
        self.end((address, host));
    }

    /// When to call [`due`](Self::due) next; none while there is nothing to say.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (first, _) = self.agenda.first()?;
        Some(self.paid_until.map_or(*first, |paid| paid.max(*first)))
    }

    /// What is to be said now; none when that was all.
    pub fn due(&mut self, now: Instant) -> Option<Lesson> {
        if self.next_deadline()? > now {
            return None;
        }
        let (_, pair) = self.agenda.pop_first()?;
        let pupil = self.pupils.get_mut(&pair)?;
        let (address, host) = pair;
        let host = Host {
            address: host,
            mac: pupil.mac,
        };
        let Some(pause) = AGAIN.get(pupil.told).copied() else {
            self.pupils.remove(&pair);
            return Some(Lesson::Unlearned { address, host });
        };
        pupil.told += 1;
        pupil.due = now + pause;
        self.agenda.insert((pupil.due, pair));
        let from = self.paid_until.map_or(now, |paid| paid.max(now));
        self.paid_until = Some(from + Duration::from_secs(1) / PACE);
        Some(Lesson::Tell { address, host })
    }

    fn end(&mut self, pair: (IpAddr, IpAddr)) {
        if let Some(pupil) = self.pupils.remove(&pair) {
            self.agenda.remove(&(pupil.due, pair));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn host(last: u8) -> Host {
        Host {
            address: [192, 0, 2, last].into(),
            mac: [2, 0, 0, 0, 0, last],
        }
    }

    fn all_due(repair: &mut Repair, now: Instant) -> Vec<Lesson> {
        std::iter::from_fn(|| repair.due(now)).collect()
    }

    #[test]
    fn who_asked_and_the_gateway_are_told_until_they_know_or_are_given_up() {
        let start = Instant::now();
        let mut repair = Repair::new();
        repair.asked(VIP, host(50), start);
        repair.asked([192, 0, 2, 2].into(), host(51), start);
        repair.taken(VIP, &[host(254)], start);
        let tell = |host| Lesson::Tell { address: VIP, host };
        assert_eq!(repair.due(start), Some(tell(host(50))));
        let soon = start + Duration::from_millis(2);
        assert_eq!(all_due(&mut repair, soon), [tell(host(254))]);
        repair.heard(VIP, host(254).address);
        let mut told = 1;
        let mut last = None;
        while let Some(at) = repair.next_deadline() {
            match repair.due(at).unwrap() {
                Lesson::Tell { host: to, .. } => {
                    assert_eq!(to, host(50));
                    told += 1;
                }
                Lesson::Unlearned { host: who, .. } => last = Some((at, who)),
            }
        }
        assert_eq!(told, 3);
        assert_eq!(last, Some((start + Duration::from_secs(3), host(50))));
    }

    #[test]
    fn what_is_let_go_is_taught_no_longer() {
        let start = Instant::now();
        let mut repair = Repair::new();
        repair.taken(VIP, &[host(254)], start);
        repair.released(VIP);
        assert_eq!(repair.next_deadline(), None);
    }

    #[test]
    fn who_asked_long_ago_is_forgotten() {
        let start = Instant::now();
        let mut repair = Repair::new();
        repair.asked(VIP, host(50), start);
        let later = start + RECENT + Duration::from_secs(1);
        repair.taken(VIP, &[], later);
        assert_eq!(repair.next_deadline(), None);
    }

    proptest! {
        /// Whatever happens in whatever order: memory and pace stay within their bounds, and it ends.
        #[test]
        fn bounded(steps in prop::collection::vec((0..4_u8, 0..20_u8, 0..40_u8, 0..500_u64), 1..400)) {
            let mut now = Instant::now();
            let mut repair = Repair::new();
            let mut said = VecDeque::new();
            for (kind, address, asker, wait) in steps {
                now += Duration::from_millis(wait);
                let address = [198, 51, 100, address].into();
                match kind {
                    0 => repair.asked(address, host(asker), now),
                    1 => repair.taken(address, &[host(254)], now),
                    2 => repair.released(address),
                    _ => repair.heard(address, host(asker).address),
                }
                while let Some(Lesson::Tell { .. }) = repair.due(now) {
                    said.push_back(now);
                }
                let askers: usize = repair.askers.values().map(HashMap::len).sum();
                prop_assert!(repair.order.len() <= REMEMBERED && askers <= repair.order.len());
                prop_assert_eq!(repair.pupils.len(), repair.agenda.len());
                said.retain(|at| now.saturating_duration_since(*at) < Duration::from_secs(1));
                prop_assert!(said.len() <= PACE as usize + 1);
            }
            for _ in 0..UNDER_WAY * 5 {
                let Some(at) = repair.next_deadline() else { break };
                repair.due(at);
            }
            prop_assert_eq!(repair.next_deadline(), None);
        }
    }
}
