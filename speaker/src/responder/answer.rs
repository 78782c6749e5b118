//! One interface's answering loop: receive a batch, decode, look up, reply.

use std::sync::Arc;
use std::time::Duration;

use ferrolb_speaker_socket::{BATCH, Inbox, PacketSocket};
use ferrolb_speaker_wire::{Operation, decode, reply};

use crate::interfaces::Interface;
use crate::metrics::WireMetrics;
use crate::table::Table;

/// The pause after a receive that failed, so that a broken socket does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers on one interface until it is dropped.
pub(super) async fn answer(
    socket: Arc<PacketSocket>,
    interface: Interface,
    table: Table,
    metrics: WireMetrics,
) {
    let mut inbox = Inbox::new();
    let mut replies = Vec::with_capacity(BATCH);
    let mut asked = Vec::with_capacity(BATCH);
    loop {
        if let Err(error) = socket.receive(&mut inbox).await {
            // The interface went down: its removal from the table of interfaces follows, or it comes up again.
            tracing::debug!(op = "receive", interface = interface.name, error = %error, "cannot receive");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        {
            let held = table.load();
            for frame in inbox.frames() {
                let packet = match decode(&frame, interface.mac) {
                    Ok(packet) => packet,
                    Err(reason) => {
                        metrics.count_drop(reason);
                        continue;
                    }
                };
                if packet.operation == Operation::Request
                    && let Some(holder) = held.get(&packet.target_ip.into())
                {
                    holder.requests.inc();
                    replies.push(reply(&packet, interface.mac));
                    asked.push(holder.responses.clone());
                }
            }
        }
        if replies.is_empty() {
            continue;
        }
        let sent = match socket.send(&replies).await {
            Ok(()) => replies.len(),
            Err(error) => {
                metrics.send_errors.inc();
                tracing::warn!(op = "arpReply", interface = interface.name, error = %error, "cannot send answers");
                error.sent
            }
        };
        for responses in asked.iter().take(sent) {
            responses.inc();
        }
        replies.clear();
        asked.clear();
    }
}
