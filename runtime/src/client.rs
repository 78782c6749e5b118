//! Reaching the API server, and knowing which namespace is ours.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::Response;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    client::{Body, ConfigExt as _, retry::RetryPolicy},
    config::{KubeConfigOptions, Kubeconfig},
};
use thiserror::Error;
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

/// How long a connection may be silent before the kernel asks whether the other end still lives. A
/// watch is silent for minutes: without this, an API server that lost power is missed only when the
/// watch runs out (295 s).
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How often it asks again.
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(3);
/// How many questions may go unanswered.
const KEEPALIVE_RETRIES: u32 = 3;
/// How long sent bytes may go unacknowledged (`TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// How long every request may fail before the API server counts as out of reach: longer than the pauses between requests.
const OUT_OF_REACH: Duration = Duration::from_secs(30);

/// How the process's one API server is to be reached.
static REACH: Reach = Reach(Mutex::new(None));

/// Where the kubelet puts the namespace of the pod.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Why the daemon cannot talk to its cluster.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The file given by `--kubeconfig` is unusable.
    #[error("cannot use the kubeconfig {path}: {source}; check the path and its current context")]
    Kubeconfig {
        /// The file as given.
        path: PathBuf,
        /// What the parser said.
        source: kube::config::KubeconfigError,
    },
    /// Neither a kubeconfig nor a service account.
    #[error(
        "not in a cluster: {0}; run inside a pod with a service account, or give --kubeconfig FILE"
    )]
    InCluster(#[from] kube::config::InClusterError),
    /// The client could not be built.
    #[error("cannot set up the API client: {0}")]
    Build(#[from] kube::Error),
    /// Nobody said which namespace the configuration lives in.
    #[error(
        "own namespace unknown: {path} is unreadable ({source}); give --namespace or METALLB_NAMESPACE"
    )]
    Namespace {
        /// The service account's file.
        path: &'static str,
        /// What the file system said.
        source: std::io::Error,
    },
}

/// A client from `kubeconfig`, or from the pod's service account where none is given.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<kube::Client, ClientError> {
    let config = match kubeconfig {
        Some(path) => {
            let wrong = |source| ClientError::Kubeconfig {
                path: path.to_owned(),
                source,
            };
            let file = Kubeconfig::read_from(path).map_err(wrong)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(wrong)?
        }
        None => kube::Config::incluster()?,
    };
    Ok(build(config)?)
}

/// kube's own stack over connections that notice a dead peer.
fn build(config: kube::Config) -> Result<kube::Client, kube::Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE_AGAIN));
    connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let service = ServiceBuilder::new()
        .map_result(seen)
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(legacy::Builder::new(TokioExecutor::new()).build::<_, Body>(connector));
    Ok(kube::Client::new(service, config.default_namespace))
}

/// Since when requests have failed, if the last one did.
struct Reach(Mutex<Option<Instant>>);

impl Reach {
    fn note(&self, reached: bool, now: Instant) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *since = (!reached).then(|| since.unwrap_or(now));
    }

    fn lost_for(&self, now: Instant) -> Option<Duration> {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = now.saturating_duration_since(since?);
        (lost >= OUT_OF_REACH).then_some(lost)
    }
}

/// Notes how a request went. An API server whose store is away answers, but with 500s: it is out of reach, too.
fn seen<B, E>(result: Result<Response<B>, E>) -> Result<Response<B>, E> {
    let reached = result
        .as_ref()
        .is_ok_and(|response| !response.status().is_server_error());
    REACH.note(reached, Instant::now());
    result
}

/// For [`crate::ready::Ready::check`]: says so once every request to the API server has failed for 30 s.
///
/// Not for the speaker: what it announces does not depend on the API server's being there.
pub fn out_of_reach() -> Option<String> {
    REACH
        .lost_for(Instant::now())
        .map(|lost| format!("the API server, out of reach for {} s", lost.as_secs()))
}

/// The namespace of the configuration: the flag's word, else the pod's own (MetalLB 0.10 and newer).
pub fn own_namespace(given: Option<&str>) -> Result<String, ClientError> {
    if let Some(name) = given.filter(|name| !name.is_empty()) {
        return Ok(name.to_owned());
    }
    std::fs::read_to_string(NAMESPACE_FILE)
        .map(|text| text.trim().to_owned())
        .map_err(|source| ClientError::Namespace {
            path: NAMESPACE_FILE,
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_is_out_of_reach_when_nothing_has_worked_for_long() {
        let reach = Reach(Mutex::new(None));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(reach.lost_for(at(1000)), None, "nothing was asked");
        reach.note(false, at(0));
        reach.note(false, at(20));
        assert_eq!(reach.lost_for(at(29)), None);
        assert_eq!(reach.lost_for(at(31)), Some(Duration::from_secs(31)));
        reach.note(true, at(32));
        reach.note(false, at(40));
        assert_eq!(reach.lost_for(at(41)), None, "counted anew");
        assert_eq!(reach.lost_for(at(75)), Some(Duration::from_secs(35)));
    }

    #[test]
    fn answers_that_are_failures_of_the_server_are_no_reach() {
        let answer = |code: u16| seen(Response::builder().status(code).body(()));
        answer(503).unwrap();
        let since = *REACH.0.lock().unwrap();
        assert!(since.is_some());
        // Refusals are answers.
        answer(403).unwrap();
        assert_eq!(*REACH.0.lock().unwrap(), None);
        assert_eq!(out_of_reach(), None);
    }
}
