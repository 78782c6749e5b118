//! The flags both daemons have, of every MetalLB release from 0.7 to 0.16.

use std::path::PathBuf;

use clap::Args;
use thiserror::Error;

use crate::{endpoints::Scheme, log::LogLevel};

/// Why a flag's value is refused after it was read. MetalLB ends with status 1 on each of these, too.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum FlagError {
    /// Not one of MetalLB's words.
    #[error("--log-level={0:?}: must be one of all, debug, info, warn, error, none")]
    LogLevel(String),
    /// Not one of our words.
    #[error("--metrics-scheme={0:?}: must be one of auto, http, https, both")]
    Scheme(String),
    /// See [`crate::tls::OptionsError`].
    #[error(transparent)]
    Tls(#[from] crate::tls::OptionsError),
}

/// The flags both daemons have. Flatten it into the daemon's own.
///
/// Flags of one era are accepted in all of them; those that mean nothing here are named by
/// [`Shared::without_effect`].
#[derive(Clone, Debug, Args)]
pub struct Shared {
    /// Name of the ConfigMap that holds the address pools (MetalLB 0.7 to 0.12); "config" if not given.
    #[arg(long, value_name = "NAME")]
    pub config: Option<String>,

    /// Namespace of the configuration; the pod's own if not given.
    #[arg(
        long,
        env = "METALLB_NAMESPACE",
        value_name = "NAME",
        visible_alias = "config-ns"
    )]
    pub namespace: Option<String>,

    /// Kubeconfig to use outside a cluster.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Port of /metrics; 0 for none; 7472 if not given.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,

    /// What /metrics speaks: http (open to all), https (bearer tokens the API server lets GET /metrics), both on one
    /// port, or auto: http where --config is given, https on port 9120 or with a flag only MetalLB 0.16 has, else both.
    #[arg(long, value_name = "SCHEME", default_value = "auto")]
    pub metrics_scheme: String,

    /// Port of /healthz and /readyz over plain HTTP; 0 for none; 17472 if not given.
    #[arg(long, value_name = "PORT")]
    pub health_probe_port: Option<u16>,

    /// all, debug, info, warn, error or none.
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,

    /// Serve only Services whose spec.loadBalancerClass is this one (MetalLB 0.13 and newer); without it, only Services
    /// that name no class.
    #[arg(long, value_name = "CLASS")]
    pub lb_class: Option<String>,

    /// Name of our own pod, which owns the status objects we make.
    #[arg(long, env = "METALLB_POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,

    /// Lowest TLS version spoken: VersionTLS12 or VersionTLS13; the latter if not given.
    #[arg(long, value_name = "VERSION", default_value = "")]
    pub tls_min_version: String,

    /// Cipher suites of TLS 1.2 by their IANA names, separated by commas; all if not given.
    #[arg(long, value_name = "NAMES", default_value = "")]
    pub tls_cipher_suites: String,

    /// Key exchanges by their IANA numbers, separated by commas, the best liked first; all if not given.
    #[arg(long, value_name = "NUMBERS", default_value = "")]
    pub tls_curve_preferences: String,

    /// Directory with tls.crt and tls.key for /metrics over HTTPS; a certificate of our own if not given.
    #[arg(long, value_name = "DIRECTORY")]
    pub metrics_cert_dir: Option<PathBuf>,

    /// Use Endpoints even where there are EndpointSlices.
    #[arg(long)]
    pub disable_epslices: bool,

    /// Accepted; there is no Go runtime to profile.
    #[arg(long)]
    pub enable_pprof: bool,

    /// Accepted; there is no Go runtime to profile.
    #[arg(long, value_name = "ADDRESS")]
    pub pprof_bind_address: Option<String>,
}

impl Shared {
    /// The name of the ConfigMap.
    pub fn config_name(&self) -> &str {
        match &self.config {
            Some(name) if !name.is_empty() => name,
            _ => "config",
        }
    }

    /// Whether the ConfigMap was asked for, as by every manifest of the time it was the configuration.
    pub fn configmap_wanted(&self) -> bool {
        self.config.is_some()
    }

    /// The `spec.loadBalancerClass` to serve; none for Services without one.
    pub fn class(&self) -> Option<&str> {
        self.lb_class.as_deref().filter(|class| !class.is_empty())
    }

    /// The name of our own pod, if we were told.
    pub fn pod(&self) -> Option<&str> {
        self.pod_name.as_deref().filter(|name| !name.is_empty())
    }

    /// How much is logged.
    ///
    /// # Errors
    /// [`FlagError::LogLevel`].
    pub fn level(&self) -> Result<LogLevel, FlagError> {
        let wrong = |_| FlagError::LogLevel(self.log_level.clone());
        self.log_level.parse().map_err(wrong)
    }

    /// How strict our TLS servers are.
    ///
    /// # Errors
    /// [`FlagError::Tls`].
    pub fn tls(&self) -> Result<crate::tls::Options, FlagError> {
        Ok(crate::tls::Options::parse(
            &self.tls_min_version,
            &self.tls_cipher_suites,
            &self.tls_curve_preferences,
        )?)
    }

    /// What `/metrics` speaks, as asked for; none where it is ours to tell.
    ///
    /// # Errors
    /// [`FlagError::Scheme`].
    pub(crate) fn scheme(&self) -> Result<Option<Scheme>, FlagError> {
        match self.metrics_scheme.as_str() {
            "" | "auto" => Ok(None),
            "http" => Ok(Some(Scheme::Http)),
            "https" => Ok(Some(Scheme::Https)),
            "both" => Ok(Some(Scheme::Both)),
            other => Err(FlagError::Scheme(other.to_owned())),
        }
    }

    /// The flags given that change nothing here, by name.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let pprof = self.pprof_bind_address.as_ref();
        [
            (self.enable_pprof, "enable-pprof"),
            (
                pprof.is_some_and(|address| !address.is_empty()),
                "pprof-bind-address",
            ),
        ]
        .into_iter()
        .filter_map(|(given, name)| given.then_some(name))
        .collect()
    }
}
