//! This daemon's series: MetalLB's under MetalLB's names, ours under `ferrolb_`.

mod failover;

use std::net::IpAddr;

use ferrolb_speaker_responder::{AddressMetrics, Held, WireMetrics};
use prometheus::core::Collector;
use prometheus::{IntCounter, IntGaugeVec, Opts, Registry};

pub use failover::FailoverMetrics;

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
    addresses: AddressMetrics,
}

impl Metrics {
    /// Registers all of them.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
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
            addresses: AddressMetrics::new(registry)?,
        })
    }

    /// What is kept of one address that is answered for, with counters that go on where they were if it is taken again.
    pub fn held(&self, address: IpAddr) -> Held {
        Held {
            at: None,
            counters: self.addresses.of(address),
        }
    }

    /// Takes the counters of an address out of what is served, so that addresses that come and go do not make series
    /// without end.
    pub fn forget(&self, address: IpAddr) {
        self.addresses.forget(address);
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
        let address = [10, 0, 0, 1].into();
        let counters = metrics.held(address).counters;
        counters.count_request();
        counters.count_response();
        counters.count_gratuitous();
        counters.count_gratuitous();
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
        metrics.forget(address);
        metrics.announced.remove_label_values(&labels).unwrap();
        assert_eq!(scraped(&registry), [""; 0]);
    }
}
