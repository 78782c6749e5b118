//! This daemon's series: MetalLB's under MetalLB's names, ours under `ferrolb_`.

mod failover;

use std::sync::Arc;

use ferrolb_speaker_wire::DropReason;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

pub use failover::FailoverMetrics;

use crate::table::Held;

/// Everything the speaker counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// `metallb_speaker_announced{service,protocol,node,ip}`: 1 per announced address of a Service.
    pub announced: IntGaugeVec,
    /// Services of type LoadBalancer this node does not announce, by reason.
    pub silent: IntGaugeVec,
    /// `ServiceL2Status` objects that could not be written or deleted; tried again.
    pub status_errors: IntCounter,
    /// What happens on the wire.
    pub wire: WireMetrics,
    /// Who answers for what.
    pub failover: FailoverMetrics,
    requests: IntCounterVec,
    responses: IntCounterVec,
    gratuitous: IntCounterVec,
}

/// What the responder counts. Clones share the counters.
#[derive(Clone, Debug)]
pub struct WireMetrics {
    /// By [`DropReason`], in the order of its variants.
    dropped: Arc<[IntCounter]>,
    /// Sends that failed.
    pub send_errors: IntCounter,
    /// Sockets that failed while listening and were opened anew.
    pub receive_errors: IntCounter,
    /// Sockets that could not be opened.
    pub open_errors: IntCounter,
    /// Answering tasks that fell and were started again.
    pub restarts: IntCounter,
    /// Frames the kernel dropped because they were not fetched in time.
    pub kernel_drops: IntCounter,
    /// Questions that had waited too long to be answered.
    pub stale: IntCounter,
    /// Interfaces answered on.
    pub interfaces: IntGauge,
}

impl Metrics {
    /// Registers all of them.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let by_ip = |name, help| {
            register(
                registry,
                IntCounterVec::new(Opts::new(name, help), &["ip"])?,
            )
        };
        Ok(Self {
            announced: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "metallb_speaker_announced",
                        "Services being announced from this node, one for each address.",
                    ),
                    &["service", "protocol", "node", "ip"],
                )?,
            )?,
            silent: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "ferrolb_speaker_silent_services",
                        "Services of type LoadBalancer not announced from this node, by reason.",
                    ),
                    &["reason"],
                )?,
            )?,
            status_errors: register(
                registry,
                IntCounter::new(
                    "ferrolb_speaker_status_errors_total",
                    "Number of ServiceL2Status writes that failed.",
                )?,
            )?,
            wire: WireMetrics::new(registry)?,
            failover: FailoverMetrics::new(registry)?,
            requests: by_ip(
                "metallb_layer2_requests_received",
                "Number of layer2 requests received for owned IPs.",
            )?,
            responses: by_ip(
                "metallb_layer2_responses_sent",
                "Number of layer2 responses sent for owned IPs.",
            )?,
            gratuitous: by_ip(
                "metallb_layer2_gratuitous_sent",
                "Number of gratuitous layer2 packets sent for owned IPs.",
            )?,
        })
    }

    /// The counters of one address. They keep counting where they were if it is taken again.
    pub fn held(&self, ip: &str) -> Held {
        Held {
            at: None,
            requests: self.requests.with_label_values(&[ip]),
            responses: self.responses.with_label_values(&[ip]),
            gratuitous: self.gratuitous.with_label_values(&[ip]),
        }
    }
}

impl Metrics {
    /// Takes the counters of an address out of what is served, so that addresses that come and go do not make series
    /// without end.
    pub fn forget(&self, ip: &str) {
        for counters in [&self.requests, &self.responses, &self.gratuitous] {
            // Only absent if it was never held.
            let _absent = counters.remove_label_values(&[ip]);
        }
    }
}

impl WireMetrics {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help| register(registry, IntCounter::new(name, help)?);
        let dropped = register(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "ferrolb_layer2_frames_dropped_total",
                    "Number of received frames dropped without an answer, by reason.",
                ),
                &["reason"],
            )?,
        )?;
        Ok(Self {
            dropped: DropReason::ALL
                .into_iter()
                .map(|reason| dropped.with_label_values(&[reason.label()]))
                .collect(),
            send_errors: counter(
                "ferrolb_layer2_send_errors_total",
                "Number of sends that failed.",
            )?,
            receive_errors: counter(
                "ferrolb_layer2_receive_errors_total",
                "Number of times an interface's socket failed while listening and was opened anew.",
            )?,
            open_errors: counter(
                "ferrolb_layer2_open_errors_total",
                "Number of times an interface's socket could not be opened.",
            )?,
            restarts: counter(
                "ferrolb_layer2_responder_restarts_total",
                "Number of answering tasks that fell and were started again.",
            )?,
            kernel_drops: counter(
                "ferrolb_layer2_kernel_drops_total",
                "Number of frames the kernel dropped because they were not fetched in time.",
            )?,
            stale: counter(
                "ferrolb_layer2_stale_questions_total",
                "Number of questions left unanswered because they were asked while this node stood still.",
            )?,
            interfaces: register(
                registry,
                IntGauge::new(
                    "ferrolb_layer2_interfaces",
                    "Number of interfaces answered on.",
                )?,
            )?,
        })
    }

    /// Counts a frame dropped for this reason.
    pub fn count_drop(&self, reason: DropReason) {
        if let Some(counter) = self.dropped.get(reason as usize) {
            counter.inc();
        }
    }

    /// How many frames were dropped for this reason.
    #[cfg(test)]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason as usize).map_or(0, IntCounter::get)
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::{Metrics, Registry};

    /// What a scrape finds of MetalLB's layer-2 series, comments aside.
    fn scraped(registry: &Registry) -> Vec<String> {
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("# HELP"));
        let ours = lines.filter(|line| line.contains("metallb_"));
        ours.map(str::to_owned).collect()
    }

    #[test]
    fn series_have_metallbs_names_types_and_labels() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        assert_eq!(scraped(&registry), [""; 0]);
        let labels = ["default/web", "layer2", "me", "10.0.0.1"];
        metrics.announced.with_label_values(&labels).set(1);
        let held = metrics.held("10.0.0.1");
        held.requests.inc();
        held.responses.inc();
        held.gratuitous.inc_by(2);
        let expected = [
            "# TYPE metallb_layer2_gratuitous_sent counter",
            "metallb_layer2_gratuitous_sent{ip=\"10.0.0.1\"} 2",
            "# TYPE metallb_layer2_requests_received counter",
            "metallb_layer2_requests_received{ip=\"10.0.0.1\"} 1",
            "# TYPE metallb_layer2_responses_sent counter",
            "metallb_layer2_responses_sent{ip=\"10.0.0.1\"} 1",
            "# TYPE metallb_speaker_announced gauge",
            "metallb_speaker_announced{ip=\"10.0.0.1\",node=\"me\",protocol=\"layer2\",service=\"default/web\"} 1",
        ];
        assert_eq!(scraped(&registry), expected);
        metrics.forget("10.0.0.1");
        metrics.announced.remove_label_values(&labels).unwrap();
        assert_eq!(scraped(&registry), [""; 0]);
    }
}
