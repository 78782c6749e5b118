//! The controller: gives Services of `type: LoadBalancer` addresses from the operator's pools.
//!
//! A library, so that one program can hold it beside the speaker (the room `image/`).

mod act;
mod args;
mod conflicts;
mod disputes;
mod metrics;
mod pool_status;
mod reconcile;
mod run;
mod secret;
mod translate;
mod webhook;

use std::process::ExitCode;

use clap::CommandFactory as _;
use ferrolb_runtime::{flags, process};

/// The controller as a process: its flags and variables are the process's own, and it runs until a signal or a fault
/// ends it.
pub fn main() -> ExitCode {
    let flags::Parsed { args, unknown } = flags::parse::<args::Args>();
    let shared = args.shared.clone();
    process::run("controller", &shared, &unknown, run::run(args))
}

/// Its command line, for telling it from the speaker's.
pub fn command() -> clap::Command {
    args::Args::command()
}
