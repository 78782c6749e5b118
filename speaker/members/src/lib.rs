//! Who is alive, by gossip: members of a cluster as HashiCorp's memberlist makes them, so that our speakers and MetalLB's
//! (0.9 to 0.16) are members of the same cluster. No sockets, no clock, no system randomness.
//!
//! From the wire inwards:
//! - [`Envelope`] takes label and seal off packets and streams ([`Key`] seals);
//! - [`packet`] and [`StreamReader`] take apart what was inside, down to a [`Message`] or an [`Exchange`];
//! - [`Machine`] decides what to believe, what to answer, and whom to ask next, at the pace of a [`Profile`].

mod broadcast;
mod dice;
mod envelope;
mod key;
mod machine;
mod message;
mod msgpack;
pub mod packet;
mod profile;
mod stream;
mod suspicion;

pub use envelope::{Arrived, Closed, End, Envelope, LabelTooLong, MAX_LABEL, MAX_STREAM};
pub use key::{Key, KeyLength, NonceBytes, NotOpened, SEAL_OVERHEAD, WrongLength};
pub use machine::{Identity, LEAVE_TIME, MAX_MEMBERS, Machine, Member, Output};
pub use message::{
    Alive, Claim, IndirectPing, MAX_META, MAX_NAME, Message, Ping, Source, Versions, error, kind,
};
pub use msgpack::Stop;
pub use profile::{Profile, ProfileError};
pub use stream::{
    Exchange, MAX_STATES, Status, StreamError, StreamMessage, StreamReader, ack, whole,
};
