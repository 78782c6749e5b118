//! Opens sockets as interfaces come, closes them as they go, starts what is due unasked, and replaces what ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrolb_speaker_core::Burst;
use ferrolb_speaker_socket::{Groups, PacketSocket};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::announce::announce;
use super::answer::answer;
use super::protocol::Protocol;
use crate::interfaces::{Interface, Interfaces};
use crate::metrics::WireMetrics;
use crate::table::{Change, Held, Table};

/// How often sockets that failed or could not be opened are opened anew and the kernel's drop counters are read.
const UPKEEP: Duration = Duration::from_secs(1);

/// Addresses made known together: up to 64 frames, one call.
const ROUND: usize = 32;

/// What is open: an interface, and the protocol spoken there.
type Key = (NonZeroU32, Protocol);

/// An interface with its socket for one protocol and the tasks that use it, which end with it.
struct Link {
    interface: Interface,
    socket: Arc<PacketSocket>,
    answering: AbortHandle,
    /// When which address is made known. A pace protects the switch behind one interface, so each has its own: a node
    /// with a hundred of them should not keep its uplink waiting.
    burst: Burst<IpAddr>,
    /// The groups of the held addresses; NDP only, ARP asks everybody.
    groups: Option<Groups>,
    /// The frames on their way, if there are any; the next wait for them.
    announcing: Option<AbortHandle>,
}

impl Link {
    fn is_announcing(&self) -> bool {
        self.announcing
            .as_ref()
            .is_some_and(|task| !task.is_finished())
    }
}

impl Link {
    /// Joins the group of an address that is held from now on.
    fn join_group(&mut self, address: IpAddr) {
        if let (Some(groups), IpAddr::V6(address)) = (&mut self.groups, address)
            && let Err(error) = groups.take(address)
        {
            tracing::warn!(op = "watchMulticastGroup", interface = self.interface.name, ip = %address, error = %error,
                "neighbours may not find an IPv6 address here, trying again");
        }
    }

    fn leave_group(&mut self, address: IpAddr) {
        if let (Some(groups), IpAddr::V6(address)) = (&mut self.groups, address) {
            groups.release(address);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.answering.abort();
        if let Some(announcing) = &self.announcing {
            announcing.abort();
        }
    }
}

pub(super) struct Supervisor {
    table: Table,
    metrics: WireMetrics,
    stop: CancellationToken,
    /// What should be open.
    wanted: Interfaces,
    /// What is.
    links: BTreeMap<Key, Link>,
    /// The tasks that answer, one for each link. They end when their socket fails.
    answering: JoinSet<io::Error>,
    /// The tasks that send gratuitous frames, at most one for each link.
    announcing: JoinSet<()>,
    /// The held addresses, kept in step with the table by its changes.
    known: HashMap<IpAddr, Arc<Held>>,
}

impl Supervisor {
    pub(super) fn new(table: Table, metrics: WireMetrics, stop: CancellationToken) -> Self {
        Self {
            table,
            metrics,
            stop,
            wanted: Interfaces::new(),
            links: BTreeMap::new(),
            answering: JoinSet::new(),
            announcing: JoinSet::new(),
            known: HashMap::new(),
        }
    }

    /// Runs until it is to stop; every socket is closed when it returns.
    pub(super) async fn run(mut self, mut interfaces: watch::Receiver<Interfaces>) {
        let mut upkeep = interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = true;
        interfaces.mark_changed();
        loop {
            let deadline = self.next_deadline(Instant::now());
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                changed = interfaces.changed(), if told => {
                    // The sender goes first when the process stops: then what is open stays until we are told to stop.
                    told = changed.is_ok();
                    self.wanted = interfaces.borrow_and_update().clone();
                    self.match_interfaces();
                }
                () = self.table.changed() => self.match_table(),
                Some(ended) = self.answering.join_next_with_id() => self.answering_ended(ended),
                Some(ended) = self.announcing.join_next() => announcing_ended(ended),
                _ = upkeep.tick() => self.upkeep(),
                () = sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => {
                    self.send_due();
                }
            }
        }
    }

    /// Closes what is no longer wanted or has changed, and opens what is missing.
    fn match_interfaces(&mut self) {
        let wanted = &self.wanted;
        let mut back = Vec::new();
        self.links.retain(|(index, protocol), link| {
            let stays = wanted.get(index).filter(|wanted| {
                protocol.fits(wanted)
                    && wanted.name == link.interface.name
                    && wanted.mac == link.interface.mac
            });
            let Some(now) = stays else {
                let [_, ended] = protocol.events();
                tracing::info!(
                    event = ended,
                    interface = link.interface.name,
                    "stopped answering on an interface"
                );
                return false;
            };
            if now.running && !link.interface.running {
                back.push((*index, *protocol));
            }
            link.interface.running = now.running;
            true
        });
        for key in back {
            self.make_all_known(key);
        }
        for (protocol, interface) in self.missing() {
            self.open(protocol, interface);
        }
        self.count_links();
    }

    /// What should be open and is not.
    fn missing(&self) -> Vec<(Protocol, Interface)> {
        let wanted = self.wanted.values();
        let spoken = wanted.flat_map(|interface| Protocol::ALL.map(|spoken| (spoken, interface)));
        spoken
            .filter(|(protocol, interface)| {
                protocol.fits(interface) && !self.links.contains_key(&(interface.index, *protocol))
            })
            .map(|(protocol, interface)| (protocol, interface.clone()))
            .collect()
    }

    fn count_links(&self) {
        let open: BTreeSet<_> = self.links.keys().map(|(index, _)| index).collect();
        let open = i64::try_from(open.len()).unwrap_or(i64::MAX);
        self.metrics.interfaces.set(open);
    }

    fn open(&mut self, protocol: Protocol, interface: Interface) {
        let [created, _] = protocol.events();
        let socket = match protocol.open(interface.index) {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                self.metrics.open_errors.inc();
                tracing::error!(op = created, interface = interface.name, error = %error,
                    "cannot answer on an interface, trying again");
                return;
            }
        };
        let work = answer(
            protocol,
            socket.clone(),
            interface.clone(),
            self.table.clone(),
            self.metrics.clone(),
        );
        let answering = self.answering.spawn(work);
        tracing::info!(event = created, interface = interface.name, mac = %interface.mac,
            "answering on an interface");
        let key = (interface.index, protocol);
        let running = interface.running;
        let groups = match protocol {
            Protocol::Arp => None,
            Protocol::Ndp => Some(Groups::new(socket.clone())),
        };
        let mut link = Link {
            interface,
            socket,
            answering,
            burst: Burst::new(protocol.frames_a_round()),
            groups,
            announcing: None,
        };
        for (address, holding) in &self.known {
            if holding.reaches(&link.interface.name) {
                link.join_group(*address);
            }
        }
        self.links.insert(key, link);
        if running {
            self.make_all_known(key);
        }
    }

    /// Starts the rounds of every held address on an interface whose neighbours have not heard of them, or may have
    /// forgotten: one that is new, or whose carrier came back.
    fn make_all_known(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        let now = Instant::now();
        let (_, protocol) = key;
        let held = self.known.iter();
        let held = held.filter(|(address, _)| Protocol::of(**address) == protocol);
        let spoken_for = held.filter(|(_, holding)| holding.reaches(&link.interface.name));
        for (address, _) in spoken_for {
            link.burst.withdraw(address);
            link.burst.take(*address, now);
        }
    }

    /// Schedules addresses newly taken and forgets released ones. One released and taken again between two looks is
    /// scheduled anew; one that moves to other interfaces is made known on those it was not on.
    fn match_table(&mut self) {
        let now = Instant::now();
        for change in self.table.take_changes() {
            let (address, holding, taken) = match change {
                Change::Taken(address, holding) => (address, Some(holding), true),
                Change::Moved(address, holding) => (address, Some(holding), false),
                Change::Released(address) => (address, None, false),
            };
            let former = match &holding {
                Some(holding) => self.known.insert(address, holding.clone()),
                None => self.known.remove(&address),
            };
            let links = self.links.iter_mut();
            let links = links.filter(|((_, protocol), _)| *protocol == Protocol::of(address));
            for (_, link) in links {
                let here = |held: &Arc<Held>| held.reaches(&link.interface.name);
                let was = former.as_ref().is_some_and(here);
                let is = holding.as_ref().is_some_and(here);
                if is && !was {
                    link.join_group(address);
                }
                if was && !is {
                    link.leave_group(address);
                    link.burst.withdraw(&address);
                }
                if is && (taken || !was) && link.interface.running {
                    link.burst.take(address, now);
                }
            }
        }
    }

    /// When [`send_due`](Self::send_due) has something to do; none while nothing is scheduled on any interface that could
    /// take it. One that is busy is looked at again when its task ends.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let idle = self.links.values().filter(|link| !link.is_announcing());
        idle.filter_map(|link| link.burst.next_deadline(now)).min()
    }

    /// Starts to send what is due, on every interface that is not busy with what was due before.
    fn send_due(&mut self) {
        let now = Instant::now();
        for link in self.links.values_mut() {
            if link.is_announcing() {
                continue;
            }
            let due = std::iter::from_fn(|| link.burst.due(now)).take(ROUND);
            let addresses: Vec<_> = due
                .filter_map(|address| Some((address, self.known.get(&address)?.clone())))
                .collect();
            if !addresses.is_empty() {
                link.announcing = Some(self.announcing.spawn(announce(
                    link.socket.clone(),
                    link.interface.clone(),
                    addresses,
                    self.table.clone(),
                    self.metrics.clone(),
                    self.stop.clone(),
                )));
            }
        }
    }

    /// An answering task ended. Those we stopped are no longer among the links. One that returned had a socket that
    /// failed, as happens when its interface goes down or to another network namespace; one that panicked is a fault.
    /// Either way the upkeep opens the interface anew, if it is still there: up to a second later, so that neither an
    /// interface that stays down nor a frame that brings the task down each time can keep us busy.
    fn answering_ended(&mut self, ended: Result<(Id, io::Error), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let links = self.links.iter();
        let fallen = links
            .filter(|(_, link)| link.answering.id() == id)
            .map(|(key, _)| *key)
            .next();
        let Some(link) = fallen.and_then(|key| self.links.remove(&key)) else {
            return;
        };
        self.count_links();
        match ended {
            Ok((_, error)) => {
                tracing::warn!(op = "receive", interface = link.interface.name, error = %error,
                    "cannot listen on an interface any longer, opening it anew if it stays");
            }
            Err(fault) => {
                self.metrics.restarts.inc();
                tracing::error!(op = "respond", interface = link.interface.name, error = %fault, bug = "true",
                    "an answering task fell, starting it again");
            }
        }
    }

    fn upkeep(&mut self) {
        if !self.missing().is_empty() {
            self.match_interfaces();
        }
        for link in self.links.values_mut() {
            if let Some(Err(error)) = link.groups.as_mut().map(Groups::join_missing) {
                tracing::debug!(op = "watchMulticastGroup", interface = link.interface.name, error = %error, "still not joined");
            }
            if let Ok(drops) = link.socket.take_kernel_drops() {
                self.metrics.kernel_drops.inc_by(drops.into());
            }
        }
    }
}

/// A task that sent gratuitous frames ended, or was stopped with its link.
fn announcing_ended(ended: Result<(), JoinError>) {
    if let Err(fault) = ended
        && fault.is_panic()
    {
        tracing::error!(op = "gratuitousAnnounce", error = %fault, bug = "true", "a round fell");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::time::Instant;

    use ferrolb_speaker_core::Reach;
    use tokio_util::sync::CancellationToken;

    use super::super::tests::{VIP, arping, in_lab, index, ip, said, table_of};
    use super::{Burst, Link, Protocol, ROUND, Supervisor};
    use crate::interfaces::{Interface, Interfaces};
    use crate::metrics::Metrics;
    use crate::table::Change;

    /// One that wants these interfaces and has opened none yet.
    fn supervisor(
        addresses: &[Ipv4Addr],
        wanted: impl IntoIterator<Item = Interface>,
    ) -> (Supervisor, Metrics) {
        let (table, metrics) = table_of(addresses);
        let mut supervisor = Supervisor::new(table, metrics.wire.clone(), CancellationToken::new());
        let wanted = wanted.into_iter();
        supervisor.wanted = wanted.map(|one| (one.index, one)).collect::<Interfaces>();
        (supervisor, metrics)
    }

    /// Input: an answering task that panics, as one would on a frame the decoder cannot bear.
    /// Output: the interface has no task, then a new one, and the fall is counted.
    #[test]
    fn a_task_that_panics_is_replaced() {
        in_lab(|lab| async move {
            let (mut supervisor, metrics) = supervisor(&[VIP], [lab.near.clone()]);
            let key = (lab.near.index, Protocol::Arp);
            let socket = Protocol::Arp.open(lab.near.index).unwrap();
            let answering = supervisor
                .answering
                .spawn(async { panic!("a frame nobody can bear") });
            let link = Link {
                interface: lab.near.clone(),
                socket: socket.into(),
                answering,
                burst: Burst::new(2),
                groups: None,
                announcing: None,
            };
            supervisor.links.insert(key, link);

            let ended = supervisor.answering.join_next_with_id().await.unwrap();
            supervisor.answering_ended(ended);
            assert!(supervisor.links.is_empty());
            assert_eq!(metrics.wire.restarts.get(), 1);

            supervisor.upkeep();
            assert!(supervisor.links.contains_key(&key));
            let said = lab.client.run(|| arping(VIP, 5)).await;
            assert!(said.contains("from 02:00:00:00:00:0a"), "{said}");
        });
    }

    /// Input: an interface that goes down, without its removal being told.
    /// Output: it is closed, counted as a failure of the socket and not as a fall, and opened anew at the next upkeep.
    #[test]
    fn a_socket_that_fails_is_replaced() {
        in_lab(|lab| async move {
            let (mut supervisor, metrics) = supervisor(&[VIP], [lab.near.clone()]);
            supervisor.match_interfaces();
            ip("link set near down");
            let ended = supervisor.answering.join_next_with_id().await.unwrap();
            supervisor.answering_ended(ended);
            assert_eq!(metrics.wire.interfaces.get(), 0);
            assert_eq!(metrics.wire.receive_errors.get(), 1);
            assert_eq!(metrics.wire.restarts.get(), 0);
            ip("link set near up");
            supervisor.upkeep();
            assert_eq!(metrics.wire.interfaces.get(), 1);
        });
    }

    /// Input: an address that moves from one interface to both, back, and to the other, while it is held.
    /// Output: rounds start on the interface it comes to, go on where it stays, and end where it leaves.
    #[test]
    fn an_address_that_moves_is_made_known_where_it_is_new() {
        in_lab(|lab| async move {
            ip("link add name more type veth peer name less");
            ip("link set less up");
            ip("link set more up");
            let more = Interface {
                index: index("more"),
                name: "more".to_owned(),
                ..lab.near.clone()
            };
            let keys = [lab.near.index, more.index].map(|index| (index, Protocol::Arp));
            let (mut supervisor, metrics) = supervisor(&[], [lab.near, more]);
            supervisor.match_interfaces();
            let pending =
                |supervisor: &Supervisor| keys.map(|key| supervisor.links[&key].burst.pending());
            let on = |names: &[&str]| {
                let names = names.iter().map(|name| (*name).to_owned());
                let held = metrics.held(&VIP.to_string());
                Arc::new(held.on(Reach::Only(names.collect())))
            };
            let tell = |supervisor: &mut Supervisor, change: Change| {
                supervisor.table.publish(HashMap::new(), vec![change]);
                supervisor.match_table();
            };
            tell(&mut supervisor, Change::Taken(VIP.into(), on(&["near"])));
            assert_eq!(pending(&supervisor), [1, 0]);
            // All rounds but the first are due later, so this is the second that is waited for.
            let now = Instant::now();
            let near = supervisor.links.get_mut(&keys[0]).unwrap();
            assert_eq!(near.burst.due(now), Some(VIP.into()));
            let second = near.burst.next_deadline(now);
            tell(
                &mut supervisor,
                Change::Moved(VIP.into(), on(&["more", "near"])),
            );
            assert_eq!(pending(&supervisor), [1, 1]);
            assert_eq!(supervisor.links[&keys[0]].burst.next_deadline(now), second);
            tell(&mut supervisor, Change::Moved(VIP.into(), on(&["more"])));
            assert_eq!(pending(&supervisor), [0, 1]);
            // An interface that comes now takes part only if the address reaches it.
            supervisor.links.clear();
            supervisor.match_interfaces();
            assert_eq!(pending(&supervisor), [0, 1]);
            tell(&mut supervisor, Change::Released(VIP.into()));
            assert_eq!(pending(&supervisor), [0, 0]);
        });
    }

    /// Input: many addresses at once on two interfaces, of which one has a queue that is always full.
    /// Output: the other's frames go at the pace one alone may have; the full one's wait, and keep nobody waiting.
    #[test]
    fn each_interface_has_a_pace_of_its_own() {
        in_lab(|lab| async move {
            ip("link add name more type veth peer name less");
            ip("link set less up");
            ip("link set more up");
            let more = Interface {
                index: index("more"),
                name: "more".to_owned(),
                ..lab.near.clone()
            };
            // The one with the full queue comes first in the order of indexes, too.
            assert!(lab.near.index < more.index);
            said("tc", "qdisc add dev near root pfifo limit 0");
            let addresses: Vec<_> = (0..100).map(|last| Ipv4Addr::new(10, 9, 1, last)).collect();
            let (mut supervisor, metrics) = supervisor(&addresses, [lab.near, more.clone()]);
            supervisor.match_interfaces();
            supervisor.match_table();
            let now = Instant::now();
            let mut lone = Burst::new(2);
            for address in &addresses {
                lone.take(*address, now);
            }
            let expected = std::iter::from_fn(|| lone.due(now)).take(ROUND).count();

            supervisor.send_due();
            supervisor.announcing.join_next().await.unwrap().unwrap();
            let sent = addresses
                .iter()
                .map(|address| metrics.held(&address.to_string()).gratuitous.get());
            assert_eq!(sent.sum::<u64>(), 2 * expected as u64);
            assert!(!supervisor.links[&(more.index, Protocol::Arp)].is_announcing());
            assert!(supervisor.links.len() == 2 && supervisor.next_deadline(now).is_some());
            supervisor.announcing.join_next().await.unwrap().unwrap();
            assert_eq!(metrics.wire.send_errors.get(), 1);
        });
    }
}
