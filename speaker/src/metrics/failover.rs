//! Who answers for what, and what other nodes were seen to do.

use std::net::IpAddr;
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use ferrolb_speaker_wire::MacAddr;

use super::register;

/// Upper bounds in seconds: the targets of the profiles, and what is worse.
const SECONDS: [f64; 12] = [
    0.05, 0.1, 0.15, 0.25, 0.35, 0.5, 0.75, 1.0, 2.0, 4.0, 8.0, 16.0,
];

/// What the arbiters tell, counted.
#[derive(Clone, Debug)]
pub struct FailoverMetrics {
    /// `ferrolb_layer2_held_addresses{interface}`: addresses this node answers for.
    pub held: IntGaugeVec,
    /// `ferrolb_layer2_owner_changes_total{change,cause}`: addresses `taken` and `released`.
    changes: IntCounterVec,
    /// `ferrolb_failover_nodes_lost_total{kernel}`: whether the `kernel` of the lost node was `silent` or `answering`.
    lost: IntCounterVec,
    /// `ferrolb_failover_detection_seconds`: from the last sign of a node to the verdict that it is down.
    detection: Histogram,
    /// `ferrolb_failover_takeover_seconds`: from the last sign of the former holder to the first moment this node answers.
    takeover: Histogram,
    /// Suspicions that proved false.
    pub refuted: IntCounter,
    /// Times this node stood still so long that another may have taken its addresses.
    pub stalls: IntCounter,
    /// Hosts that had used an address and have not shown that they know where it is now.
    pub unlearned: IntCounter,
    /// `ferrolb_layer2_address_conflict{ip,interface,mac}`: 1 while a host that is no speaker answers for the address.
    strangers: IntGaugeVec,
    /// `ferrolb_layer2_conflicts_total{kind}`: answers of a `stranger`, or of a node's kernel (`strictARP`).
    pub conflicts: IntCounterVec,
}

impl FailoverMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name, help, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let counter = |name, help| register(registry, IntCounter::new(name, help)?);
        let seconds = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            register(registry, Histogram::with_opts(options)?)
        };
        let lost = counters(
            "ferrolb_failover_nodes_lost_total",
            "Number of nodes found to be down, by whether their kernel still answered.",
            &["kernel"],
        )?;
        let conflicts = counters(
            "ferrolb_layer2_conflicts_total",
            "Number of answers of others for addresses of this cluster, by kind.",
            &["kind"],
        )?;
        // Served from the start, so that the first of them is an increase.
        for (counter, labels) in [
            (&lost, ["silent", "answering"]),
            (&conflicts, ["stranger", "strictARP"]),
        ] {
            for label in labels {
                counter.with_label_values(&[label]);
            }
        }
        Ok(Self {
            held: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "ferrolb_layer2_held_addresses",
                        "Number of addresses this node answers for, by interface.",
                    ),
                    &["interface"],
                )?,
            )?,
            changes: counters(
                "ferrolb_layer2_owner_changes_total",
                "Number of addresses this node took or released, by cause.",
                &["change", "cause"],
            )?,
            lost,
            detection: seconds(
                "ferrolb_failover_detection_seconds",
                "Time from the last sign of a node to the verdict that it is down.",
            )?,
            takeover: seconds(
                "ferrolb_failover_takeover_seconds",
                "Time from the last sign of an address's lost holder to the first moment this node answered for it.",
            )?,
            refuted: counter(
                "ferrolb_failover_suspicions_refuted_total",
                "Number of suspicions of other nodes that proved false.",
            )?,
            stalls: counter(
                "ferrolb_failover_stalls_total",
                "Number of times this speaker stood still so long that it asked before it answered again.",
            )?,
            unlearned: counter(
                "ferrolb_failover_unlearned_total",
                "Number of hosts told three times that an address has moved that did not answer.",
            )?,
            strangers: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "ferrolb_layer2_address_conflict",
                        "1 while a host that is no speaker answers for an address of this cluster, with its hardware address.",
                    ),
                    &["ip", "interface", "mac"],
                )?,
            )?,
            conflicts,
        })
    }

    /// An address was taken on an interface.
    pub fn taken(&self, interface: &str, cause: &str) {
        self.held.with_label_values(&[interface]).inc();
        self.changes.with_label_values(&["taken", cause]).inc();
    }

    /// An address was released on an interface.
    pub fn released(&self, interface: &str, cause: &str) {
        self.held.with_label_values(&[interface]).dec();
        self.changes.with_label_values(&["released", cause]).inc();
    }

    /// The arbiter of an interface is no more.
    pub fn gone(&self, interface: &str) {
        // Only absent if nothing was ever held there.
        let _absent = self.held.remove_label_values(&[interface]);
    }

    /// A host that is no speaker answers for an address.
    pub fn stranger(&self, address: IpAddr, interface: &str, mac: MacAddr) {
        let labels = [&address.to_string(), interface, &mac.to_string()];
        self.strangers.with_label_values(&labels).set(1);
    }

    /// It does so no more.
    pub fn stranger_gone(&self, address: IpAddr, interface: &str, mac: MacAddr) {
        let labels = [&address.to_string(), interface, &mac.to_string()];
        // Only absent if it was never set.
        let _absent = self.strangers.remove_label_values(&labels);
    }

    /// A node was found to be down after that long a silence.
    pub fn down(&self, silent: Duration, kernel: bool) {
        let kernel = if kernel { "answering" } else { "silent" };
        self.lost.with_label_values(&[kernel]).inc();
        self.detection.observe(silent.as_secs_f64());
    }

    /// An address of a lost node is answered for, that long after its last sign.
    pub fn taken_over(&self, after: Duration) {
        self.takeover.observe(after.as_secs_f64());
    }
}
