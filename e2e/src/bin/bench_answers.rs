//! Measures how fast questions are answered, beside the kernel's own answers: `docs/performance.md`.

use std::process::ExitCode;

use clap::Parser;
use ferrolb_e2e::bench::answers;

/// The bench of answers.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// 1: one short round in place of five long ones.
    #[arg(long, env = "QUICK", default_value = "")]
    quick: String,
}

fn main() -> ExitCode {
    match answers::run(Arguments::parse().quick == "1") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_answers: {error:#}");
            ExitCode::FAILURE
        }
    }
}
