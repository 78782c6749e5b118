//! The task that owns the machine: packets, commands, requests of streams and time go in, packets and snapshots come out.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrolb_speaker_members::{Exchange, LEAVE_TIME, Machine, Output, Ping, Profile, Status};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::{Command, Seal, Snapshot, stream};

/// Largest packet that is read: the largest there is.
const PACKET: usize = 65_535;
/// Packets read before the clock is looked at again.
const BATCH: usize = 256;
/// Requests of streams that may wait.
const REQUESTS: usize = 64;
/// Streams we have open to others at a time; further ones wait.
const DIALED: usize = 32;
/// Streams we open that may wait.
const WAITING: usize = 4096;
/// Between two warnings about packets that are refused.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// The clock, tokio's: tests can stop it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What a stream wants of the machine.
pub(crate) enum Request {
    /// All we know, as the stream's message.
    Exchange(bool, oneshot::Sender<Vec<u8>>),
    /// All the other side knows.
    Merge(Exchange),
    /// The answer to a ping, if it is meant for us.
    Ping(Ping, oneshot::Sender<Option<Vec<u8>>>),
    /// A ping of ours was answered.
    Pong(u32),
    /// One side refuses the other: why.
    Refused(SocketAddr, String),
}

/// What streams need to do their work.
#[derive(Clone)]
pub(crate) struct Streams {
    pub(crate) seal: Arc<Seal>,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) timeout: Duration,
}

pub(crate) struct Task {
    machine: Machine,
    udp: UdpSocket,
    seal: Arc<Seal>,
    profile: Profile,
    snapshots: watch::Sender<Arc<Snapshot>>,
    /// Streams under way; each gives back whom it exchanged with.
    running: JoinSet<Option<SocketAddr>>,
    /// Whom we are exchanging with, or are about to.
    exchanging: HashSet<SocketAddr>,
    dialed: Arc<Semaphore>,
    leaving: Option<Instant>,
    refused: Refused,
}

impl Task {
    pub(crate) fn new(
        machine: Machine,
        udp: UdpSocket,
        seal: Arc<Seal>,
        profile: Profile,
        snapshots: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        Self {
            machine,
            udp,
            seal,
            profile,
            snapshots,
            running: JoinSet::new(),
            exchanging: HashSet::new(),
            dialed: Arc::new(Semaphore::new(DIALED)),
            leaving: None,
            refused: Refused::default(),
        }
    }

    /// Until the farewell has spread, or nobody holds the handle any more.
    pub(crate) async fn run(
        mut self,
        listener: TcpListener,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let (requests, mut asked) = mpsc::channel(REQUESTS);
        let streams = Streams {
            seal: self.seal.clone(),
            requests,
            timeout: self.profile.tcp_timeout,
        };
        let accepting = streams.clone();
        self.running
            .spawn(async move { stream::accept(listener, accepting).await });
        let mut packet = vec![0; PACKET];
        loop {
            self.carry_out(&streams).await;
            if self.machine.has_left(now()) {
                return;
            }
            let wake = [self.machine.next_wake(), self.leaving]
                .into_iter()
                .flatten()
                .min();
            let wake = wake.unwrap_or_else(|| now() + WARN_EVERY);
            tokio::select! {
                // Once it leaves, nothing can be asked of it any more.
                command = commands.recv(), if self.leaving.is_none() => match command {
                    Some(Command::Join(targets)) => self.machine.join(&targets),
                    Some(Command::Leave) => {
                        self.machine.leave(now());
                        self.leaving = Some(now() + LEAVE_TIME);
                    }
                    None => return,
                },
                Ok(()) = self.udp.readable() => self.read(&mut packet),
                Some(request) = asked.recv() => self.request(request),
                Some(ended) = self.running.join_next() => {
                    if let Ok(Some(peer)) = ended {
                        self.exchanging.remove(&peer);
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {
                    // What has arrived is older than this moment, and may say that a suspect lives.
                    self.read(&mut packet);
                    self.machine.tick(now());
                }
            }
        }
    }

    /// Reads what has arrived, a batch at most.
    fn read(&mut self, packet: &mut [u8]) {
        for _ in 0..BATCH {
            let Ok((length, from)) = self.udp.try_recv_from(packet) else {
                return;
            };
            let bytes = packet.get(..length).unwrap_or_default();
            match self.seal.envelope.open_packet(bytes) {
                Ok(body) => {
                    if let Some(why) = self.machine.packet(now(), from, &body) {
                        self.refused.note(from, &why);
                    }
                }
                Err(why) => self.refused.note(from, &why),
            }
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            // An answer that nobody waits for any more is no failure.
            Request::Exchange(join, answer) => {
                drop(answer.send(self.machine.exchange(join).encode()));
            }
            Request::Ping(ping, answer) => drop(answer.send(self.machine.answer_tcp(&ping))),
            Request::Merge(exchange) => self.machine.merge(now(), exchange),
            Request::Pong(seq) => self.machine.tcp_pong(seq),
            Request::Refused(peer, why) => self.refused.note(peer, &why),
        }
    }

    async fn carry_out(&mut self, streams: &Streams) {
        // Someone was forgotten, or our health has changed: no verdict tells of that.
        let mut news = {
            let last = self.snapshots.borrow();
            last.members.len() != self.machine.count()
                || last.health_score != self.machine.health_score()
        };
        while let Some(output) = self.machine.output() {
            match output {
                Output::Packet { to, body } => self.send(to, &body).await,
                Output::TcpPing {
                    to,
                    body,
                    seq,
                    deadline,
                } => {
                    if self.running.len() < WAITING {
                        let streams = streams.clone();
                        self.running.spawn(async move {
                            stream::ping(streams, to, body, seq, deadline).await;
                            None
                        });
                    }
                }
                Output::Exchange { to, join } => self.exchange(to, join, streams),
                Output::Verdict(member) => {
                    news = true;
                    match member.status {
                        Status::Suspect => {
                            tracing::debug!(event = "memberSuspect", node = %member.name, "gossip: a member is silent");
                        }
                        status => {
                            tracing::info!(event = "memberChange", node = %member.name, addr = %member.addr, ?status, "gossip: a member has changed");
                        }
                    }
                }
            }
        }
        if news {
            let members = self
                .machine
                .members()
                .map(|member| (member.name.clone(), member))
                .collect();
            let health_score = self.machine.health_score();
            self.snapshots.send_replace(Arc::new(Snapshot {
                members,
                health_score,
            }));
        }
    }

    async fn send(&mut self, to: SocketAddr, body: &[u8]) {
        let Some(nonce) = self.seal.nonce() else {
            return tracing::error!("gossip: no randomness, nothing can be sent");
        };
        let packet = self.seal.envelope.close_packet(body, nonce);
        // A packet that cannot be sent is a lost packet: the protocol lives with that.
        if let Err(error) = self.udp.send_to(&packet, to).await {
            tracing::debug!(%to, %error, "gossip: a packet was not sent");
        }
    }

    fn exchange(&mut self, to: SocketAddr, join: bool, streams: &Streams) {
        if self.exchanging.len() >= WAITING || !self.exchanging.insert(to) {
            return;
        }
        let (streams, turn, members) = (
            streams.clone(),
            self.dialed.clone(),
            self.snapshots.subscribe(),
        );
        self.running.spawn(async move {
            let turn = turn.acquire_owned().await;
            // While it waited for its turn, others may have introduced us.
            if turn.is_ok() && !(join && members.borrow().has_live(to)) {
                stream::exchange(streams, to, join).await;
            }
            Some(to)
        });
    }
}

/// What was refused, logged with restraint: anyone can send them.
#[derive(Debug, Default)]
struct Refused {
    warned: Option<Instant>,
    since: u64,
}

impl Refused {
    fn note(&mut self, peer: SocketAddr, why: &dyn std::fmt::Display) {
        self.since += 1;
        if self
            .warned
            .is_none_or(|warned| now().saturating_duration_since(warned) >= WARN_EVERY)
        {
            tracing::warn!(event = "gossipRefused", %peer, %why, times = self.since, "gossip: a peer is refused, or refuses us; do all speakers have the same METALLB_ML_SECRET_KEY?");
            self.warned = Some(now());
            self.since = 0;
        }
    }
}
