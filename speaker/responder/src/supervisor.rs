//! Opens sockets as interfaces come, closes them as they go, and replaces what ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_speaker_arbiter::Key;
use ferrolb_speaker_socket::PacketSocket;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::answer::answer;
use crate::interface::{Interface, Interfaces};
use crate::metrics::WireMetrics;
use crate::protocol::Protocol;
use crate::table::Tables;

/// How often sockets that failed or could not be opened are opened anew and the kernel's drop counters are read.
const UPKEEP: Duration = Duration::from_secs(1);

/// What is open: an interface, and the protocol spoken there.
type Spoken = (NonZeroU32, Protocol);

/// An interface with its socket for one protocol and the task that answers, which ends with it.
struct Link {
    interface: Interface,
    socket: Arc<PacketSocket>,
    answering: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

pub(super) struct Supervisor {
    tables: Tables,
    key: Key,
    metrics: WireMetrics,
    stop: CancellationToken,
    /// What should be open.
    wanted: Interfaces,
    /// What is.
    links: BTreeMap<Spoken, Link>,
    /// The tasks that answer, one for each link. They end when their socket fails.
    answering: JoinSet<io::Error>,
}

impl Supervisor {
    pub(super) fn new(
        tables: Tables,
        key: Key,
        metrics: WireMetrics,
        stop: CancellationToken,
    ) -> Self {
        Self {
            tables,
            key,
            metrics,
            stop,
            wanted: Interfaces::new(),
            links: BTreeMap::new(),
            answering: JoinSet::new(),
        }
    }

    /// Runs until it is to stop; every socket is closed when it returns.
    pub(super) async fn run(mut self, mut interfaces: watch::Receiver<Interfaces>) {
        let mut upkeep = interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = true;
        interfaces.mark_changed();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                changed = interfaces.changed(), if told => {
                    // The sender goes first when the process stops: then what is open stays until we are told to stop.
                    told = changed.is_ok();
                    self.wanted = interfaces.borrow_and_update().clone();
                    self.match_interfaces();
                }
                Some(ended) = self.answering.join_next_with_id() => self.answering_ended(ended),
                _ = upkeep.tick() => self.upkeep(),
            }
        }
    }

    /// Closes what is no longer wanted or has changed, and opens what is missing.
    fn match_interfaces(&mut self) {
        let wanted = &self.wanted;
        self.links.retain(|(index, protocol), link| {
            let stays = wanted.get(index).is_some_and(|wanted| {
                protocol.fits(wanted)
                    && wanted.name == link.interface.name
                    && wanted.mac == link.interface.mac
            });
            if !stays {
                let [_, ended] = protocol.events();
                tracing::info!(
                    event = ended,
                    interface = link.interface.name,
                    "stopped answering on an interface"
                );
            }
            stays
        });
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
        let socket = match protocol.for_questions(interface.index) {
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
            self.tables.of(interface.index),
            self.key.clone(),
            self.metrics.clone(),
        );
        let answering = self.answering.spawn(work);
        tracing::info!(event = created, interface = interface.name, mac = %interface.mac,
            "answering on an interface");
        let spoken = (interface.index, protocol);
        let link = Link {
            interface,
            socket,
            answering,
        };
        self.links.insert(spoken, link);
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
            if let Ok(drops) = link.socket.take_kernel_drops() {
                self.metrics.kernel_drops.inc_by(drops.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio_util::sync::CancellationToken;

    use super::{Link, Protocol, Supervisor};
    use crate::interface::{Interface, Interfaces};
    use crate::lab::{VIP, in_lab, ip};
    use crate::tests::{Metrics, arping, key, tables_of};

    /// One that wants these interfaces and has opened none yet.
    fn supervisor(
        addresses: &[Ipv4Addr],
        wanted: impl IntoIterator<Item = Interface>,
    ) -> (Supervisor, Metrics) {
        let (tables, metrics) = tables_of(addresses);
        let stop = CancellationToken::new();
        let mut supervisor = Supervisor::new(tables, key(), metrics.wire.clone(), stop);
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
            let socket = Protocol::Arp.for_questions(lab.near.index).unwrap();
            let answering = supervisor
                .answering
                .spawn(async { panic!("a frame nobody can bear") });
            let link = Link {
                interface: lab.near.clone(),
                socket: socket.into(),
                answering,
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
}
