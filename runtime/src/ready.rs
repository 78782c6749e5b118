//! How the process is, in two answers. *Ready*: what it waits for is there, by named tokens a task holds until its first
//! work is done, and by checks made at each question. *Alive*: every part with a pulse gave one lately.
//!
//! A speaker that is not ready is not elected (where its pod can be seen), so only what keeps it from answering may keep
//! it unready. An API server out of sight does not: the last view stays in force, and an outage would change hands all over.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The shortest time between two signs of life.
const SHORTEST: Duration = Duration::from_millis(1);

type Check = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What the process still waits for, and who has to give a sign of life. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    waiting: BTreeSet<String>,
    checks: Vec<Check>,
    /// When each part last gave a sign of life, and how long it may go without.
    pulses: BTreeMap<String, (Instant, Duration)>,
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("State")
            .field("waiting", &self.waiting)
            .field("pulses", &self.pulses)
            .finish_non_exhaustive()
    }
}

/// Keeps the process unready until it is dropped.
#[derive(Debug)]
pub struct Blocker {
    ready: Ready,
    name: String,
    since: Instant,
}

/// A part's sign of life. Dropped, the part has ended, and nothing is expected of it any more.
#[derive(Debug)]
pub struct Pulse {
    ready: Ready,
    name: String,
    within: Duration,
}

impl Ready {
    /// A list with nothing on it: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `name` to what is waited for, until the token is dropped.
    #[must_use = "dropping the token at once means nothing is waited for"]
    pub fn wait_for(&self, name: &str) -> Blocker {
        self.lock().waiting.insert(name.to_owned());
        Blocker {
            ready: self.clone(),
            name: name.to_owned(),
            since: Instant::now(),
        }
    }

    /// Asks `check` at each question; while it says something, that is waited for. It must not block.
    pub fn check(&self, check: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.lock().checks.push(Arc::new(check));
    }

    /// Expects a sign of life from the part `name` every `within`. The first counts as given.
    #[must_use = "dropping it at once means nothing is expected"]
    pub fn pulse(&self, name: &str, within: Duration) -> Pulse {
        let pulse = Pulse {
            ready: self.clone(),
            name: name.to_owned(),
            within,
        };
        pulse.beat();
        pulse
    }

    /// What is still waited for; empty means ready.
    pub fn pending(&self) -> Vec<String> {
        let (mut pending, checks) = {
            let state = self.lock();
            let waiting: Vec<_> = state.waiting.iter().cloned().collect();
            (waiting, state.checks.clone())
        };
        pending.extend(checks.iter().filter_map(|check| check()));
        pending
    }

    /// The parts that gave no sign of life in time; empty means alive.
    pub fn silent(&self) -> Vec<String> {
        let now = Instant::now();
        self.lock()
            .pulses
            .iter()
            .filter(|(_, (last, within))| now.saturating_duration_since(*last) > *within)
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here can be left half written: a poisoned lock is as good as a sound one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulse {
    /// Gives a sign of life.
    pub fn beat(&self) {
        let sign = (Instant::now(), self.within);
        self.ready.lock().pulses.insert(self.name.clone(), sign);
    }

    /// Gives one four times as often as expected, for ever: spawned on a runtime, it shows that its thread still runs tasks.
    pub async fn keep(self) {
        let mut due = tokio::time::interval((self.within / 4).max(SHORTEST));
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            self.beat();
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.ready.lock().pulses.remove(&self.name);
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        let left = {
            let mut state = self.ready.lock();
            state.waiting.remove(&self.name);
            state.waiting.iter().cloned().collect::<Vec<_>>()
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
    #[test]
    fn a_check_is_made_at_each_question() {
        let ready = Ready::new();
        let open = Arc::new(Mutex::new(0));
        let seen = open.clone();
        ready.check(move || (*seen.lock().unwrap() == 0).then(|| "a socket".to_owned()));
        assert_eq!(ready.pending(), ["a socket"]);
        *open.lock().unwrap() = 1;
        assert!(ready.pending().is_empty());
        *open.lock().unwrap() = 0;
        assert_eq!(ready.pending(), ["a socket"]);
    }

    #[test]
    fn a_part_that_is_silent_too_long_is_named_until_it_speaks_or_ends() {
        let ready = Ready::new();
        let quick = ready.pulse("quick", Duration::ZERO);
        let _slow = ready.pulse("slow", Duration::from_hours(1));
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(ready.silent(), ["quick"]);
        assert!(ready.pending().is_empty(), "alive is not ready");
        drop(quick);
        assert!(ready.silent().is_empty());
    }

    #[tokio::test]
    async fn a_runtime_that_runs_keeps_its_pulse() {
        let ready = Ready::new();
        let pulse = ready.pulse("loop", Duration::from_millis(400));
        let first = ready.lock().pulses["loop"].0;
        let keeping = tokio::spawn(pulse.keep());
        while ready.lock().pulses["loop"].0 == first {
            tokio::task::yield_now().await;
        }
        keeping.abort();
        keeping.await.unwrap_err();
        assert!(ready.lock().pulses.is_empty());
    }
}
