//! What both daemons need to live: the Kubernetes client, watches, events, the configuration's
//! source, metrics, logs, readiness and shutdown. Nothing here knows what a Service or an address means.

pub mod admin;
pub mod auth;
pub mod client;
pub mod configuration;
pub mod courtesy;
pub mod endpoints;
pub mod events;
pub mod flags;
pub mod log;
pub mod metrics;
pub mod object;
pub mod process;
pub mod ready;
pub mod serve;
pub mod shutdown;
pub mod state;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod watch;
