//! Which node answers for which address, and when it says so unasked: the pure decision.
//!
//! ```text
//!  Kubernetes ── apply, delete ──▶ View ── decide(me, service) ──▶ Verdict ──▶ Announced ──▶ Step
//!                                   │ names the Services                        what changed: addresses
//!                                   ▼ a change touches                          taken and released, events
//!                                 Touched                                        │
//!                                                                                ▼
//!                                              now ──▶ Burst ──▶ gratuitous rounds that are due
//! ```
//!
//! Nothing here reads a clock, draws a number or waits. Every speaker that sees the same objects comes to the same
//! answer, and to MetalLB's: that is what keeps two nodes from answering at once.
//!
//! | file | holds |
//! |---|---|
//! | `order` | MetalLB's order of nodes for one address |
//! | `facts` | what is kept of each Kubernetes object |
//! | `nodes` | which nodes live, and whom the exclude label keeps out |
//! | `view` | all facts, indexed; which Services a change touches |
//! | `reach` | on which interfaces an address is answered for |
//! | `decide` | does this node announce this Service |
//! | `reason` | why not, in MetalLB's word and in a sentence |
//! | `announced` | what this node announces now, and what a verdict changes about it |
//! | `burst` | the schedule of gratuitous frames |

mod announced;
mod burst;
mod decide;
mod facts;
mod nodes;
mod order;
mod reach;
mod reason;
mod view;

pub use announced::{Announced, Event, Step};
pub use burst::{Burst, PACE, PERIOD, ROUNDS};
pub use decide::{Announcement, Verdict, decide};
pub use facts::{
    Endpoint, Endpoints, IngressIp, Members, Node, Service, SpeakerPod, TrafficPolicy,
};
pub use order::{elect, first, order};
pub use reach::Reach;
pub use reason::{NotEligible, Reason};
pub use view::{Kind, Touched, View};
