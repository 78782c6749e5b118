//! Which address a Service gets: the pure decision.
//!
//! ```text
//!  Service ─(translate, in the daemon)─▶ Request ─┐
//!                                                 ├─▶ Core::decide ─▶ Plan ─(act, in the daemon)─▶ status, Events
//!  Config, addresses of nodes and strangers, ─────┘
//!  restart barrier
//! ```
//!
//! [`Core`] holds everything that was decided and is the only writer of it. It knows no Kubernetes client, no clock and
//! no chance: the same calls in the same order give the same addresses.

mod allocator;
mod converge;
mod family;
mod grant;
mod notice;
mod plan;
mod request;
mod service;
mod strangers;

pub use notice::{Level, Notice};
pub use plan::{Plan, PoolUse};
pub use request::{FamilyPolicy, Port, Request, Transport};
pub use service::Core;
pub use strangers::Stranger;
