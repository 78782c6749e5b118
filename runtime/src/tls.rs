//! TLS for what the daemons serve: the metrics and the webhooks.
//!
//! A server's certificate lives in an [`Identity`] that can be given another one at any time, by a watch of files
//! ([`follow`]) or by whoever makes certificates; new connections use it at once. How strict a server is comes from
//! [`Options`], `MetalLB`'s `--tls-*` flags.

mod directory;
mod identity;
mod options;

use std::sync::Arc;

use rustls::{ServerConfig, crypto::CryptoProvider, server::ResolvesServerCert};

pub use self::{
    directory::{DirectoryError, follow, read},
    identity::{Certificate, CertificateError, Identity},
    options::{Options, OptionsError},
};

/// What makes a TLS server of a TCP connection. Clones share it.
#[derive(Clone)]
pub struct Acceptor(tokio_rustls::TlsAcceptor);

impl Acceptor {
    /// A server that shows what `resolver` (an [`Identity`], as a rule) says at each handshake. HTTP/1.1 only.
    ///
    /// # Errors
    /// The options leave no usable combination, which [`Options::parse`] rules out.
    pub fn new(
        resolver: Arc<dyn ResolvesServerCert>,
        options: &Options,
    ) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(options.provider()))
            .with_protocol_versions(options.versions())?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config).into()))
    }

    /// Shakes hands on one connection.
    pub(crate) async fn accept<S>(
        &self,
        stream: S,
    ) -> std::io::Result<tokio_rustls::server::TlsStream<S>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        self.0.accept(stream).await
    }
}

/// The cryptography of every server here, as of kube's client.
fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

#[cfg(test)]
mod tests;
