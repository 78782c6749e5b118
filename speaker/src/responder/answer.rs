//! One interface's answering loop for one protocol: receive a batch, decode, look up, reply.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ferrolb_speaker_arbiter::Key;
use ferrolb_speaker_socket::{BATCH, Inbox, PacketSocket};
use ferrolb_speaker_wire::Message;

use super::protocol::Protocol;
use crate::interfaces::Interface;
use crate::metrics::WireMetrics;
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
    let mut replies = Vec::with_capacity(BATCH);
    let mut asked = Vec::with_capacity(BATCH);
    loop {
        if let Err(error) = socket.receive(&mut inbox).await {
            metrics.receive_errors.inc();
            return error;
        }
        if let Some(held) = table.load() {
            let now = SystemTime::now();
            for received in inbox.received() {
                let message = match protocol.read(&received.frame, interface.mac) {
                    Ok(message) => message,
                    Err(reason) => {
                        metrics.count_drop(reason);
                        continue;
                    }
                };
                let Some(holder) = message.asked().and_then(|address| held.get(&address)) else {
                    continue;
                };
                if received.age(now) > STALE {
                    metrics.stale.inc();
                    continue;
                }
                let at = holder.at.unwrap_or(interface.mac);
                if !is_speakers(&message, &key)
                    && let Some(reply) = message.reply(at, interface.mac)
                {
                    holder.requests.inc();
                    replies.push(reply);
                    asked.push(holder.responses.clone());
                }
            }
        }
        if !replies.is_empty() {
            let sent = socket.send_patiently(&replies, PATIENCE, |position| {
                if let Some(responses) = asked.get(position) {
                    responses.inc();
                }
            });
            if let Err(error) = sent.await {
                metrics.send_errors.inc();
                tracing::warn!(op = protocol.reply_op(), interface = interface.name, error = %error, "cannot send answers");
            }
            replies.clear();
            asked.clear();
        }
        // A socket that always has more never makes this task wait, and its readiness takes no part in tokio's
        // cooperative budget: without this a flood on one interface would silence all others, and the supervisor.
        tokio::task::yield_now().await;
    }
}

/// Whether a speaker asks, which the arbiter answers. Theirs teach nobody their own address, so clients' questions need no
/// look at the tag.
fn is_speakers(message: &Message<'_>, key: &Key) -> bool {
    message
        .tag
        .is_some_and(|tag| key.open(tag, message.about()).is_some())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ferrolb_speaker_socket::{BATCH, PacketSocket};
    use ferrolb_speaker_wire::filter;
    use tokio::task::yield_now;

    use super::super::tests::{deliver, key, question, tables_of};
    use super::{Protocol, STALE, answer};
    use crate::lab::{VIP, in_lab, index};

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
            let requests = metrics.held(&VIP.to_string()).requests;
            let dealt_with = || requests.get() + metrics.wire.stale.get();
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
            lab.client.run(|| deliver(&[question(VIP)])).await;
            tokio::time::sleep(STALE + Duration::from_millis(50)).await;
            let table = tables.of(index("near"));
            let wire = metrics.wire.clone();
            let task = answer(Protocol::Arp, socket.into(), lab.near, table, key(), wire);
            let _answering = tokio::spawn(task);
            while metrics.wire.stale.get() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let held = metrics.held(&VIP.to_string());
            assert_eq!((held.requests.get(), held.responses.get()), (0, 0));
            while held.responses.get() == 0 {
                lab.client.run(|| deliver(&[question(VIP)])).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
}
