//! `make bench`: how fast many Services get addresses and answers, and what the daemons take for it, with FerroLB and with
//! MetalLB in the same lab: `docs/performance.md`.

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::Parser;
use ferrolb_e2e::bench::{
    On, answers,
    services::{self, Plan},
};

/// The bench.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The lab's name.
    #[arg(long, env = "LAB", default_value = "bench")]
    lab: String,
    /// Who announces the addresses, by turns in the same lab.
    #[arg(long, env = "ON", default_value = "both")]
    on: On,
    /// 1: use the lab of this name if it is up and has the right size, and leave it up.
    #[arg(long, env = "KEEP", default_value = "")]
    keep: String,
    /// 1: smaller sizes and fewer samples, in under 10 minutes.
    #[arg(long, env = "QUICK", default_value = "")]
    quick: String,
    /// How many Services there are to be, ascending: 1,2000,10000, or 1,500 with QUICK.
    #[arg(long, env = "SERVICES", value_delimiter = ',')]
    services: Vec<usize>,
    /// The cluster's size.
    #[arg(long, env = "NODES", default_value_t = 3)]
    nodes: u8,
    /// Take the images of FerroLB that are on the nodes, and build none.
    #[arg(long)]
    as_is: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let quick = arguments.quick == "1";
    let sizes = match arguments.services {
        given if !given.is_empty() => given,
        _ if quick => vec![1, 500],
        _ => vec![1, 2000, 10_000],
    };
    ensure!(
        sizes.is_sorted() && sizes.iter().all(|size| (1..=16_000).contains(size)),
        "SERVICES are numbers from 1 to 16000, the smaller first"
    );
    services::run(&Plan {
        lab: arguments.lab,
        nodes: arguments.nodes,
        sizes,
        systems: arguments.on.systems(),
        singles: if quick { 7 } else { 20 },
        window: Duration::from_secs(if quick { 10 } else { 30 }),
        keep: arguments.keep == "1",
        as_is: arguments.as_is,
    })?;
    if matches!(arguments.on, On::Metallb) {
        return Ok(());
    }
    answers::run(quick)
}
