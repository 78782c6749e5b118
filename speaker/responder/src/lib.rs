//! Answers the questions of neighbours, on a thread of its own: however busy the Kubernetes half is, an answer does not wait.
//!
//! ```text
//!                interfaces (watch)           table of each interface
//!                        │                                │
//!   responder thread     ▼                                │ read for every frame
//!   ┌─────────────── supervisor ──────────────────┐       │
//!   │ opens and closes one socket per interface   │       │
//!   │ and protocol, opens anew what fell or failed│       │
//!   └──────┬──────────────┬───────────────────────┘       │
//!          ▼              ▼                               │
//!     answer eth0    answer eth1   receive ─ decode ─ look up ─ reply   ◀┘
//! ```
//!
//! ARP and NDP (`protocol`) are answered alike, by a task for each interface and protocol. What is said unasked, and to
//! other speakers, is the arbiters', who have a thread and sockets of their own and write the tables. What clients ask is
//! passed on to them without waking them for each question (`overheard`).

mod answer;
mod interface;
#[cfg(any(test, feature = "lab"))]
pub mod lab;
mod metrics;
mod overheard;
mod protocol;
mod supervisor;
mod table;

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use ferrolb_speaker_arbiter::Key;
use ferrolb_speaker_socket::ask_for_short_slices;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use self::answer::Replies;
pub use self::interface::{Interface, Interfaces};
pub use self::metrics::{AddressMetrics, Counters, WireMetrics};
pub use self::overheard::{Keeper, Overheard, Question};
pub use self::protocol::Protocol;
pub use self::table::{Answers, Held, Table, Tables};

/// How long the thread may show no sign of life before the speaker is taken for dead (`/healthz`).
pub const PULSE: Duration = Duration::from_secs(30);

/// The running thread. It ends after its token is cancelled, and never before, unless something in it is broken.
#[derive(Debug)]
pub struct Responder {
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

/// Starts the thread. Frames are answered from the moment `tables` hold their address until `stop` is cancelled. `pulse`
/// is polled beside the answering, for as long as that goes on: it is to show that the thread lives.
pub fn start(
    interfaces: watch::Receiver<Interfaces>,
    tables: Tables,
    key: Key,
    metrics: WireMetrics,
    stop: CancellationToken,
    pulse: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Responder> {
    // Built here, so that a failure is the caller's; it runs there.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (alive, ended) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("responder".to_owned())
        .spawn(move || {
            let _alive: oneshot::Sender<()> = alive;
            // So that a question does not wait for the slice of one that reconciles.
            if let Err(error) = ask_for_short_slices() {
                tracing::debug!(op = "respond", error = %error, "answers may wait for other threads");
            }
            runtime.spawn(pulse);
            runtime
                .block_on(supervisor::Supervisor::new(tables, key, metrics, stop).run(interfaces));
        })?;
    Ok(Responder { thread, ended })
}

/// A check of readiness: says so while there are interfaces to answer on and a socket on none of
/// them, as where the right to open them is missing. Such a speaker should not be elected.
pub fn deaf(
    interfaces: watch::Receiver<Interfaces>,
    metrics: &WireMetrics,
) -> impl Fn() -> Option<String> + Send + Sync + 'static {
    let open = metrics.interfaces.clone();
    move || {
        let known = interfaces.borrow();
        let mut spoken = known
            .values()
            .flat_map(|interface| Protocol::ALL.map(|spoken| spoken.fits(interface)));
        let deaf = open.get() == 0 && spoken.any(|fits| fits);
        deaf.then(|| "a socket on any interface".to_owned())
    }
}

impl Responder {
    /// Waits until the thread is about to end. Cancel-safe.
    pub async fn ended(&mut self) {
        let _closed = (&mut self.ended).await;
    }

    /// Waits for the end; true if the thread ended as it should.
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

#[cfg(test)]
mod ndp_tests;
#[cfg(test)]
mod tests;
