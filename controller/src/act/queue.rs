//! The writes that wait for their turn. Those of thousands of Services that get their addresses at once wait as what is to be
//! written: one under way takes kilobytes. Until its turn comes a write can be taken back for what was decided since.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferrolb_config::ObjectName;
use tokio::sync::mpsc;

use super::Write;

/// One write each for any number of Services, in the order in which they came to have one.
#[derive(Debug)]
pub(super) struct Queue {
    places: Places,
    /// Whose turn comes after whose.
    order: mpsc::UnboundedSender<ObjectName>,
}

/// Where they are taken from.
#[derive(Debug)]
pub(super) struct Turns {
    places: Places,
    order: mpsc::UnboundedReceiver<ObjectName>,
}

/// What each that has a place waits with: nothing, if that was taken back.
type Places = Arc<Mutex<BTreeMap<ObjectName, Option<Box<Write>>>>>;

/// An empty one, and where it is served from.
pub(super) fn queue() -> (Queue, Turns) {
    let places = Places::default();
    let (send, receive) = mpsc::unbounded_channel();
    (
        Queue {
            places: places.clone(),
            order: send,
        },
        Turns {
            places,
            order: receive,
        },
    )
}

impl Queue {
    /// Has it wait: where the Service has a place already there, else behind all others.
    pub fn wait(&self, write: Write) {
        let name = write.name.clone();
        let placed = lock(&self.places).insert(name.clone(), Some(Box::new(write)));
        if placed.is_none() {
            // They are served until the process ends.
            let _ = self.order.send(name);
        }
    }

    /// Takes back the write with this number; false if its turn has come. The Service keeps its place.
    pub fn withdraw(&self, name: &ObjectName, id: u64) -> bool {
        let mut places = lock(&self.places);
        let place = places.get_mut(name);
        place.is_some_and(|write| write.take_if(|write| write.id == id).is_some())
    }
}

impl Turns {
    /// Whose turn it is, once there is anybody; none when nobody can come any more.
    pub async fn next(&mut self) -> Option<ObjectName> {
        self.order.recv().await
    }

    /// What it waits with, from when on that is not taken back.
    pub fn begin(&self, name: &ObjectName) -> Option<Box<Write>> {
        lock(&self.places).remove(name).flatten()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
