//! Receiving many frames with one call.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use ferrolb_speaker_wire::{Delivery, Frame};
use libc::{iovec, mmsghdr, sockaddr_ll, tpacket_auxdata};

use crate::open::length_of;

/// Frames taken with one call: a burst of questions costs one wake-up and two calls.
pub const BATCH: usize = COUNT as usize;

/// [`BATCH`], as the kernel takes it.
const COUNT: u32 = 32;

/// Bytes kept of one frame: all of an ARP frame (60) or a Neighbour Solicitation with options. What is longer is cut,
/// and none of it would be read.
pub const SLOT: usize = 256;

/// Room for one `tpacket_auxdata` control message, aligned as `cmsghdr` must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

const CONTROL: usize = 64;
// SAFETY: CMSG_SPACE only computes.
const _: () =
    assert!(unsafe { libc::CMSG_SPACE(length_of::<tpacket_auxdata>()) } as usize <= CONTROL);

struct Slot {
    bytes: [u8; SLOT],
    length: usize,
    delivery: Delivery,
    vlan: Option<u16>,
}

/// Memory for one batch of received frames, allocated once.
pub struct Inbox {
    slots: Box<[Slot]>,
    filled: usize,
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> Self {
        let empty = || Slot {
            bytes: [0; SLOT],
            length: 0,
            delivery: Delivery::OtherHost,
            vlan: None,
        };
        Self {
            slots: std::iter::repeat_with(empty).take(BATCH).collect(),
            filled: 0,
        }
    }

    /// The frames of the last batch, in the order they arrived.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        self.slots.iter().take(self.filled).map(|slot| Frame {
            bytes: slot.bytes.get(..slot.length).unwrap_or_default(),
            delivery: slot.delivery,
            vlan: slot.vlan,
        })
    }

    /// Takes what is there without waiting; `WouldBlock` if nothing is.
    pub(crate) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.filled = 0;
        // SAFETY: these are plain C structures of integers and pointers, for which all bits zero is a value.
        let (mut messages, mut vectors, mut senders): (
            [mmsghdr; BATCH],
            [iovec; BATCH],
            [sockaddr_ll; BATCH],
        ) = unsafe { mem::zeroed() };
        let mut controls = [Control([0; CONTROL]); BATCH];
        let parts = vectors.iter_mut().zip(&mut senders).zip(&mut controls);
        for ((message, slot), ((vector, sender), control)) in
            messages.iter_mut().zip(&mut self.slots).zip(parts)
        {
            vector.iov_base = slot.bytes.as_mut_ptr().cast();
            vector.iov_len = SLOT;
            let header = &mut message.msg_hdr;
            header.msg_name = ptr::from_mut(sender).cast();
            header.msg_namelen = length_of::<sockaddr_ll>();
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
        }
        // SAFETY: every header points to one frame slot, one address and one control buffer of the stated sizes, all
        // distinct and all alive and not otherwise borrowed until the last use of `messages` below; there are BATCH
        // headers, and no timeout is given.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                COUNT,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for ((message, slot), sender) in messages
            .iter()
            .zip(&mut self.slots)
            .zip(&senders)
            .take(received)
        {
            slot.length = (message.msg_len as usize).min(SLOT);
            slot.delivery = delivery(sender.sll_pkttype);
            // SAFETY: the kernel has filled this header's control buffer, which is still alive.
            slot.vlan = unsafe { vlan(&message.msg_hdr) };
        }
        self.filled = received;
        Ok(())
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

fn delivery(packet_type: u8) -> Delivery {
    match packet_type {
        libc::PACKET_HOST => Delivery::Host,
        libc::PACKET_BROADCAST => Delivery::Broadcast,
        libc::PACKET_MULTICAST => Delivery::Multicast,
        libc::PACKET_OUTGOING => Delivery::Outgoing,
        _ => Delivery::OtherHost,
    }
}

/// The VLAN tag the kernel reports with a frame, if it does.
///
/// # Safety
/// `header` must come from a successful receive call and its control buffer must still be alive.
unsafe fn vlan(header: &libc::msghdr) -> Option<u16> {
    // SAFETY: by this function's contract `header` describes a buffer the kernel filled; the CMSG functions stay
    // within the length it holds.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: a pointer that CMSG_FIRSTHDR or CMSG_NXTHDR gave is null or leads to a whole, aligned cmsghdr.
    while let Some(message) = unsafe { control.as_ref() } {
        let needed = size_of::<libc::cmsghdr>() + size_of::<tpacket_auxdata>();
        if message.cmsg_level == libc::SOL_PACKET
            && message.cmsg_type == libc::PACKET_AUXDATA
            && message.cmsg_len >= needed
        {
            // SAFETY: the message is long enough for the structure, which may lie unaligned.
            let auxdata: tpacket_auxdata = unsafe {
                libc::CMSG_DATA(control)
                    .cast::<tpacket_auxdata>()
                    .read_unaligned()
            };
            return (auxdata.tp_status & libc::TP_STATUS_VLAN_VALID != 0)
                .then_some(auxdata.tp_vlan_tci);
        }
        // SAFETY: as for CMSG_FIRSTHDR; `control` lies in the same buffer.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    None
}
