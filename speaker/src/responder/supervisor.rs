//! Opens sockets as interfaces come, closes them as they go, sends what is due unasked, and replaces a task that ended.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrolb_speaker_core::Burst;
use ferrolb_speaker_socket::PacketSocket;
use ferrolb_speaker_wire::{ArpFrame, filter, gratuitous};
use prometheus::IntCounter;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::answer::answer;
use crate::interfaces::{Interface, Interfaces};
use crate::metrics::WireMetrics;
use crate::table::{Change, Held, Table};

/// How often sockets that could not be opened are tried again and the kernel's drop counters are read.
const UPKEEP: Duration = Duration::from_secs(1);

/// Gratuitous frames handed to the kernel at once.
const ROUND: usize = 64;

/// How long an interface may keep gratuitous frames waiting before they are given up: others wait behind it.
const PATIENCE: Duration = Duration::from_millis(200);

/// An interface with its socket and the task that answers on it.
struct Link {
    interface: Interface,
    socket: Arc<PacketSocket>,
    task: AbortHandle,
}

pub(super) struct Supervisor {
    table: Table,
    metrics: WireMetrics,
    /// What should be open.
    wanted: Interfaces,
    /// What is.
    links: BTreeMap<NonZeroU32, Link>,
    tasks: JoinSet<()>,
    /// The held addresses, kept in step with the table by its changes.
    known: HashMap<Ipv4Addr, Arc<Held>>,
    burst: Burst<(NonZeroU32, Ipv4Addr)>,
}

impl Supervisor {
    pub(super) fn new(table: Table, metrics: WireMetrics) -> Self {
        Self {
            table,
            metrics,
            wanted: Interfaces::new(),
            links: BTreeMap::new(),
            tasks: JoinSet::new(),
            known: HashMap::new(),
            burst: Burst::new(2),
        }
    }

    /// Runs until `stop` is cancelled; every socket is closed when it returns.
    pub(super) async fn run(
        mut self,
        mut interfaces: watch::Receiver<Interfaces>,
        stop: CancellationToken,
    ) {
        let mut upkeep = interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = true;
        interfaces.mark_changed();
        loop {
            let deadline = self.burst.next_deadline(Instant::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = interfaces.changed(), if told => {
                    // The sender goes first when the process stops: then what is open stays until we are told to stop.
                    told = changed.is_ok();
                    self.wanted = interfaces.borrow_and_update().clone();
                    self.match_interfaces();
                }
                () = self.table.changed() => self.match_table(),
                Some(ended) = self.tasks.join_next_with_id() => self.task_ended(ended.map(|(id, ())| id)),
                _ = upkeep.tick() => self.upkeep(),
                () = sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => {
                    self.send_due().await;
                }
            }
        }
    }

    /// Closes what is no longer wanted or has changed, and opens what is missing.
    fn match_interfaces(&mut self) {
        let wanted = &self.wanted;
        let burst = &mut self.burst;
        let mut back = Vec::new();
        self.links.retain(|index, link| {
            let stays = wanted.get(index).filter(|wanted| {
                wanted.name == link.interface.name && wanted.mac == link.interface.mac
            });
            let Some(now) = stays else {
                link.task.abort();
                burst.retain(|(on, _)| on != index);
                tracing::info!(
                    event = "deleteARPResponder",
                    interface = link.interface.name,
                    "stopped answering on an interface"
                );
                return false;
            };
            if now.running && !link.interface.running {
                back.push(*index);
            }
            link.interface.running = now.running;
            true
        });
        for index in back {
            self.make_all_known(index);
        }
        let missing = self
            .wanted
            .values()
            .filter(|interface| !self.links.contains_key(&interface.index));
        for interface in missing.cloned().collect::<Vec<_>>() {
            self.open(interface);
        }
        self.metrics
            .interfaces
            .set(i64::try_from(self.links.len()).unwrap_or(i64::MAX));
    }

    fn open(&mut self, interface: Interface) {
        let socket = match PacketSocket::arp(interface.index, &filter::INCOMING_ARP) {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                self.metrics.open_errors.inc();
                tracing::error!(op = "createARPResponder", interface = interface.name, error = %error,
                    "cannot answer on an interface, trying again");
                return;
            }
        };
        let work = answer(
            socket.clone(),
            interface.clone(),
            self.table.clone(),
            self.metrics.clone(),
        );
        let task = self.tasks.spawn(work);
        tracing::info!(event = "createARPResponder", interface = interface.name, mac = %interface.mac,
            "answering on an interface");
        let index = interface.index;
        let running = interface.running;
        self.links.insert(
            index,
            Link {
                interface,
                socket,
                task,
            },
        );
        if running {
            self.make_all_known(index);
        }
    }

    /// Starts the rounds of every held address on an interface whose neighbours have not heard of them, or may have
    /// forgotten: one that is new, or whose carrier came back.
    fn make_all_known(&mut self, index: NonZeroU32) {
        self.burst.retain(|(on, _)| *on != index);
        let now = Instant::now();
        for address in self.known.keys() {
            self.burst.take((index, *address), now);
        }
    }

    /// Schedules addresses newly taken and forgets released ones. One released and taken again between two looks is
    /// scheduled anew.
    fn match_table(&mut self) {
        let now = Instant::now();
        for change in self.table.take_changes() {
            // Only IPv4 addresses are made known over ARP.
            match change {
                Change::Taken(IpAddr::V4(address), holding) => {
                    self.known.insert(address, holding);
                    let running = self.links.iter().filter(|(_, link)| link.interface.running);
                    for (index, _) in running {
                        self.burst.take((*index, address), now);
                    }
                }
                Change::Released(IpAddr::V4(address)) => {
                    self.known.remove(&address);
                    for index in self.links.keys() {
                        self.burst.withdraw(&(*index, address));
                    }
                }
                Change::Taken(IpAddr::V6(_), _) | Change::Released(IpAddr::V6(_)) => {}
            }
        }
    }

    /// Sends every round that is due, each interface's together.
    async fn send_due(&mut self) {
        let mut rounds: BTreeMap<NonZeroU32, (Vec<ArpFrame>, Vec<IntCounter>)> = BTreeMap::new();
        let now = Instant::now();
        for _ in 0..ROUND / 2 {
            let Some((index, address)) = self.burst.due(now) else {
                break;
            };
            if let (Some(link), Some(holding)) = (self.links.get(&index), self.known.get(&address))
            {
                let (frames, counters) = rounds.entry(index).or_default();
                for frame in gratuitous(address, link.interface.mac) {
                    frames.push(frame);
                    counters.push(holding.gratuitous.clone());
                }
            }
        }
        for (index, (frames, counters)) in rounds {
            let Some(link) = self.links.get(&index) else {
                continue;
            };
            let sent = match timeout(PATIENCE, link.socket.send(&frames)).await {
                Ok(Ok(())) => frames.len(),
                Ok(Err(error)) => {
                    self.metrics.send_errors.inc();
                    tracing::warn!(op = "gratuitousAnnounce", interface = link.interface.name, error = %error,
                        "cannot make addresses known");
                    error.sent
                }
                Err(_elapsed) => {
                    self.metrics.send_errors.inc();
                    tracing::warn!(
                        op = "gratuitousAnnounce",
                        interface = link.interface.name,
                        "the interface's queue is full, giving up a round"
                    );
                    0
                }
            };
            counters.iter().take(sent).for_each(IntCounter::inc);
        }
    }

    /// An answering task ended. Those we stopped are no longer among the links; any other is a fault, for which the
    /// upkeep opens the interface anew: a second later, so that a frame that brings it down each time cannot keep us busy.
    fn task_ended(&mut self, ended: Result<tokio::task::Id, JoinError>) {
        let (id, fault) = match ended {
            Ok(id) => (id, "it returned".to_owned()),
            Err(error) => (error.id(), error.to_string()),
        };
        let links = self.links.iter();
        let fallen = links
            .filter(|(_, link)| link.task.id() == id)
            .map(|(index, _)| *index)
            .next();
        if let Some(link) = fallen.and_then(|index| self.links.remove(&index)) {
            self.metrics.restarts.inc();
            tracing::error!(
                op = "respond",
                interface = link.interface.name,
                error = fault,
                bug = "true",
                "an answering task fell, starting it again"
            );
        }
    }

    fn upkeep(&mut self) {
        if self.links.len() != self.wanted.len() {
            self.match_interfaces();
        }
        for link in self.links.values() {
            if let Ok(drops) = link.socket.take_kernel_drops() {
                self.metrics.kernel_drops.inc_by(drops.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{VIP, in_lab, table_of};
    use super::{PacketSocket, Supervisor, filter};
    use crate::interfaces::Interfaces;

    /// Input: an answering task that panics, as one would on a frame the decoder cannot bear.
    /// Output: the interface has no task, then a new one, and the fall is counted.
    #[test]
    fn a_task_that_panics_is_replaced() {
        in_lab(|lab| async move {
            let (table, metrics) = table_of(&[VIP]);
            let mut supervisor = Supervisor::new(table, metrics.wire.clone());
            supervisor.wanted = Interfaces::from([(lab.near.index, lab.near.clone())]);
            let socket = PacketSocket::arp(lab.near.index, &filter::INCOMING_ARP).unwrap();
            let task = supervisor
                .tasks
                .spawn(async { panic!("a frame nobody can bear") });
            let link = super::Link {
                interface: lab.near.clone(),
                socket: socket.into(),
                task,
            };
            supervisor.links.insert(lab.near.index, link);

            let ended = supervisor.tasks.join_next_with_id().await.unwrap();
            supervisor.task_ended(ended.map(|(id, ())| id));
            assert!(supervisor.links.is_empty());
            assert_eq!(metrics.wire.restarts.get(), 1);

            supervisor.upkeep();
            assert!(supervisor.links.contains_key(&lab.near.index));
            let said = lab.client.run(|| super::super::tests::arping(VIP, 5)).await;
            assert!(said.contains("from 02:00:00:00:00:0a"), "{said}");
        });
    }
}
