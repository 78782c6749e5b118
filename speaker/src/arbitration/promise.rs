//! How long answers may be given by a task that is to look after them.

use std::time::{Duration, Instant};

/// How late the task may wake before nothing is answered any more: as late as makes the arbiter ask before it goes on.
const LEASE: Duration = Duration::from_millis(250);

/// Until when answers may be given by who has something to do at the `deadline` and by `owed` at the latest, and when to wake.
/// `patience` is that of the other speakers. The promise outlasts the deadline, unless what is owed comes long before it: then there is something to do in between.
pub(super) fn promise(
    deadline: Option<Instant>,
    owed: Option<Instant>,
    patience: Duration,
    now: Instant,
) -> (Option<Instant>, Option<Instant>) {
    let lease = LEASE.min(patience);
    let due = deadline.into_iter().chain(owed).min();
    let due = due.map(|due| due.max(now));
    let renewed = due.map(|due| due + lease / 2);
    (
        due.map(|due| due + lease),
        deadline.into_iter().chain(renewed).min(),
    )
}

#[cfg(test)]
mod tests {
    use ferrolb_speaker_arbiter::Profile;

    use super::*;

    /// Input: a probe at the beginning that was answered at once, in the rhythm of each profile, and with probes far apart.
    /// Output: whoever wakes when it should finds the promise unbroken, whatever comes between; what is closely spaced costs
    /// no waking of its own.
    #[test]
    fn a_promise_lasts_until_it_is_renewed() {
        let apart = Profile {
            interval: Duration::from_secs(10),
            ..Profile::DEFAULT
        };
        for (profile, more) in [
            (Profile::FAST, 0),
            (Profile::DEFAULT, 0),
            (Profile::QUIET, 1),
            (apart, 1),
        ] {
            let lease = LEASE.min(profile.patience);
            let begin = Instant::now();
            let deadline = begin + profile.interval * 11 / 10;
            let answer_due = begin + profile.timeout;
            let (mut now, mut wakes) = (begin, 0);
            while now < deadline {
                let owed = Some(answer_due)
                    .filter(|due| *due > now)
                    .unwrap_or(deadline);
                let (until, wake) = promise(Some(deadline), Some(owed), profile.patience, now);
                let (until, wake) = (until.unwrap(), wake.unwrap());
                assert!(until >= wake + lease / 2, "{profile:?}");
                now = wake;
                wakes += 1;
            }
            assert_eq!(wakes, 1 + more, "{profile:?}");
        }
        let now = Instant::now();
        assert_eq!(promise(None, None, LEASE, now), (None, None));
    }
}
