//! What `ferrolb` can do, one module for each verb.

pub mod command;
pub mod convert;
