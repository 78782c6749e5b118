//! What clients ask, as who answers passes it on to who decides: the arbiter of the interface wants to know that something
//! was heard, and who asks for what, but neither at once. So it hears questions here, when it wakes for something else, and
//! the kernel keeps them from its own socket: a question wakes one thread of a node and not two.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::{ArcSwapOption, Guard};
use crossbeam_queue::ArrayQueue;
use ferrolb_speaker_wire::{MacAddr, Message, Said};
use tokio::sync::Notify;

/// Questions that are kept for the arbiter, about as many as its socket would. Of a flood that fills them faster than it fetches
/// them the oldest are lost to it: who asked then learns of a move as everybody does, and not to its face. That something was
/// heard the newest tell.
const KEPT: usize = 512;

/// How many of them wake it, where it does not wake of itself.
const MANY: usize = 64;

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
    /// When the kernel received it.
    pub at: Instant,
}

impl Question {
    /// What `message`, which the kernel received `at`, asks; none if it does not. A host that announces itself by asking for
    /// its own address by ARP is heard by the arbiter's own socket.
    pub fn of(message: &Message<'_>, us: MacAddr, at: Instant) -> Option<Self> {
        let (target, asker) = (message.asked()?, message.asker());
        let announced = asker == Some(target) && matches!(message.said, Said::Arp(_));
        (!announced).then(|| Self {
            target,
            asker,
            mac: message.sender(),
            source: message.source,
            to_us: message.destination == us,
            at,
        })
    }
}

/// The questions of one interface that were not fetched yet, where there is an arbiter. Who passes them on waits for it only while
/// it is between two instructions with all of them kept.
#[derive(Debug)]
pub struct Overheard {
    /// None while nobody fetches them.
    questions: ArcSwapOption<ArrayQueue<Question>>,
    /// What `content` counts from.
    made: Instant,
    /// Microseconds after `made` until which the arbiter need not be woken to learn that something is heard.
    content: AtomicU64,
    wake: Notify,
}

impl Default for Overheard {
    fn default() -> Self {
        Self {
            questions: ArcSwapOption::empty(),
            made: Instant::now(),
            content: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }
}

/// Where questions of one batch are kept.
pub struct Keeper(Guard<Option<Arc<ArrayQueue<Question>>>>);

impl Keeper {
    /// Keeps a question for the arbiter, in place of the oldest where too many are kept. Nothing where there is no arbiter.
    pub fn keep(&self, question: Question) {
        if let Some(questions) = &*self.0 {
            let _lost = questions.force_push(question);
        }
    }
}

impl Overheard {
    /// Questions are fetched from now on, those that are asked from now on.
    pub fn open(&self) {
        self.questions.store(Some(Arc::new(ArrayQueue::new(KEPT))));
    }

    /// No longer.
    pub fn close(&self) {
        self.questions.store(None);
    }

    /// Where to keep questions. [`wake`](Self::wake) is due afterwards.
    pub fn keeper(&self) -> Keeper {
        Keeper(self.questions.load())
    }

    /// Wakes the arbiter if it should not wait for what was kept up to `now`. Due where either of what this depends on has
    /// changed, a question kept or [`content_until`](Self::content_until).
    pub fn wake(&self, now: Instant) {
        let questions = self.questions.load();
        let kept = questions.as_ref().map_or(0, |questions| questions.len());
        if kept >= MANY || kept > 0 && self.since(now) > self.content.load(Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    /// Until then the arbiter knows that it hears, and need not be woken to learn that it does. None: it is to be woken.
    pub fn content_until(&self, until: Option<Instant>) {
        let until = until.map_or(0, |until| self.since(until));
        self.content.store(until, Ordering::SeqCst);
    }

    /// The questions that are kept, the oldest first, those that are kept meanwhile not included.
    pub fn fetch(&self) -> impl Iterator<Item = Question> + use<> {
        let questions = self.questions.load_full();
        let kept = questions.as_ref().map_or(0, |questions| questions.len());
        (0..kept).map_while(move |_| questions.as_ref()?.pop())
    }

    /// Waits until questions should be fetched. Cancel-safe: what it was woken for stays to be fetched.
    pub async fn due(&self) {
        self.wake.notified().await;
    }

    fn since(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.made);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::time::Duration;

    use ferrolb_speaker_wire::{Delivery, Frame, gratuitous, request, solicit};
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
        // By NDP nobody announces itself so, and the arbiter's socket hears no question.
        let target = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);
        let frame = Frame {
            bytes: &solicit(target, target, FAR),
            delivery: Delivery::Multicast,
            vlan: None,
        };
        let message = Message::ndp(&frame, NEAR).unwrap();
        assert!(Question::of(&message, NEAR, Instant::now()).is_some());
    }

    /// Input: questions where nobody fetches them, then where somebody does, then not again.
    /// Output: those of the time in between are fetched, as many as there were when that began.
    #[test]
    fn questions_are_kept_while_there_is_somebody_to_fetch_them() {
        let overheard = Overheard::default();
        let question = read(&request(VIP, CLIENT, FAR)).unwrap();
        let keep = || overheard.keeper().keep(question);
        keep();
        assert_eq!(overheard.fetch().count(), 0);
        overheard.open();
        assert_eq!(overheard.fetch().count(), 0);
        keep();
        keep();
        let mut fetched = overheard.fetch();
        keep();
        assert!(fetched.next().is_some() && fetched.next().is_some());
        assert_eq!(fetched.next(), None);
        assert_eq!(overheard.fetch().count(), 1);
        keep();
        overheard.close();
        keep();
        assert_eq!(overheard.fetch().count(), 0);
    }

    /// Input: questions while the arbiter knows that it hears, afterwards, and many of them.
    /// Output: it is woken for the last two alone; of more than there is room for the newest are fetched, in their order.
    #[test]
    fn the_arbiter_is_woken_where_it_does_not_know_that_it_hears_and_for_many() {
        let overheard = Overheard::default();
        let question = read(&request(VIP, CLIENT, FAR)).unwrap();
        overheard.open();
        let keep = |question| overheard.keeper().keep(question);
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
        keep(numbered(0));
        overheard.wake(now + Duration::from_millis(100));
        assert!(!woken());
        overheard.wake(now + Duration::from_millis(101));
        assert!(woken() && !woken());
        // It was about to sleep: nobody told it of what was kept before.
        overheard.content_until(None);
        overheard.wake(now + Duration::from_millis(1));
        assert!(woken());
        overheard.content_until(Some(now + Duration::from_hours(1)));
        for number in 1..600 {
            keep(numbered(number));
            overheard.wake(now);
            assert_eq!(woken(), usize::from(number) + 1 >= MANY, "{number}");
        }
        let fetched: Vec<_> = overheard.fetch().collect();
        assert_eq!(fetched.len(), KEPT);
        assert!(
            (0..600)
                .skip(600 - KEPT)
                .zip(&fetched)
                .all(|(number, one)| *one == numbered(number))
        );
    }
}
