//! The controller: gives Services of `type: LoadBalancer` addresses from the operator's pools.

mod act;
mod args;
mod metrics;
mod reconcile;
mod run;
mod translate;

use ferrolb_runtime::{flags, log};

fn main() -> anyhow::Result<()> {
    let (args, unknown) = flags::parse::<args::Args>();
    log::init(args.log_level)?;
    if !unknown.is_empty() {
        tracing::warn!(
            flags = unknown.join(" "),
            "flags without meaning here, ignored"
        );
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run::run(args))
}
