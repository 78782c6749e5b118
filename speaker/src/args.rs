//! The speaker's flags and environment: MetalLB's of the ConfigMap era (0.7 to 0.12).

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Parser;
use ferrolb_runtime::log::LogLevel;

/// The label selector of MetalLB's manifests for the speakers' pods.
const SPEAKER_PODS: &str = "app=metallb,component=speaker";

/// Answers ARP for the addresses this node holds.
#[derive(Debug, Parser)]
#[command(name = "speaker", version)]
pub struct Args {
    /// Name of the ConfigMap that holds the address pools.
    #[arg(long, default_value = "config", value_name = "NAME")]
    pub config: String,

    /// Namespace of that ConfigMap and of the speakers' pods; the pod's own if not given.
    #[arg(long, env = "METALLB_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,

    /// Kubeconfig to use outside a cluster.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Name of the Node this speaker runs on; required.
    #[arg(
        long,
        env = "METALLB_NODE_NAME",
        value_name = "NAME",
        default_value = ""
    )]
    pub node_name: String,

    /// Address of /metrics, /healthz and /readyz; all if not given.
    #[arg(long, env = "METALLB_HOST", value_name = "ADDRESS", default_value = "")]
    pub host: String,

    /// Port of /metrics, /healthz and /readyz.
    #[arg(long, default_value_t = 7472)]
    pub port: u16,

    /// all, debug, info, warn, error or none.
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub log_level: LogLevel,

    /// Label selector of the speakers' pods.
    #[arg(
        long,
        env = "METALLB_ML_LABELS",
        value_name = "SELECTOR",
        default_value = ""
    )]
    pub ml_labels: String,

    /// Accepted; there is no member list.
    #[arg(
        long,
        env = "METALLB_ML_BIND_ADDR",
        value_name = "ADDRESS",
        default_value = ""
    )]
    pub ml_bindaddr: String,

    /// Accepted; there is no member list.
    #[arg(
        long,
        env = "METALLB_ML_BIND_PORT",
        value_name = "PORT",
        default_value = ""
    )]
    pub ml_bindport: String,

    /// Accepted; there is no member list.
    #[arg(
        long,
        env = "METALLB_ML_SECRET_KEY",
        value_name = "SECRET",
        default_value = "",
        hide_env_values = true
    )]
    pub ml_secret_key: String,

    /// Use Endpoints even where there are EndpointSlices.
    #[arg(long)]
    pub disable_epslices: bool,

    /// Accepted; there is no Go runtime to profile.
    #[arg(long)]
    pub enable_pprof: bool,

    /// Announce only Services whose spec.loadBalancerClass is this one (MetalLB 0.13 and newer); without it, only
    /// Services that name no class.
    #[arg(long, value_name = "CLASS")]
    pub lb_class: Option<String>,
}

/// A value without which, or with which, the speaker cannot start.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// Nobody said which node this is.
    #[error("own node unknown; set METALLB_NODE_NAME from spec.nodeName, or give --node-name")]
    NodeName,
    /// The metrics server cannot listen there.
    #[error("{0:?} is not an IP address; set METALLB_HOST from status.hostIP, or leave it empty")]
    Host(String),
}

impl Args {
    /// The name of this speaker's Node.
    pub fn node(&self) -> Result<&str, ArgsError> {
        if self.node_name.is_empty() {
            Err(ArgsError::NodeName)
        } else {
            Ok(&self.node_name)
        }
    }

    /// Where the metrics server listens; none for everywhere.
    pub fn listen(&self) -> Result<Option<IpAddr>, ArgsError> {
        if self.host.is_empty() {
            return Ok(None);
        }
        self.host
            .parse()
            .map(Some)
            .map_err(|_| ArgsError::Host(self.host.clone()))
    }

    /// The label selector of the speakers' pods.
    pub fn speaker_pods(&self) -> &str {
        if self.ml_labels.is_empty() {
            SPEAKER_PODS
        } else {
            &self.ml_labels
        }
    }

    /// The flags given that change nothing here.
    pub fn without_effect(&self) -> Vec<&'static str> {
        [
            (!self.ml_bindaddr.is_empty(), "ml-bindaddr"),
            (!self.ml_bindport.is_empty(), "ml-bindport"),
            (!self.ml_secret_key.is_empty(), "ml-secret-key"),
            (self.enable_pprof, "enable-pprof"),
        ]
        .into_iter()
        .filter_map(|(given, name)| given.then_some(name))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Args, ArgsError, IpAddr, Parser};

    fn args(line: &[&str]) -> Args {
        Args::try_parse_from([&["speaker"], line].concat()).unwrap()
    }

    #[test]
    fn the_node_must_be_named_and_the_host_an_address() {
        let given = args(&["--node-name=n", "--host=10.0.0.1"]);
        assert_eq!(given.node(), Ok("n"));
        assert_eq!(given.listen(), Ok(Some(IpAddr::from([10, 0, 0, 1]))));
        let wrong = args(&["--node-name=", "--host=nowhere"]);
        assert_eq!(wrong.node(), Err(ArgsError::NodeName));
        assert_eq!(wrong.listen(), Err(ArgsError::Host("nowhere".to_owned())));
        assert_eq!(args(&["--host="]).listen(), Ok(None));
    }

    #[test]
    fn flags_of_the_member_list_are_accepted_and_named() {
        let given = args(&[
            "--ml-bindaddr=10.0.0.1",
            "--ml-bindport=7946",
            "--ml-secret-key=s",
            "--ml-labels=a=b",
        ]);
        assert_eq!(
            given.without_effect(),
            ["ml-bindaddr", "ml-bindport", "ml-secret-key"]
        );
        assert_eq!(given.speaker_pods(), "a=b");
        assert_eq!(
            args(&["--ml-labels="]).speaker_pods(),
            "app=metallb,component=speaker"
        );
    }
}
