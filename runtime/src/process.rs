//! A daemon's first and last words.

use std::process::ExitCode;

use crate::{flags::Shared, log};

/// The commit this was built from, where whoever built it said so (`FERROLB_COMMIT` at build time).
const COMMIT: Option<&str> = option_env!("FERROLB_COMMIT");

/// Runs `daemon` to its end, in a runtime of one thread, because both daemons wait far more than they work.
///
/// First it starts logging, says who it is (MetalLB's first line: `version`, `commit`) and names the flags and variables
/// nobody knows. What ended it is its last line, and makes the status 1. A level that is none of MetalLB's ends it as it
/// does there: a sentence on standard output and status 1.
pub fn run(
    daemon: &str,
    shared: &Shared,
    unknown: &[String],
    work: impl Future<Output = anyhow::Result<()>>,
) -> ExitCode {
    let level = match shared.level() {
        Ok(level) => level,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = begin(daemon, level, unknown).and_then(|runtime| runtime.block_on(work));
    let Err(error) = ended else {
        return ExitCode::SUCCESS;
    };
    let error = sentence(&error);
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(op = "shutdown", error, "FerroLB {daemon} cannot go on");
    } else {
        // Nothing is to be logged; the reason of an end is still worth knowing.
        eprintln!("{error}");
    }
    ExitCode::FAILURE
}

fn begin(
    daemon: &str,
    level: log::LogLevel,
    unknown: &[String],
) -> anyhow::Result<tokio::runtime::Runtime> {
    log::init(level)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        commit = COMMIT.unwrap_or("unknown"),
        "FerroLB {daemon} starting"
    );
    if !unknown.is_empty() {
        tracing::warn!(
            op = "startup",
            flags = unknown.join(" "),
            "flags and variables without meaning here, ignored"
        );
    }
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// An error and what is behind it, as far as it does not say so itself.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut said, cause| {
        let cause = cause.to_string();
        if said.is_empty() {
            return cause;
        }
        if !said.contains(&cause) {
            said.push_str(": ");
            said.push_str(&cause);
        }
        said
    })
}

/// Names the flags that were accepted and change nothing here.
pub fn without_effect(flags: &[&str]) {
    if !flags.is_empty() {
        tracing::warn!(
            op = "startup",
            flags = flags.join(" "),
            "flags accepted without effect here"
        );
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_cause_is_named_once() {
        let error = Err::<(), _>(std::io::Error::other("taken")).context("cannot listen");
        assert_eq!(sentence(&error.unwrap_err()), "cannot listen: taken");
        let error =
            Err::<(), _>(std::io::Error::other("taken")).context("cannot listen: taken, choose");
        assert_eq!(
            sentence(&error.unwrap_err()),
            "cannot listen: taken, choose"
        );
    }
}
