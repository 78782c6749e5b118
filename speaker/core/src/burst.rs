//! When gratuitous frames are due: five rounds for each address newly taken, at 0, 1.1, 2.2, 3.3 and 4.4 s (MetalLB's
//! schedule), and never more than [`PACE`] frames a second on one interface, whatever the number of addresses.
//!
//! A machine without clock or socket: [`Burst::take`] and [`Burst::withdraw`] say what is held, [`Burst::due`] hands out
//! rounds, [`Burst::next_deadline`] says when to ask again. Where the pace does not suffice, first rounds go before
//! second ones and those before third ones: an address nobody has heard of matters more than one heard of twice. A round
//! that was late moves the following ones, so that two rounds are never closer than [`PERIOD`].

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Rounds for one address.
pub const ROUNDS: usize = 5;

/// From one round for an address to the next.
pub const PERIOD: Duration = Duration::from_millis(1100);

/// Frames a second on one interface. A switch that polices broadcasts should not have a reason to.
pub const PACE: u32 = 5000;

/// The time one frame takes at that pace.
const FRAME: Duration = Duration::from_micros(1_000_000 / PACE as u64);

/// How far the pace may be run ahead of: 50 frames at once, so that a timer that ticks in milliseconds suffices.
const AHEAD: Duration = Duration::from_millis(10);

/// Identifies one taking of a key, so that a round queued for a former one is not sent for a later one.
type Generation = u64;

#[derive(Clone, Debug)]
struct Round<K> {
    due: Instant,
    key: K,
    generation: Generation,
}

/// The schedule. `K` is what is made known: an address; there is one schedule an interface.
#[derive(Debug)]
pub struct Burst<K> {
    held: HashMap<K, Generation>,
    /// One queue for each round; each is in order of time, because each is filled in order of time.
    queues: [VecDeque<Round<K>>; ROUNDS],
    generation: Generation,
    /// When all frames handed out so far will have gone at the pace; in the past if it was not reached.
    paid_until: Option<Instant>,
    /// Frames a round takes.
    frames: u32,
}

impl<K: Clone + Eq + Hash> Burst<K> {
    /// An empty schedule of rounds that take `frames` frames each.
    pub fn new(frames: u32) -> Self {
        Self {
            held: HashMap::new(),
            queues: Default::default(),
            generation: 0,
            paid_until: None,
            frames,
        }
    }

    /// `key` was taken: its first round is due now. Nothing changes for a key whose rounds are under way.
    pub fn take(&mut self, key: K, now: Instant) {
        if self.held.contains_key(&key) {
            return;
        }
        self.generation += 1;
        let generation = self.generation;
        self.held.insert(key.clone(), generation);
        let [first, ..] = &mut self.queues;
        first.push_back(Round {
            due: now,
            key,
            generation,
        });
    }

    /// `key` is no longer held: no further round.
    pub fn withdraw(&mut self, key: &K) {
        self.held.remove(key);
        self.forget_stale();
    }

    /// The next key whose round is to be sent now; none if nothing is due or the pace forbids it. To be called until it
    /// gives none.
    pub fn due(&mut self, now: Instant) -> Option<K> {
        if self.next_deadline(now)? > now {
            return None;
        }
        let index = self
            .queues
            .iter()
            .position(|queue| queue.front().is_some_and(|round| round.due <= now))?;
        let round = self.queues.get_mut(index)?.pop_front()?;
        let key = round.key.clone();
        self.paid_until =
            Some(self.paid_until.map_or(now, |paid| paid.max(now)) + FRAME * self.frames);
        match self.queues.get_mut(index + 1) {
            Some(next) => next.push_back(Round {
                due: now + PERIOD,
                ..round
            }),
            None => {
                self.held.remove(&key);
            }
        }
        self.forget_stale();
        Some(key)
    }

    /// When [`due`](Self::due) is to be asked next; none if nothing is scheduled. Never before `now`.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let fronts = self.queues.iter().filter_map(VecDeque::front);
        let due = fronts.map(|round| round.due).min()?;
        let paid = self
            .paid_until
            .and_then(|paid| paid.checked_sub(AHEAD))
            .unwrap_or(now);
        Some(due.max(paid).max(now))
    }

    /// Keys whose rounds are under way.
    pub fn pending(&self) -> usize {
        self.held.len()
    }

    /// Takes rounds of keys no longer held from the fronts of the queues, so that nobody wakes up for them.
    fn forget_stale(&mut self) {
        for queue in &mut self.queues {
            while queue
                .front()
                .is_some_and(|round| self.held.get(&round.key) != Some(&round.generation))
            {
                queue.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{AHEAD, Burst, FRAME, PERIOD, ROUNDS};

    /// Runs the schedule to its end on a virtual clock, waking exactly at its deadlines: when each key was sent.
    fn run(burst: &mut Burst<u32>, start: Instant) -> Vec<(Duration, u32)> {
        let (mut now, mut sent) = (start, Vec::new());
        while let Some(at) = burst.next_deadline(now) {
            now = at;
            while let Some(key) = burst.due(now) {
                sent.push((now - start, key));
            }
        }
        sent
    }

    #[test]
    fn a_lone_address_has_five_rounds_from_at_once_to_4_4_s() {
        let start = Instant::now();
        let mut burst = Burst::new(2);
        burst.take(7, start);
        let times: Vec<_> = run(&mut burst, start)
            .iter()
            .map(|(at, _)| at.as_millis())
            .collect();
        assert_eq!(times, [0, 1100, 2200, 3300, 4400]);
        assert_eq!(burst.pending(), 0);
    }

    #[test]
    fn taking_again_within_the_burst_is_no_new_burst_but_after_withdrawing_it_is() {
        let start = Instant::now();
        let mut burst = Burst::new(2);
        burst.take(7, start);
        assert_eq!(burst.due(start), Some(7));
        burst.take(7, start);
        assert_eq!(burst.due(start), None);
        burst.withdraw(&7);
        assert_eq!(burst.next_deadline(start), None);
        burst.take(7, start + PERIOD / 2);
        assert_eq!(run(&mut burst, start + PERIOD / 2).len(), ROUNDS);
    }

    #[test]
    fn ten_thousand_addresses_keep_the_pace_and_first_rounds_go_first() {
        let start = Instant::now();
        let mut burst = Burst::new(2);
        (0..10_000).for_each(|key| burst.take(key, start));
        let sent = run(&mut burst, start);
        assert_eq!(sent.len(), 10_000 * ROUNDS);
        let heard: HashSet<_> = sent[..10_000].iter().map(|(_, key)| key).collect();
        assert_eq!(heard.len(), 10_000);
        let first_rounds = sent[9_999].0.as_secs_f64();
        assert!((3.9..4.1).contains(&first_rounds), "{first_rounds}");
        let all = sent.last().unwrap().0.as_secs_f64();
        assert!((19.9..20.1).contains(&all), "{all}");
    }

    #[derive(Clone, Debug)]
    enum Action {
        Take(u32),
        Withdraw(u32),
        Wait(u16),
        Poll,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => (0_u32..6).prop_map(Action::Take),
            2 => (0_u32..6).prop_map(Action::Withdraw),
            4 => (0_u16..2500).prop_map(Action::Wait),
            4 => Just(Action::Poll),
        ]
    }

    /// What the machine should do, told without queues: each held key knows how many rounds it had and when the next is.
    #[derive(Default)]
    struct Model {
        keys: BTreeMap<u32, (usize, Instant, u64)>,
        paid: Option<Instant>,
        count: u64,
    }

    impl Model {
        fn due(&mut self, now: Instant, frames: u32) -> Option<u32> {
            if self.paid.is_some_and(|paid| paid > now + AHEAD) {
                return None;
            }
            let ready = self.keys.iter().filter(|(_, (_, due, _))| *due <= now);
            let (key, _) = ready.min_by_key(|(_, (round, due, count))| (*round, *due, *count))?;
            let key = *key;
            self.paid = Some(self.paid.map_or(now, |paid| paid.max(now)) + FRAME * frames);
            self.count += 1;
            let entry = self.keys.get_mut(&key)?;
            *entry = (entry.0 + 1, now + PERIOD, self.count);
            if entry.0 == ROUNDS {
                self.keys.remove(&key);
            }
            Some(key)
        }

        fn next(&self, now: Instant) -> Option<Instant> {
            let due = self.keys.values().map(|(_, due, _)| *due).min()?;
            Some(
                due.max(
                    self.paid
                        .and_then(|paid| paid.checked_sub(AHEAD))
                        .unwrap_or(now),
                )
                .max(now),
            )
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_model(
            actions in prop::collection::vec(action(), 0..200),
            frames in prop_oneof![Just(1_u32), Just(2), Just(60), Just(3000)],
        ) {
            let mut now = Instant::now() + Duration::from_secs(1);
            let (mut burst, mut model) = (Burst::new(frames), Model::default());
            for action in actions {
                match action {
                    Action::Take(key) => {
                        burst.take(key, now);
                        model.count += 1;
                        model.keys.entry(key).or_insert((0, now, model.count));
                    }
                    Action::Withdraw(key) => {
                        burst.withdraw(&key);
                        model.keys.remove(&key);
                    }
                    Action::Wait(millis) => now += Duration::from_millis(millis.into()),
                    Action::Poll => {
                        prop_assert_eq!(burst.next_deadline(now), model.next(now));
                        prop_assert_eq!(burst.due(now), model.due(now, frames));
                    }
                }
                prop_assert_eq!(burst.pending(), model.keys.len());
                prop_assert_eq!(burst.next_deadline(now), model.next(now));
            }
        }

        #[test]
        fn never_faster_than_the_pace_and_no_two_rounds_of_a_key_too_close(
            takes in prop::collection::vec((0_u64..5000, 0_u32..100), 1..150), frames in 1_u32..5,
        ) {
            let start = Instant::now();
            let mut takes: Vec<_> = takes.into_iter().map(|(at, key)| (start + Duration::from_millis(at), key)).collect();
            takes.sort_unstable();
            let mut burst = Burst::new(frames);
            let mut sent: Vec<(Instant, u32)> = Vec::new();
            let mut takes = takes.into_iter().peekable();
            let mut now = start;
            loop {
                let taken = takes.peek().map(|(at, _)| *at);
                let Some(next) = taken.into_iter().chain(burst.next_deadline(now)).min() else { break };
                now = next;
                while let Some((_, key)) = takes.next_if(|(at, _)| *at <= now) {
                    burst.take(key, now);
                }
                while let Some(key) = burst.due(now) {
                    sent.push((now, key));
                }
            }
            // A bucket that leaks one frame in FRAME and holds AHEAD's worth never overflows.
            let mut level = Duration::ZERO;
            let mut at = start;
            for (time, _) in &sent {
                level = level.saturating_sub(*time - at);
                at = *time;
                prop_assert!(level <= AHEAD, "{level:?} ahead of the pace");
                level += FRAME * frames;
            }
            let mut last: BTreeMap<u32, Vec<Instant>> = BTreeMap::new();
            for (at, key) in sent {
                last.entry(key).or_default().push(at);
            }
            for times in last.values() {
                for burst in times.chunks(ROUNDS) {
                    prop_assert_eq!(burst.len(), ROUNDS);
                    prop_assert!(burst.windows(2).all(|pair| pair[1] - pair[0] >= PERIOD));
                }
            }
        }
    }
}
