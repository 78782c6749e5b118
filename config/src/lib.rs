//! What an operator may write: address pools, checked.
//!
//! The way of a configuration through this crate:
//!
//! ```text
//!  ConfigMap text ── document ──▶ Words ── check ──▶ Config (pools)
//!                   (YAML)          ▲                or Refused (every Problem)
//!  custom resources ────────────────┘
//! ```
//!
//! [`Words`] is what was written, with nothing but its shape known; [`check()`] is the only way from there to a
//! [`Config`], so whoever holds a [`Config`] holds pools without overlap, with unique names and sound ranges.

mod address;
mod check;
mod document;
mod name;
mod pool;
mod problem;
mod words;

pub use address::{AddressRange, EntryError, Family};
pub use check::check;
pub use document::read;
pub use name::ObjectName;
pub use pool::{Config, Pool, Protocol};
pub use problem::{Problem, Refused};
pub use words::{PoolWords, Word, Words};
