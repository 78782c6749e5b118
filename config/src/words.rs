//! What an operator wrote, before anyone asked whether it makes sense.
//!
//! This is the seam between the notations and the check: the ConfigMap's document is turned into [`Words`] by
//! `document.rs`, custom resources by the crate that knows them, and [`check()`](crate::check()) alone gives them a
//! meaning. Whoever fills words puts what it could not read into `problems` and leaves [`Word::Unreadable`] in its
//! place, so that the check neither loses that problem nor adds a second one for the gap.

use crate::problem::Problem;

/// One value in the operator's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Word<T> {
    /// Not written, or written as null.
    #[default]
    Absent,
    /// Written, but in a form that cannot be the value; the problem is already noted.
    Unreadable,
    /// Written.
    Said(T),
}

/// A whole configuration as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// What could not be read outside of the pools.
    pub problems: Vec<Problem>,
    /// The pools in the order they are written in, which is the order addresses are given out in.
    pub pools: Vec<PoolWords>,
}

/// One address pool as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolWords {
    /// Where the pool stands: `address-pools[0]`, or the kind and name of a custom resource.
    pub place: String,
    /// What could not be read in this pool.
    pub problems: Vec<Problem>,
    /// `name`.
    pub name: Word<String>,
    /// `protocol`: `layer2` or `bgp`.
    pub protocol: Word<String>,
    /// `addresses`: CIDRs and ranges.
    pub addresses: Word<Vec<Word<String>>>,
    /// `auto-assign`; absent means true.
    pub auto_assign: Word<bool>,
    /// `avoid-buggy-ips`; absent means false.
    pub avoid_buggy_ips: Word<bool>,
    /// How many `bgp-advertisements` are written.
    pub bgp_advertisements: usize,
}
