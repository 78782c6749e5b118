//! A certificate with its key, and the place a server takes its current one from.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use thiserror::Error;

/// Why something is no certificate to serve with.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The certificate's text holds none, or is broken.
    #[error(
        "no certificate: {0}; PEM blocks BEGIN CERTIFICATE are expected, the server's own first"
    )]
    Chain(rustls::pki_types::pem::Error),
    /// The key's text holds none, or is broken.
    #[error(
        "no private key: {0}; one PEM block BEGIN PRIVATE KEY (or EC, RSA) is expected, without a passphrase"
    )]
    Key(rustls::pki_types::pem::Error),
    /// The two do not belong together, or the key is of an unknown kind.
    #[error("certificate and key cannot be used together: {0}")]
    Pair(rustls::Error),
    /// A certificate of our own could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// A certificate chain and the key of its first certificate.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// From PEM, as in the files `tls.crt` and `tls.key` of a Secret of type `kubernetes.io/tls`.
    ///
    /// # Errors
    /// Either is unreadable, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(CertificateError::Chain)?;
        if chain.is_empty() {
            let none = rustls::pki_types::pem::Error::NoItemsFound;
            return Err(CertificateError::Chain(none));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::Key)?;
        CertifiedKey::from_der(chain, key, &super::provider())
            .map(|pair| Self(Arc::new(pair)))
            .map_err(CertificateError::Pair)
    }

    /// A certificate for `names` (DNS names and addresses) signed by nobody but itself, with a new key (ECDSA P-256)
    /// that is never written anywhere. It has no end: whoever accepts it does not look at dates either.
    ///
    /// # Errors
    /// A name that is none.
    pub fn self_signed(
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, CertificateError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let mut params = rcgen::CertificateParams::new(names)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "ferrolb");
        let key = rcgen::KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Self::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())
    }
}

/// The certificate a server shows now. Share it in an [`Arc`]; [`Identity::replace`] works while connections are made.
#[derive(Debug, Default)]
pub struct Identity(ArcSwapOption<CertifiedKey>);

impl Identity {
    /// With nothing to show yet: handshakes fail until the first [`Identity::replace`].
    pub fn empty() -> Self {
        Self::default()
    }

    /// Starts with `certificate`.
    pub fn new(certificate: Certificate) -> Self {
        Self(ArcSwapOption::new(Some(certificate.0)))
    }

    /// Shows `certificate` on every connection made from now on.
    pub fn replace(&self, certificate: Certificate) {
        self.0.store(Some(certificate.0));
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

#[cfg(test)]
impl Identity {
    /// The certificate shown now.
    pub(super) fn shown(&self) -> Option<CertificateDer<'static>> {
        self.0.load().as_ref()?.cert.first().cloned()
    }
}
