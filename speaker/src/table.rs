//! The addresses this node answers for, interface by interface: written by the arbiter of the interface, read for every
//! frame.
//!
//! Readers take a snapshot without lock or wait; a change is one swap of a pointer, so no frame ever meets half a change.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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

#[derive(Debug, Default)]
struct Shared {
    current: ArcSwap<Answers>,
    muted: AtomicBool,
}

impl Table {
    /// The table as it is now; none while nothing at all is to be answered.
    pub fn load(&self) -> Option<Guard<Arc<Answers>>> {
        // The table is written before the mute ends and read after it was seen to have ended.
        let muted = self.shared.muted.load(Ordering::Acquire);
        (!muted).then(|| self.shared.current.load())
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
