//! ARP and NDP frames in, ARP and NDP frames out, and why one was dropped.
//!
//! Pure: bytes and what the kernel said about them go in, a decoded packet or a [`DropReason`] comes out. Nothing here
//! allocates per frame and nothing here can panic, whatever a neighbour sends.
//!
//! | file | holds |
//! |---|---|
//! | `ethernet` | one received [`Frame`], its header and whether it is addressed to us: the same for every protocol |
//! | `arp` | the IPv4 half: decode a packet, build answers and gratuitous frames |
//! | `ndp` | the IPv6 half: decode and build solicitations and advertisements; groups and their hardware addresses |
//! | `message` | both halves in the same words: what a frame says, and a question, an answer, an announcement with a tag |
//! | `buffer` | a frame to be sent |
//! | `refusal` | why a frame was dropped, with the label a metric carries |
//! | `filter` | the classic BPF programs the kernel runs before a frame reaches us |

mod arp;
mod buffer;
mod ethernet;
pub mod filter;
mod message;
mod ndp;
mod refusal;

pub use arp::{ArpFrame, ArpPacket, FRAME_LEN, Operation, decode, gratuitous, reply, request};
pub use buffer::FrameBuf;
pub use ethernet::{Delivery, Frame};
pub use message::{
    Location, Message, Said, Station, TAG_LEN, Tag, announcement, answer, question, teach,
};
pub use ndp::{
    Advertisement, NDP_FRAME_LEN, NdpFrame, Solicitation, advertise, decode_ndp, multicast_mac,
    probe, solicit, solicited_node, unsolicited,
};
pub use pnet::util::MacAddr;
pub use refusal::DropReason;
