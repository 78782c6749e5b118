//! Where a daemon can be asked how it is: the metrics on the port and in the way of every MetalLB era, and the
//! probes.
//!
//! What `/metrics` speaks on its port. The image is swapped under manifests that know nothing of us, so the flags
//! they pass must tell:
//!
//! | era | its manifests and chart pass | scraped by | we serve |
//! |---|---|---|---|
//! | 0.7 to 0.12 | `--config=…`, `--port=7472` | `http://…:7472` | plain HTTP |
//! | 0.13 to 0.15 | `--port=7472`, or the chart's `prometheus.metricsPort` | `http://…:7472`, a kube-rbac-proxy beside us | both |
//! | 0.16, manifests and chart | `--port=9120` | `https://…:9120`, bearer token | HTTPS |
//! | 0.16, chart with another `metricsPort` | that port, perhaps `--metrics-cert-dir`, `--tls-*` | `https://…`, bearer token | HTTPS if one of these flags is there, else both |
//!
//! So: `--config` means plain HTTP; port 9120 or a flag that only 0.16 has means HTTPS; in between the first byte of
//! each connection tells, and only the HTTPS half asks for a token. `--metrics-scheme` overrides it.
//!
//! The port is 7472 where no `--port` is given: every manifest and chart of MetalLB gives one. The binaries' own
//! defaults differ (0.7: 80 on the speaker; 0.16: 9120), so none of them could be right for all.
//!
//! The probes: `/healthz` and `/readyz` on 17472 (0.16), and wherever `/metrics` is plain, because manifests up to 0.15
//! know one port only. A port that was asked for must be had, or the daemon ends and says so. One that was not asked for
//! may be taken, by MetalLB itself on a node where it still runs: then it is tried again until it is free.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use prometheus::Registry;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, AdminError},
    auth::Gate,
    flags::{FlagError, Shared},
    ready::Ready,
    serve::{Site, serve},
    tls::{self, Acceptor, Certificate, CertificateError, DirectoryError, Identity},
};

/// The port of `/metrics` where none is given.
const METRICS_PORT: u16 = 7472;
/// The port of MetalLB 0.16, which speaks HTTPS there.
const SECURE_METRICS_PORT: u16 = 9120;
/// The port of the probes where none is given.
const HEALTH_PORT: u16 = 17472;
/// How often a port that is taken is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// What `/metrics` speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP, open to all.
    Http,
    /// HTTPS, with a token.
    Https,
    /// Whichever the client speaks, each as above.
    Both,
}

/// Which daemon this is: the two bind differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// In a network of its own: every address.
    Controller,
    /// In the node's network: the metrics on the address given (`--host`, which MetalLB heeds up to 0.15), the probes on
    /// the loopback alone.
    Speaker {
        /// `--host`; none for every address.
        host: Option<IpAddr>,
    },
}

/// Why a daemon cannot be asked.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// A flag says what cannot be.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// A port asked for cannot be had.
    #[error(transparent)]
    Bind(#[from] AdminError),
    /// `--metrics-cert-dir` holds no certificate.
    #[error("--metrics-cert-dir: {0}")]
    Directory(#[from] DirectoryError),
    /// A certificate of our own could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The TLS flags leave nothing.
    #[error("cannot serve HTTPS: {0}")]
    Tls(#[from] rustls::Error),
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// None for every address.
    host: Option<IpAddr>,
    port: u16,
    /// Somebody asked for this port.
    asked: bool,
    /// The flag that says so.
    flag: &'static str,
}

/// What the flags come to.
#[derive(Debug)]
struct Plan {
    metrics: Option<(Place, Scheme)>,
    health: Option<Place>,
    tls: tls::Options,
    certificates: Option<PathBuf>,
}

impl Plan {
    fn new(shared: &Shared, daemon: Daemon) -> Result<Self, FlagError> {
        let port = shared.port.unwrap_or(METRICS_PORT);
        let scheme = match shared.scheme()? {
            Some(asked) => asked,
            None => scheme(shared, daemon, port),
        };
        let host = match daemon {
            // 0.16 takes --host and binds every address all the same.
            Daemon::Speaker { host } if scheme != Scheme::Https => host,
            _ => None,
        };
        let metrics = Place {
            host,
            port,
            asked: shared.port.is_some(),
            flag: "--port",
        };
        let health = Place {
            host: match daemon {
                Daemon::Controller => None,
                Daemon::Speaker { .. } => Some(Ipv4Addr::LOCALHOST.into()),
            },
            port: shared.health_probe_port.unwrap_or(HEALTH_PORT),
            asked: shared.health_probe_port.is_some(),
            flag: "--health-probe-port",
        };
        Ok(Self {
            metrics: (metrics.port != 0).then_some((metrics, scheme)),
            health: (health.port != 0).then_some(health),
            tls: shared.tls()?,
            certificates: shared.metrics_cert_dir.clone(),
        })
    }
}

/// The rule at the top of this file.
fn scheme(shared: &Shared, daemon: Daemon, port: u16) -> Scheme {
    // The controller has these two since 0.14.2, for its webhooks.
    let tls_12 = !shared.tls_min_version.is_empty() || !shared.tls_cipher_suites.is_empty();
    let only_in_16 = shared.metrics_cert_dir.is_some()
        || !shared.tls_curve_preferences.is_empty()
        || shared.health_probe_port.is_some()
        || shared.pprof_bind_address.is_some()
        || (tls_12 && daemon != Daemon::Controller);
    if shared.config.is_some() {
        Scheme::Http
    } else if port == SECURE_METRICS_PORT || only_in_16 {
        Scheme::Https
    } else {
        Scheme::Both
    }
}

/// The ports of a daemon, bound and not served yet.
pub struct Endpoints {
    metrics: Option<(Door, Scheme)>,
    health: Option<Door>,
    acceptor: Acceptor,
    /// The certificate, and the directory it comes from if it does.
    identity: Arc<Identity>,
    certificates: Option<PathBuf>,
}

/// A place to listen on, and the listener where it could be had.
struct Door {
    place: Place,
    listener: Option<TcpListener>,
}

impl Endpoints {
    /// Binds what the flags ask for.
    ///
    /// # Errors
    /// [`EndpointError`]: a flag's value, a port that was asked for and is taken, or a certificate that was given and is none.
    pub async fn open(shared: &Shared, daemon: Daemon) -> Result<Self, EndpointError> {
        let plan = Plan::new(shared, daemon)?;
        if !plan.tls.missing().is_empty() {
            tracing::warn!(
                op = "startup",
                missing = plan.tls.missing().join(","),
                "asked for by a --tls flag and not available here, going without"
            );
        }
        let certificate = match &plan.certificates {
            Some(directory) => tls::read(directory)?,
            None => Certificate::self_signed(["localhost", "127.0.0.1", "::1"])?,
        };
        let identity = Arc::new(Identity::new(certificate));
        let acceptor = Acceptor::new(identity.clone(), &plan.tls)?;
        let metrics = match plan.metrics {
            Some((place, scheme)) => Some((Door::open(place).await?, scheme)),
            None => None,
        };
        let health = match plan.health {
            Some(place) => Some(Door::open(place).await?),
            None => None,
        };
        Ok(Self {
            metrics,
            health,
            acceptor,
            identity,
            certificates: plan.certificates,
        })
    }

    /// Where `/metrics` and the probes are served, as far as their ports could be had at once.
    pub fn addresses(&self) -> [Option<SocketAddr>; 2] {
        let address = |door: &Door| door.listener.as_ref()?.local_addr().ok();
        [
            self.metrics.as_ref().and_then(|(door, _)| address(door)),
            self.health.as_ref().and_then(address),
        ]
    }

    /// Serves until dropped: the metrics of `registry`, and what `ready` says. `client` asks the API server who may
    /// read the metrics over HTTPS.
    pub async fn serve(self, registry: Registry, ready: Ready, client: kube::Client) {
        let probes = admin::probes(ready);
        let metrics = async {
            let Some((door, scheme)) = self.metrics else {
                return;
            };
            let metrics = admin::metrics(registry);
            let open = metrics.clone().merge(probes.clone());
            let guarded = || Arc::new(Gate::new(client)).protect(metrics);
            let site = match scheme {
                Scheme::Http => Site::plain(open),
                Scheme::Https => Site::secure(self.acceptor, guarded()),
                Scheme::Both => Site::both(open, self.acceptor, guarded()),
            };
            let serving = door.serve(site);
            match self.certificates {
                Some(directory) if scheme != Scheme::Http => {
                    tokio::join!(serving, tls::follow(directory, self.identity));
                }
                _ => serving.await,
            }
        };
        let health = async {
            if let Some(door) = self.health {
                door.serve(Site::plain(probes.clone())).await;
            }
        };
        tokio::join!(metrics, health);
        // Both may be switched off; the daemon lives on.
        std::future::pending::<()>().await;
    }
}

impl Door {
    async fn open(place: Place) -> Result<Self, AdminError> {
        match admin::bind(place.host, place.port).await {
            Ok(listener) => Ok(Self {
                place,
                listener: Some(listener),
            }),
            Err(error) if place.asked => Err(error.because_of(place.flag)),
            Err(error) => {
                tracing::warn!(
                    op = "listenAndServe",
                    error = %error.because_of(place.flag),
                    "port not to be had, going on without and trying again"
                );
                Ok(Self {
                    place,
                    listener: None,
                })
            }
        }
    }

    /// Serves until dropped, from the moment the port can be had.
    async fn serve(self, site: Site) {
        let listener = match self.listener {
            Some(listener) => listener,
            None => self.place.wait().await,
        };
        serve(listener, site, CancellationToken::new()).await;
    }
}

impl Place {
    async fn wait(self) -> TcpListener {
        loop {
            tokio::time::sleep(AGAIN).await;
            if let Ok(listener) = admin::bind(self.host, self.port).await {
                tracing::info!(
                    op = "listenAndServe",
                    port = self.port,
                    "port had after all"
                );
                return listener;
            }
        }
    }
}

#[cfg(test)]
mod tests;
