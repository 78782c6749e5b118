//! The series every daemon has, under the names MetalLB gave them.

use prometheus::{IntCounter, IntGauge, Registry};

/// `metallb_k8s_client_*` (MetalLB `internal/k8s`, all releases).
#[derive(Clone, Debug)]
pub struct ClientMetrics {
    /// Changes taken from the API server and worked on.
    pub updates: IntCounter,
    /// Those of them whose work failed and was put back.
    pub update_errors: IntCounter,
    /// 1 once a configuration has been taken up.
    pub config_loaded: IntGauge,
    /// 1 while the newest configuration is not the one in force.
    pub config_stale: IntGauge,
    /// Problems found in the newest configuration; 0 when it was taken up.
    pub config_problems: IntGauge,
    /// Pools in force with `protocol: bgp`, which are not served.
    pub config_bgp_pools: IntGauge,
}

impl ClientMetrics {
    /// Registers the series.
    ///
    /// # Errors
    /// One of the names is taken in `registry`.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            updates: IntCounter::new(
                "metallb_k8s_client_updates_total",
                "Number of Kubernetes object changes that have been worked on.",
            )?,
            update_errors: IntCounter::new(
                "metallb_k8s_client_update_errors_total",
                "Number of Kubernetes object changes whose work failed.",
            )?,
            config_loaded: IntGauge::new(
                "metallb_k8s_client_config_loaded_bool",
                "1 if a configuration was taken up at least once.",
            )?,
            config_stale: IntGauge::new(
                "metallb_k8s_client_config_stale_bool",
                "1 if the newest configuration was refused and an older one is in force.",
            )?,
            config_problems: IntGauge::new(
                "ferrolb_config_problems",
                "Number of problems found in the newest configuration.",
            )?,
            config_bgp_pools: IntGauge::new(
                "ferrolb_config_bgp_pools",
                "Number of address pools with protocol bgp, which give no addresses and are not announced.",
            )?,
        };
        registry.register(Box::new(metrics.updates.clone()))?;
        registry.register(Box::new(metrics.update_errors.clone()))?;
        registry.register(Box::new(metrics.config_loaded.clone()))?;
        registry.register(Box::new(metrics.config_stale.clone()))?;
        registry.register(Box::new(metrics.config_problems.clone()))?;
        registry.register(Box::new(metrics.config_bgp_pools.clone()))?;
        Ok(metrics)
    }
}

/// A registry with the process's own series (`process_*`) in it.
///
/// # Errors
/// The names are taken, which a fresh registry rules out.
pub fn registry() -> prometheus::Result<Registry> {
    let registry = Registry::new();
    registry.register(Box::new(
        prometheus::process_collector::ProcessCollector::for_self(),
    ))?;
    Ok(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_and_the_client_have_their_series() {
        let registry = registry().unwrap();
        ClientMetrics::new(&registry).unwrap();
        let families = registry.gather();
        let names: Vec<&str> = families
            .iter()
            .map(prometheus::proto::MetricFamily::name)
            .collect();
        for expected in [
            "metallb_k8s_client_config_loaded_bool",
            "metallb_k8s_client_config_stale_bool",
            "metallb_k8s_client_update_errors_total",
            "metallb_k8s_client_updates_total",
            "process_resident_memory_bytes",
        ] {
            assert!(
                names.contains(&expected),
                "{expected} is not among {names:?}"
            );
        }
    }
}
