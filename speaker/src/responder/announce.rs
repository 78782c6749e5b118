//! One interface's gratuitous frames of one protocol that are due together.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_speaker_socket::PacketSocket;
use tokio_util::sync::CancellationToken;

use super::protocol::unasked;
use crate::interfaces::Interface;
use crate::metrics::WireMetrics;
use crate::table::{Held, Table};

/// How long frames may wait for an interface whose queue is full before they are given up. The next rounds wait behind
/// them, and what was released meanwhile may still be among them.
const PATIENCE: Duration = Duration::from_millis(200);

/// Sends a gratuitous round for each of `addresses` that is still held and answered for here, until `stop` is cancelled: after that, or after
/// its release, an address may be another node's, and making it known here would take it away.
pub(super) async fn announce(
    socket: Arc<PacketSocket>,
    interface: Interface,
    mut addresses: Vec<(IpAddr, Arc<Held>)>,
    table: Table,
    metrics: WireMetrics,
    stop: CancellationToken,
) {
    {
        let held = table.load();
        addresses.retain(|(address, _)| {
            held.get(address)
                .is_some_and(|holding| holding.reaches(&interface.name))
        });
    }
    let (mut frames, mut holdings) = (Vec::new(), Vec::new());
    for (address, holding) in &addresses {
        for frame in unasked(*address, interface.mac) {
            frames.push(frame);
            holdings.push(holding);
        }
    }
    let sent = socket.send_patiently(&frames, PATIENCE, |position| {
        if let Some(holding) = holdings.get(position) {
            holding.gratuitous.inc();
        }
    });
    if let Some(Err(error)) = stop.run_until_cancelled(sent).await {
        metrics.send_errors.inc();
        tracing::warn!(op = "gratuitousAnnounce", interface = interface.name, error = %error,
            "cannot make addresses known");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ferrolb_speaker_socket::PacketSocket;
    use ferrolb_speaker_wire::{MacAddr, filter, gratuitous};
    use tokio_util::sync::CancellationToken;

    use super::super::tests::{Lab, NEAR, OTHER, VIP, in_lab, listen, said, table_of};
    use super::announce;
    use crate::metrics::Metrics;
    use crate::table::Table;

    /// The task for both addresses on the near end, of which `table` may hold fewer.
    fn both(
        lab: &Lab,
        table: &Table,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let socket = PacketSocket::arp(lab.near.index, &filter::INCOMING_ARP).unwrap();
        let addresses = [VIP, OTHER].map(|address| {
            let holding = metrics.held(&address.to_string());
            (address.into(), Arc::new(holding))
        });
        announce(
            socket.into(),
            lab.near.clone(),
            addresses.to_vec(),
            table.clone(),
            metrics.wire.clone(),
            stop.clone(),
        )
    }

    fn pair(address: std::net::Ipv4Addr, mac: MacAddr) -> Vec<Vec<u8>> {
        gratuitous(address, mac).map(|frame| frame.to_vec()).into()
    }

    #[test]
    fn an_address_released_since_it_was_due_is_not_made_known() {
        in_lab(|lab| async move {
            let (table, metrics) = table_of(&[OTHER]);
            let (ready, listening) = tokio::sync::oneshot::channel();
            let heard = lab.client.run(|| listen(2, ready));
            listening.await.unwrap();
            both(&lab, &table, &metrics, &CancellationToken::new()).await;
            assert_eq!(heard.await, pair(OTHER, NEAR));
            assert_eq!(metrics.held("10.9.0.240").gratuitous.get(), 0);
            assert_eq!(metrics.held("10.9.0.241").gratuitous.get(), 2);
        });
    }

    /// Input: frames that wait for an interface whose queue is full when the process is told to stop.
    /// Output: none of them leaves, though there is room later; what is sent afterwards is the first that is heard.
    #[test]
    fn nothing_is_made_known_after_the_stop() {
        in_lab(|lab| async move {
            let (table, metrics) = table_of(&[VIP, OTHER]);
            let (ready, listening) = tokio::sync::oneshot::channel();
            let heard = lab.client.run(|| listen(4, ready));
            listening.await.unwrap();
            said("tc", "qdisc add dev near root pfifo limit 0");
            let stop = CancellationToken::new();
            let waiting = both(&lab, &table, &metrics, &stop);
            tokio::join!(waiting, async { stop.cancel() });
            said("tc", "qdisc del dev near root");
            both(&lab, &table, &metrics, &stop).await;
            assert_eq!(metrics.held("10.9.0.240").gratuitous.get(), 0);
            assert_eq!(metrics.wire.send_errors.get(), 0);

            both(&lab, &table, &metrics, &CancellationToken::new()).await;
            assert_eq!(heard.await, [pair(VIP, NEAR), pair(OTHER, NEAR)].concat());
        });
    }
}
