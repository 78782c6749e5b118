//! The addresses this node answers for, interface by interface: written by the arbiter of the interface, read for every
//! frame.
//!
//! Who reads takes no lock and waits for nobody: a map that readers walk while it is written, and that frees what was taken
//! out of it when no reader can see it any more. A change is one entry's, and costs the same whatever the number of
//! addresses; a frame meets an entry before the change or after it.
//!
//! The map's hash is keyed anew by every process. Only who may have addresses announced puts anything in, so that what
//! strangers ask for on the wire makes no entry and lengthens no search but its own, and without the key nobody can tell
//! which addresses would.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ferrolb_speaker_wire::MacAddr;
use foldhash::quality::RandomState;
use papaya::{HashMapRef, LocalGuard};

use crate::metrics::Counters;
use crate::overheard::Overheard;
use crate::protocol::Protocol;

/// What is kept of one address that is answered for.
#[derive(Clone, Debug)]
pub struct Held {
    /// The hardware address it is answered with where that is not the interface's own: that of the node it is being handed
    /// over to.
    pub at: Option<MacAddr>,
    /// What is counted of it, so that counting needs no look-up.
    pub counters: Arc<Counters>,
}

/// An address as it is hashed: in one or two words, where the standard library feeds a length and single bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key(IpAddr);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0 {
            IpAddr::V4(address) => state.write_u32(address.to_bits()),
            IpAddr::V6(address) => state.write_u128(address.to_bits()),
        }
    }
}

type Entries = papaya::HashMap<Key, Held, RandomState>;

/// The table of one interface. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Table {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    entries: Entries,
    muted: AtomicBool,
    /// What `until` counts from.
    made: Instant,
    /// Milliseconds after `made` until which the table holds.
    until: AtomicU64,
    /// Of each protocol, how many batches of answers were begun and ended: odd while one is under way.
    batches: [AtomicU64; Protocol::ALL.len()],
    overheard: Overheard,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            entries: Entries::default(),
            muted: AtomicBool::default(),
            made: Instant::now(),
            until: AtomicU64::new(u64::MAX),
            batches: Default::default(),
            overheard: Overheard::default(),
        }
    }
}

/// Answers that are made and sent, until it is dropped.
#[derive(Debug)]
pub struct Batch<'a> {
    count: &'a AtomicU64,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.count.fetch_add(1, Ordering::Release);
    }
}

/// The answers that were under way at a moment.
#[derive(Clone, Copy, Debug)]
struct UnderWay([u64; Protocol::ALL.len()]);

/// The table as who answers reads it. Meant to be short-lived: nothing that is taken out meanwhile is freed.
pub struct Answers<'a> {
    entries: HashMapRef<'a, Key, Held, RandomState, LocalGuard<'a>>,
}

impl Answers<'_> {
    /// What is kept of an address, if it is answered for.
    #[inline]
    pub fn get(&self, address: IpAddr) -> Option<&Held> {
        self.entries.get(&Key(address))
    }

    /// Whether no address is answered for.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Table {
    /// The table to answer from; none while nothing at all is to be answered.
    #[inline]
    pub fn open(&self) -> Option<Answers<'_>> {
        let shared = &*self.shared;
        // The table is written before the mute ends and read after it was seen to have ended.
        let muted = shared.muted.load(Ordering::Acquire);
        let now = milliseconds(shared.made.elapsed());
        let holds = now <= shared.until.load(Ordering::Acquire);
        (!muted && holds).then(|| Answers {
            entries: shared.entries.pin(),
        })
    }

    /// What clients ask on the interface, on its way from who reads the table to who writes it.
    pub fn overheard(&self) -> &Overheard {
        &self.shared.overheard
    }

    /// Says that answers of a protocol are made from now on, and sent before the next are. One task answers for each.
    pub fn begin(&self, protocol: Protocol) -> Batch<'_> {
        let count = self.count(protocol);
        count.fetch_add(1, Ordering::Relaxed);
        // Either these answers know of a change, or who made it knows of them.
        fence(Ordering::SeqCst);
        Batch { count }
    }

    /// Waits until no answer is under way that does not know what was written before, for `most` at most: the thread of one may
    /// have been made to wait between look-up and sending. Until then nobody else should be told to answer.
    pub async fn known_to_all(&self, most: Duration) {
        let (before, began) = (self.under_way(), Instant::now());
        while !self.are_sent(before) && began.elapsed() < most {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn under_way(&self) -> UnderWay {
        fence(Ordering::SeqCst);
        UnderWay(Protocol::ALL.map(|protocol| self.count(protocol).load(Ordering::Acquire)))
    }

    fn are_sent(&self, answers: UnderWay) -> bool {
        let now = self.under_way();
        let mut each = answers.0.iter().zip(now.0);
        each.all(|(before, now)| before % 2 == 0 || *before != now)
    }

    fn count(&self, protocol: Protocol) -> &AtomicU64 {
        let [arp, ndp] = &self.shared.batches;
        match protocol {
            Protocol::Arp => arp,
            Protocol::Ndp => ndp,
        }
    }

    /// The table holds until then, or until told otherwise. Whoever writes it promises to look after it by then: if it does
    /// not, this process stood still, and another node may answer. Its readers notice that as soon as they run again,
    /// which may be before the writer does.
    pub fn promise(&self, until: Option<Instant>) {
        let until = until.map_or(u64::MAX, |until| {
            milliseconds(until.saturating_duration_since(self.shared.made))
        });
        self.shared.until.store(until, Ordering::Release);
    }

    /// From now on the address is answered for, and so.
    pub fn insert(&self, address: IpAddr, held: Held) {
        self.shared.entries.pin().insert(Key(address), held);
    }

    /// From now on the address is not answered for. True if it was.
    pub fn remove(&self, address: IpAddr) -> bool {
        self.shared.entries.pin().remove(&Key(address)).is_some()
    }

    /// What is kept of an address that is answered for, be the table muted or not.
    pub fn held(&self, address: IpAddr) -> Option<Held> {
        self.shared.entries.pin().get(&Key(address)).cloned()
    }

    /// Whether the address is answered for, be the table muted or not.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.shared.entries.pin().contains_key(&Key(address))
    }

    /// From now on no address is answered for. Gives those that were.
    pub fn clear(&self) -> Vec<IpAddr> {
        let entries = self.shared.entries.pin();
        let all = entries.keys().map(|Key(address)| *address).collect();
        entries.clear();
        all
    }

    /// Until told otherwise, nothing is answered.
    pub fn mute(&self, muted: bool) {
        self.shared.muted.store(muted, Ordering::Release);
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The table of each interface. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    shared: Arc<Mutex<HashMap<NonZeroU32, Table>>>,
}

impl Tables {
    /// That of the interface with this index, made when it is first asked for: it stays where the interface goes, for who
    /// answers and who decides what meet there, whichever of them comes first.
    pub fn of(&self, interface: NonZeroU32) -> Table {
        // Inserting leaves no half-done state behind.
        let mut tables = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        tables.entry(interface).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn held(at: Option<MacAddr>) -> Held {
        Held {
            at,
            counters: Arc::default(),
        }
    }

    #[test]
    fn a_table_whose_writer_is_late_is_not_answered_from() {
        let table = Table::default();
        assert!(table.open().is_some());
        table.promise(Some(Instant::now() + Duration::from_mins(1)));
        assert!(table.open().is_some());
        table.promise(Some(Instant::now()));
        while table.open().is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
        table.promise(None);
        assert!(table.open().is_some());
    }

    #[test]
    fn what_is_written_is_read_and_muting_hides_it_from_who_answers_alone() {
        let table = Table::default();
        let address = IpAddr::from([10, 0, 0, 1]);
        let heir = MacAddr::new(2, 0, 0, 0, 0, 0xc);
        table.insert(address, held(None));
        table.insert(address, held(Some(heir)));
        let at = |answers: Answers<'_>| answers.get(address).and_then(|held| held.at);
        assert_eq!(table.open().and_then(at), Some(heir));
        table.mute(true);
        assert!(table.open().is_none());
        assert!(table.holds(address) && table.held(address).is_some());
        assert!(table.remove(address) && !table.remove(address));
        table.mute(false);
        assert!(table.open().unwrap().get(address).is_none());
    }

    /// Input: an IPv4 address, and the IPv6 addresses that carry it.
    /// Output: each is an entry of its own; asked for by NDP, an IPv4 address is nobody's.
    #[test]
    fn families_do_not_meet() {
        let table = Table::default();
        let address = Ipv4Addr::new(10, 0, 0, 1);
        table.insert(address.into(), held(None));
        let answers = table.open().unwrap();
        for carrying in [
            address.to_ipv6_mapped(),
            Ipv6Addr::from_bits(address.to_bits().into()),
        ] {
            assert!(answers.get(carrying.into()).is_none());
        }
    }

    /// Input: addresses come and go on one thread, one in ten stays, another thread looks them all up.
    /// Output: those that stay are found whenever they are looked for, and all are gone at the end.
    #[test]
    fn who_reads_while_it_is_written_finds_what_stays() {
        let table = Table::default();
        let address = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number));
        (0..1000)
            .step_by(10)
            .for_each(|number| table.insert(address(number), held(None)));
        let (read, end) = (table.clone(), Arc::new(AtomicBool::default()));
        let ended = end.clone();
        let reader = std::thread::spawn(move || {
            let mut rounds = 0;
            while !ended.load(Ordering::Relaxed) || rounds == 0 {
                let answers = read.open().unwrap();
                assert!(
                    (0..1000)
                        .step_by(10)
                        .all(|n| answers.get(address(n)).is_some())
                );
                rounds += 1;
            }
        });
        for round in 0..100 {
            for number in (0..10_000).filter(|number| number % 10 > 0) {
                if round % 2 == 0 {
                    table.insert(address(number), held(None));
                } else {
                    assert!(table.remove(address(number)));
                }
            }
        }
        end.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        assert_eq!(table.clear().len(), 100);
        assert!(table.open().unwrap().get(address(0)).is_none());
    }

    #[test]
    fn answers_under_way_are_known_until_they_are_sent() {
        let table = Table::default();
        assert!(table.are_sent(table.under_way()));
        let batch = table.begin(Protocol::Arp);
        let before = table.under_way();
        assert!(!table.are_sent(before));
        drop(batch);
        assert!(table.are_sent(before));
        // Those that follow know of what was written.
        let _next = table.begin(Protocol::Arp);
        let _other = table.begin(Protocol::Ndp);
        assert!(table.are_sent(before));
    }
}
