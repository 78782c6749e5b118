//! One deadline each for any number of things, the next in logarithmic time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Deadlines by key.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    at: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Ord> Timers<K> {
    pub fn new() -> Self {
        Self {
            at: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// Sets the one deadline of `key`.
    pub fn set(&mut self, key: K, at: Instant) {
        self.cancel(key);
        self.at.insert(key, at);
        self.order.insert((at, key));
    }

    /// Sets it if there is none, or a later one.
    pub fn set_earlier(&mut self, key: K, at: Instant) {
        if self.at.get(&key).is_none_or(|old| at < *old) {
            self.set(key, at);
        }
    }

    pub fn cancel(&mut self, key: K) {
        if let Some(at) = self.at.remove(&key) {
            self.order.remove(&(at, key));
        }
    }

    /// The next deadline.
    pub fn first(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out the first that has come.
    pub fn due(&mut self, now: Instant) -> Option<K> {
        let (at, key) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.cancel(key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Timers;

    #[test]
    fn one_deadline_a_key_in_order_of_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::new();
        timers.set('a', at(5));
        timers.set('b', at(3));
        timers.set('a', at(1));
        timers.set_earlier('b', at(4));
        timers.set('c', at(2));
        timers.cancel('c');
        assert_eq!(timers.first(), Some(at(1)));
        assert_eq!(timers.due(at(3)), Some('a'));
        assert_eq!(timers.due(at(3)), Some('b'));
        assert_eq!((timers.due(at(9)), timers.first()), (None, None));
    }
}
