//! The HTTP server of a daemon: `/metrics` as text, `/healthz` and `/readyz`.

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
use tokio_util::sync::CancellationToken;

use crate::ready::Ready;

/// Why the server does not run.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The port is taken or not ours to bind.
    #[error("cannot listen on {address} for metrics: {source}; choose another --port")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The listener broke.
    #[error("the metrics server stopped: {0}")]
    Serve(#[from] std::io::Error),
}

#[derive(Clone)]
struct Shared {
    registry: Registry,
    ready: Ready,
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
        .map_err(|source| AdminError::Bind { address, source })
}

/// Serves until `stop` is cancelled.
///
/// # Errors
/// [`AdminError::Serve`].
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    ready: Ready,
    stop: CancellationToken,
) -> Result<(), AdminError> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .with_state(Shared { registry, ready });
    Ok(axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await?)
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    match TextEncoder::new().encode_to_string(&shared.registry.gather()) {
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

async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    let pending = shared.ready.pending();
    if pending.is_empty() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for {}\n", pending.join(", ")),
        )
    }
}
