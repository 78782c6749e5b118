//! What both daemons need to live: the Kubernetes client, watches, events, the configuration's
//! source, metrics, logs, readiness and shutdown. Nothing here knows what a Service or an address means.

pub mod admin;
pub mod client;
pub mod configmap;
pub mod events;
pub mod flags;
pub mod log;
pub mod metrics;
pub mod process;
pub mod ready;
pub mod shutdown;
pub mod watch;
