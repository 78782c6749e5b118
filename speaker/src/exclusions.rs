//! Interfaces that are never announced on, by name (MetalLB 0.13.10 and later: ConfigMap `metallb-excludel2`).

use std::path::Path;

use regex::RegexSet;
use serde::Deserialize;

/// Where MetalLB's manifests mount the ConfigMap.
pub const PATH: &str = "/etc/metallb/excludel2.yaml";

/// Names of interfaces to leave alone. The default excludes none.
#[derive(Clone, Debug)]
pub struct Exclusions {
    patterns: RegexSet,
}

impl Default for Exclusions {
    fn default() -> Self {
        Self {
            patterns: RegexSet::empty(),
        }
    }
}

/// What the file holds; other keys are ignored, as MetalLB does.
#[derive(Deserialize)]
struct Document {
    #[serde(default, rename = "announcedInterfacesToExclude")]
    excluded: Vec<String>,
}

/// Why the list cannot be used. The speaker does not start: announcing on an interface it was told to leave alone would
/// be worse.
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
    /// Reads the file at `path`; without one nothing is excluded.
    pub fn read(path: &Path) -> Result<Self, ExclusionError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the text of such a file.
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

#[cfg(test)]
mod tests {
    use super::{ExclusionError, Exclusions, Path};

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
    fn nothing_written_excludes_nothing_and_nonsense_is_refused() {
        assert!(!Exclusions::parse("").unwrap().names("lo"));
        assert!(!Exclusions::parse("other: 1").unwrap().names("lo"));
        assert!(
            !Exclusions::read(Path::new("/nonexistent/excludel2.yaml"))
                .unwrap()
                .names("lo")
        );
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
