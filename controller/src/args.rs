//! The controller's flags: MetalLB's of the ConfigMap era (0.7 to 0.12).

use std::path::PathBuf;

use clap::Parser;
use ferrolb_runtime::log::LogLevel;

/// Gives Services of type LoadBalancer addresses from the operator's pools.
#[derive(Debug, Parser)]
#[command(name = "controller", version)]
pub struct Args {
    /// Name of the ConfigMap that holds the address pools.
    #[arg(long, default_value = "config", value_name = "NAME")]
    pub config: String,

    /// Namespace of that ConfigMap; the pod's own if not given.
    #[arg(long, env = "METALLB_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,

    /// Kubeconfig to use outside a cluster.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Port of /metrics, /healthz and /readyz.
    #[arg(long, default_value_t = 7472)]
    pub port: u16,

    /// all, debug, info, warn, error or none.
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub log_level: LogLevel,

    /// Serve only Services whose spec.loadBalancerClass is this one (MetalLB 0.13 and newer); without
    /// it, only Services that name no class.
    #[arg(long, value_name = "CLASS")]
    pub lb_class: Option<String>,
}
