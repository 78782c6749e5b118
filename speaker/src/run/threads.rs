//! The two threads that are on the wire: responders answer, arbiters find out who is to.

use anyhow::{Context as _, anyhow};
use ferrolb_runtime::ready::Ready;
use ferrolb_speaker_arbiter::{Key, NodeId};
use ferrolb_speaker_responder::{self as responder, Interfaces, Responder, Tables};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::arbitration::{self, Arbitration, Told, Words};
use crate::args::Args;
use crate::interfaces::Own;
use crate::metrics::Metrics;

/// Both, running.
pub(super) struct Threads {
    responder: Responder,
    silence: CancellationToken,
    arbitration: Arbitration,
    words: Words,
}

impl Threads {
    /// Starts them. What the arbiters have to say goes to `told`.
    pub(super) fn start(
        args: &Args,
        interfaces: watch::Receiver<Interfaces>,
        own: watch::Receiver<Own>,
        metrics: &Metrics,
        ready: &Ready,
        told: mpsc::UnboundedSender<Told>,
    ) -> anyhow::Result<Self> {
        let tables = Tables::default();
        let key = Key::new(&args.secret()?).context("the speakers' secret cannot be a key")?;
        ready.check(responder::deaf(interfaces.clone(), &metrics.wire));
        let silence = CancellationToken::new();
        let responder = responder::start(
            interfaces.clone(),
            tables.clone(),
            key.clone(),
            metrics.wire.clone(),
            silence.clone(),
            ready.pulse("responder", responder::PULSE).keep(),
        )
        .context("cannot start the responder")?;
        let settings = arbitration::Settings {
            me: NodeId::of(args.node()?),
            profile: args.failover.profile(),
            key,
        };
        let pulse = ready.pulse("arbiter", arbitration::PULSE);
        let (arbitration, words) = arbitration::start(
            settings,
            interfaces,
            own,
            tables,
            metrics.clone(),
            told,
            pulse,
        )
        .context("cannot start the arbiters")?;
        Ok(Self {
            responder,
            silence,
            arbitration,
            words,
        })
    }

    /// Where the arbiters are told who may answer.
    pub(super) fn words(&self) -> Words {
        self.words.clone()
    }

    /// Waits until one of them is about to end, and says which. Cancel-safe.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        tokio::select! {
            () = self.responder.ended() => anyhow!("the responder ended, which it may not"),
            () = self.arbitration.ended() => anyhow!("the arbiters ended, which they may not"),
        }
    }

    /// Ends both: others take over while this node still answers, then nothing is answered any more. True if both ended as
    /// they should.
    pub(super) async fn end(self) -> bool {
        self.words.hand_over().await;
        self.silence.cancel();
        let (answered, arbitrated) = (self.responder.join(), self.arbitration.end(&self.words));
        answered && arbitrated
    }
}
