//! Which nodes may answer for which address, in what order, and what that makes of what this node holds: the pure decision.
//!
//! ```text
//!  Kubernetes ── apply, delete ──▶ View ── standing(me, address) ──▶ Standing ──▶ the arbiter of each interface
//!                                   │ └─── decide(me, service) ───▶ Verdict            │ what this node holds
//!                                   ▼ names the Services a change touches │            ▼
//!                                 Touched                                 └───▶ Announced ──▶ Event
//!
//!                                              now ──▶ Burst ──▶ gratuitous rounds that are due
//! ```
//!
//! Nothing here reads a clock, draws a number or waits. Every speaker that sees the same objects comes to the same
//! order, and to MetalLB's. Who of them does answer is found out on the wire (`ferrolb_speaker_arbiter`).
//!
//! | file | holds |
//! |---|---|
//! | `order` | MetalLB's order of nodes for one address |
//! | `orders` | those orders, kept for each address |
//! | `facts` | what is kept of each Kubernetes object |
//! | `nodes` | which nodes may announce, are willing and are believed to live, and whom the exclude label keeps out |
//! | `field` | who of them may announce the Services of a pool |
//! | `view` | all facts, indexed; which Services a change touches |
//! | `few` | a set that nearly always has one member |
//! | `reach` | on which interfaces an address is answered for |
//! | `decide` | may this node announce this Service; who may answer for an address |
//! | `reason` | why not, in MetalLB's word and in a sentence |
//! | `announced` | what this node announces: what it may, where it holds the address |
//! | `burst` | the schedule of gratuitous frames |
//! | `repair` | whether those who used an address learned that it has moved |

mod announced;
mod burst;
mod decide;
mod facts;
mod few;
mod field;
mod nodes;
mod order;
mod orders;
mod reach;
mod reason;
mod repair;
mod view;

pub use announced::{Announced, Event};
pub use burst::{Burst, PACE, PERIOD, ROUNDS};
pub use decide::{Announcement, Ranking, Standing, Verdict, decide, ranking, standing};
pub use facts::{
    Endpoint, Endpoints, IngressIp, Members, Node, Service, SpeakerPod, TrafficPolicy,
};
pub use few::Few;
pub use nodes::Leaving;
pub use order::first;
pub use reach::Reach;
pub use reason::{NotEligible, Reason};
pub use repair::{Host, Lesson, Repair};
pub use view::{Kind, Peer, Settings, Touched, View};
