//! The knobs, their limits and the three profiles.

use std::time::Duration;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// When a better placed node that returned takes an address back from the one that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failback {
    /// Not before it has been there without fault for this long.
    After(Duration),
    /// Never: the holder keeps the address until it is lost or moved.
    Never,
}

/// How closely nodes watch each other. [`Profile::limited`] keeps every value within its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// From one probe of a peer to the next, ± 10 %. 20 ms to 10 s.
    pub interval: Duration,
    /// How long an answer may take before the peer is suspected. 10 ms to 2 s, at most `interval`.
    pub timeout: Duration,
    /// Further probes of a suspect. 1 to 10.
    pub retries: u32,
    /// From one of those to the next. 5 ms to 1 s.
    pub retry: Duration,
    /// The shortest silence after which a node is down whose kernel is silent too. 50 ms to 10 s.
    pub patience: Duration,
    /// The shortest silence after which a node is down whose kernel still answers: its speaker is dead, or starved.
    /// Four times the worst delay seen of it in five to ten minutes where that is longer. `patience` to 10 s.
    pub starved: Duration,
    /// The longest silence of such a node. `starved` to 30 s.
    pub starved_most: Duration,
    /// How many nodes watch each node. 1 to 8.
    pub watchers: usize,
    /// When addresses are taken back.
    pub failback: Failback,
    /// Voluntary moves of one address are at least this far apart. 0 to 1 h.
    pub calm: Duration,
    /// How many checks of single addresses may be sent a second, where many are in doubt at once. 100 to 10 000. The pace
    /// of claims is `ferrolb_speaker_core::PACE`.
    pub pace: u32,
}

impl Profile {
    /// Lost addresses are served again within 500 ms; a node sends 60 frames a second at most.
    pub const DEFAULT: Self = Self {
        interval: ms(100),
        timeout: ms(50),
        retries: 3,
        retry: ms(40),
        patience: ms(250),
        starved: ms(300),
        starved_most: ms(2000),
        watchers: 3,
        failback: Failback::After(Duration::from_mins(5)),
        calm: Duration::from_mins(1),
        pace: 5000,
    };

    /// Within 150 ms, for quiet networks and nodes with cores to spare.
    pub const FAST: Self = Self {
        interval: ms(25),
        timeout: ms(15),
        retry: ms(10),
        patience: ms(70),
        starved: ms(100),
        starved_most: ms(1000),
        ..Self::DEFAULT
    };

    /// Within 4 s, for switches that police ARP: at most 5 frames a second from a node in steady state.
    pub const QUIET: Self = Self {
        interval: ms(1000),
        timeout: ms(500),
        retries: 2,
        retry: ms(500),
        patience: ms(2000),
        starved: ms(2500),
        starved_most: ms(5000),
        watchers: 1,
        pace: 100,
        ..Self::DEFAULT
    };

    /// The same with every value moved to the nearest its limits allow.
    #[must_use]
    pub fn limited(self) -> Self {
        let interval = self.interval.clamp(ms(20), ms(10_000));
        let patience = self.patience.clamp(ms(50), ms(10_000));
        let starved = self.starved.clamp(patience, ms(10_000));
        Self {
            interval,
            timeout: self.timeout.clamp(ms(10), ms(2000)).min(interval),
            retries: self.retries.clamp(1, 10),
            retry: self.retry.clamp(ms(5), ms(1000)),
            patience,
            starved,
            starved_most: self.starved_most.clamp(starved, ms(30_000)),
            watchers: self.watchers.clamp(1, 8),
            failback: self.failback,
            calm: self.calm.min(ms(3_600_000)),
            pace: self.pace.clamp(100, 10_000),
        }
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Duration, Failback, Profile};

    #[test]
    fn the_profiles_are_within_their_limits() {
        for profile in [Profile::DEFAULT, Profile::FAST, Profile::QUIET] {
            assert_eq!(profile.limited(), profile);
        }
    }

    proptest! {
        #[test]
        fn any_values_are_brought_within_limits(
            times in prop::array::uniform7(0..100_000_u64), retries in any::<u32>(), watchers in any::<usize>(), pace in any::<u32>(),
        ) {
            let [interval, timeout, retry, patience, starved, starved_most, calm] = times.map(Duration::from_millis);
            let failback = Failback::Never;
            let limited = Profile { interval, timeout, retries, retry, patience, starved, starved_most, watchers, failback, calm, pace }
                .limited();
            prop_assert!(limited.timeout <= limited.interval && limited.patience <= limited.starved);
            prop_assert!(limited.starved <= limited.starved_most && !limited.retry.is_zero() && limited.pace > 0);
            prop_assert_eq!(limited.limited(), limited);
        }
    }
}
