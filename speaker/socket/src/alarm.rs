//! One deadline, kept by the kernel (timerfd_create(2)).
//!
//! The runtime's own timers come in slots of a millisecond, and of 64 beyond the next boundary of those: a deadline 90
//! milliseconds ahead wakes the thread on the way to it, and one that is moved up wakes it at once, to sleep anew. An
//! arbiter has some twenty deadlines a second, for which that was more than half of all its wake-ups.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep_until;

/// The shortest time that can be waited for: none at all would switch the timer off.
const SHORTEST: Duration = Duration::from_nanos(1);

/// The kernel's timer, as the runtime wants descriptors.
#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    fn register() -> io::Result<AsyncFd<Self>> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?);
        // SAFETY: the descriptor is owned by the AsyncFd, is never replaced in it, and is closed only when dropped with it,
        // so it stays open and the same for as long as it is registered.
        let registered = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        registered.map_err(io::Error::from)
    }
}

/// Rings once, at the time it is set to. Needs a tokio runtime with I/O and time enabled.
#[derive(Debug)]
pub struct Alarm {
    /// None where the runtime's serves.
    timer: Option<AsyncFd<Timer>>,
    /// What it is set to.
    at: Option<Instant>,
}

impl Default for Alarm {
    fn default() -> Self {
        Self::new()
    }
}

impl Alarm {
    /// One that is not set. Where the kernel refuses its timer, as to a process that may have no more descriptors, the
    /// runtime's serves.
    pub fn new() -> Self {
        Self {
            timer: Timer::register().ok(),
            at: None,
        }
    }

    /// Sets it to `at`, at once if that is past; to nothing if none. What it was set to is forgotten.
    pub fn set(&mut self, at: Option<Instant>) {
        if self.at == at {
            return;
        }
        self.at = at;
        let Some(timer) = self.timer.as_ref().map(|timer| &timer.get_ref().0) else {
            return;
        };
        let set = match at {
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now()).max(SHORTEST);
                let once = Expiration::OneShot(TimeSpec::from_duration(left));
                timer.set(once, TimerSetTimeFlags::empty())
            }
            None => timer.unset(),
        };
        if set.is_err() {
            self.timer = None;
        }
    }

    /// Waits until the time it is set to has come; for ever if it is set to none. Rings again at once until it is set anew.
    /// Cancel-safe.
    pub async fn rings(&self) {
        let Some(at) = self.at else {
            return std::future::pending().await;
        };
        while Instant::now() < at {
            let Some(timer) = &self.timer else {
                return sleep_until(at.into()).await;
            };
            match timer.ready(Interest::READABLE).await {
                // It may have rung for what it was set to before. The kernel tells of the next time by itself (epoll(7),
                // edge-triggered), and setting it takes back what was not read.
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return sleep_until(at.into()).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::{Alarm, Duration, Instant};

    fn rings_now(alarm: &Alarm) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(alarm.rings()).as_mut().poll(&mut context) == Poll::Ready(())
    }

    /// Input: an alarm with and without the kernel's timer that is set to a time, then to one later, to one earlier, to the
    /// past and to none; each but the last waited for, after it rang for the one before as well.
    /// Output: it never rings too early, and each time it does ring.
    #[tokio::test]
    async fn rings_when_its_time_has_come_and_not_before() {
        let ms = Duration::from_millis;
        for kernel in [true, false] {
            let mut alarm = Alarm::new();
            assert!(alarm.timer.is_some());
            alarm.timer = alarm.timer.filter(|_| kernel);
            assert!(!rings_now(&alarm));
            for (first, second) in [(5, 30), (10_000, 5), (3, 3), (70, 1)] {
                let start = Instant::now();
                alarm.set(Some(start + ms(first)));
                assert!(!rings_now(&alarm) || start.elapsed() >= ms(first));
                alarm.set(Some(start + ms(second)));
                alarm.rings().await;
                assert!(start.elapsed() >= ms(second));
                // Until it is set anew.
                assert!(rings_now(&alarm));
            }
            // The event of the first is still to be seen when the second is waited for.
            let start = Instant::now();
            alarm.set(Some(start + ms(1)));
            std::thread::sleep(ms(5));
            alarm.set(Some(start + ms(40)));
            alarm.rings().await;
            assert!(start.elapsed() >= ms(40));
            alarm.set(Some(start));
            alarm.rings().await;
            alarm.set(None);
            assert!(!rings_now(&alarm));
        }
    }
}
