//! The commands of the documentation, run as a reader would run them.
//!
//! A shell block says after its language what becomes of it:
//!
//! | mark | meaning |
//! |---|---|
//! | `lab=PART` | [`follow`] runs it with all blocks of this part of the document, in order |
//! | `on=n1` | and on that host of the lab; otherwise on a host of the LAN that is no node, as the reader's own machine |
//! | `same-as=FILE` | `FILE` has the same commands, and they are run there |
//! | `not-run="why"` | nobody can run it in the lab |
//!
//! A block `text seen` right behind one that is run is what it must print: each line in this order, others between them,
//! `…` for anything. Such a block asks, so it is asked until it is answered that way. `e2e/tests/docs.rs` sees to it that
//! every block has its mark and every part its test.

mod blocks;
mod reader;

pub use blocks::{Block, Fate, all, read};
pub use reader::follow;
