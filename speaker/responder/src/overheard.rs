//! What clients ask, as who answers passes it on to who decides: the arbiter of the interface wants to know that something
//! was heard, and who asks for what, but neither at once. So it hears questions here, when it wakes for something else, and
//! the kernel keeps them from its own socket: a question wakes one thread of a node and not two.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use ferrolb_speaker_wire::{MacAddr, Message};
use tokio::sync::Notify;

/// Questions that are kept for the arbiter; of a flood that fills them faster than it fetches them the rest are lost to it.
const KEPT: usize = 128;

/// How many of them wake it, where it does not wake of itself.
const MANY: usize = KEPT / 2;

/// A question, as far as it tells something of who asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The address it asks for.
    pub target: IpAddr,
    /// The address of who asks; none where nobody does, as who asks whether an address is free.
    pub asker: Option<IpAddr>,
    /// The hardware address it gives as its own.
    pub mac: MacAddr,
    /// The source of the Ethernet frame, which may be another.
    pub source: MacAddr,
    /// Whether it was sent to this interface alone: who asks so believes the address here.
    pub to_us: bool,
    /// When it was read.
    pub at: Instant,
}

impl Question {
    /// What `message`, which was read `at`, asks; none if it does not, or announces what it asks for.
    pub fn of(message: &Message<'_>, us: MacAddr, at: Instant) -> Option<Self> {
        let (target, asker) = (message.asked()?, message.asker());
        (asker != Some(target)).then(|| Self {
            target,
            asker,
            mac: message.sender(),
            source: message.source,
            to_us: message.destination == us,
            at,
        })
    }
}

/// The questions of one interface that were not fetched yet. Who passes them on waits for nobody and takes no lock.
#[derive(Debug)]
pub struct Overheard {
    questions: ArrayQueue<Question>,
    /// What `content` counts from.
    made: Instant,
    /// Microseconds after `made` until which the arbiter need not be woken to learn that something is heard.
    content: AtomicU64,
    wake: Notify,
}

impl Default for Overheard {
    fn default() -> Self {
        Self {
            questions: ArrayQueue::new(KEPT),
            made: Instant::now(),
            content: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }
}

impl Overheard {
    /// Keeps a question for the arbiter, or loses it where too many are kept. [`wake`](Self::wake) is due afterwards.
    pub fn keep(&self, question: Question) {
        let _lost = self.questions.push(question);
    }

    /// Wakes the arbiter if it should not wait for what was kept up to `now`.
    pub fn wake(&self, now: Instant) {
        let kept = self.questions.len();
        if kept >= MANY || kept > 0 && self.since(now) > self.content.load(Ordering::Acquire) {
            self.wake.notify_one();
        }
    }

    /// Until then the arbiter knows that it hears, and need not be woken to learn that it does. None: it is to be woken.
    pub fn content_until(&self, until: Option<Instant>) {
        let until = until.map_or(0, |until| self.since(until));
        self.content.store(until, Ordering::Release);
    }

    /// The oldest question that is kept.
    pub fn next(&self) -> Option<Question> {
        self.questions.pop()
    }

    /// Waits until questions should be fetched. Cancel-safe: what it was woken for stays to be fetched.
    pub async fn due(&self) {
        self.wake.notified().await;
    }

    fn since(&self, at: Instant) -> u64 {
        let since: Duration = at.saturating_duration_since(self.made);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_speaker_wire::{Delivery, Frame, gratuitous, request};
    use futures::FutureExt;

    use super::*;
    use crate::lab::{CLIENT, FAR, NEAR, VIP};

    fn read(frame: &[u8]) -> Option<Question> {
        let frame = Frame {
            bytes: frame,
            delivery: Delivery::Broadcast,
            vlan: None,
        };
        Question::of(&Message::arp(&frame, NEAR).unwrap(), NEAR, Instant::now())
    }

    #[test]
    fn a_question_tells_who_asks_and_an_announcement_is_none() {
        let asked = read(&request(VIP, CLIENT, FAR)).unwrap();
        assert_eq!(
            (asked.target, asked.asker, asked.mac, asked.to_us),
            (VIP.into(), Some(CLIENT.into()), FAR, false)
        );
        let mut to_us = request(VIP, CLIENT, FAR);
        to_us[..6].copy_from_slice(&NEAR.octets());
        let to_us = Frame {
            bytes: &to_us,
            delivery: Delivery::Host,
            vlan: None,
        };
        let to_us = Message::arp(&to_us, NEAR).unwrap();
        assert!(Question::of(&to_us, NEAR, Instant::now()).unwrap().to_us);
        let probe = read(&request(VIP, [0; 4].into(), FAR)).unwrap();
        assert_eq!((probe.target, probe.asker), (VIP.into(), None));
        for announced in gratuitous(VIP, FAR) {
            assert_eq!(read(&announced), None);
        }
    }

    /// Input: questions while the arbiter knows that it hears, afterwards, and many of them.
    /// Output: it is woken for the last two alone; all that were kept are fetched in their order, and no more are kept
    /// than there is room for.
    #[test]
    fn the_arbiter_is_woken_where_it_does_not_know_that_it_hears_and_for_many() {
        let overheard = Overheard::default();
        let question = read(&request(VIP, CLIENT, FAR)).unwrap();
        let numbered = |number: u16| Question {
            source: MacAddr::new(2, 0, 0, 0, number.to_be_bytes()[0], number.to_be_bytes()[1]),
            ..question
        };
        let woken = || overheard.due().now_or_never().is_some();
        let now = Instant::now();
        // Nothing was kept: nothing is to be fetched.
        overheard.wake(now);
        assert!(!woken());
        overheard.content_until(Some(now + Duration::from_millis(100)));
        overheard.keep(numbered(0));
        overheard.wake(now + Duration::from_millis(100));
        assert!(!woken());
        overheard.wake(now + Duration::from_millis(101));
        assert!(woken() && !woken());
        overheard.content_until(None);
        overheard.wake(now + Duration::from_millis(1));
        assert!(woken());
        overheard.content_until(Some(now + Duration::from_hours(1)));
        for number in 1..400 {
            overheard.keep(numbered(number));
            overheard.wake(now);
            assert_eq!(woken(), usize::from(number) + 1 >= MANY, "{number}");
        }
        let fetched: Vec<_> = std::iter::from_fn(|| overheard.next()).collect();
        assert_eq!(fetched.len(), KEPT);
        assert!(
            (0..)
                .zip(&fetched)
                .all(|(number, one)| *one == numbered(number))
        );
    }
}
