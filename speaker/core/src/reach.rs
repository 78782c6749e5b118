//! On which interfaces of a node an address is answered for.

use std::collections::BTreeSet;

/// The interfaces of a node on which an address is answered for and made known (`spec.interfaces` of the
/// `L2Advertisement`s, MetalLB 0.13.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On every one that is announced on at all.
    Everywhere,
    /// On those of these names; never none.
    Only(BTreeSet<String>),
}

impl Reach {
    /// Whether the interface of this name is one of them.
    pub fn includes(&self, interface: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Only(names) => names.contains(interface),
        }
    }

    /// The names, in order; none for every interface.
    pub fn names(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::Everywhere => None,
            Self::Only(names) => Some(names),
        }
    }

    /// What either reaches.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Only(mine), Self::Only(theirs)) => Self::Only(mine | theirs),
            _ => Self::Everywhere,
        }
    }
}
