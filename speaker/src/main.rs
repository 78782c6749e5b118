//! The speaker: answers ARP and NDP for the addresses this node holds.

mod act;
mod args;
mod decider;
mod exclusions;
mod gossip;
mod interfaces;
mod metrics;
mod responder;
mod run;
mod sources;
mod statuses;
mod table;
mod translate;

use std::process::ExitCode;

use ferrolb_runtime::{flags, process};

fn main() -> ExitCode {
    let flags::Parsed { args, unknown } = flags::parse::<args::Args>();
    let shared = args.shared.clone();
    process::run("speaker", &shared, &unknown, run::run(args))
}
