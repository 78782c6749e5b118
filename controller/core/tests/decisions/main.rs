//! The decisions of the controller as a caller sees them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]
#![allow(
    clippy::wildcard_imports,
    reason = "the words every test here is written in"
)]

mod allocation;
mod assignment;
mod choice;
mod configuration;
mod convergence;
mod dual_stack;
mod histories;
mod model;
mod notices;
mod restart;
mod sharing;
mod shown;
mod steps;
mod strangers;
mod world;
