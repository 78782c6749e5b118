//! One interface's answering loop for one protocol: receive a batch, decode, look up, reply.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_speaker_socket::{BATCH, Inbox, PacketSocket};

use super::protocol::Protocol;
use crate::interfaces::Interface;
use crate::metrics::WireMetrics;
use crate::table::Table;

/// How long answers may wait for an interface whose queue is full: those who ask next wait behind them.
const PATIENCE: Duration = Duration::from_millis(50);

/// Answers on one interface until its socket fails, and tells why. Such a socket may be deaf for good, so it is not asked
/// again: the supervisor opens another.
pub(super) async fn answer(
    protocol: Protocol,
    socket: Arc<PacketSocket>,
    interface: Interface,
    table: Table,
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
        {
            let held = table.load();
            for frame in inbox.frames() {
                match protocol.question(&frame, interface.mac) {
                    Ok(Some((address, answer))) => {
                        let holder = held.get(&address);
                        if let Some(holder) = holder.filter(|held| held.reaches(&interface.name)) {
                            holder.requests.inc();
                            replies.push(answer);
                            asked.push(holder.responses.clone());
                        }
                    }
                    Ok(None) => {}
                    Err(reason) => metrics.count_drop(reason),
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

#[cfg(test)]
mod tests {
    use ferrolb_speaker_socket::{BATCH, PacketSocket};
    use ferrolb_speaker_wire::filter;
    use tokio::task::yield_now;

    use super::super::tests::{VIP, deliver, in_lab, question, table_of};
    use super::{Protocol, answer};

    /// Input: many batches of questions that wait when the task starts.
    /// Output: all are answered, and others get their turn in between.
    #[test]
    fn a_flood_leaves_turns_to_others() {
        in_lab(|lab| async move {
            let (table, metrics) = table_of(&[VIP]);
            let socket = PacketSocket::arp(lab.near.index, &filter::INCOMING_ARP).unwrap();
            let flood = vec![question(VIP); 8 * BATCH];
            let total = flood.len() as u64;
            lab.client.run(move || deliver(&flood)).await;
            let socket = socket.into();
            let task = answer(Protocol::Arp, socket, lab.near, table, metrics.wire.clone());
            let _answering = tokio::spawn(task);
            let requests = metrics.held(&VIP.to_string()).requests;
            let mut turns = 0;
            while requests.get() < total {
                turns += u64::from(requests.get() > 0);
                yield_now().await;
            }
            assert!(turns >= 3, "{turns} turns");
        });
    }
}
