//! The share of processor time a thread asks for at once.

use std::io;
use std::mem;

/// Nanoseconds of processor time at once, the least the kernel takes: an answer needs a few thousand.
const SLICE: u64 = 100_000;

/// `struct sched_attr` as of Linux 3.14 (sched_setattr(2)), which the C library has no name for.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Has the scheduler run this thread in slices as short as it offers: since Linux 6.12 one that wakes then goes before
/// those that have been computing for longer, whose slices are some milliseconds. It gets no more of the processor for it,
/// and needs no right. Older kernels take the wish and do not heed it.
pub fn ask_for_short_slices() -> io::Result<()> {
    let size = mem::size_of::<Attributes>();
    let attributes = Attributes {
        size: u32::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?,
        // SCHED_OTHER, as every thread has that has not asked for another.
        policy: 0,
        flags: 0,
        nice: 0,
        priority: 0,
        runtime: SLICE,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads as many bytes as the first field says, which is all of a live value; thread 0 is the
    // calling one.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: a thread that asks.
    /// Output: the kernel keeps the wish, as far as it shows it; another thread's stays what it was.
    #[test]
    fn a_thread_asks_for_itself() {
        let slice = || {
            let text = std::fs::read_to_string("/proc/thread-self/sched").unwrap_or_default();
            let mut lines = text.lines();
            let line = lines.find(|line| line.starts_with("se.slice"))?;
            line.rsplit(' ').next()?.parse::<u64>().ok()
        };
        let before = slice();
        let asked = std::thread::spawn(move || {
            ask_for_short_slices().unwrap();
            slice()
        });
        let after = asked.join().unwrap();
        assert!(after.is_none_or(|after| after == SLICE), "{after:?}");
        assert_eq!(slice(), before);
    }
}
