//! How long a suspect may protest, and how well we trust ourselves: Lifeguard (Dadgar, Phillips, Currey: "Lifeguard:
//! SWIM-ing with situational awareness", 2018) as memberlist does it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::profile::Profile;

/// The time a suspect has left: long at first, shorter with every other node that confirms the suspicion.
#[derive(Clone, Debug)]
pub(crate) struct Suspicion {
    start: Instant,
    least: Duration,
    most: Duration,
    /// Confirmations that bring the time down to `least`.
    wanted: usize,
    /// Who suspects: the first, and those who confirmed.
    from: BTreeSet<String>,
}

impl Suspicion {
    /// Raised by `from` at `now`, among `nodes` that were alive, the suspect included.
    pub(crate) fn new(from: &str, now: Instant, nodes: usize, profile: &Profile) -> Self {
        let wanted = (profile.suspicion_mult as usize).saturating_sub(2);
        // Neither we nor the suspect can confirm; with too few others none is waited for.
        let others = nodes.saturating_sub(2);
        let least = least_timeout(profile, nodes);
        Self {
            start: now,
            least,
            most: least.saturating_mul(profile.suspicion_max_timeout_mult.max(1)),
            wanted: if others < wanted { 0 } else { wanted },
            from: BTreeSet::from([from.to_owned()]),
        }
    }

    /// Another node says the same. Whether that was news.
    pub(crate) fn confirm(&mut self, from: &str) -> bool {
        self.confirmations() < self.wanted && self.from.insert(from.to_owned())
    }

    pub(crate) fn confirmations(&self) -> usize {
        self.from.len().saturating_sub(1)
    }

    /// When the suspect is given up.
    pub(crate) fn deadline(&self) -> Instant {
        let patience = if self.wanted == 0 {
            self.least
        } else {
            #[expect(clippy::cast_precision_loss, reason = "a handful of confirmations")]
            let share = (self.confirmations() as f64 + 1.0).ln() / (self.wanted as f64 + 1.0).ln();
            let most = self.most.as_secs_f64();
            let patience = most - share * (most - self.least.as_secs_f64());
            Duration::try_from_secs_f64(patience)
                .unwrap_or(self.most)
                .max(self.least)
        };
        self.start + patience
    }

    /// We were not running for `pause`: nobody could protest to us in that time.
    pub(crate) fn postpone(&mut self, pause: Duration) {
        self.start += pause;
    }
}

/// The time a suspect has when everyone agrees.
fn least_timeout(profile: &Profile, nodes: usize) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "thousands of nodes at most")]
    let scale = (nodes.max(1) as f64).log10().max(1.0);
    // Whole thousandths, as memberlist has it.
    profile
        .probe_interval
        .saturating_mul(profile.suspicion_mult)
        .mul_f64((scale * 1000.0).floor() / 1000.0)
}

/// How ill we believe ourselves to be: 0 is well. Every unanswered probe adds to it, every answered one takes from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awareness {
    score: u32,
    limit: u32,
}

impl Awareness {
    pub(crate) fn new(profile: &Profile) -> Self {
        Self {
            score: 0,
            limit: profile.awareness_max_multiplier.max(1) - 1,
        }
    }

    pub(crate) fn score(self) -> u32 {
        self.score
    }

    pub(crate) fn better(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    pub(crate) fn worse(&mut self, by: u32) {
        self.score = self.score.saturating_add(by).min(self.limit);
    }

    /// A time, longer the worse we are.
    pub(crate) fn scale(self, time: Duration) -> Duration {
        time.saturating_mul(self.score.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(suspicion: &Suspicion) -> f64 {
        (suspicion.deadline() - suspicion.start).as_secs_f64()
    }

    #[test]
    fn confirmations_shorten_the_time() {
        let now = Instant::now();
        let mut suspicion = Suspicion::new("a", now, 5, &Profile::lan());
        assert!((seconds(&suspicion) - 24.0).abs() < 0.001);
        assert!(!suspicion.confirm("a"), "who raised it confirms nothing");
        assert!(suspicion.confirm("b"));
        // log(2) / log(3) of the way from 24 s to 4 s.
        assert!(
            (seconds(&suspicion) - 11.381).abs() < 0.001,
            "{}",
            seconds(&suspicion)
        );
        assert!(!suspicion.confirm("b") && suspicion.confirm("c"));
        assert!((seconds(&suspicion) - 4.0).abs() < 0.001);
        assert!(!suspicion.confirm("d"), "enough is enough");
    }

    #[test]
    fn small_clusters_wait_for_nobody_and_large_ones_longer() {
        let now = Instant::now();
        for (nodes, expected) in [
            (2, 4.0),
            (3, 4.0),
            (4, 24.0),
            (10, 24.0),
            (100, 48.0),
            (500, 64.752),
        ] {
            let suspicion = Suspicion::new("a", now, nodes, &Profile::lan());
            assert!(
                (seconds(&suspicion) - expected).abs() < 0.001,
                "{nodes}: {}",
                seconds(&suspicion)
            );
        }
    }

    #[test]
    fn our_health_has_bounds() {
        let mut awareness = Awareness::new(&Profile::lan());
        awareness.better();
        assert_eq!(
            awareness.scale(Duration::from_secs(1)),
            Duration::from_secs(1)
        );
        awareness.worse(3);
        awareness.better();
        assert_eq!(
            awareness.scale(Duration::from_secs(1)),
            Duration::from_secs(3)
        );
        awareness.worse(100);
        assert_eq!(awareness.score(), 7);
        let mut none = Awareness::new(&Profile {
            awareness_max_multiplier: 0,
            ..Profile::lan()
        });
        none.worse(5);
        assert_eq!(none.score(), 0);
    }
}
