//! The controller: gives Services of `type: LoadBalancer` addresses from the operator's pools.

mod act;
mod args;
mod metrics;
mod reconcile;
mod run;
mod translate;

use ferrolb_runtime::{flags, process};

fn main() -> anyhow::Result<()> {
    let (args, unknown) = flags::parse::<args::Args>();
    process::begin(args.log_level, &unknown)?.block_on(run::run(args))
}
