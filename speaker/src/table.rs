//! The addresses this node answers for: written by the task that decides, read for every frame.
//!
//! Readers take a snapshot without lock or wait; a change is one swap of a pointer, so no frame ever meets half a change.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use ferrolb_speaker_core::Reach;
use prometheus::IntCounter;
use tokio::sync::Notify;

/// What is kept of one held address: where it is answered for, and its counters, so that counting needs no look-up by
/// label.
#[derive(Clone, Debug)]
pub struct Held {
    /// The interfaces it is answered for on.
    pub reach: Reach,
    /// `metallb_layer2_requests_received{ip}`.
    pub requests: IntCounter,
    /// `metallb_layer2_responses_sent{ip}`.
    pub responses: IntCounter,
    /// `metallb_layer2_gratuitous_sent{ip}`.
    pub gratuitous: IntCounter,
}

impl Held {
    /// The same address, answered for there.
    #[must_use]
    pub fn on(&self, reach: Reach) -> Self {
        Self {
            reach,
            ..self.clone()
        }
    }

    /// Whether the address is answered for on the interface of this name.
    pub fn reaches(&self, interface: &str) -> bool {
        self.reach.includes(interface)
    }
}

/// The held addresses.
pub type Announcements = HashMap<IpAddr, Arc<Held>>;

/// One difference from the table before, in the order they were made.
#[derive(Clone, Debug)]
pub enum Change {
    /// The address is held from now on.
    Taken(IpAddr, Arc<Held>),
    /// The address is held as before, on other interfaces.
    Moved(IpAddr, Arc<Held>),
    /// The address is no longer held.
    Released(IpAddr),
}

/// The published table. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Table {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    current: ArcSwap<Announcements>,
    /// What the one who makes addresses known has not fetched yet: handed over as differences, so that with 10 000
    /// addresses held one more costs the responder's thread no more than with ten.
    changes: Mutex<Vec<Change>>,
    changed: Notify,
}

impl Table {
    /// The table as it is now.
    pub fn load(&self) -> Guard<Arc<Announcements>> {
        self.shared.current.load()
    }

    /// Puts another table in place of the present one, which differs from it by `changes`.
    pub fn publish(&self, announcements: Announcements, changes: Vec<Change>) {
        self.shared.current.store(Arc::new(announcements));
        self.changes().extend(changes);
        self.shared.changed.notify_one();
    }

    /// Waits for changes not yet fetched. For one waiter; several may be one wake-up. Cancel-safe.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Fetches the changes since the last call.
    pub fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes())
    }

    fn changes(&self) -> MutexGuard<'_, Vec<Change>> {
        // Appending and taking leave no half-done state behind.
        self.shared
            .changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
