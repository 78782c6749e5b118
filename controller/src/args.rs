//! The controller's flags and environment: MetalLB's of every release from 0.7 to 0.16.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use ferrolb_runtime::flags::Shared;

/// Gives Services of type LoadBalancer addresses from the operator's pools.
#[derive(Clone, Debug, Parser)]
#[command(name = "controller", version)]
pub struct Args {
    /// What the speaker has, too.
    #[command(flatten)]
    pub shared: Shared,

    /// Name of the Secret to create for the speakers' member list; none if empty.
    #[arg(
        long,
        env = "METALLB_ML_SECRET_NAME",
        value_name = "NAME",
        default_value = ""
    )]
    pub ml_secret_name: String,

    /// Name of our own Deployment, which becomes the owner of that Secret.
    #[arg(
        long,
        env = "METALLB_DEPLOYMENT",
        value_name = "NAME",
        default_value = ""
    )]
    pub deployment: String,

    /// enabled; disabled: no webhooks; onlywebhook: nothing else.
    #[arg(long, value_name = "MODE", default_value = "enabled")]
    pub webhook_mode: String,

    /// The webhooks' certificate is somebody else's care.
    #[arg(long)]
    pub disable_cert_rotation: bool,

    /// Directory of the webhooks' certificate.
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/tmp/k8s-webhook-server/serving-certs"
    )]
    pub cert_dir: PathBuf,

    /// Name of the Service the webhooks are called by; the certificate is for NAME.NAMESPACE.svc.
    #[arg(long, value_name = "NAME", default_value = "metallb-webhook-service")]
    pub cert_service_name: String,

    /// Name of the Secret the webhooks' certificate is kept in.
    #[arg(long, value_name = "NAME", default_value = "metallb-webhook-cert")]
    pub webhook_secret: String,

    /// Accepted; the webhooks speak HTTP/1.1, which every API server does.
    #[arg(long)]
    pub webhook_http2: bool,

    /// Where a host outside the cluster answers for a Service's address that was chosen here: only report it, or give the
    /// Service another address. Not MetalLB's.
    #[arg(
        long,
        env = "FERROLB_ON_CONFLICT",
        value_name = "WHAT",
        value_enum,
        default_value = "report"
    )]
    pub on_conflict: OnConflict,
}

/// What follows where a host outside the cluster has an address of a Service (`--on-conflict`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnConflict {
    /// Event, condition and metric.
    Report,
    /// These, and another address for the Service.
    Reassign,
}

/// What of the controller runs (`--webhook-mode`, MetalLB 0.13 and newer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookMode {
    /// Webhooks and allocation.
    Enabled,
    /// Allocation alone.
    Disabled,
    /// Webhooks alone.
    OnlyWebhook,
}

/// A value with which the controller cannot start; MetalLB ends with status 1, too.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// Not one of the three.
    #[error("--webhook-mode={0:?}: must be enabled, disabled or onlywebhook")]
    WebhookMode(String),
}

impl Args {
    /// What of the controller is to run.
    pub fn mode(&self) -> Result<WebhookMode, ArgsError> {
        match self.webhook_mode.as_str() {
            "enabled" => Ok(WebhookMode::Enabled),
            "disabled" => Ok(WebhookMode::Disabled),
            "onlywebhook" => Ok(WebhookMode::OnlyWebhook),
            other => Err(ArgsError::WebhookMode(other.to_owned())),
        }
    }

    /// The flags given that change nothing here.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let mut flags = self.shared.without_effect();
        if self.webhook_http2 {
            flags.push("webhook-http2");
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ferrolb_runtime::flags;

    use super::*;

    /// Reads a command line in an environment; both as in a manifest.
    fn read(line: &str, environment: &[(&str, &str)]) -> (Args, Vec<String>) {
        let words = ["controller"].into_iter().chain(line.split_whitespace());
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
        let secret: &[_] = &[
            ("METALLB_ML_SECRET_NAME", "memberlist"),
            ("METALLB_DEPLOYMENT", "controller"),
        ];
        let pod = [
            secret,
            &[
                ("METALLB_POD_NAME", "p"),
                ("METALLB_BGP_TYPE", "frr-k8s"),
                ("KUBECONFIG", ""),
            ],
        ]
        .concat();
        for (release, line, environment) in [
            ("0.7", "--port=7472 --config=config", &[][..]),
            ("0.9", "-port 7472 -config config -config-ns ns", &[]),
            (
                "0.12",
                "--port=7472 --config=config --log-level=info --namespace=ns --kubeconfig=k --disable-epslices \
                 --enable-pprof --ml-secret-name=m --deployment=d",
                secret,
            ),
            (
                "0.13",
                "--port=7472 --log-level=info --lb-class=c --cert-dir=/c --cert-service-name=webhook-service \
                 --disable-cert-rotation=true --webhook-mode=enabled --webhook-http2 --disable-epslices=false",
                secret,
            ),
            (
                "0.15",
                "--port=7472 --log-level=info --tls-min-version=VersionTLS12 --webhook-secret=s --enable-pprof",
                secret,
            ),
            (
                "0.16",
                "--port=9120 --log-level=info --health-probe-port=17472 --pprof-bind-address=:6060 --pod-name=p \
                 --tls-min-version=VersionTLS12 --tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 \
                 --tls-curve-preferences=29,23 --metrics-cert-dir=/etc/metrics --webhook-mode=onlywebhook",
                &pod,
            ),
        ] {
            let (args, unknown) = read(line, environment);
            assert_eq!(unknown, [""; 0], "{release}");
            args.mode().unwrap();
            args.shared.level().unwrap();
            args.shared.tls().unwrap();
        }
    }

    #[test]
    fn the_manifest_of_0_16_says() {
        let environment = [
            ("METALLB_ML_SECRET_NAME", "memberlist"),
            ("METALLB_DEPLOYMENT", "controller"),
            ("METALLB_POD_NAME", "controller-x"),
            ("METALLB_NAMESPACE", ""),
        ];
        let (args, _) = read("--port=9120 --log-level=info", &environment);
        assert_eq!(args.ml_secret_name, "memberlist");
        assert_eq!(args.deployment, "controller");
        assert_eq!(args.shared.pod(), Some("controller-x"));
        assert_eq!(args.shared.namespace, None, "an empty variable is none");
        assert_eq!(args.shared.port, Some(9120));
        assert_eq!(args.shared.config_name(), "config");
        assert_eq!(args.mode(), Ok(WebhookMode::Enabled));
        assert_eq!(args.cert_service_name, "metallb-webhook-service");
        assert_eq!(args.webhook_secret, "metallb-webhook-cert");
        let directory = PathBuf::from("/tmp/k8s-webhook-server/serving-certs");
        assert_eq!(args.cert_dir, directory);
        assert!(!args.disable_cert_rotation);
        assert_eq!(args.on_conflict, OnConflict::Report);
        assert!(args.without_effect().is_empty());
    }

    #[test]
    fn what_follows_a_conflict_is_a_flag_or_a_variable() {
        let variable = [("FERROLB_ON_CONFLICT", "reassign")];
        let (args, unknown) = read("", &variable);
        assert_eq!(args.on_conflict, OnConflict::Reassign);
        assert!(unknown.is_empty());
        let (args, _) = read("--on-conflict=report", &variable);
        assert_eq!(args.on_conflict, OnConflict::Report);
        let words = ["controller", "--on-conflict=move"].map(str::to_owned);
        assert!(flags::read::<Args>(words, &BTreeMap::new()).is_err());
    }

    #[test]
    fn a_flag_wins_over_its_variable() {
        let environment = [("METALLB_ML_SECRET_NAME", "of-the-variable")];
        let (args, _) = read("--ml-secret-name=of-the-flag", &environment);
        assert_eq!(args.ml_secret_name, "of-the-flag");
        let (args, _) = read("--ml-secret-name=", &environment);
        assert_eq!(args.ml_secret_name, "");
    }

    #[test]
    fn what_does_nothing_here_is_named() {
        let line = "--webhook-http2 --enable-pprof --pprof-bind-address=:1";
        let (args, _) = read(line, &[]);
        assert_eq!(
            args.without_effect(),
            ["enable-pprof", "pprof-bind-address", "webhook-http2"]
        );
    }

    #[test]
    fn a_mode_that_is_none_is_refused() {
        for (mode, read_as) in [
            ("enabled", WebhookMode::Enabled),
            ("disabled", WebhookMode::Disabled),
            ("onlywebhook", WebhookMode::OnlyWebhook),
        ] {
            let (args, _) = read(&format!("--webhook-mode={mode}"), &[]);
            assert_eq!(args.mode(), Ok(read_as));
        }
        let (args, _) = read("--webhook-mode=off", &[]);
        let error = args.mode().unwrap_err();
        assert_eq!(error, ArgsError::WebhookMode("off".to_owned()));
    }
}
