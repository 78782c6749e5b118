//! What answering counts: MetalLB's series under MetalLB's names, ours under `ferrolb_`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ferrolb_speaker_wire::DropReason;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// What happens on the wire. Clones share the counters.
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

impl WireMetrics {
    /// Registers all of them.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
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

/// What is counted of one address.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    responses: AtomicU64,
    gratuitous: AtomicU64,
}

impl Counters {
    /// A question for it was received (`metallb_layer2_requests_received{ip}`).
    pub fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer was sent (`metallb_layer2_responses_sent{ip}`).
    pub fn count_response(&self) {
        self.responses.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame was sent unasked (`metallb_layer2_gratuitous_sent{ip}`).
    pub fn count_gratuitous(&self) {
        self.gratuitous.fetch_add(1, Ordering::Relaxed);
    }

    /// Questions received.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Answers sent.
    pub fn responses(&self) -> u64 {
        self.responses.load(Ordering::Relaxed)
    }

    /// Frames sent unasked.
    pub fn gratuitous(&self) -> u64 {
        self.gratuitous.load(Ordering::Relaxed)
    }
}

/// A series' name and help, and where its value stands.
type Series = (Desc, Value);

type Value = fn(&Counters) -> u64;

/// The counters of every address that is or was answered for, served as MetalLB's three series. Clones share them.
///
/// The library's own counters keep name, help and labels with each series, about a kilobyte and a half for an address; these
/// keep the numbers, side by side, and make the rest when they are scraped. Who counts takes no lock.
#[derive(Clone, Debug)]
pub struct AddressMetrics {
    known: Arc<Mutex<BTreeMap<IpAddr, Arc<Counters>>>>,
    series: Arc<[Series]>,
}

impl AddressMetrics {
    /// Registers the series.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let series: [(_, _, Value); 3] = [
            (
                "metallb_layer2_requests_received",
                "Number of layer2 requests received for owned IPs.",
                Counters::requests,
            ),
            (
                "metallb_layer2_responses_sent",
                "Number of layer2 responses sent for owned IPs.",
                Counters::responses,
            ),
            (
                "metallb_layer2_gratuitous_sent",
                "Number of gratuitous layer2 packets sent for owned IPs.",
                Counters::gratuitous,
            ),
        ];
        let series = series.into_iter().map(|(name, help, value)| {
            let labels = vec!["ip".to_owned()];
            let desc = Desc::new(name.to_owned(), help.to_owned(), labels, [].into())?;
            Ok((desc, value))
        });
        let metrics = Self {
            known: Arc::default(),
            series: series.collect::<prometheus::Result<_>>()?,
        };
        register(registry, metrics)
    }

    /// Those of one address. They keep counting where they were if it is taken again.
    pub fn of(&self, address: IpAddr) -> Arc<Counters> {
        self.known().entry(address).or_default().clone()
    }

    /// Takes the counters of an address out of what is served, so that addresses that come and go do not make series
    /// without end.
    pub fn forget(&self, address: IpAddr) {
        self.known().remove(&address);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, Arc<Counters>>> {
        // Neither inserting nor removing leaves a half-done state behind.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for AddressMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.series.iter().map(|(desc, _)| desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let known: Vec<_> = self
            .known()
            .iter()
            .map(|(address, counters)| (address.to_string(), counters.clone()))
            .collect();
        let family = |(desc, value): &Series| {
            let metrics = known
                .iter()
                .map(|(address, counters)| series(address, value(counters)));
            let mut family = MetricFamily::default();
            family.set_name(desc.fq_name.clone());
            family.set_help(desc.help.clone());
            family.set_field_type(MetricType::COUNTER);
            family.set_metric(metrics.collect());
            family
        };
        self.series.iter().map(family).collect()
    }
}

fn series(address: &str, value: u64) -> Metric {
    let mut label = LabelPair::default();
    label.set_name("ip".to_owned());
    label.set_value(address.to_owned());
    let mut counter = Counter::default();
    #[allow(
        clippy::cast_precision_loss,
        reason = "Prometheus counts in floating point"
    )]
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(vec![label]);
    metric.set_counter(counter);
    metric
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::{AddressMetrics, Registry};

    /// What a scrape finds, comments aside.
    fn scraped(registry: &Registry) -> Vec<String> {
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("# HELP"));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn series_have_metallbs_names_types_and_labels() {
        let registry = Registry::new();
        let metrics = AddressMetrics::new(&registry).unwrap();
        assert_eq!(scraped(&registry), [""; 0]);
        let (address, other) = ([10, 0, 0, 1].into(), [0xfd; 16].into());
        let counters = metrics.of(address);
        counters.count_request();
        counters.count_response();
        counters.count_gratuitous();
        counters.count_gratuitous();
        metrics.of(other).count_request();
        let expected = [
            "# TYPE metallb_layer2_gratuitous_sent counter",
            "metallb_layer2_gratuitous_sent{ip=\"10.0.0.1\"} 2",
            "metallb_layer2_gratuitous_sent{ip=\"fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd\"} 0",
            "# TYPE metallb_layer2_requests_received counter",
            "metallb_layer2_requests_received{ip=\"10.0.0.1\"} 1",
            "metallb_layer2_requests_received{ip=\"fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd\"} 1",
            "# TYPE metallb_layer2_responses_sent counter",
            "metallb_layer2_responses_sent{ip=\"10.0.0.1\"} 1",
            "metallb_layer2_responses_sent{ip=\"fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd\"} 0",
        ];
        assert_eq!(scraped(&registry), expected);
        assert_eq!(metrics.of(address).gratuitous(), 2);
        metrics.forget(address);
        metrics.forget(other);
        assert_eq!(scraped(&registry), [""; 0]);
    }
}
