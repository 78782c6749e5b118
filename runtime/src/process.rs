//! What every daemon does first.

use crate::log::{self, LogLevel};

/// Starts logging, names the flags nobody knows, and makes the runtime the daemon lives in: of one
/// thread, because both daemons wait far more than they work.
///
/// # Errors
/// Logging was started before, or the kernel has no resources for a runtime.
pub fn begin(level: LogLevel, unknown: &[String]) -> anyhow::Result<tokio::runtime::Runtime> {
    log::init(level)?;
    if !unknown.is_empty() {
        tracing::warn!(
            flags = unknown.join(" "),
            "flags without meaning here, ignored"
        );
    }
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}
