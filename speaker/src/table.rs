//! The addresses this node answers for, interface by interface: written by the arbiter of the interface, read for every
//! frame.
//!
//! Readers take a snapshot without lock or wait; a change is one swap of a pointer, so no frame ever meets half a change.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use ferrolb_speaker_wire::MacAddr;
use prometheus::IntCounter;

/// What is kept of one address that is answered for, and its counters, so that counting needs no look-up by label.
#[derive(Clone, Debug)]
pub struct Held {
    /// The hardware address it is answered with where that is not the interface's own: that of the node it is being handed
    /// over to.
    pub at: Option<MacAddr>,
    /// `metallb_layer2_requests_received{ip}`.
    pub requests: IntCounter,
    /// `metallb_layer2_responses_sent{ip}`.
    pub responses: IntCounter,
    /// `metallb_layer2_gratuitous_sent{ip}`.
    pub gratuitous: IntCounter,
}

/// The addresses answered for on one interface.
pub type Answers = HashMap<IpAddr, Arc<Held>>;

/// The published table of one interface. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Table {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    current: ArcSwap<Answers>,
    muted: AtomicBool,
    /// What `until` counts from.
    made: Instant,
    /// Milliseconds after `made` until which the table holds.
    until: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            current: ArcSwap::default(),
            muted: AtomicBool::default(),
            made: Instant::now(),
            until: AtomicU64::new(u64::MAX),
        }
    }
}

impl Table {
    /// The table as it is now; none while nothing at all is to be answered.
    pub fn load(&self) -> Option<Guard<Arc<Answers>>> {
        let shared = &*self.shared;
        // The table is written before the mute ends and read after it was seen to have ended.
        let muted = shared.muted.load(Ordering::Acquire);
        let now = milliseconds(shared.made.elapsed());
        let holds = now <= shared.until.load(Ordering::Acquire);
        (!muted && holds).then(|| shared.current.load())
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

    /// Puts another table in place of the present one.
    pub fn publish(&self, answers: Answers) {
        self.shared.current.store(Arc::new(answers));
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
    use super::*;

    #[test]
    fn a_table_whose_writer_is_late_is_not_answered_from() {
        let table = Table::default();
        assert!(table.load().is_some());
        table.promise(Some(Instant::now() + Duration::from_mins(1)));
        assert!(table.load().is_some());
        table.promise(Some(Instant::now()));
        while table.load().is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
        table.promise(None);
        assert!(table.load().is_some());
    }
}
