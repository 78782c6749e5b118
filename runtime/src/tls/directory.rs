//! A certificate kept in files that change: a mounted Secret of type `kubernetes.io/tls`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;

use super::{Certificate, CertificateError, Identity};

/// How often the files are read again. The kubelet takes a minute to bring a changed Secret to its mount.
const PERIOD: Duration = Duration::from_secs(10);

/// Why a directory gives no certificate.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// One of the files cannot be read.
    #[error("cannot read {path}: {source}; a Secret of type kubernetes.io/tls is expected there")]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// What they hold cannot be used.
    #[error("tls.crt and tls.key in {directory}: {source}")]
    Content {
        /// Where they lie.
        directory: PathBuf,
        /// What is wrong with them.
        source: CertificateError,
    },
}

/// Reads `tls.crt` and `tls.key` in `directory`.
///
/// # Errors
/// A file is missing or does not hold what it should.
pub fn read(directory: &Path) -> Result<Certificate, DirectoryError> {
    certificate(directory, &contents(directory)?)
}

/// Reads the files again every 10 s, for ever, and gives `identity` what they newly hold. Files that cannot be used
/// are named in the log once, and what was shown before stays.
pub async fn follow(directory: PathBuf, identity: Arc<Identity>) {
    let mut follower = Follower::default();
    let mut due = tokio::time::interval(PERIOD);
    loop {
        due.tick().await;
        follower.look(&directory, &identity);
    }
}

/// What was last seen, so that only changes are acted on.
#[derive(Default)]
struct Follower {
    taken: Option<Pair>,
    said: Option<String>,
}

impl Follower {
    fn look(&mut self, directory: &Path, identity: &Identity) {
        let read = contents(directory);
        if read
            .as_ref()
            .is_ok_and(|pair| Some(pair) == self.taken.as_ref())
        {
            self.said = None;
            return;
        }
        match read.and_then(|pair| Ok((certificate(directory, &pair)?, pair))) {
            Ok((certificate, pair)) => {
                identity.replace(certificate);
                if self.taken.replace(pair).is_some() {
                    tracing::info!(
                        event = "certificateLoaded",
                        directory = %directory.display(),
                        "certificate changed"
                    );
                }
                self.said = None;
            }
            Err(error) => {
                // Kept until it changes: a directory that stays wrong is one line, not one every ten seconds.
                let text = error.to_string();
                if self.said.as_ref() != Some(&text) {
                    tracing::warn!(
                        op = "loadCertificate",
                        error = text,
                        "certificate not taken, the one before stays"
                    );
                    self.said = Some(text);
                }
            }
        }
    }
}

/// The bytes of `tls.crt` and `tls.key`.
#[derive(PartialEq, Eq)]
struct Pair {
    chain: Vec<u8>,
    key: Vec<u8>,
}

fn contents(directory: &Path) -> Result<Pair, DirectoryError> {
    let read = |name| {
        let path = directory.join(name);
        std::fs::read(&path).map_err(|source| DirectoryError::File { path, source })
    };
    Ok(Pair {
        chain: read("tls.crt")?,
        key: read("tls.key")?,
    })
}

fn certificate(directory: &Path, pair: &Pair) -> Result<Certificate, DirectoryError> {
    Certificate::from_pem(&pair.chain, &pair.key).map_err(|source| DirectoryError::Content {
        directory: directory.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;

    use super::*;

    fn write(directory: &Path, name: &str) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(directory.join("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(directory.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }

    #[test]
    fn changed_files_are_taken_and_broken_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::empty();
        let mut follower = Follower::default();
        follower.look(directory.path(), &identity);
        assert!(identity.shown().is_none(), "there are no files yet");
        assert!(follower.said.as_ref().unwrap().contains("tls.crt"));

        let first = write(directory.path(), "a");
        follower.look(directory.path(), &identity);
        assert_eq!(identity.shown(), Some(first));
        assert_eq!(follower.said, None);

        let second = write(directory.path(), "b");
        let key = std::fs::read(directory.path().join("tls.key")).unwrap();
        follower.look(directory.path(), &identity);
        assert_eq!(identity.shown(), Some(second.clone()));

        write(directory.path(), "c");
        let other_key = std::fs::read(directory.path().join("tls.key")).unwrap();
        std::fs::write(directory.path().join("tls.key"), &key).unwrap();
        follower.look(directory.path(), &identity);
        assert_eq!(identity.shown(), Some(second), "the key is another's");
        assert!(
            follower.said.as_ref().unwrap().contains("together"),
            "{:?}",
            follower.said
        );

        std::fs::write(directory.path().join("tls.key"), other_key).unwrap();
        follower.look(directory.path(), &identity);
        assert_eq!(follower.said, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_server_shows_what_the_files_hold() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Arc::new(Identity::empty());
        let following = tokio::spawn(follow(directory.path().to_owned(), identity.clone()));
        for name in ["a", "b"] {
            let written = write(directory.path(), name);
            tokio::time::sleep(PERIOD + Duration::from_millis(1)).await;
            assert_eq!(identity.shown(), Some(written), "{name}");
        }
        following.abort();
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = read(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains("tls.crt") && error.contains("kubernetes.io/tls"),
            "{error}"
        );
        write(directory.path(), "a");
        read(directory.path()).unwrap();
        std::fs::write(directory.path().join("tls.crt"), "").unwrap();
        let error = read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("no certificate"), "{error}");
        write(directory.path(), "a");
        std::fs::write(directory.path().join("tls.key"), "x").unwrap();
        let error = read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("no private key"), "{error}");
    }
}
