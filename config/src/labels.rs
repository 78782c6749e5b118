//! Labels and what selects by them.

use std::collections::{BTreeMap, BTreeSet};

/// `metadata.labels` of an object, in order of their keys. A list as small as what is in it: most objects have one or two, and
/// a tree's node has room for eleven.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(Vec<(Box<str>, Box<str>)>);

impl Labels {
    /// None.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of the label with this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(one, _)| (**one).cmp(key)).ok()?;
        self.0.get(place).map(|(_, value)| &**value)
    }

    /// Whether there is a label with this key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(labels: BTreeMap<String, String>) -> Self {
        let pairs = labels.into_iter();
        let mut list: Vec<_> = pairs
            .map(|(key, value)| (key.into_boxed_str(), value.into_boxed_str()))
            .collect();
        // Collecting makes room for four at least.
        list.shrink_to_fit();
        Self(list)
    }
}

/// Of two values of one key the later counts.
impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(labels: I) -> Self {
        labels.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<const COUNT: usize> From<[(String, String); COUNT]> for Labels {
    fn from(labels: [(String, String); COUNT]) -> Self {
        labels.into_iter().collect()
    }
}

/// A checked label selector (`metav1.LabelSelector`): every requirement must hold, and without one it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    pub(crate) requirements: BTreeSet<Requirement>,
}

impl Selector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.holds(labels))
    }
}

/// One condition of a selector: an entry of `matchLabels` or of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Requirement {
    /// The label is there with one of the values.
    In(String, BTreeSet<String>),
    /// The label is absent or has another value.
    NotIn(String, BTreeSet<String>),
    /// The label is there.
    Exists(String),
    /// The label is absent.
    DoesNotExist(String),
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => {
                !labels.get(key).is_some_and(|value| values.contains(value))
            }
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

/// Whether one of several selectors matches. Without any, nothing does.
pub(crate) fn any_matches(selectors: &[Selector], labels: &Labels) -> bool {
    selectors.iter().any(|selector| selector.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect()
    }

    fn selector(requirement: Requirement) -> Selector {
        Selector {
            requirements: [requirement].into(),
        }
    }

    #[test]
    fn requirements_are_those_of_kubernetes() {
        let values: BTreeSet<String> = ["a".into(), "b".into()].into();
        let (with, other, without) = (
            labels(&[("k", "a")]),
            labels(&[("k", "c")]),
            labels(&[("x", "a")]),
        );
        for (requirement, expected) in [
            (
                Requirement::In("k".into(), values.clone()),
                [true, false, false],
            ),
            // An absent label is not in the values.
            (Requirement::NotIn("k".into(), values), [false, true, true]),
            (Requirement::Exists("k".into()), [true, true, false]),
            (Requirement::DoesNotExist("k".into()), [false, false, true]),
        ] {
            let selector = selector(requirement.clone());
            let found = [&with, &other, &without].map(|labels| selector.matches(labels));
            assert_eq!(found, expected, "{requirement:?}");
        }
    }

    #[test]
    fn the_empty_selector_selects_everything_and_no_selector_nothing() {
        assert!(Selector::default().matches(&labels(&[])));
        assert!(any_matches(&[Selector::default()], &labels(&[])));
        assert!(!any_matches(&[], &labels(&[])));
    }
}
