//! The speaker: answers ARP and NDP for the addresses this node holds.
//!
//! A library, so that one program can hold it beside the controller (the room `image/`).

mod act;
mod arbitration;
mod args;
mod decider;
mod exclusions;
mod gossip;
mod interfaces;
mod metrics;
mod run;
mod sources;
mod statuses;
mod translate;

use std::process::ExitCode;

use clap::CommandFactory as _;
use ferrolb_runtime::{flags, process};

/// The speaker as a process: its flags and variables are the process's own, and it runs until a signal or a fault ends
/// it.
pub fn main() -> ExitCode {
    let flags::Parsed { args, unknown } = flags::parse::<args::Args>();
    let shared = args.shared.clone();
    process::run("speaker", &shared, &unknown, run::run(args))
}

/// Its command line, for telling it from the controller's.
pub fn command() -> clap::Command {
    args::Args::command()
}
