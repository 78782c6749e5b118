//! The webhooks' certificate: whether the one that is kept still serves, and what to keep instead. No clock, no I/O.
//!
//! It is kept as MetalLB keeps it (0.13 and newer, the library `open-policy-agent/cert-controller`), in a Secret with
//! `ca.crt`, `ca.key`, `tls.crt` and `tls.key`, so that each takes over what the other left:
//!
//! * A pair of MetalLB's is used as it is. When it is about to end, the same authority signs the next one.
//! * MetalLB checks that the authority verifies and then insists on an RSA key in PKCS #1; with any other kind it hangs
//!   and finally restarts, for ever. Keys like that are not made here. An authority made here signs one certificate and
//!   its key is thrown away, so `ca.key` stays empty, which MetalLB takes as a reason to begin anew.
//! * A new authority comes first in `ca.crt`, the one before it second, and callers are given both: a controller that
//!   still shows the old certificate is trusted until it has seen the new one.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ferrolb_runtime::tls;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SigningKey,
};
use rustls::{
    RootCertStore, SignatureScheme,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    sign::Signer,
};
use yasna::{ASN1Result, BERReader, tags::TAG_UTCTIME};

/// How long before its end a certificate is replaced, and how long one is good for: MetalLB's figures.
pub const AHEAD: Duration = Duration::from_hours(90 * 24);
const LIFE: Duration = Duration::from_hours(365 * 24);
/// Certificates begin in the past, for clocks that are late.
const BACK: Duration = Duration::from_hours(1);

/// Names of the values in the Secret.
const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The library refused, as it does a name that is none.
    #[error("cannot make a certificate: {0}; check the Service names in what calls the webhooks")]
    Make(#[from] rcgen::Error),
    /// The result does not do what it was made for.
    #[error("the certificate just made is of no use: {0}")]
    Useless(Flaw),
}

/// Why a kept certificate does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing is kept, or not all of it.
    Missing(&'static str),
    /// Something else is kept there.
    Unreadable(String),
    /// The authority ends too soon.
    AuthorityEnds,
    /// A client would refuse the certificate, now or before we would look again.
    Refused(String),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) => write!(f, "there is no {what}"),
            Self::Unreadable(why) => write!(f, "not readable: {why}"),
            Self::AuthorityEnds => f.write_str("the authority's certificate ends within 90 days"),
            Self::Refused(why) => write!(f, "a client would refuse it within 90 days: {why}"),
        }
    }
}

/// What the Secret holds, each as PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The authorities to trust, the newest first: `ca.crt`, which is also what callers are given.
    pub authority: Vec<u8>,
    /// The key of the first one, if it is kept: `ca.key`.
    pub authority_key: Vec<u8>,
    /// The certificate: `tls.crt`.
    pub chain: Vec<u8>,
    /// Its key: `tls.key`.
    pub key: Vec<u8>,
}

/// Keys stay out of logs.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Kept {
    /// From `data` of the Secret.
    pub fn from_data(data: Option<&BTreeMap<String, ByteString>>) -> Self {
        let value = |name: &str| {
            let bytes = data.and_then(|data| data.get(name));
            bytes.map(|bytes| bytes.0.clone()).unwrap_or_default()
        };
        Self {
            authority: value(AUTHORITY),
            authority_key: value(AUTHORITY_KEY),
            chain: value(CHAIN),
            key: value(KEY),
        }
    }

    /// As `data` of the Secret; what is empty is left out.
    pub fn to_data(&self) -> BTreeMap<String, ByteString> {
        let values = [
            (AUTHORITY, &self.authority),
            (AUTHORITY_KEY, &self.authority_key),
            (CHAIN, &self.chain),
            (KEY, &self.key),
        ];
        values
            .into_iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(name, bytes)| (name.to_owned(), ByteString(bytes.clone())))
            .collect()
    }

    /// The certificate to serve with.
    ///
    /// # Errors
    /// The chain or the key is unreadable, or they do not belong together.
    pub fn served(&self) -> Result<tls::Certificate, tls::CertificateError> {
        tls::Certificate::from_pem(&self.chain, &self.key)
    }

    /// What is wrong with it for clients that trust [`Kept::authority`] and ask for any of `names`, from `now` for 90
    /// days.
    pub fn flaw(&self, names: &[String], now: SystemTime) -> Option<Flaw> {
        self.check(names, now + AHEAD).err()
    }

    fn check(&self, names: &[String], at: SystemTime) -> Result<(), Flaw> {
        for (what, bytes) in [
            (AUTHORITY, &self.authority),
            (CHAIN, &self.chain),
            (KEY, &self.key),
        ] {
            if bytes.is_empty() {
                return Err(Flaw::Missing(what));
            }
        }
        self.served()
            .map_err(|error| Flaw::Unreadable(error.to_string()))?;
        let unreadable = |error: rustls::pki_types::pem::Error| Flaw::Unreadable(error.to_string());
        let authorities = certificates(&self.authority).map_err(unreadable)?;
        let chain = certificates(&self.chain).map_err(unreadable)?;
        let mut trusted = RootCertStore::empty();
        // rustls takes an authority's word for ever; Go, which API servers are written in, does not.
        for authority in authorities
            .into_iter()
            .filter(|authority| lives(authority, at))
        {
            trusted
                .add(authority)
                .map_err(|error| Flaw::Unreadable(error.to_string()))?;
        }
        if trusted.is_empty() {
            return Err(Flaw::AuthorityEnds);
        }
        let [leaf, rest @ ..] = chain.as_slice() else {
            return Err(Flaw::Missing(CHAIN));
        };
        let refused = |error: &dyn fmt::Display| Flaw::Refused(error.to_string());
        let client = WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), provider())
            .build()
            .map_err(|error| refused(&error))?;
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        for name in names {
            let name = ServerName::try_from(name.as_str()).map_err(|error| refused(&error))?;
            client
                .verify_server_cert(leaf, rest, &name, &[], UnixTime::since_unix_epoch(since))
                .map_err(|error| refused(&error))?;
        }
        Ok(())
    }

    /// What to keep instead: a certificate of the same authority where that can be had, else of a new one.
    ///
    /// # Errors
    /// One of `names` is no DNS name.
    pub fn renewed(&self, names: &[String], now: SystemTime) -> Result<Self, MakeError> {
        let renewed = self.by_the_same(names, now);
        if let Some(renewed) = renewed.filter(|renewed| renewed.flaw(names, now).is_none()) {
            return Ok(renewed);
        }
        let made = self.by_a_new(names, now)?;
        match made.flaw(names, now) {
            None => Ok(made),
            Some(flaw) => Err(MakeError::Useless(flaw)),
        }
    }

    /// Signed with the key that is kept, if it is one that can sign.
    fn by_the_same(&self, names: &[String], now: SystemTime) -> Option<Self> {
        let key = AuthorityKey::from_pem(&self.authority_key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = authority_name();
        let (certificate, key) = sign(names, now, &Issuer::new(params, key)).ok()?;
        Some(Self {
            chain: certificate.into_bytes(),
            key: key.into_bytes(),
            ..self.clone()
        })
    }

    /// Signed with a key that nobody keeps.
    fn by_a_new(&self, names: &[String], now: SystemTime) -> Result<Self, MakeError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = authority_name();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
        ];
        params.not_before = (now - BACK).into();
        params.not_after = (now + LIFE).into();
        let mut authority = params.self_signed(&key)?.pem().into_bytes();
        let before = CertificateDer::pem_slice_iter(&self.authority).next();
        if let Some(Ok(before)) =
            before.filter(|before| before.as_ref().is_ok_and(|before| lives(before, now)))
        {
            authority.extend(pem_of(&before).into_bytes());
        }
        let (chain, leaf_key) = sign(names, now, &Issuer::new(params, key))?;
        Ok(Self {
            authority,
            authority_key: Vec::new(),
            chain: chain.into_bytes(),
            key: leaf_key.into_bytes(),
        })
    }
}

/// A certificate for `names` and its key, both PEM.
fn sign<S: SigningKey>(
    names: &[String],
    now: SystemTime,
    issuer: &Issuer<'_, S>,
) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    for name in names.iter().take(1) {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = (now - BACK).into();
    params.not_after = (now + LIFE).into();
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// The name MetalLB gives its authority, in Go's encoding: an issuer is found by its bytes.
fn authority_name() -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (part, text) in [
        (DnType::OrganizationName, "metallb"),
        (DnType::CommonName, "cert"),
    ] {
        if let Ok(text) = text.try_into() {
            name.push(part, DnValue::PrintableString(text));
        }
    }
    name
}

/// A key of an authority that may be in the form only old formats have, which rcgen does not read but rustls does.
struct AuthorityKey {
    signer: Box<dyn Signer>,
    algorithm: &'static rcgen::SignatureAlgorithm,
    public: Vec<u8>,
}

impl AuthorityKey {
    fn from_pem(pem: &[u8]) -> Option<Self> {
        let key = PrivateKeyDer::from_pem_slice(pem).ok()?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).ok()?;
        let public = key.public_key()?.to_vec();
        let (scheme, algorithm) = [
            (SignatureScheme::RSA_PKCS1_SHA256, &rcgen::PKCS_RSA_SHA256),
            (
                SignatureScheme::ECDSA_NISTP256_SHA256,
                &rcgen::PKCS_ECDSA_P256_SHA256,
            ),
        ]
        .into_iter()
        .find(|(scheme, _)| key.choose_scheme(&[*scheme]).is_some())?;
        Some(Self {
            signer: key.choose_scheme(&[scheme])?,
            algorithm,
            public,
        })
    }
}

impl PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signed = self.signer.sign(message);
        signed.map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

fn pem_of(certificate: &CertificateDer<'_>) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", certificate.to_vec()))
}

/// Whether a certificate has not ended by then; one whose end cannot be read has.
fn lives(certificate: &CertificateDer<'_>, at: SystemTime) -> bool {
    end(certificate).is_some_and(|end| at <= end)
}

/// `tbsCertificate.validity.notAfter` (RFC 5280, 4.1).
fn end(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let body = fields(certificate)?.into_iter().next()?;
    let body = fields(&body)?;
    // The version is left out in version 1; its tag is [0].
    let versioned = body.first()?.first() == Some(&0xa0);
    let validity = body.get(if versioned { 4 } else { 3 })?;
    let end = fields(validity)?.into_iter().nth(1)?;
    yasna::parse_der(&end, moment).ok()
}

/// `Time` (RFC 5280, 4.1.2.5): one form up to 2049, another from then on.
fn moment(reader: BERReader<'_, '_>) -> ASN1Result<SystemTime> {
    if reader.lookahead_tag()? == TAG_UTCTIME {
        Ok((*reader.read_utctime()?.datetime()).into())
    } else {
        Ok((*reader.read_generalized_time()?.datetime()).into())
    }
}

/// The parts of a DER sequence.
fn fields(der: &[u8]) -> Option<Vec<Vec<u8>>> {
    yasna::parse_der(der, |reader| reader.collect_sequence_of(any)).ok()
}

fn any(reader: BERReader<'_, '_>) -> ASN1Result<Vec<u8>> {
    reader.read_der()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests;
