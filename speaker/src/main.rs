//! The speaker: answers ARP for the addresses this node holds.

mod act;
mod args;
mod decider;
mod exclusions;
mod interfaces;
mod metrics;
mod responder;
mod run;
mod sources;
mod table;
mod translate;

use ferrolb_runtime::{flags, process};

fn main() -> anyhow::Result<()> {
    let (args, unknown) = flags::parse::<args::Args>();
    process::begin(args.log_level, &unknown)?.block_on(run::run(args))
}
