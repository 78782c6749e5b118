//! The gossip between speakers, running: UDP and TCP sockets, the clock, the system's randomness, and one task that owns
//! the [`Machine`].
//!
//! ```text
//!   Gossip ── commands ──▶ task (owns the machine, the UDP socket) ── snapshots ──▶ members()
//!                            ▲ requests │ spawns
//!                            │          ▼
//!          accepted streams ─┴─ exchanges, pings by TCP
//! ```
//! Every queue is bounded, every stream has the profile's TCP timeout, and memory for streams is limited by how many may
//! be open at a time.

mod stream;
mod task;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ferrolb_speaker_members::{
    Envelope, Identity, Key, LabelTooLong, MAX_META, Machine, Member, NonceBytes, Profile,
};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// memberlist's port, UDP and TCP, and MetalLB's where `METALLB_ML_BIND_PORT` says no other.
pub const DEFAULT_PORT: u16 = 7946;
/// Commands that may wait for the task.
const COMMANDS: usize = 16;
/// With a port of 0: how often to look for one that is free for both UDP and TCP.
const PORT_ATTEMPTS: usize = 10;

/// What a member needs to know to start.
#[derive(Debug)]
pub struct Settings {
    /// The node's name: `spec.nodeName` of the speaker's pod.
    pub node_name: String,
    /// The address to bind and to tell others, and the port. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// What the others are told of this member besides its address: at most 512 bytes (`MAX_META`). MetalLB tells nothing.
    pub meta: Vec<u8>,
    /// What packets and streams are sealed with; without it they are open to everyone.
    pub key: Option<Key>,
    /// The label before packets and streams. MetalLB uses none: empty.
    pub label: String,
    /// The pace.
    pub profile: Profile,
}

/// Why a member could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The others need an address to reach us at.
    #[error(
        "gossip: {0} is no address others could reach; set METALLB_ML_BIND_ADDR to the pod's own (status.podIP)"
    )]
    Unspecified(IpAddr),
    /// A node without a name.
    #[error("gossip: the node's name is empty; set METALLB_NODE_NAME to spec.nodeName")]
    NoName,
    /// The address or the port is not to be had.
    #[error("gossip: cannot bind {addr} for UDP and TCP; is another speaker running on this node?")]
    Bind {
        /// What was to be bound.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A label that does not fit.
    #[error("gossip: {0}")]
    Label(#[from] LabelTooLong),
    /// More metadata than anyone would accept.
    #[error("gossip: {0} bytes of metadata, at most {MAX_META} are possible")]
    MetaTooLong(usize),
    /// The system gives no randomness.
    #[error("gossip: the system's random number generator fails")]
    Random,
}

/// Everyone known at one moment, ourselves included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By node name. The dead and the departed stay for a while, with their status.
    pub members: BTreeMap<String, Member>,
    /// How ill this member believes itself to be; 0 is well.
    pub health_score: u32,
}

impl Snapshot {
    /// The names MetalLB would elect among: alive, or suspect and not given up yet.
    pub fn live(&self) -> impl Iterator<Item = &str> {
        self.members
            .values()
            .filter(|member| member.status.is_live())
            .map(|member| member.name.as_str())
    }

    /// Whether a live member has this address.
    pub fn has_live(&self, addr: SocketAddr) -> bool {
        let here = |m: &Member| m.status.is_live() && (m.addr, m.port) == (addr.ip(), addr.port());
        self.members.values().any(here)
    }
}

enum Command {
    Join(Vec<SocketAddr>),
    Leave,
}

/// A member of the cluster, for as long as this is held. Dropped without [`Gossip::leave`], it falls silent: to the others
/// that is a death.
#[derive(Debug)]
pub struct Gossip {
    commands: mpsc::Sender<Command>,
    members: watch::Receiver<Arc<Snapshot>>,
    local_addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Gossip {
    /// Binds the sockets and starts the task, as a cluster of one. Needs tokio with IO and time.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let Settings {
            node_name,
            bind,
            meta,
            key,
            label,
            profile,
        } = settings;
        if bind.ip().is_unspecified() {
            return Err(StartError::Unspecified(bind.ip()));
        }
        if node_name.is_empty() {
            return Err(StartError::NoName);
        }
        if meta.len() > MAX_META {
            return Err(StartError::MetaTooLong(meta.len()));
        }
        let (verify_in, verify_out) = (
            profile.gossip_verify_incoming,
            profile.gossip_verify_outgoing,
        );
        let envelope = Envelope::new(&label, key, verify_in, verify_out)?;
        let (listener, udp) = bind_both(bind)
            .await
            .map_err(|source| StartError::Bind { addr: bind, source })?;
        let local_addr = udp
            .local_addr()
            .map_err(|source| StartError::Bind { addr: bind, source })?;
        let random = SystemRandom::new();
        let mut seed = [0; 8];
        random.fill(&mut seed).map_err(|_| StartError::Random)?;
        let me = Identity {
            name: node_name,
            addr: local_addr.ip(),
            port: local_addr.port(),
            meta,
        };
        let machine = Machine::new(
            me,
            profile.clone(),
            envelope.overhead(),
            task::now(),
            u64::from_ne_bytes(seed),
        );
        let (snapshots, members) = watch::channel(Arc::new(Snapshot::default()));
        let (commands, received) = mpsc::channel(COMMANDS);
        let seal = Arc::new(Seal { envelope, random });
        let task = task::Task::new(machine, udp, seal, profile, snapshots);
        let task = tokio::spawn(task.run(listener, received));
        Ok(Self {
            commands,
            members,
            local_addr,
            task,
        })
    }

    /// The members, now and after every change. Starts empty for a moment; closes when the task has ended.
    pub fn members(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.members.clone()
    }

    /// The address the others know us by.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Tries to reach every one of these that is no live member. What fails is logged and not tried again: call it
    /// whenever pods change and every minute, as MetalLB does. With too many calls waiting this one is let go.
    pub fn join(&self, targets: Vec<SocketAddr>) {
        if self.commands.try_send(Command::Join(targets)).is_err() {
            tracing::debug!(
                event = "join",
                "gossip: still busy with earlier joins, this one is let go"
            );
        }
    }

    /// Says goodbye, waits until that has spread (a second at most), and closes the sockets.
    pub async fn leave(self) {
        // A send fails only when the task is gone already; then there is nothing to wait for.
        let _ = self.commands.send(Command::Leave).await;
        if let Err(error) = self.task.await {
            tracing::error!(%error, "gossip: the task had failed");
        }
    }
}

/// The same port for TCP and UDP.
async fn bind_both(addr: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let mut attempts = if addr.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        let listener = TcpListener::bind(addr).await?;
        match UdpSocket::bind(listener.local_addr()?).await {
            Ok(udp) => return Ok((listener, udp)),
            Err(error) => {
                attempts -= 1;
                if attempts == 0 {
                    return Err(error);
                }
            }
        }
    }
}

/// The envelope with the randomness its nonces need.
#[derive(Debug)]
struct Seal {
    envelope: Envelope,
    random: SystemRandom,
}

impl Seal {
    /// A fresh nonce. `None`: the system has no randomness, and nothing may be sent.
    fn nonce(&self) -> Option<NonceBytes> {
        let mut nonce = NonceBytes::default();
        self.random.fill(&mut nonce).ok().map(|()| nonce)
    }
}
