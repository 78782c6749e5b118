//! Which node does answer, of those that may: an arbiter for each interface, on a thread of their own.
//!
//! ```text
//!  decider ── who may, peers, moves, the end ──▶ segments ──▶ segment eth0 ◀──▶ wire: probes, claims, hand-over
//!  interfaces (watch) ─────────────────────────▶ (one task)   segment eth1       │
//!                                                                ├──▶ table of the interface ──▶ responder
//!  decider ◀───────────────── what was taken, let go, seen ──────┘
//! ```
//!
//! An arbiter that wakes late takes its own lateness for a reason not to judge others, so nothing else runs on its thread:
//! neither what Kubernetes says nor a flood of questions keeps it waiting.

mod frames;
mod neighbours;
mod promise;
mod routes;
mod segment;
mod segments;
mod voices;

use std::io;
use std::net::IpAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ferrolb_runtime::ready::Pulse;
use ferrolb_speaker_arbiter::{Candidates, Key, NodeId, PeerFacts, Profile, Report, Wish};
use ferrolb_speaker_core::Reach;
use ferrolb_speaker_responder::{Interfaces, Tables};
use ferrolb_speaker_socket::ask_for_short_slices;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::interfaces::Own;
use crate::metrics::Metrics;

/// How long the thread may show no sign of life before the speaker is taken for dead (`/healthz`).
pub const PULSE: Duration = Duration::from_secs(30);

/// How long all hand-overs of a process that ends may take: the arbiters' own 1.5 s, and a little for their threads.
const HAND_OVER: Duration = Duration::from_millis(1700);

/// Who may answer for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The nodes, in order.
    pub candidates: Candidates,
    /// Where this node may; none if it may not.
    pub reach: Option<Reach>,
}

/// What arbiters are told.
#[derive(Debug)]
pub enum Word {
    /// All other nodes there are.
    Peers(Vec<PeerFacts>),
    /// Who may answer for these addresses now; none: nobody. The first, be it of no address, is what arbiters wait for.
    Standings(Vec<(IpAddr, Option<Standing>)>),
    /// What the operator wants of the address from now on; none: nothing any more.
    Wish(IpAddr, Option<Wish>),
    /// Hand everything over. Dropped when that is done.
    Stop(mpsc::Sender<()>),
    /// Let everything go, and end.
    End,
}

/// What an arbiter tells.
#[derive(Clone, Debug)]
pub struct Told {
    /// The name of its interface.
    pub interface: String,
    /// When it came to know it.
    pub at: Instant,
    /// What it has to say; none: it is no more, and what it said of this interface is past.
    pub report: Option<Report>,
}

/// How this node takes part.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub me: NodeId,
    /// How closely nodes watch each other.
    pub profile: Profile,
    /// The secret the speakers share.
    pub key: Key,
}

/// Where words for the arbiters go. Clones lead to the same.
#[derive(Clone, Debug)]
pub struct Words(mpsc::UnboundedSender<Word>);

impl Words {
    /// Tells them. Lost if their thread has ended, which ends the process.
    pub fn tell(&self, word: Word) {
        let _ended = self.0.send(word);
    }

    /// Words that somebody else takes, and where.
    #[cfg(test)]
    pub fn taken() -> (Self, mpsc::UnboundedReceiver<Word>) {
        let (words, taken) = mpsc::unbounded_channel();
        (Self(words), taken)
    }

    /// Hands all addresses over to other nodes, as far as there are some, and waits for the end of that.
    pub async fn hand_over(&self) {
        let (stopping, mut stopped) = mpsc::channel(1);
        self.tell(Word::Stop(stopping));
        if timeout(HAND_OVER, stopped.recv()).await.is_err() {
            tracing::warn!(op = "shutdown", "the hand-over was not done in time");
        }
    }
}

/// The running thread. It ends when it is told to, or nobody has words for it any more.
#[derive(Debug)]
pub struct Arbitration {
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

/// Starts the thread. It keeps `pulse` while it runs, writes `tables` and tells `told`.
pub fn start(
    settings: Settings,
    interfaces: watch::Receiver<Interfaces>,
    own: watch::Receiver<Own>,
    tables: Tables,
    metrics: Metrics,
    told: mpsc::UnboundedSender<Told>,
    pulse: Pulse,
) -> io::Result<(Arbitration, Words)> {
    // Built here, so that a failure is the caller's; it runs there.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (alive, ended) = oneshot::channel();
    let (words, queue) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new()
        .name("arbiter".to_owned())
        .spawn(move || {
            let _alive: oneshot::Sender<()> = alive;
            // So that a probe is answered, and a deadline kept, while others reconcile.
            if let Err(error) = ask_for_short_slices() {
                tracing::debug!(op = "arbitrate", error = %error, "deadlines may wait for other threads");
            }
            runtime.spawn(pulse.keep());
            let segments = segments::Segments::new(settings, tables, metrics, told);
            runtime.block_on(segments.run(interfaces, own, queue));
        })?;
    Ok((Arbitration { thread, ended }, Words(words)))
}

impl Arbitration {
    /// Waits until the thread is about to end. Cancel-safe.
    pub async fn ended(&mut self) {
        let _closed = (&mut self.ended).await;
    }

    /// Ends it: nothing is answered or claimed any more. True if the thread ended as it should.
    pub fn end(self, words: &Words) -> bool {
        words.tell(Word::End);
        self.thread.join().is_ok()
    }
}

#[cfg(test)]
mod tests;
