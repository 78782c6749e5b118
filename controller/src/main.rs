//! The controller: gives Services of `type: LoadBalancer` addresses from the operator's pools.

mod act;
mod args;
mod metrics;
mod pool_status;
mod reconcile;
mod run;
mod secret;
mod translate;
mod webhook;

use std::process::ExitCode;

use ferrolb_runtime::{flags, process};

fn main() -> ExitCode {
    let flags::Parsed { args, unknown } = flags::parse::<args::Args>();
    let shared = args.shared.clone();
    process::run("controller", &shared, &unknown, run::run(args))
}
