//! The sockets an arbiter speaks and listens with on its interface, and the groups that questions for its addresses are sent to.

use std::collections::HashSet;
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrolb_speaker_responder::{Interface, Protocol};
use ferrolb_speaker_socket::{Groups, Inbox, PacketSocket, SendError};
use ferrolb_speaker_wire::FrameBuf;

use crate::metrics::Metrics;

/// Groups joined at once, and how soon the next are: joining thousands takes seconds, which no deadline may wait for.
const JOINED: usize = 16;
const NEXT: Duration = Duration::from_millis(5);

/// A protocol as it is spoken on the interface.
struct Voice {
    socket: Arc<PacketSocket>,
    /// Those of the addresses this node answers for or may have to soon; NDP only, ARP asks everybody.
    groups: Option<Groups>,
}

/// Those of one interface.
#[derive(Default)]
pub(super) struct Voices {
    arp: Option<Voice>,
    ndp: Option<Voice>,
    /// Addresses whose group is to be joined.
    joined: HashSet<Ipv6Addr>,
    /// When the next groups are joined.
    join_at: Option<Instant>,
}

impl Voices {
    /// Whether all that should be open on the interface are, and there is one. Who is heard by one protocol and deaf by the
    /// other would take addresses of the other, whose holder it cannot ask.
    pub(super) fn complete(&self, interface: &Interface) -> bool {
        let wanted = Protocol::ALL.into_iter().filter(|one| one.fits(interface));
        let mut wanted = wanted.peekable();
        wanted.peek().is_some() && wanted.all(|one| self.of(one).is_some())
    }

    /// Opens what should be open on the interface and is not, and closes what should not be.
    pub(super) fn look_after(&mut self, interface: &Interface, metrics: &Metrics) {
        for protocol in Protocol::ALL {
            if !protocol.fits(interface) {
                self.close(protocol);
            } else if self.of(protocol).is_none() {
                self.open(protocol, interface, metrics);
            }
        }
        if let Some(Err(error)) = self.groups().map(Groups::join_missing) {
            tracing::debug!(op = "watchMulticastGroup", interface = interface.name, error = %error, "still not joined");
        }
    }

    fn open(&mut self, protocol: Protocol, interface: &Interface, metrics: &Metrics) {
        match protocol.for_statements(interface.index) {
            Ok(socket) => {
                let socket = Arc::new(socket);
                let groups = (protocol == Protocol::Ndp).then(|| Groups::new(socket.clone()));
                *self.slot(protocol) = Some(Voice { socket, groups });
                if protocol == Protocol::Ndp {
                    for address in self.joined.clone() {
                        self.plan(address);
                    }
                }
            }
            Err(error) => {
                metrics.wire.open_errors.inc();
                tracing::error!(op = "arbitrate", interface = interface.name, error = %error,
                    "cannot speak with other speakers on an interface, trying again");
            }
        }
    }

    /// Closes one that failed, or is spoken no more.
    pub(super) fn close(&mut self, protocol: Protocol) {
        *self.slot(protocol) = None;
    }

    /// Whether the kernel dropped frames since this was asked last.
    pub(super) fn dropped(&self) -> bool {
        let all = self.arp.iter().chain(&self.ndp);
        let dropped = all.filter_map(|voice| voice.socket.take_kernel_drops().ok());
        dropped.sum::<u32>() > 0
    }

    /// Waits for frames, and tells whether they were all; for ever while it is not open.
    pub(super) async fn receive(&self, protocol: Protocol, inbox: &mut Inbox) -> io::Result<bool> {
        match self.of(protocol) {
            Some(voice) => voice.socket.receive(inbox).await,
            None => pending().await,
        }
    }

    /// Sends frames, if it is open; `on_sent` is told the position of each that was. No patience: what waits for a full queue
    /// is too late when it leaves, and so is everything behind it.
    pub(super) async fn send(
        &self,
        protocol: Protocol,
        frames: &[&FrameBuf],
        on_sent: impl FnMut(usize),
    ) -> Result<(), SendError> {
        match self.of(protocol) {
            Some(voice) => {
                let sent = voice.socket.send_patiently(frames, Duration::ZERO, on_sent);
                sent.await
            }
            None => Ok(()),
        }
    }

    /// Has the group of an IPv6 address joined, soon.
    pub(super) fn join(&mut self, address: IpAddr) {
        if let IpAddr::V6(address) = address {
            self.joined.insert(address);
            self.plan(address);
        }
    }

    /// Leaves it.
    pub(super) fn leave(&mut self, address: IpAddr) {
        if let IpAddr::V6(address) = address {
            self.joined.remove(&address);
            if let Some(groups) = self.groups() {
                groups.release(address);
            }
        }
    }

    /// When the next groups are joined.
    pub(super) const fn next_deadline(&self) -> Option<Instant> {
        self.join_at
    }

    /// Joins some of the groups, if that is due.
    pub(super) fn join_due(&mut self, now: Instant, interface: &Interface) {
        if self.join_at.is_none_or(|at| now < at) {
            return;
        }
        self.join_at = None;
        let Some((left, result)) = self.groups().map(|groups| groups.join_planned(JOINED)) else {
            return;
        };
        if let Err(error) = result {
            tracing::warn!(op = "watchMulticastGroup", interface = interface.name, error = %error,
                "neighbours may not find an IPv6 address here, trying again");
        }
        if left > 0 {
            self.join_at = Some(Instant::now() + NEXT);
        }
    }

    fn plan(&mut self, address: Ipv6Addr) {
        if let Some(groups) = self.groups() {
            groups.plan(address);
            self.join_at.get_or_insert_with(Instant::now);
        }
    }

    fn groups(&mut self) -> Option<&mut Groups> {
        self.ndp.as_mut()?.groups.as_mut()
    }

    const fn of(&self, protocol: Protocol) -> Option<&Voice> {
        match protocol {
            Protocol::Arp => self.arp.as_ref(),
            Protocol::Ndp => self.ndp.as_ref(),
        }
    }

    const fn slot(&mut self, protocol: Protocol) -> &mut Option<Voice> {
        match protocol {
            Protocol::Arp => &mut self.arp,
            Protocol::Ndp => &mut self.ndp,
        }
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_speaker_responder::lab::{NEAR, in_namespace, index, ip};
    use prometheus::Registry;

    use super::*;

    /// Input: an interface with IPv4, then with a link-local address as well; then a socket that failed.
    /// Output: what is open suffices where all that is spoken is open, and not before and after.
    #[test]
    fn both_protocols_are_open_where_both_are_spoken() {
        in_namespace(|| async {
            ip(&format!(
                "link add name near address {NEAR} type veth peer name far"
            ));
            let metrics = Metrics::new(&Registry::new()).unwrap();
            let neither = Interface {
                name: "near".to_owned(),
                index: index("near"),
                mac: NEAR,
                running: true,
                arp: false,
                ndp: None,
            };
            let ipv4 = Interface {
                arp: true,
                ..neither.clone()
            };
            let both = Interface {
                ndp: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
                ..ipv4.clone()
            };
            let mut voices = Voices::default();
            assert!(!voices.complete(&neither) && !voices.complete(&ipv4));
            voices.look_after(&ipv4, &metrics);
            assert!(voices.complete(&ipv4) && !voices.complete(&both));
            voices.look_after(&both, &metrics);
            assert!(voices.complete(&both));
            voices.close(Protocol::Arp);
            assert!(!voices.complete(&both));
        });
    }
}
