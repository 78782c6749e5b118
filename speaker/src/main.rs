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

fn main() -> anyhow::Result<()> {
    let (args, unknown) = ferrolb_runtime::flags::parse::<args::Args>();
    ferrolb_runtime::log::init(args.log_level)?;
    if !unknown.is_empty() {
        tracing::warn!(
            flags = unknown.join(" "),
            "flags without meaning here, ignored"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run::run(args))
}
