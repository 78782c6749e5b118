//! Receiving many frames with one call.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::{Duration, SystemTime};

use ferrolb_speaker_wire::{Delivery, Frame};
use libc::{iovec, mmsghdr, sockaddr_ll, timespec, tpacket_auxdata};

use crate::open::length_of;

/// Frames taken with one call: a burst of questions costs one wake-up and two calls.
pub const BATCH: usize = COUNT as usize;

/// [`BATCH`], as the kernel takes it.
const COUNT: u32 = 64;

/// Bytes kept of one frame: all of an ARP frame (60), of a Neighbour Solicitation or Advertisement with options. What is longer is cut,
/// and none of it would be read.
pub const SLOT: usize = 256;

/// Room for the control messages that come with one frame, aligned as `cmsghdr` must be.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

const CONTROL: usize = 96;
// SAFETY: CMSG_SPACE only computes.
const _: () = assert!(
    unsafe {
        libc::CMSG_SPACE(length_of::<tpacket_auxdata>()) + libc::CMSG_SPACE(length_of::<timespec>())
    } as usize
        <= CONTROL
);

struct Slot {
    bytes: [u8; SLOT],
    length: usize,
    delivery: Delivery,
    vlan: Option<u16>,
    at: Option<SystemTime>,
}

/// A received frame, and when.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The frame.
    pub frame: Frame<'a>,
    /// When the kernel took it from the interface, by its clock of day (`SO_TIMESTAMPNS`, socket(7)); for the first
    /// milliseconds after the first socket of the machine asked for that, when it was read. None only if the kernel did
    /// not tell, which Linux always does.
    pub at: Option<SystemTime>,
}

impl Received<'_> {
    /// How long the frame has been waiting at `now`, which is read once for a batch. Zero if that is not known, or the
    /// clock was set back meanwhile.
    pub fn age(&self, now: SystemTime) -> Duration {
        self.at
            .and_then(|at| now.duration_since(at).ok())
            .unwrap_or_default()
    }
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
            at: None,
        };
        Self {
            slots: std::iter::repeat_with(empty).take(BATCH).collect(),
            filled: 0,
        }
    }

    /// The frames of the last batch, in the order they arrived.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        self.received().map(|received| received.frame)
    }

    /// The same, each with the time it was received at.
    pub fn received(&self) -> impl ExactSizeIterator<Item = Received<'_>> {
        self.slots.iter().take(self.filled).map(|slot| Received {
            frame: Frame {
                bytes: slot.bytes.get(..slot.length).unwrap_or_default(),
                delivery: slot.delivery,
                vlan: slot.vlan,
            },
            at: slot.at,
        })
    }

    /// Takes what is there without waiting, and tells how many frames; `WouldBlock` if there are none.
    pub(crate) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.filled = 0;
        // SAFETY: a plain C structure of integers and pointers, for which all bits zero is a value.
        let mut messages: [mmsghdr; BATCH] = unsafe { mem::zeroed() };
        // The kernel writes what is read of these: not cleared before, for that costs as much as a small batch does.
        let mut vectors = [const { MaybeUninit::<iovec>::uninit() }; BATCH];
        let mut senders = [const { MaybeUninit::<sockaddr_ll>::uninit() }; BATCH];
        let mut controls = [const { MaybeUninit::<Control>::uninit() }; BATCH];
        let parts = vectors.iter_mut().zip(&mut senders).zip(&mut controls);
        for ((message, slot), ((vector, sender), control)) in
            messages.iter_mut().zip(&mut self.slots).zip(parts)
        {
            let vector = vector.write(iovec {
                iov_base: slot.bytes.as_mut_ptr().cast(),
                iov_len: SLOT,
            });
            let header = &mut message.msg_hdr;
            header.msg_name = sender.as_mut_ptr().cast();
            header.msg_namelen = length_of::<sockaddr_ll>();
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
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
            // SAFETY: with every frame the kernel gives a whole sockaddr_ll.
            slot.delivery = delivery(unsafe { sender.assume_init_ref() }.sll_pkttype);
            // SAFETY: the kernel has filled this header's control buffer, which is still alive.
            (slot.vlan, slot.at) = unsafe { told(&message.msg_hdr) };
        }
        self.filled = received;
        Ok(received)
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

/// What the kernel tells with a frame: the VLAN tag it took off, if it reports one, and when it received the frame.
///
/// # Safety
/// `header` must come from a successful receive call and its control buffer must still be alive.
unsafe fn told(header: &libc::msghdr) -> (Option<u16>, Option<SystemTime>) {
    let (mut vlan, mut at) = (None, None);
    // SAFETY: by this function's contract `header` describes a buffer the kernel filled; the CMSG functions stay
    // within the length it holds.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: a pointer that CMSG_FIRSTHDR or CMSG_NXTHDR gave is null or leads to a whole, aligned cmsghdr.
    while let Some(message) = unsafe { control.as_ref() } {
        match (message.cmsg_level, message.cmsg_type) {
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                // SAFETY: the message lies in the buffer the kernel filled, and holds what is taken from it.
                let auxdata = unsafe { content::<tpacket_auxdata>(control) };
                vlan = auxdata
                    .filter(|auxdata| auxdata.tp_status & libc::TP_STATUS_VLAN_VALID != 0)
                    .map(|auxdata| auxdata.tp_vlan_tci);
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: as above.
                at = unsafe { content::<timespec>(control) }.and_then(since_epoch);
            }
            _ => {}
        }
        // SAFETY: as for CMSG_FIRSTHDR; `control` lies in the same buffer.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    (vlan, at)
}

/// What a control message holds; none if it is shorter than a `T`.
///
/// # Safety
/// `message` must lead to a whole control message in a live buffer that the kernel filled, and all bit patterns must be
/// a `T`.
unsafe fn content<T: Copy>(message: *const libc::cmsghdr) -> Option<T> {
    let needed = size_of::<libc::cmsghdr>() + size_of::<T>();
    // SAFETY: by this function's contract there is a header, and as much behind it as it says; what is read may lie
    // unaligned.
    unsafe {
        ((*message).cmsg_len >= needed)
            .then(|| libc::CMSG_DATA(message).cast::<T>().read_unaligned())
    }
}

fn since_epoch(time: timespec) -> Option<SystemTime> {
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
    let since =
        Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanoseconds.into()))?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}
