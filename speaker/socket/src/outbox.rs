//! Sending many frames with one call.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{iovec, mmsghdr};

/// Frames handed to the kernel with one call.
const BATCH: usize = 64;

/// Not all frames were sent.
#[derive(Debug, thiserror::Error)]
#[error("only {sent} frames were sent: {cause}")]
pub struct SendError {
    /// Frames sent all the same.
    pub sent: usize,
    /// Why one failed, the last of them if several did: `ENETDOWN` and `ENXIO` for an interface that is down or gone, `ENOBUFS` for a full queue.
    #[source]
    pub cause: io::Error,
}

/// Sends the first frames, up to [`BATCH`], without waiting, and tells how many; at least one.
pub(crate) fn send<F: AsRef<[u8]>>(socket: BorrowedFd<'_>, frames: &[F]) -> io::Result<usize> {
    // Only as many are filled in as there are frames: mostly one.
    let mut messages = [const { MaybeUninit::<mmsghdr>::uninit() }; BATCH];
    let mut vectors = [const { MaybeUninit::<iovec>::uninit() }; BATCH];
    for ((message, vector), frame) in messages.iter_mut().zip(&mut vectors).zip(frames) {
        let bytes = frame.as_ref();
        let vector = vector.write(iovec {
            // The kernel only reads through this pointer.
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        });
        // SAFETY: a plain C structure of integers and pointers, for which all bits zero is a value.
        let message = message.write(unsafe { mem::zeroed() });
        // No address: a bound packet socket sends out of its own interface.
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
    }
    let count = u32::try_from(frames.len().min(BATCH)).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the first `count` headers are written, and each point to one vector, and that to one frame, all alive during the call; the
    // call writes only each header's msg_len.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr().cast::<mmsghdr>(),
            count,
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
