//! What an operator may write: address pools, checked.
//!
//! The way of a configuration through this crate:
//!
//! ```text
//!  ConfigMap text ── document ──▶ Words ── check ──▶ Config (pools, and how they are announced)
//!                   (YAML)          ▲                or Refused (every Problem)
//!  custom resources ────────────────┘
//! ```
//!
//! [`Words`] is what was written, with nothing but its shape known; [`check()`] is the only way from there to a
//! [`Config`], so whoever holds a [`Config`] holds pools without overlap, with unique names and sound ranges.

mod address;
mod advertisement;
mod bgp;
mod check;
mod document;
mod labels;
mod name;
mod pool;
mod problem;
mod selectors;
mod words;

pub use address::{AddressRange, EntryError, Family};
pub use advertisement::{Advertisement, Allocation};
pub use check::check;
pub use document::{read, words};
pub use labels::{Labels, Selector};
pub use name::ObjectName;
pub use pool::{Config, Origin, Pool, Protocol};
pub use problem::{Problem, Refused};
pub use words::{
    AdvertisementWords, AllocationWords, BfdProfileWords, BgpAdvertisementWords, BgpWords,
    PeerWords, PoolWords, SelectorWords, Word, Words,
};
