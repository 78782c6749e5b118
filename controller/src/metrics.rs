//! The controller's own series, MetalLB's names first.

use std::collections::BTreeSet;

use ferrolb_controller_core::PoolUse;
use prometheus::{GaugeVec, IntGauge, Opts, Registry};

/// `metallb_allocator_*`: one series a pool, gone with the pool.
pub struct AllocatorMetrics {
    all: GaugeVec,
    all_in_use: GaugeVec,
    v4: GaugeVec,
    v4_in_use: GaugeVec,
    v6: GaugeVec,
    v6_in_use: GaugeVec,
    services: GaugeVec,
    waiting: IntGauge,
    pools: BTreeSet<String>,
}

impl AllocatorMetrics {
    /// Registers the series.
    ///
    /// # Errors
    /// One of the names is taken in `registry`.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let per_pool = |name: &str, help: &str| {
            let gauges = GaugeVec::new(
                Opts::new(format!("metallb_allocator_{name}"), help),
                &["pool"],
            )?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let waiting = IntGauge::new(
            "ferrolb_allocator_services_waiting",
            "Number of Services that want an address and have none.",
        )?;
        registry.register(Box::new(waiting.clone()))?;
        Ok(Self {
            all: per_pool("addresses_total", "Number of usable IP addresses, per pool")?,
            all_in_use: per_pool(
                "addresses_in_use_total",
                "Number of IP addresses in use, per pool",
            )?,
            v4: per_pool(
                "ipv4_addresses_total",
                "Number of usable IPv4 addresses, per pool",
            )?,
            v4_in_use: per_pool(
                "ipv4_addresses_in_use_total",
                "Number of IPv4 addresses in use, per pool",
            )?,
            v6: per_pool(
                "ipv6_addresses_total",
                "Number of usable IPv6 addresses, per pool",
            )?,
            v6_in_use: per_pool(
                "ipv6_addresses_in_use_total",
                "Number of IPv6 addresses in use, per pool",
            )?,
            services: per_pool(
                "services_allocated_total",
                "Number of services allocated, per pool",
            )?,
            waiting,
            pools: BTreeSet::new(),
        })
    }

    /// Shows the pools as they are now and how many Services wait.
    // Prometheus knows only doubles: a pool of more than 2^53 addresses is shown rounded.
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a double")]
    pub fn show(&mut self, pools: &[PoolUse], waiting: usize) {
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        let mut now = BTreeSet::new();
        for pool in pools {
            let name = [pool.name.as_str()];
            let (v4, v6) = (pool.v4_total as f64, pool.v6_total as f64);
            let (v4_in_use, v6_in_use) = (pool.v4_in_use as f64, pool.v6_in_use as f64);
            self.all.with_label_values(&name).set(v4 + v6);
            self.all_in_use
                .with_label_values(&name)
                .set(v4_in_use + v6_in_use);
            self.v4.with_label_values(&name).set(v4);
            self.v4_in_use.with_label_values(&name).set(v4_in_use);
            self.v6.with_label_values(&name).set(v6);
            self.v6_in_use.with_label_values(&name).set(v6_in_use);
            self.services
                .with_label_values(&name)
                .set(pool.services as f64);
            now.insert(pool.name.clone());
        }
        for gone in self.pools.difference(&now) {
            for gauges in [
                &self.all,
                &self.all_in_use,
                &self.v4,
                &self.v4_in_use,
                &self.v6,
                &self.v6_in_use,
                &self.services,
            ] {
                // It was set when the pool was first shown, so there is nothing to report.
                let _ = gauges.remove_label_values(&[gone.as_str()]);
            }
        }
        self.pools = now;
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_config::Origin;

    use super::*;

    fn pool(name: &str, in_use: u64) -> PoolUse {
        PoolUse {
            name: name.to_owned(),
            v4_total: 16,
            v6_total: 0,
            v4_in_use: in_use,
            v6_in_use: 0,
            services: in_use + 1,
            origin: Origin::ConfigMap,
        }
    }

    #[test]
    fn a_pool_that_is_gone_takes_its_series_along() {
        let registry = Registry::new();
        let mut metrics = AllocatorMetrics::new(&registry).unwrap();
        metrics.show(&[pool("a", 3), pool("b", 0)], 1);
        let text = |registry: &Registry| {
            prometheus::TextEncoder::new()
                .encode_to_string(&registry.gather())
                .unwrap()
        };
        let both = text(&registry);
        assert!(
            both.contains("metallb_allocator_addresses_in_use_total{pool=\"a\"} 3"),
            "{both}"
        );
        assert!(
            both.contains("metallb_allocator_services_allocated_total{pool=\"a\"} 4"),
            "{both}"
        );
        assert!(
            both.contains("metallb_allocator_addresses_total{pool=\"b\"} 16"),
            "{both}"
        );
        metrics.show(&[pool("a", 3)], 0);
        assert!(!text(&registry).contains("pool=\"b\""));
    }
}
