//! HTTP/1.1 on one listener, plain or over TLS or whichever the client speaks, with limits: what is reachable from
//! outside must not be able to use up the process.

use std::{io, time::Duration};

use axum::{Router, http::StatusCode};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::tls::Acceptor;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// How long a client may take for its first byte, and then for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take for the head of a request, the wait for the next one on the same connection included.
const HEAD: Duration = Duration::from_mins(2);
/// How long requests under way may take once the server is to stop.
const LEAVE: Duration = Duration::from_secs(1);
/// The pause after the kernel refused a connection for want of something.
const EXHAUSTED: Duration = Duration::from_secs(1);
/// The first byte of every TLS connection: a record of the handshake (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// What is served on one listener.
#[derive(Clone)]
pub struct Site {
    /// For those who speak plain HTTP.
    plain: Router,
    /// For those whose first byte is TLS's.
    secure: Option<(Acceptor, Router)>,
}

impl Site {
    /// Plain HTTP alone.
    pub fn plain(router: Router) -> Self {
        Self {
            plain: router,
            secure: None,
        }
    }

    /// HTTPS alone. A client that speaks plain HTTP is told so (400), as Go's server does.
    pub fn secure(acceptor: Acceptor, router: Router) -> Self {
        Self::both(Router::new().fallback(wrong_scheme), acceptor, router)
    }

    /// Both on one port.
    pub fn both(plain: Router, acceptor: Acceptor, secure: Router) -> Self {
        Self {
            plain,
            secure: Some((acceptor, secure)),
        }
    }
}

async fn wrong_scheme() -> (StatusCode, &'static str) {
    (
        StatusCode::BAD_REQUEST,
        "Client sent an HTTP request to an HTTPS server.\n",
    )
}

/// Serves until `stop` is cancelled, then gives requests under way a second to end.
pub async fn serve(listener: TcpListener, site: Site, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let full = connections.len() >= CONNECTIONS;
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if !full => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, site.clone(), stop.clone()));
                }
                Err(error) => pause_after(&error).await,
            },
        }
    }
    let all_gone = async { while connections.join_next().await.is_some() {} };
    // Whoever is still there is cut off with the set.
    let _ = timeout(LEAVE, all_gone).await;
}

/// A client that went away between knocking and being let in is nobody's trouble; anything else will not get better at once.
async fn pause_after(error: &io::Error) {
    if !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        tracing::warn!(op = "listenAndServe", error = %error, "cannot accept connections");
        tokio::time::sleep(EXHAUSTED).await;
    }
}

/// One client, from its first byte to its last. How it fails is its own affair: scanners would fill the log.
async fn connection(stream: TcpStream, site: Site, stop: CancellationToken) {
    let Some((acceptor, secure)) = site.secure else {
        return converse(stream, site.plain, stop).await;
    };
    let Ok(Ok(first)) = timeout(HANDSHAKE, first_byte(&stream)).await else {
        return;
    };
    if first == TLS_HANDSHAKE {
        if let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await {
            converse(stream, secure, stop).await;
        }
    } else {
        converse(stream, site.plain, stop).await;
    }
}

/// The first byte of a connection, left where it is.
async fn first_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut byte = [0];
    match stream.peek(&mut byte).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(byte[0]),
    }
}

/// Requests and responses until the client leaves, is too slow, or `stop` is cancelled and its request answered.
async fn converse<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    // Its errors are the client's, too.
    let _ = connection.await;
}

#[cfg(test)]
mod tests;
