//! The speaker's flags and environment: MetalLB's of every release from 0.7 to 0.16.

mod failover;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Parser;
use ferrolb_runtime::endpoints::Daemon;
use ferrolb_runtime::flags::Shared;
use ferrolb_speaker_members::{Key, KeyLength, Profile};
use ferrolb_speaker_members_driver::Settings;

pub use failover::{Cordoned, Failover};

use crate::gossip::MARK;

/// The gossip's times, where the ConfigMap `metallb-memberlist-config` is mounted (MetalLB 0.16).
const PROFILE: &str = "/etc/metallb/memberlist/config.json";
/// The label selector of MetalLB's manifests for the speakers' pods.
const SPEAKER_PODS: &str = "app=metallb,component=speaker";

/// Answers ARP and NDP for the addresses this node holds.
#[derive(Clone, Debug, Parser)]
#[command(name = "speaker", version)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of MetalLB's command line"
)]
pub struct Args {
    /// What the controller has, too.
    #[command(flatten)]
    pub shared: Shared,

    /// How addresses change hands.
    #[command(flatten)]
    pub failover: Failover,

    /// Name of the Node this speaker runs on; required.
    #[arg(
        long,
        env = "METALLB_NODE_NAME",
        value_name = "NAME",
        default_value = ""
    )]
    pub node_name: String,

    /// Address of /metrics over plain HTTP; all if not given.
    #[arg(long, env = "METALLB_HOST", value_name = "ADDRESS", default_value = "")]
    pub host: String,

    /// Announce from this node even where it carries node.kubernetes.io/exclude-from-external-load-balancers.
    #[arg(long)]
    pub ignore_exclude_lb: bool,

    /// Label selector of the speakers' pods.
    #[arg(
        long,
        env = "METALLB_ML_LABELS",
        value_name = "SELECTOR",
        default_value = ""
    )]
    pub ml_labels: String,

    /// Namespace of the speakers' pods (MetalLB 0.9); that of the configuration if not given.
    #[arg(
        long,
        env = "METALLB_ML_NAMESPACE",
        value_name = "NAME",
        default_value = ""
    )]
    pub ml_namespace: String,

    /// Address of the member list.
    #[arg(
        long,
        env = "METALLB_ML_BIND_ADDR",
        value_name = "ADDRESS",
        default_value = ""
    )]
    pub ml_bindaddr: String,

    /// Port of the member list; 7946 if not given.
    #[arg(
        long,
        env = "METALLB_ML_BIND_PORT",
        value_name = "PORT",
        default_value = ""
    )]
    pub ml_bindport: String,

    /// Secret of the member list (MetalLB 0.9 to 0.13.8).
    #[arg(
        long,
        env = "METALLB_ML_SECRET_KEY",
        value_name = "SECRET",
        default_value = "",
        hide_env_values = true
    )]
    pub ml_secret_key: String,

    /// Directory whose file "secretkey" holds the secret of the member list (MetalLB 0.13.9 and newer).
    #[arg(long, env = "METALLB_ML_SECRET_KEY_PATH", value_name = "DIRECTORY")]
    pub ml_secret_key_path: Option<PathBuf>,

    /// The member list keeps the slower times of a wide area network.
    #[arg(long)]
    pub ml_wan_config: bool,

    /// Accepted; BGP is not spoken here.
    #[arg(
        long,
        env = "FRRK8S_NAMESPACE",
        value_name = "NAME",
        default_value = ""
    )]
    pub frrk8s_namespace: String,

    /// Accepted; BGP is not spoken here.
    #[arg(long)]
    pub frrk8s_secret_passthrough: bool,

    /// Accepted; BGP is not spoken here.
    #[arg(
        long,
        env = "METALLB_BGP_DEBOUNCE_TIMEOUT",
        value_name = "MILLISECONDS",
        default_value = ""
    )]
    pub bgp_debounce_timeout: String,

    /// Accepted; the status of Services is shown wherever its resource exists (a flag of MetalLB 0.14.5 alone).
    #[arg(long)]
    pub enable_l2_service_status: bool,
}

/// A value without which, or with which, the speaker cannot start; MetalLB ends with status 1, too.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// Nobody said which node this is.
    #[error("own node unknown; set METALLB_NODE_NAME from spec.nodeName, or give --node-name")]
    NodeName,
    /// The metrics server cannot listen there.
    #[error("{0:?} is not an IP address; set METALLB_HOST from status.hostIP, or leave it empty")]
    Host(String),
    /// Not a port.
    #[error(
        "{0:?} is not a port; set METALLB_ML_BIND_PORT or --ml-bindport to 1..65535, or leave it empty for 7946"
    )]
    BindPort(String),
    /// Not an address.
    #[error(
        "{0:?} is not an IP address; set METALLB_ML_BIND_ADDR from status.podIP, or leave it empty"
    )]
    BindAddress(String),
    /// A file that must be there, or may not be unreadable.
    #[error("cannot read {path}: {why}; mount it, or do not name it")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The file with the gossip's times is not in order.
    #[error("{path}: {why}")]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
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

    /// Where `/metrics` and the probes are served.
    pub fn daemon(&self) -> Result<Daemon, ArgsError> {
        let wrong = |_| ArgsError::Host(self.host.clone());
        let host = match self.host.as_str() {
            "" => None,
            host => Some(host.parse::<IpAddr>().map_err(wrong)?),
        };
        Ok(Daemon::Speaker { host })
    }

    /// What this speaker needs to be a member of the speakers' gossip, or none where it is switched off: MetalLB takes part
    /// when it knows both its address and the labels of the speakers' pods (section 6.4 of its ways).
    pub fn gossip(&self) -> Result<Option<Settings>, ArgsError> {
        let port = self.bind_port()?;
        if self.ml_bindaddr.is_empty() || self.ml_labels.is_empty() {
            return Ok(None);
        }
        let wrong = |_| ArgsError::BindAddress(self.ml_bindaddr.clone());
        let address: IpAddr = self.ml_bindaddr.parse().map_err(wrong)?;
        Ok(Some(Settings {
            node_name: self.node()?.to_owned(),
            bind: SocketAddr::new(address, port),
            meta: MARK.to_vec(),
            key: self.key()?,
            label: String::new(),
            profile: self.profile(Path::new(PROFILE))?,
        }))
    }

    /// The secret the speakers share, of any length; empty where there is none.
    pub fn secret(&self) -> Result<Vec<u8>, ArgsError> {
        match self.secret_file() {
            Some(path) => fs::read(&path).map_err(|error| unreadable(&path, &error)),
            None => Ok(self.ml_secret_key.as_bytes().to_vec()),
        }
    }

    /// The file of the secret: MetalLB 0.13.9 to 0.13.12 read it, too, and cut 16 bytes out of it; 0.14.2 and newer 32.
    fn secret_file(&self) -> Option<PathBuf> {
        let directory = self.ml_secret_key_path.as_ref();
        let directory = directory.filter(|path| !path.as_os_str().is_empty())?;
        Some(directory.join("secretkey"))
    }

    /// The key of the gossip; none where there is no secret.
    fn key(&self) -> Result<Option<Key>, ArgsError> {
        let length = if self.secret_file().is_some() {
            KeyLength::New
        } else {
            KeyLength::Old
        };
        Ok(Key::from_secret(&self.secret()?, length))
    }

    /// The pace of the gossip: the file of MetalLB 0.16 if there is one, else that of the network.
    fn profile(&self, path: &Path) -> Result<Profile, ArgsError> {
        match fs::read_to_string(path) {
            Ok(text) => Profile::from_json(&text).map_err(|error| ArgsError::Profile {
                path: path.to_owned(),
                why: error.to_string(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(if self.ml_wan_config {
                Profile::wan()
            } else {
                Profile::lan()
            }),
            Err(error) => Err(unreadable(path, &error)),
        }
    }

    /// The port of the member list, checked even where there is none: a manifest that MetalLB refuses should not look
    /// sound until the images are swapped back.
    fn bind_port(&self) -> Result<u16, ArgsError> {
        match self.ml_bindport.as_str() {
            "" => Ok(7946),
            text => match text.parse() {
                Ok(port) if port != 0 => Ok(port),
                _ => Err(ArgsError::BindPort(text.to_owned())),
            },
        }
    }

    /// The label selector of the speakers' pods.
    pub fn speaker_pods(&self) -> &str {
        if self.ml_labels.is_empty() {
            SPEAKER_PODS
        } else {
            &self.ml_labels
        }
    }

    /// The namespace of the speakers' pods, where the configuration lives in `namespace`.
    pub fn speaker_namespace<'a>(&'a self, namespace: &'a str) -> &'a str {
        if self.ml_namespace.is_empty() {
            namespace
        } else {
            &self.ml_namespace
        }
    }

    /// The flags given that change nothing here. What every manifest of MetalLB passes is not among them: the member
    /// list's flags.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let mut flags = self.shared.without_effect();
        let ours = [
            (!self.frrk8s_namespace.is_empty(), "frrk8s-namespace"),
            (self.frrk8s_secret_passthrough, "frrk8s-secret-passthrough"),
            (
                !self.bgp_debounce_timeout.is_empty(),
                "bgp-debounce-timeout",
            ),
            (self.enable_l2_service_status, "enable-l2-service-status"),
        ];
        flags.extend(
            ours.into_iter()
                .filter_map(|(given, name)| given.then_some(name)),
        );
        flags
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ArgsError {
    ArgsError::Unreadable {
        path: path.to_owned(),
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ferrolb_runtime::flags;

    use super::*;

    /// Reads a command line in an environment; both as in a manifest.
    fn read(line: &str, environment: &[(&str, &str)]) -> (Args, Vec<String>) {
        let words = ["speaker"].into_iter().chain(line.split_whitespace());
        let environment: BTreeMap<_, _> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let parsed = flags::read(words.map(str::to_owned), &environment)
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        (parsed.args, parsed.unknown)
    }

    #[test]
    fn every_flag_of_every_release_is_known() {
        let node: &[_] = &[("METALLB_NODE_NAME", "n")];
        let members = [
            node,
            &[
                ("METALLB_HOST", "10.0.0.1"),
                ("METALLB_ML_BIND_ADDR", "10.0.0.1"),
                ("METALLB_ML_BIND_PORT", "7946"),
                ("METALLB_ML_LABELS", "app=metallb,component=speaker"),
            ],
        ]
        .concat();
        let old = [
            &members[..],
            &[
                ("METALLB_ML_NAMESPACE", "ns"),
                ("METALLB_ML_SECRET_KEY", "s"),
            ],
        ]
        .concat();
        let frr = [
            &members[..],
            &[
                ("METALLB_ML_SECRET_KEY_PATH", "/etc/ml_secret_key"),
                ("METALLB_POD_NAME", "p"),
                ("METALLB_NAMESPACE", "ns"),
                ("METALLB_BGP_TYPE", "frr"),
                ("FRR_CONFIG_FILE", "/etc/frr_reloader/frr.conf"),
                ("FRR_RELOADER_PID_FILE", "/etc/frr_reloader/reloader.pid"),
                ("FRR_LOGGING_LEVEL", "informational"),
                ("FRRK8S_NAMESPACE", "frr"),
                ("METALLB_BGP_DEBOUNCE_TIMEOUT", "3000"),
                ("KUBECONFIG", ""),
            ],
        ]
        .concat();
        for (release, line, environment) in [
            ("0.7", "--port=7472 --config=config", node),
            ("0.7 without the manifest", "-node-name n", &[]),
            (
                "0.9",
                "--port=7472 --config=config --config-ns=ns --host=10.0.0.1 --ml-namespace=ns",
                &old[..],
            ),
            (
                "0.12",
                "--port=7472 --config=config --log-level=info --namespace=ns --kubeconfig=k --disable-epslices \
                 --enable-pprof --node-name=n --ml-bindaddr=10.0.0.1 --ml-bindport=7946 --ml-labels=a=b \
                 --ml-secret-key=s",
                &old,
            ),
            (
                "0.14.5",
                "--port=7472 --log-level=info --lb-class=c --ml-secret-key-path=/k --ml-wan-config \
                 --ignore-exclude-lb --enable-l2-service-status",
                &members,
            ),
            (
                "0.16",
                "--port=9120 --log-level=info --health-probe-port=17472 --pprof-bind-address=:6060 --pod-name=p \
                 --tls-min-version=VersionTLS12 --tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 \
                 --tls-curve-preferences=29,23 --metrics-cert-dir=/etc/metrics --frrk8s-namespace=f \
                 --bgp-debounce-timeout=1 --frrk8s-secret-passthrough --ignore-exclude-lb=false",
                &frr,
            ),
            (
                "ours",
                "--failover-profile=fast --failover-interval=100ms --failover-timeout=50ms --failover-retries=3 \
                 --failover-retry=40ms --failover-patience=250ms --failover-starved=300ms --failover-watchers=3 \
                 --failback=never --cordoned-nodes=stay",
                &members,
            ),
        ] {
            let (args, unknown) = read(line, environment);
            assert_eq!(unknown, [""; 0], "{release}");
            assert_eq!(args.node().unwrap(), "n", "{release}");
            assert_eq!(args.bind_port().unwrap(), 7946, "{release}");
            args.daemon().unwrap();
            args.shared.level().unwrap();
            args.shared.tls().unwrap();
        }
    }

    #[test]
    fn the_manifest_of_0_16_says() {
        let environment = [
            ("METALLB_NODE_NAME", "n"),
            ("METALLB_POD_NAME", "speaker-x"),
            ("METALLB_HOST", "10.0.0.1"),
            ("METALLB_ML_BIND_ADDR", "10.1.0.1"),
            ("METALLB_ML_LABELS", "app=metallb,component=speaker"),
            ("METALLB_ML_SECRET_KEY_PATH", "/etc/ml_secret_key"),
        ];
        let (args, _) = read("--port=9120 --log-level=info", &environment);
        assert_eq!(args.shared.pod(), Some("speaker-x"));
        assert_eq!(args.ml_bindaddr, "10.1.0.1");
        let directory = PathBuf::from("/etc/ml_secret_key");
        assert_eq!(args.ml_secret_key_path, Some(directory));
        assert_eq!(args.speaker_pods(), "app=metallb,component=speaker");
        assert_eq!(args.speaker_namespace("ns"), "ns");
        assert!(!args.ignore_exclude_lb && !args.ml_wan_config);
        let none: [&str; 0] = [];
        assert_eq!(args.without_effect(), none);
    }

    #[test]
    fn the_node_must_be_named_and_the_host_an_address() {
        let host = Some(IpAddr::from([10, 0, 0, 1]));
        let (given, _) = read("--node-name=n --host=10.0.0.1", &[]);
        assert_eq!(given.node(), Ok("n"));
        assert_eq!(given.daemon(), Ok(Daemon::Speaker { host }));
        let (wrong, _) = read("--node-name= --host=nowhere", &[("METALLB_NODE_NAME", "")]);
        assert_eq!(wrong.node(), Err(ArgsError::NodeName));
        assert_eq!(wrong.daemon(), Err(ArgsError::Host("nowhere".to_owned())));
        let (none, _) = read("--host=", &[]);
        assert_eq!(none.daemon(), Ok(Daemon::Speaker { host: None }));
    }

    #[test]
    fn the_port_of_the_member_list_is_a_port() {
        for (text, port) in [("", Ok(7946)), ("1", Ok(1)), ("65535", Ok(65535))] {
            let (args, _) = read("", &[("METALLB_ML_BIND_PORT", text)]);
            assert_eq!(args.bind_port(), port);
        }
        for text in ["0", "65536", "x", "-1"] {
            let (args, _) = read("", &[("METALLB_ML_BIND_PORT", text)]);
            assert_eq!(args.bind_port(), Err(ArgsError::BindPort(text.to_owned())));
        }
    }

    #[test]
    fn what_does_nothing_here_is_named() {
        let environment = [("METALLB_BGP_DEBOUNCE_TIMEOUT", "3000")];
        let (args, _) = read("--enable-pprof --ml-wan-config", &environment);
        assert_eq!(
            args.without_effect(),
            ["enable-pprof", "bgp-debounce-timeout"]
        );
    }

    #[test]
    fn the_pods_may_live_elsewhere_and_be_called_otherwise() {
        let (args, _) = read("--ml-labels=a=b --ml-namespace=other", &[]);
        assert_eq!(args.speaker_pods(), "a=b");
        assert_eq!(args.speaker_namespace("ns"), "other");
    }

    #[test]
    fn gossip_is_switched_on_by_address_and_labels() {
        let node = ("METALLB_NODE_NAME", "n");
        let (address, labels) = (
            ("METALLB_ML_BIND_ADDR", "10.1.0.1"),
            ("METALLB_ML_LABELS", "a=b"),
        );
        for environment in [&[node][..], &[node, address], &[node, labels]] {
            assert!(read("", environment).0.gossip().unwrap().is_none());
        }
        let (args, _) = read("--ml-bindport=7947", &[node, address, labels]);
        let settings = args.gossip().unwrap().unwrap();
        assert_eq!(settings.bind, "10.1.0.1:7947".parse().unwrap());
        assert_eq!(
            (settings.node_name.as_str(), settings.meta.as_slice()),
            ("n", MARK)
        );
        assert!(settings.key.is_none());
        let (wrong, _) = read("--ml-bindaddr=here", &[node, labels]);
        let expected = ArgsError::BindAddress("here".to_owned());
        assert_eq!(wrong.gossip().unwrap_err(), expected);
    }

    #[test]
    fn the_secret_of_the_gossip_is_a_word_or_a_file() {
        let environment = [
            ("METALLB_NODE_NAME", "n"),
            ("METALLB_ML_BIND_ADDR", "10.1.0.1"),
            ("METALLB_ML_LABELS", "a=b"),
        ];
        let (word, _) = read("--ml-secret-key=secret", &environment);
        assert!(word.gossip().unwrap().unwrap().key.is_some());
        let directory = tempfile::tempdir().unwrap();
        let line = format!("--ml-secret-key-path={}", directory.path().display());
        let (file, _) = read(&line, &environment);
        assert!(matches!(file.gossip(), Err(ArgsError::Unreadable { .. })));
        fs::write(directory.path().join("secretkey"), "AAAA").unwrap();
        assert!(file.gossip().unwrap().unwrap().key.is_some());
    }

    #[test]
    fn the_pace_of_the_gossip_is_a_file_or_that_of_the_network() {
        let (lan, _) = read("", &[("METALLB_NODE_NAME", "n")]);
        let (wan, _) = read("--ml-wan-config", &[("METALLB_NODE_NAME", "n")]);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        assert_eq!(lan.profile(&path).unwrap(), Profile::lan());
        assert_eq!(wan.profile(&path).unwrap(), Profile::wan());
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(wan.profile(&path), Err(ArgsError::Profile { .. })));
    }
}
