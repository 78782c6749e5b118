//! Readiness by named tokens: a task holds one until its first work is done.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// The list of what the process still waits for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    waiting: Arc<Mutex<BTreeSet<String>>>,
}

/// Keeps the process unready until it is dropped.
#[derive(Debug)]
pub struct Blocker {
    ready: Ready,
    name: String,
    since: Instant,
}

impl Ready {
    /// A list with nothing on it: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `name` to what is waited for, until the token is dropped.
    #[must_use = "dropping the token at once means nothing is waited for"]
    pub fn wait_for(&self, name: &str) -> Blocker {
        self.lock().insert(name.to_owned());
        Blocker {
            ready: self.clone(),
            name: name.to_owned(),
            since: Instant::now(),
        }
    }

    /// What is still waited for, by name; empty means ready.
    pub fn pending(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        // A set of names cannot be left half written: a poisoned lock is as good as a sound one.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        let left = {
            let mut waiting = self.ready.lock();
            waiting.remove(&self.name);
            waiting.iter().cloned().collect::<Vec<_>>()
        };
        tracing::info!(
            event = "stateSynced",
            task = self.name,
            after_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            waiting_for = left.join(","),
            "ready"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_every_token_is_gone() {
        let ready = Ready::new();
        assert!(ready.pending().is_empty());
        let services = ready.wait_for("services");
        let nodes = ready.wait_for("nodes");
        assert_eq!(ready.pending(), ["nodes", "services"]);
        drop(nodes);
        assert_eq!(ready.pending(), ["services"]);
        drop(services);
        assert!(ready.pending().is_empty());
    }
}
