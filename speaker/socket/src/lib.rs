//! `AF_PACKET` sockets for tokio: the only unsafe code of the project.
//!
//! | file | holds |
//! |---|---|
//! | `open` | a socket that has seen no frame before its filter was in place |
//! | `inbox` | many frames received with one call (`recvmmsg`), and what the kernel says about each |
//! | `groups` | the IPv6 groups that questions for held addresses are sent to, joined and left |
//! | `outbox` | many frames sent with one call (`sendmmsg`) |
//! | `alarm` | a deadline that costs one wake-up (`timerfd`) |
//! | `slice` | how soon a thread that wakes gets the processor |
//!
//! A socket is bound to one interface by its index. If the interface goes down, receiving fails once with `ENETDOWN` and
//! goes on when it is up again; if it is removed, or moved to another network namespace, receiving fails the same way, but
//! the socket stays deaf for ever, even if the interface comes back under the same index. Nothing tells the two apart, so
//! whoever meets the error drops the socket and opens another.
#![allow(
    unsafe_code,
    reason = "sockaddr_ll, recvmmsg, sendmmsg, packet socket options and descriptors in the runtime have no safe interface; every block says why it is sound"
)]

mod alarm;
mod groups;
mod inbox;
mod open;
mod outbox;
mod slice;

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use ferrolb_speaker_wire::MacAddr;
use ferrolb_speaker_wire::filter::Instruction;
use libc::c_int;
use socket2::Socket;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::time::{Instant, sleep, timeout_at};

pub use alarm::Alarm;
pub use groups::Groups;
pub use inbox::{BATCH, Inbox, Received, SLOT};
pub use open::OpenError;
pub use outbox::SendError;
pub use slice::ask_for_short_slices;

/// Errors too: a packet socket whose interface goes down is in error and not readable. Not writable: every frame that leaves
/// makes room for others, which would wake the thread once more for each it sends.
const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

/// How long to wait before a frame that found the interface's queue or the socket's send buffer full is offered again: in a
/// millisecond even a link of 10 Mbit/s sends a dozen small frames.
const RETRY: Duration = Duration::from_millis(1);

/// A non-blocking raw packet socket on one interface, registered with the current tokio runtime.
#[derive(Debug)]
pub struct PacketSocket {
    fd: AsyncFd<Socket>,
    interface: NonZeroU32,
}

impl PacketSocket {
    /// Opens a socket for the ARP frames of the interface with this index, of which only those arrive that `filter`
    /// lets through. Needs `CAP_NET_RAW`, and a tokio runtime with I/O enabled: outside of one it panics, as everything
    /// of tokio's does.
    pub fn arp(interface: NonZeroU32, filter: &[Instruction]) -> Result<Self, OpenError> {
        Self::open(interface, libc::ETH_P_ARP, filter)
    }

    /// The same for IPv6 frames: those for the interface's own hardware address, and those for groups that somebody on
    /// this host has joined ([`Groups`]).
    pub fn ndp(interface: NonZeroU32, filter: &[Instruction]) -> Result<Self, OpenError> {
        Self::open(interface, libc::ETH_P_IPV6, filter)
    }

    fn open(
        interface: NonZeroU32,
        ether_type: c_int,
        filter: &[Instruction],
    ) -> Result<Self, OpenError> {
        let socket = open::open(interface, ether_type, filter)?;
        // SAFETY: the socket is owned by the AsyncFd, is never replaced in it, and is closed only when dropped with it,
        // so the descriptor stays open and the same for as long as it is registered.
        let fd = unsafe { AsyncFd::register_with_interest(socket, INTEREST) }
            .map_err(|error| OpenError::Register(error.into()))?;
        Ok(Self { fd, interface })
    }

    /// Waits until at least one frame is there and takes as many as are there into `inbox`, up to [`BATCH`], in place of
    /// those it held. True if that were all. Cancel-safe: frames are taken by one call that does not wait.
    pub async fn receive(&self, inbox: &mut Inbox) -> io::Result<bool> {
        loop {
            let mut ready = self.fd.ready(Interest::READABLE | Interest::ERROR).await?;
            if let Ok(result) = ready.try_io(|fd| inbox.fill(fd.get_ref().as_fd())) {
                let drained = result? < BATCH;
                if drained {
                    // The kernel had no more, and will tell of the next (epoll(7), edge-triggered): no call to find that
                    // out. An error stays to be seen.
                    ready.clear_ready_matching(Ready::READABLE);
                }
                return Ok(drained);
            }
        }
    }

    /// Sends the frames in order, up to the first that the interface refuses, be it only because its queue is full.
    /// Each frame is a whole Ethernet frame. Waits without limit while the socket's own send buffer is full.
    pub async fn send<F: AsRef<[u8]>>(&self, frames: &[F]) -> Result<(), SendError> {
        let mut sent = 0;
        while let Some(rest) = frames.get(sent..).filter(|rest| !rest.is_empty()) {
            let result = self.offer(rest).await;
            sent += result.map_err(|cause| SendError { sent, cause })?;
        }
        Ok(())
    }

    /// Sends the frames in order, with `patience` in all for an interface whose queue is full (`ENOBUFS`): until it is
    /// used up a refused frame is offered again every millisecond, afterwards it is skipped, and those behind it are still
    /// offered, each once. `on_sent` is told the position of every frame as it is sent, also if the call is dropped
    /// before its end, which is safe.
    ///
    /// Needs a runtime with time enabled. Takes hardly longer than `patience`. An error other than a full queue ends it
    /// at once, as does a send buffer of the socket's own that is still full (`TimedOut`).
    pub async fn send_patiently<F: AsRef<[u8]>>(
        &self,
        frames: &[F],
        patience: Duration,
        mut on_sent: impl FnMut(usize),
    ) -> Result<(), SendError> {
        if frames.is_empty() {
            return Ok(());
        }
        // Mostly all leave at once, and nothing has to be timed. Why one did not is found again below.
        let mut sent = outbox::send(self.fd.get_ref().as_fd(), frames).unwrap_or_default();
        (0..sent).for_each(&mut on_sent);
        if sent == frames.len() {
            return Ok(());
        }
        let deadline = Instant::now() + patience;
        let (mut next, mut refused) = (sent, None);
        while let Some(rest) = frames.get(next..).filter(|rest| !rest.is_empty()) {
            let offered = timeout_at(deadline, self.offer(rest)).await;
            match offered.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())) {
                Ok(more) => {
                    (next..next + more).for_each(&mut on_sent);
                    next += more;
                    sent += more;
                }
                Err(cause) if cause.raw_os_error() == Some(libc::ENOBUFS) => {
                    if Instant::now() < deadline {
                        sleep(RETRY).await;
                    } else {
                        next += 1;
                        refused = Some(cause);
                    }
                }
                Err(cause) => return Err(SendError { sent, cause }),
            }
        }
        refused.map_or(Ok(()), |cause| Err(SendError { sent, cause }))
    }

    /// Waits for room in the socket's send buffer, then sends the first frames and tells how many; at least one.
    async fn offer<F: AsRef<[u8]>>(&self, frames: &[F]) -> io::Result<usize> {
        loop {
            match outbox::send(self.fd.get_ref().as_fd(), frames) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(RETRY).await,
                result => return result,
            }
        }
    }

    /// Has the interface let frames for this group's hardware address through while the socket is open
    /// (`PACKET_MR_MULTICAST`, packet(7)). Counted by the kernel: joined twice it is to be left twice.
    fn join(&self, group: MacAddr) -> io::Result<()> {
        self.membership(libc::PACKET_ADD_MEMBERSHIP, group)
    }

    /// Takes one [`join`](Self::join) back.
    fn leave(&self, group: MacAddr) -> io::Result<()> {
        self.membership(libc::PACKET_DROP_MEMBERSHIP, group)
    }

    fn membership(&self, option: c_int, group: MacAddr) -> io::Result<()> {
        let invalid = |_| io::ErrorKind::InvalidInput;
        let mut address = [0; 8];
        for (byte, value) in address.iter_mut().zip(group.octets()) {
            *byte = value;
        }
        let request = libc::packet_mreq {
            mr_ifindex: c_int::try_from(self.interface.get()).map_err(invalid)?,
            mr_type: u16::try_from(libc::PACKET_MR_MULTICAST).map_err(invalid)?,
            mr_alen: 6,
            mr_address: address,
        };
        open::set_option(&self.fd, option, &request)
    }

    /// Frames the kernel dropped since the last call because we did not fetch them in time (`PACKET_STATISTICS`).
    pub fn take_kernel_drops(&self) -> io::Result<u32> {
        let mut statistics = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = open::length_of::<libc::tpacket_stats>();
        // SAFETY: both pointers lead to live values on this stack frame, and `length` says how large the first is.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if result == 0 {
            Ok(statistics.tp_drops)
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
