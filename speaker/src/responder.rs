//! The wire half of the speaker, on a thread of its own: however busy the Kubernetes half is, an answer does not wait.
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
//! other speakers, is the arbiter's ([`crate::arbitration`]), which has a thread and sockets of its own.

mod answer;
pub mod protocol;
mod supervisor;

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use ferrolb_runtime::ready::Pulse;
use ferrolb_speaker_arbiter::Key;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::protocol::Protocol;
use crate::interfaces::Interfaces;
use crate::metrics::WireMetrics;
use crate::table::Tables;

/// How long the thread may show no sign of life before the speaker is taken for dead (`/healthz`).
pub const PULSE: Duration = Duration::from_secs(30);

/// The running thread. It ends after its token is cancelled, and never before, unless something in it is broken.
#[derive(Debug)]
pub struct Responder {
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

/// Starts the thread. Frames are answered from the moment `tables` hold their address until `stop` is cancelled. It keeps
/// `pulse` while it runs.
pub fn start(
    interfaces: watch::Receiver<Interfaces>,
    tables: Tables,
    key: Key,
    metrics: WireMetrics,
    stop: CancellationToken,
    pulse: Pulse,
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
            runtime.spawn(pulse.keep());
            runtime
                .block_on(supervisor::Supervisor::new(tables, key, metrics, stop).run(interfaces));
        })?;
    Ok(Responder { thread, ended })
}

/// For [`ferrolb_runtime::ready::Ready::check`]: says so while there are interfaces to answer on and a socket on none of
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
