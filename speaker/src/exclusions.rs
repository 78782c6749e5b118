//! Interfaces that are never announced on, by name (MetalLB 0.13.10 and later: ConfigMap `metallb-excludel2`).
//!
//! Where MetalLB without the file excludes nothing, we exclude what its manifests do by default: pods' own links are no
//! LAN, and a node has a hundred of them. A file that is there replaces that list whole; an empty list in it excludes
//! nothing.

use std::path::Path;
use std::time::Duration;

use regex::RegexSet;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::sleep;

/// Where MetalLB's manifests mount the ConfigMap.
pub const PATH: &str = "/etc/metallb/excludel2.yaml";

/// How often the file is looked at: the kubelet itself takes up to a minute to bring a changed ConfigMap to the node.
const LOOK: Duration = Duration::from_secs(10);

/// What MetalLB's manifests exclude by default (0.15.3 and later).
const USUAL: [&str; 14] = [
    "^docker.*",
    "^cbr.*",
    "^dummy.*",
    "^virbr.*",
    "^lxcbr.*",
    "^veth.*",
    "^lo$",
    "^cali.*",
    "^tunl.*",
    "^flannel.*",
    "^kube-ipvs.*",
    "^cni.*",
    "^nodelocaldns.*",
    "^lxc.*",
];

/// Names of interfaces to leave alone.
#[derive(Clone, Debug)]
pub struct Exclusions {
    patterns: RegexSet,
}

/// The same patterns in the same order.
impl PartialEq for Exclusions {
    fn eq(&self, other: &Self) -> bool {
        self.patterns.patterns() == other.patterns.patterns()
    }
}

/// What the file holds; other keys are ignored, as MetalLB does.
#[derive(Deserialize)]
struct Document {
    #[serde(default, rename = "announcedInterfacesToExclude")]
    excluded: Vec<String>,
}

/// Why the list cannot be used. The speaker does not start: announcing on an interface it was told to leave alone would
/// be worse. One that runs already keeps the list it has.
#[derive(Debug, thiserror::Error)]
pub enum ExclusionError {
    /// The file is there and cannot be read.
    #[error("cannot read the list of excluded interfaces: {0}")]
    Read(#[from] std::io::Error),
    /// The file is not YAML of the right form.
    #[error(
        "the list of excluded interfaces is not of the form `announcedInterfacesToExclude: [regexp, ...]`: {0}"
    )]
    Form(String),
    /// One of the patterns is no regular expression.
    #[error("a pattern in announcedInterfacesToExclude is no regular expression: {0}")]
    Pattern(#[from] regex::Error),
}

impl Exclusions {
    /// What is excluded unless a file says otherwise: the default list of MetalLB's manifests.
    pub fn usual() -> Result<Self, ExclusionError> {
        Ok(Self {
            patterns: RegexSet::new(USUAL)?,
        })
    }

    /// Reads the file at `path`; without one it is [`usual`](Self::usual).
    pub fn read(path: &Path) -> Result<Self, ExclusionError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::usual(),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the text of such a file. Only what it lists is excluded.
    pub fn parse(text: &str) -> Result<Self, ExclusionError> {
        let document: Option<Document> = serde_saphyr::from_str(text)
            .map_err(|error| ExclusionError::Form(error.to_string()))?;
        let patterns = document
            .map(|document| document.excluded)
            .unwrap_or_default();
        Ok(Self {
            patterns: RegexSet::new(patterns)?,
        })
    }

    /// The interface `name` is excluded: a pattern matches somewhere in it.
    pub fn names(&self, name: &str) -> bool {
        self.patterns.is_match(name)
    }
}

/// Keeps `sink` in line with the file at `path` until its receivers are gone. MetalLB reads it once, at start.
pub async fn follow(path: &Path, sink: watch::Sender<Exclusions>) {
    let mut told = None;
    loop {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = sink.closed() => return,
        }
        match Exclusions::read(path) {
            Ok(read) => {
                told = None;
                let differs = sink.send_if_modified(|current| {
                    let differs = *current != read;
                    if differs {
                        *current = read;
                    }
                    differs
                });
                if differs {
                    tracing::info!(
                        op = "interfaceScan",
                        "the list of excluded interfaces has changed"
                    );
                }
            }
            Err(error) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::error!(
                        op = "interfaceScan",
                        error,
                        "the former list of excluded interfaces stays in force"
                    );
                    told = Some(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ExclusionError, Exclusions, Path, follow, watch};

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_taken_up_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("excludel2.yaml");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("announcedInterfacesToExclude: [^eth1$]");
        let (sink, mut list) = watch::channel(Exclusions::read(&path).unwrap());
        let following = path.clone();
        let task = tokio::spawn(async move { follow(&following, sink).await });
        write("announcedInterfacesToExclude: [^eth2$]");
        list.changed().await.unwrap();
        assert!(list.borrow_and_update().names("eth2"));
        write("announcedInterfacesToExclude: ['(']");
        tokio::time::sleep(super::LOOK * 2).await;
        assert!(!list.has_changed().unwrap() && list.borrow().names("eth2"));
        // Taken away, the usual list is back.
        std::fs::remove_file(&path).unwrap();
        list.changed().await.unwrap();
        assert!(list.borrow_and_update().names("veth0"));
        drop(list);
        task.await.unwrap();
    }

    #[test]
    fn patterns_match_anywhere_unless_anchored() {
        let excluded =
            Exclusions::parse("announcedInterfacesToExclude:\n- ^docker.*\n- lxc\nother: 1\n")
                .unwrap();
        for (name, expected) in [
            ("docker0", true),
            ("mydocker", false),
            ("xlxcbr0", true),
            ("eth0", false),
        ] {
            assert_eq!(excluded.names(name), expected, "{name}");
        }
    }

    #[test]
    fn without_a_file_pods_links_are_excluded_and_a_nodes_are_not() {
        let usual = Exclusions::read(Path::new("/nonexistent/excludel2.yaml")).unwrap();
        let links = "docker0 cbr0 dummy0 virbr0 lxcbr0 veth1a2b lo cali12ab tunl0 flannel.1 kube-ipvs0 cni0 \
                     nodelocaldns lxc9f";
        for name in links.split_whitespace() {
            assert!(usual.names(name), "{name}");
        }
        for name in ["eth0", "enp3s0", "bond0", "br0", "vlan7", "wlo1", "lo1"] {
            assert!(!usual.names(name), "{name}");
        }
    }

    #[test]
    fn a_file_replaces_the_whole_list_even_with_nothing() {
        for text in [
            "",
            "other: 1",
            "announcedInterfacesToExclude: []",
            "announcedInterfacesToExclude: [\"^eth1$\"]",
        ] {
            let excluded = Exclusions::parse(text).unwrap();
            assert!(!excluded.names("veth0"), "{text}");
            assert_eq!(excluded.names("eth1"), text.contains("eth1"), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(
            Exclusions::parse("announcedInterfacesToExclude: ['(']"),
            Err(ExclusionError::Pattern(_))
        ));
        assert!(matches!(
            Exclusions::parse("announcedInterfacesToExclude: 3"),
            Err(ExclusionError::Form(_))
        ));
    }
}
