//! Stopping: the first signal asks, the second one insists.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by SIGTERM, SIGINT or SIGQUIT (the signals MetalLB's speaker heeds).
/// A second signal ends the process at once with status 130.
///
/// # Errors
/// The kernel refuses a signal handler.
pub fn on_signals() -> anyhow::Result<CancellationToken> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut signals = Signals {
        terminate: listen(SignalKind::terminate())?,
        interrupt: listen(SignalKind::interrupt())?,
        quit: listen(SignalKind::quit())?,
    };
    let token = CancellationToken::new();
    let asked = token.clone();
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::info!(op = "shutdown", signal = name, "starting shutdown");
        asked.cancel();
        let name = signals.next().await;
        tracing::warn!(
            op = "shutdown",
            signal = name,
            "second signal, leaving at once"
        );
        std::process::exit(130);
    });
    Ok(token)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}
