//! Which node does answer for an address: evidence on the wire, claims, and hand-over among the speakers of one segment.
//!
//! Kubernetes says who may answer ([`Candidates`]), the wire says who does, gossip says who is there where the wire cannot
//! tell. One [`Arbiter`] for each interface; time, facts and frames in, frames and the table of answers out. It knows no
//! socket, no clock and no chance, and costs the same for ten addresses as for ten thousand but where all of them move.
//!
//! ```text
//!  View, Peers, Link, Wish, Stop ──▶ ┌─────────┐ ──▶ Answer, Silent, Mute: the responder's table
//!  Frame, Plain, Heard, Dropped ───▶ │ Arbiter │ ──▶ Send, AskKernel, AskAround, Join, Leave
//!  Tick at next_deadline() ────────▶ └─────────┘ ──▶ Report, Stopped
//! ```
//!
//! # How a shell drives it
//!
//! * One task owns the arbiter of an interface. After every [`Arbiter::handle`] it does the outputs in order and sleeps until
//!   [`Arbiter::next_deadline`], then sends [`Input::Tick`]. `now` is read (`CLOCK_MONOTONIC`) right before the call, not
//!   when a frame came: that the call is late is how the machine notices that it stood still. A deadline missed by more
//!   than 20 ms restarts its windows, so the task must not wait for anything else.
//! * The responder may answer from the table for so long after [`Arbiter::owed`] as the patience of peers lasts, and no longer
//!   without a call: where this task stands still, another node takes over.
//! * Every received ARP and NDP frame on the interface goes through [`Key::open`] (padding or Nonce option, and the
//!   address: target of a question, sender of an answer). Opened: [`Input::Frame`] with the sender's hardware address as
//!   ARP or the link-layer option has it. Not opened, and saying where an address is: [`Input::Plain`], for addresses in
//!   the view and node addresses; own hardware addresses of any interface left out. Anything else: [`Input::Heard`], at most
//!   one a millisecond; this includes requests of clients.
//! * What clients ask may come late, with other inputs, as long as the machine knows that it hears
//!   ([`Arbiter::heard_until`]), so that each question need not wake it: as [`Input::Heard`] or [`Input::Plain`] with the
//!   time it was read.
//! * Client requests never pass through the machine. The responder looks them up in the table made of
//!   [`Output::Answer`] and [`Output::Silent`] (the hardware address there may be another node's), drops all while
//!   [`Output::Mute`] is on, and always those whose kernel receive time (`SO_TIMESTAMPNS`, against `CLOCK_REALTIME` at
//!   the moment of answering) is older than 100 ms: they waited while this node stood still.
//! * `PACKET_STATISTICS` shows drops: [`Input::Dropped`].
//! * [`Output::Send`] is carried as [`Frame::form`] says, with [`Key::tag`] in the padding or in [`option()`].
//!   A tagged request for an address that is held must not be answered by the responder as well: the machine does.
//! * A process starts with [`Input::Peers`], [`Input::Link`], then one [`Input::View`] for each address. Peers are told
//!   whole whenever gossip or Kubernetes changes. Join gossip only when ready to answer.
//! * After [`Input::Stop`] keep answering and handling until [`Output::Stopped`]; 1.5 s at most.
//!
//! | file | holds |
//! |---|---|
//! | `event` | inputs, outputs, reports |
//! | `frame`, `tag` | what is said, and the 18 bytes that prove who says it |
//! | `profile` | the knobs |
//! | `peer`, `hold` | what is known of a node, of an address |
//! | `arbiter` | the machine: `watch` (who is there), `acquaint` (who comes and returns), `stand` (take, let go), `asking` (before the first taking, at the pace), `denials` (all others say to the face that they do not hold it), `strangers`, `contest` (two hold it), `handover` (planned moves), `wishes` (what is to move, and why it stays), `facts` |
//! | `sim` | the simulation, in tests only |
//!
//! What must hold, how it is tested and what was learned: `docs/failover.md`.

mod arbiter;
mod event;
mod frame;
mod hold;
mod mutation;
mod peer;
mod profile;
#[cfg(test)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::struct_excessive_bools,
    clippy::wildcard_imports,
    clippy::too_many_lines,
    reason = "the simulated world is small, and tests read better plainly"
)]
mod sim;
mod tag;
mod timers;

pub use arbiter::Arbiter;
pub use event::{Candidates, Cause, Input, Obstacle, Output, PeerFacts, Report, Wish};
pub use frame::{Form, Frame, Kind, Mac, NodeId};
pub use profile::{Failback, Profile};
pub use tag::{Key, MARK, OPTION_LEN, TAG_LEN, Tag, option, tag_in};
