//! Measures how long clients are cut off when nodes are lost and addresses move, with FerroLB and with MetalLB in the same
//! lab, and whether addresses move without cause under load: `docs/failover-bench.md`.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};
use ferrolb_e2e::bench::{self, On, Plan, soak};

/// The failover bench.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The lab's name.
    #[arg(long, global = true, env = "LAB", default_value = "bench")]
    lab: String,
    /// Who announces the addresses, by turns in the same lab.
    #[arg(long, global = true, env = "ON", default_value = "both")]
    on: On,
    /// 1: use the lab of this name if it is up and has the right size, and leave it up.
    #[arg(long, global = true, env = "KEEP", default_value = "")]
    keep: String,
    /// Take the images of FerroLB that are on the nodes, and build none.
    #[arg(long, global = true)]
    as_is: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Lose nodes, and move addresses.
    Run {
        /// The clusters' sizes.
        #[arg(long, env = "NODES", value_delimiter = ',', default_values_t = [3, 5, 8])]
        nodes: Vec<u8>,
        /// How many nodes are lost in all with each system.
        #[arg(long, env = "ROUNDS", default_value_t = 108)]
        rounds: usize,
        /// How many moves are asked for in all with each system.
        #[arg(long, env = "MOVES", default_value_t = 63)]
        moves: usize,
        /// Decides the order of the losses and who is lost.
        #[arg(long, env = "SEED", default_value_t = 1)]
        seed: u64,
    },
    /// Look for changes of owner without a cause, while all cores are busy and the speakers held back.
    Soak {
        /// The cluster's size.
        #[arg(long, env = "NODES", default_value_t = 3)]
        nodes: u8,
        /// How long, with each system.
        #[arg(long, env = "MINUTES", default_value_t = 30)]
        minutes: u64,
        /// How many thousandths of a CPU each speaker gets. With a tenth of one ours is never held back.
        #[arg(long, env = "MILLICPU", default_value_t = 20)]
        millicpu: u32,
    },
    /// Keep one core busy; the soak starts these.
    #[command(hide = true)]
    Burn {
        /// For how long.
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_failover: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let mut plan = Plan {
        lab: arguments.lab,
        nodes: Vec::new(),
        losses: 0,
        moves: 0,
        seed: 0,
        systems: arguments.on.systems(),
        keep: arguments.keep == "1",
        as_is: arguments.as_is,
    };
    match arguments.verb {
        Verb::Run {
            nodes,
            rounds,
            moves,
            seed,
        } => {
            plan.nodes = nodes;
            plan.losses = rounds;
            plan.moves = moves;
            plan.seed = seed;
            bench::run(&plan)
        }
        Verb::Soak {
            nodes,
            minutes,
            millicpu,
        } => {
            let time = Duration::from_mins(minutes);
            soak::run(&plan, nodes, time, millicpu)
        }
        Verb::Burn { seconds } => {
            soak::compute(Duration::from_secs(seconds));
            Ok(())
        }
    }
}
