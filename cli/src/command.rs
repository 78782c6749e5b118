//! The command line of `ferrolb`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::convert::{Converted, convert};

/// Tools for operators of FerroLB.
#[derive(Debug, Parser)]
#[command(name = "ferrolb", version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Turn a ConfigMap of MetalLB 0.7 to 0.12 into custom resources (what configmaptocrs does).
    Convert {
        /// The ConfigMap; "-" reads standard input.
        #[arg(long, default_value = "config.yaml", value_name = "FILE")]
        source: PathBuf,

        /// The source is the bare configuration, as under the ConfigMap's key "config".
        #[arg(long)]
        only_data: bool,

        /// Where the resources are written; "-" writes standard output.
        #[arg(long, default_value = "resources.yaml", value_name = "FILE")]
        output: PathBuf,

        /// The same as --output -.
        #[arg(long, conflicts_with = "output")]
        stdout: bool,
    },
}

/// Does what the process's own command line asks for.
///
/// Prints usage (status 0) or what is wrong with the line (status 2) and ends the process where there is nothing to do.
///
/// # Errors
/// A file cannot be read or written, or what it says is no configuration of MetalLB.
pub fn run() -> anyhow::Result<()> {
    match Args::parse().verb {
        Verb::Convert {
            source,
            only_data,
            output,
            stdout,
        } => {
            let text = read(&source)?;
            let Converted { resources, notes } = convert(&text, only_data)?;
            for note in notes {
                eprintln!("{note}");
            }
            if stdout || output == Path::new("-") {
                return Ok(io::stdout().write_all(resources.as_bytes())?);
            }
            fs::write(&output, resources)
                .with_context(|| format!("cannot write {}", output.display()))
        }
    }
}

fn read(source: &Path) -> anyhow::Result<String> {
    if source == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    fs::read_to_string(source).with_context(|| format!("cannot read {}", source.display()))
}
