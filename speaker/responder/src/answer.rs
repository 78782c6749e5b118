//! One interface's answering loop for one protocol: receive a batch, decode, look up, reply.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ferrolb_speaker_arbiter::Key;
use ferrolb_speaker_socket::{Inbox, PacketSocket, Received};
use ferrolb_speaker_wire::{FrameBuf, Message};

use crate::interface::Interface;
use crate::metrics::{Counters, WireMetrics};
use crate::overheard::Question;
use crate::protocol::Protocol;
use crate::table::Table;

/// How long answers may wait for an interface whose queue is full: those who ask next wait behind them.
const PATIENCE: Duration = Duration::from_millis(50);

/// Questions that waited longer were asked while this node stood still. Another may hold the address by now, and who asked
/// has asked again.
const STALE: Duration = Duration::from_millis(100);

/// Answers on one interface until its socket fails, and tells why. Such a socket may be deaf for good, so it is not asked
/// again: the supervisor opens another.
pub(super) async fn answer(
    protocol: Protocol,
    socket: Arc<PacketSocket>,
    interface: Interface,
    table: Table,
    key: Key,
    metrics: WireMetrics,
) -> io::Error {
    let mut inbox = Inbox::new();
    let mut replies = Replies::default();
    loop {
        let drained = match socket.receive(&mut inbox).await {
            Ok(drained) => drained,
            Err(error) => {
                metrics.receive_errors.inc();
                return error;
            }
        };
        let batch = table.begin(protocol);
        let now = Instant::now();
        replies.make(
            protocol,
            inbox.received(),
            now,
            &interface,
            &table,
            &key,
            &metrics,
        );
        if !replies.frames.is_empty() {
            let counters = &replies.counters;
            let sent = socket.send_patiently(&replies.frames, PATIENCE, |position| {
                if let Some(counters) = counters.get(position) {
                    counters.count_response();
                }
            });
            if let Err(error) = sent.await {
                metrics.send_errors.inc();
                tracing::warn!(op = protocol.reply_op(), interface = interface.name, error = %error, "cannot send answers");
            }
        }
        drop(batch);
        // Who asked goes first.
        table.overheard().wake(now);
        // A socket that always has more never makes this task wait, and its readiness takes no part in tokio's
        // cooperative budget: without this a flood on one interface would silence all others, and the supervisor.
        if !drained {
            tokio::task::yield_now().await;
        }
    }
}

/// The answers to one batch of questions. Its memory is used again for the next.
#[derive(Debug, Default)]
pub struct Replies {
    frames: Vec<FrameBuf>,
    /// Those of the address each is about.
    counters: Vec<Arc<Counters>>,
}

impl Replies {
    /// The frames, in the order they are to be sent.
    pub fn frames(&self) -> &[FrameBuf] {
        &self.frames
    }

    /// Answers, in place of what it held, the questions among `received` that came in on `interface` and were read `now`:
    /// one look-up for each. All but answers that were sent are counted. What clients ask is kept for the arbiter, who is
    /// to be woken for it afterwards ([`Overheard::wake`](crate::Overheard::wake)).
    #[allow(
        clippy::too_many_arguments,
        reason = "each is another's: the frames, the time, and what answers them"
    )]
    pub fn make<'a>(
        &mut self,
        protocol: Protocol,
        received: impl Iterator<Item = Received<'a>>,
        now: Instant,
        interface: &Interface,
        table: &Table,
        key: &Key,
        metrics: &WireMetrics,
    ) {
        self.frames.clear();
        self.counters.clear();
        let answers = table.open();
        let keeper = table.overheard().keeper();
        let time_of_day = SystemTime::now();
        for received in received {
            let message = match protocol.read(&received.frame, interface.mac) {
                Ok(message) => message,
                Err(reason) => {
                    metrics.count_drop(reason);
                    continue;
                }
            };
            let age = received.age(time_of_day);
            let question =
                Question::of(&message, interface.mac, now.checked_sub(age).unwrap_or(now));
            let held = answers.as_ref().zip(message.asked());
            let held = held.and_then(|(answers, address)| answers.get(address));
            if (question.is_none() && held.is_none()) || is_speakers(&message, key) {
                continue;
            }
            if let Some(question) = question {
                keeper.keep(question);
            }
            let Some(held) = held else {
                continue;
            };
            if age > STALE {
                metrics.stale.inc();
                continue;
            }
            let at = held.at.unwrap_or(interface.mac);
            if let Some(reply) = message.reply(at, interface.mac) {
                held.counters.count_request();
                self.frames.push(reply);
                self.counters.push(held.counters.clone());
            }
        }
    }
}

/// Whether a speaker speaks, whom the arbiter hears and answers itself.
fn is_speakers(message: &Message<'_>, key: &Key) -> bool {
    message
        .tag
        .is_some_and(|tag| key.open(tag, message.about()).is_some())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use ferrolb_speaker_socket::{BATCH, Inbox, PacketSocket};
    use ferrolb_speaker_wire::filter;
    use tokio::task::yield_now;

    use super::{Protocol, STALE, answer};
    use crate::lab::{Host, VIP, in_lab, index};
    use crate::tests::{deliver, key, question, tables_of};

    /// Input: many batches of questions that wait when the task starts.
    /// Output: all are answered, but for those that waited too long, and others get their turn in between.
    #[test]
    fn a_flood_leaves_turns_to_others() {
        in_lab(|lab| async move {
            let (tables, metrics) = tables_of(&[VIP]);
            let socket = PacketSocket::arp(lab.near.index, &filter::INCOMING_ARP).unwrap();
            let flood = vec![question(VIP); 8 * BATCH];
            let total = flood.len() as u64;
            lab.client.run(move || deliver(&flood)).await;
            let table = tables.of(index("near"));
            let wire = metrics.wire.clone();
            let task = answer(Protocol::Arp, socket.into(), lab.near, table, key(), wire);
            let _answering = tokio::spawn(task);
            let counters = metrics.of(VIP);
            let dealt_with = || counters.requests() + metrics.wire.stale.get();
            let mut turns = 0;
            while dealt_with() < total {
                turns += u64::from(dealt_with() > 0);
                yield_now().await;
            }
            assert!(turns >= 3, "{turns} turns");
        });
    }

    /// Input: a question that waits for longer than it may, then others.
    /// Output: it is counted as stale and not answered; one of the others is.
    #[test]
    fn a_question_from_before_a_standstill_is_left_alone() {
        in_lab(|lab| async move {
            let (tables, metrics) = tables_of(&[VIP]);
            let socket = PacketSocket::arp(lab.near.index, &filter::INCOMING_ARP).unwrap();
            until_stamped(&socket, &lab.client).await;
            lab.client.run(|| deliver(&[question(VIP)])).await;
            tokio::time::sleep(STALE + Duration::from_millis(50)).await;
            let table = tables.of(index("near"));
            let wire = metrics.wire.clone();
            let task = answer(Protocol::Arp, socket.into(), lab.near, table, key(), wire);
            let _answering = tokio::spawn(task);
            while metrics.wire.stale.get() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let counters = metrics.of(VIP);
            assert_eq!((counters.requests(), counters.responses()), (0, 0));
            while counters.responses() == 0 {
                lab.client.run(|| deliver(&[question(VIP)])).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    /// The kernel begins to stamp frames as they come in a while after the first socket of the machine asks for it, and
    /// takes one without a stamp for one that came just now.
    async fn until_stamped(socket: &PacketSocket, client: &Host) {
        let waits = Duration::from_millis(20);
        let mut inbox = Inbox::new();
        loop {
            client.run(|| deliver(&[question(VIP)])).await;
            tokio::time::sleep(waits).await;
            socket.receive(&mut inbox).await.unwrap();
            let now = SystemTime::now();
            if inbox.received().all(|frame| frame.age(now) >= waits) {
                return;
            }
        }
    }
}
