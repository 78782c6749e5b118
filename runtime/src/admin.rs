//! What a daemon answers over HTTP: `/metrics` as text, `/healthz` and `/readyz`; and how it gets its ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus::{Registry, TextEncoder};
use thiserror::Error;
use tokio::net::TcpListener;

use crate::ready::Ready;

/// Why a port is not listened on.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The port is taken or not ours to bind.
    #[error("cannot listen on {address}: {source}; free it or choose another with {flag}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// The flag that chooses it.
        flag: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl AdminError {
    /// The same, naming the flag that chooses the port.
    pub(crate) fn because_of(self, flag: &'static str) -> Self {
        let Self::Bind {
            address, source, ..
        } = self;
        Self::Bind {
            address,
            flag,
            source,
        }
    }
}

/// Binds `host:port`; without a host every address of both families, or of IPv4 where the
/// kernel has no IPv6.
///
/// # Errors
/// [`AdminError::Bind`].
pub async fn bind(host: Option<IpAddr>, port: u16) -> Result<TcpListener, AdminError> {
    let wildcard = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let address = match host {
        Some(host) => SocketAddr::from((host, port)),
        None => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Ok(listener) => return Ok(listener),
            Err(_) => wildcard,
        },
    };
    TcpListener::bind(address)
        .await
        .map_err(|source| AdminError::Bind {
            address,
            flag: "another port",
            source,
        })
}

/// `/metrics`: everything in `registry`.
pub fn metrics(registry: Registry) -> Router {
    Router::new()
        .route("/metrics", get(gather))
        .with_state(registry)
}

/// `/healthz` and `/readyz`, as [`Ready`] has them.
pub fn probes(ready: Ready) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(ready)
}

async fn gather(State(registry): State<Registry>) -> impl IntoResponse {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)],
            text,
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

async fn healthz(State(ready): State<Ready>) -> (StatusCode, String) {
    verdict("no sign of life from", &ready.silent())
}

async fn readyz(State(ready): State<Ready>) -> (StatusCode, String) {
    verdict("waiting for", &ready.pending())
}

/// 200 `ok` (all MetalLB ever says), or 503 and why.
fn verdict(what: &str, troubles: &[String]) -> (StatusCode, String) {
    if troubles.is_empty() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        let text = format!("{what} {}\n", troubles.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
}
