//! How strict a TLS server is: `MetalLB`'s `--tls-min-version`, `--tls-cipher-suites` and `--tls-curve-preferences`
//! (0.16; the first two on the controller since 0.14.2).

use rustls::{
    CipherSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup},
    version::{TLS12, TLS13},
};
use thiserror::Error;

/// Cipher suites by the names Go and IANA give them. None: known to Go, and weak enough that there is no code for
/// it here (CBC, RC4, 3DES, or no forward secrecy).
const SUITES: [(&str, Option<CipherSuite>); 26] = [
    (
        "TLS_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256),
    ),
    (
        "TLS_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS13_AES_256_GCM_SHA384),
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", None),
    ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", None),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", None),
    ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", None),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", None),
    ("TLS_RSA_WITH_RC4_128_SHA", None),
];

/// Key exchanges by their number (IANA "TLS Supported Groups", Go's `tls.CurveID`). None: known to Go, not here.
const CURVES: [(u16, &str, Option<NamedGroup>); 7] = [
    (23, "P-256", Some(NamedGroup::secp256r1)),
    (24, "P-384", Some(NamedGroup::secp384r1)),
    (25, "P-521", None),
    (29, "X25519", Some(NamedGroup::X25519)),
    (4587, "SecP256r1MLKEM768", None),
    (4588, "X25519MLKEM768", None),
    (4589, "SecP384r1MLKEM1024", None),
];

static LENIENT: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static STRICT: [&SupportedProtocolVersion; 1] = [&TLS13];

/// Why TLS flags are refused. `MetalLB` ends with status 1 on each of these, too.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum OptionsError {
    /// Not a version.
    #[error("--tls-min-version={0:?}: must be VersionTLS12 or VersionTLS13")]
    Version(String),
    /// Suites of TLS 1.2 where 1.2 is not spoken.
    #[error(
        "--tls-cipher-suites has no meaning in TLS 1.3, which is the minimum; add --tls-min-version=VersionTLS12 or leave it out"
    )]
    SuitesIn13,
    /// Not a cipher suite.
    #[error(
        "--tls-cipher-suites: {0:?} is not a cipher suite; use IANA's names, like TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    )]
    Suite(String),
    /// Every suite named is too weak to be had here.
    #[error(
        "--tls-cipher-suites: none of the suites named is available; name one of TLS_ECDHE_*_WITH_{{AES_128_GCM_SHA256,AES_256_GCM_SHA384,CHACHA20_POLY1305_SHA256}}"
    )]
    NoSuite,
    /// Not a number of a known curve.
    #[error(
        "--tls-curve-preferences: {0:?} is not the decimal number of a known curve; 29 is X25519, 23 is P-256, 24 is P-384"
    )]
    Curve(String),
    /// A curve twice.
    #[error("--tls-curve-preferences: {0} is there twice")]
    CurveTwice(u16),
    /// Every curve named is known to Go, and none here.
    #[error(
        "--tls-curve-preferences: none of the curves named is available; name one of 29 (X25519), 23 (P-256), 24 (P-384)"
    )]
    NoCurve,
}

/// How strict a TLS server is. The default: TLS 1.3 alone, every key exchange there is.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// TLS 1.2 is spoken, too.
    with_12: bool,
    /// The suites of TLS 1.2 to be had; none for all. Those of 1.3 are not chosen, as in Go.
    suites: Option<Vec<CipherSuite>>,
    /// The key exchanges, the best liked first; none for all.
    groups: Option<Vec<NamedGroup>>,
    /// What was asked for and cannot be had.
    missing: Vec<&'static str>,
}

impl Options {
    /// From the values of `--tls-min-version`, `--tls-cipher-suites` and `--tls-curve-preferences`; an empty one is
    /// none. The lists are separated by commas, blanks around their items do not count.
    ///
    /// # Errors
    /// [`OptionsError`]. What Go knows and we do not is no error as long as something else is left: see
    /// [`Options::missing`].
    pub fn parse(version: &str, suites: &str, curves: &str) -> Result<Self, OptionsError> {
        let mut options = Self {
            with_12: match version {
                "" | "VersionTLS13" => false,
                "VersionTLS12" => true,
                other => return Err(OptionsError::Version(other.to_owned())),
            },
            ..Self::default()
        };
        if !suites.is_empty() {
            options.choose_suites(suites)?;
        }
        if !curves.is_empty() {
            options.choose_curves(curves)?;
        }
        Ok(options)
    }

    /// Suites and curves that were asked for, that Go has and we have not: for a warning.
    pub fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    fn choose_suites(&mut self, list: &str) -> Result<(), OptionsError> {
        if !self.with_12 {
            return Err(OptionsError::SuitesIn13);
        }
        let mut chosen = Vec::new();
        for word in list.split(',').map(str::trim) {
            match SUITES.iter().find(|(name, _)| *name == word) {
                None => return Err(OptionsError::Suite(word.to_owned())),
                Some((name, None)) => self.missing.push(name),
                Some((_, Some(suite))) => chosen.push(*suite),
            }
        }
        if chosen.is_empty() {
            return Err(OptionsError::NoSuite);
        }
        self.suites = Some(chosen);
        Ok(())
    }

    fn choose_curves(&mut self, list: &str) -> Result<(), OptionsError> {
        let mut seen = Vec::new();
        let mut chosen = Vec::new();
        for word in list.split(',').map(str::trim) {
            let known = word
                .parse()
                .ok()
                .and_then(|number: u16| CURVES.iter().find(|(id, ..)| *id == number));
            let Some((number, name, group)) = known else {
                return Err(OptionsError::Curve(word.to_owned()));
            };
            if seen.contains(number) {
                return Err(OptionsError::CurveTwice(*number));
            }
            seen.push(*number);
            match group {
                Some(group) => chosen.push(*group),
                None => self.missing.push(name),
            }
        }
        if chosen.is_empty() {
            return Err(OptionsError::NoCurve);
        }
        self.groups = Some(chosen);
        Ok(())
    }

    /// The versions spoken.
    pub(super) fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        if self.with_12 { &LENIENT } else { &STRICT }
    }

    /// The cryptography that is left.
    pub(super) fn provider(&self) -> CryptoProvider {
        let mut provider = super::provider();
        if let Some(suites) = &self.suites {
            provider.cipher_suites.retain(|suite| {
                matches!(suite, SupportedCipherSuite::Tls13(_)) || suites.contains(&suite.suite())
            });
        }
        if let Some(groups) = &self.groups {
            let find = |group: &NamedGroup| -> Option<&'static dyn SupportedKxGroup> {
                let all = &provider.kx_groups;
                all.iter().find(|have| have.name() == *group).copied()
            };
            provider.kx_groups = groups.iter().filter_map(find).collect();
        }
        provider
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(version: &str, suites: &str, curves: &str) -> OptionsError {
        Options::parse(version, suites, curves).unwrap_err()
    }

    #[test]
    fn versions() {
        assert_eq!(Options::parse("", "", "").unwrap().versions(), [&TLS13]);
        assert_eq!(
            Options::parse("VersionTLS13", "", "").unwrap().versions(),
            [&TLS13]
        );
        let both = Options::parse("VersionTLS12", "", "").unwrap();
        assert_eq!(both.versions(), [&TLS13, &TLS12]);
        for wrong in ["VersionTLS11", "1.2", "versiontls12"] {
            assert_eq!(
                refused(wrong, "", ""),
                OptionsError::Version(wrong.to_owned())
            );
        }
    }

    #[test]
    fn suites_are_for_tls_12() {
        let suite = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        assert_eq!(refused("", suite, ""), OptionsError::SuitesIn13);
        assert_eq!(refused("VersionTLS13", suite, ""), OptionsError::SuitesIn13);
        let options = Options::parse(
            "VersionTLS12",
            &format!(" {suite},TLS_RSA_WITH_AES_128_CBC_SHA"),
            "",
        )
        .unwrap();
        assert_eq!(options.missing(), ["TLS_RSA_WITH_AES_128_CBC_SHA"]);
        let of_12: Vec<_> = options
            .provider()
            .cipher_suites
            .iter()
            .filter(|suite| suite.tls13().is_none())
            .map(SupportedCipherSuite::suite)
            .collect();
        assert_eq!(of_12, [CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]);
        assert_eq!(
            options.provider().cipher_suites.len(),
            4,
            "and those of 1.3"
        );
        assert_eq!(
            refused("VersionTLS12", "TLS_NULL", ""),
            OptionsError::Suite("TLS_NULL".to_owned())
        );
        assert_eq!(
            refused("VersionTLS12", "TLS_RSA_WITH_AES_128_CBC_SHA", ""),
            OptionsError::NoSuite
        );
    }

    #[test]
    fn every_suite_named_as_available_is() {
        let provider = super::super::provider();
        for (name, suite) in SUITES {
            if let Some(suite) = suite {
                assert!(
                    provider
                        .cipher_suites
                        .iter()
                        .any(|have| have.suite() == suite),
                    "{name}"
                );
            }
        }
        for (_, name, group) in CURVES {
            if let Some(group) = group {
                assert!(
                    provider.kx_groups.iter().any(|have| have.name() == group),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn curves_keep_their_order_and_only_known_ones_pass() {
        let options = Options::parse("", "", "24, 29 ,4588").unwrap();
        let names: Vec<_> = options
            .provider()
            .kx_groups
            .iter()
            .map(|group| group.name())
            .collect();
        assert_eq!(names, [NamedGroup::secp384r1, NamedGroup::X25519]);
        assert_eq!(options.missing(), ["X25519MLKEM768"]);
        for wrong in ["0", "65536", "-1", "X25519", "1", ""] {
            let list = format!("29,{wrong}");
            assert_eq!(
                refused("", "", &list),
                OptionsError::Curve(wrong.to_owned())
            );
        }
        assert_eq!(refused("", "", "29,23,29"), OptionsError::CurveTwice(29));
        assert_eq!(refused("", "", "25"), OptionsError::NoCurve);
    }
}
