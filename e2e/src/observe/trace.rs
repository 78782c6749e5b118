//! What a client saw over time: when it asked, and when it was answered by whom, in the order of the wire.
//!
//! Times are those of one clock, since the epoch: the moment before a question was handed to the kernel, and the moment at
//! which the kernel took an answer off the wire.

use std::{ops::Range, time::Duration};

/// A hardware address.
pub type Mac = [u8; 6];

/// Two changes of answerer that are closer together belong to one hand-over, or to one quarrel.
const ONE_AFFAIR: Duration = Duration::from_secs(1);

/// The questions and answers of one address.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// When it was asked, in order.
    pub asked: Vec<Duration>,
    /// The answers in the order of the wire.
    pub answers: Vec<Answer>,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it came.
    pub at: Duration,
    /// The hardware address in it.
    pub from: Mac,
}

/// A change of who answers, from the first answer of the new one to the last of the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The first answer of another than before.
    pub at: Duration,
    /// Who answered before.
    pub from: Mac,
    /// Who answers at the end.
    pub to: Mac,
    /// How often the answerer changed: 1 if all went well.
    pub changes: usize,
    /// From the first change to the last: for so long two answered.
    pub overlap: Duration,
}

impl Trace {
    /// The longest time any question asked in `window` waited for an answer, be it to that question or to a later one.
    /// What is unanswered at the end of the window has waited until then. Unlike the time between answers, this does not
    /// grow when the one who asks is held up.
    pub fn longest_wait(&self, window: &Range<Duration>) -> Duration {
        let answers: Vec<_> = self.answers.iter().map(|answer| answer.at).collect();
        longest_wait(&self.asked, &answers, window)
    }

    /// The first answer after `moment`.
    pub fn first_after(&self, moment: Duration) -> Option<Answer> {
        let next = self.answers.partition_point(|answer| answer.at <= moment);
        self.answers.get(next).copied()
    }

    /// The last answer so far.
    pub fn last(&self) -> Option<Answer> {
        self.answers.last().copied()
    }

    /// Every change of who answers in `window`, those closer than a second together as one.
    pub fn handovers(&self, window: &Range<Duration>) -> Vec<Handover> {
        let mut found: Vec<Handover> = Vec::new();
        for (before, after) in self.answers.iter().zip(self.answers.iter().skip(1)) {
            if before.from == after.from || !window.contains(&after.at) {
                continue;
            }
            match found.last_mut() {
                Some(last) if after.at.saturating_sub(last.at + last.overlap) < ONE_AFFAIR => {
                    last.changes += 1;
                    last.overlap = after.at.saturating_sub(last.at);
                    last.to = after.from;
                }
                _ => found.push(Handover {
                    at: after.at,
                    from: before.from,
                    to: after.from,
                    changes: 1,
                    overlap: Duration::ZERO,
                }),
            }
        }
        found
    }

    /// The answerers in turn, each named once per turn.
    pub fn turns(&self) -> Vec<Mac> {
        let mut turns: Vec<_> = self.answers.iter().map(|answer| answer.from).collect();
        turns.dedup();
        turns
    }
}

/// See [`Trace::longest_wait`]; both lists are in order.
pub fn longest_wait(
    asked: &[Duration],
    answered: &[Duration],
    window: &Range<Duration>,
) -> Duration {
    asked
        .iter()
        .filter(|asked| window.contains(asked))
        .map(|&asked| {
            let next = answered.partition_point(|&at| at < asked);
            let answered = answered.get(next).copied().unwrap_or(window.end);
            answered.min(window.end.max(asked)).saturating_sub(asked)
        })
        .max()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [1; 6];
    const B: Mac = [2; 6];

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn trace(answers: &[(u64, Mac)]) -> Trace {
        let answers = answers
            .iter()
            .map(|&(at, from)| Answer { at: ms(at), from });
        Trace {
            asked: (0..20).map(|tick| ms(tick * 100)).collect(),
            answers: answers.collect(),
        }
    }

    #[test]
    fn a_question_waits_for_the_next_answer_or_the_end() {
        let trace = trace(&[(1, A), (101, A), (901, B), (1001, B)]);
        assert_eq!(trace.longest_wait(&(ms(0)..ms(1001))), ms(701));
        assert_eq!(trace.longest_wait(&(ms(0)..ms(150))), ms(1));
        assert_eq!(trace.longest_wait(&(ms(0)..ms(700))), ms(500));
    }

    #[test]
    fn a_stall_of_the_one_who_asks_is_no_wait() {
        let asked = [ms(0), ms(500)];
        let wait = longest_wait(&asked, &[ms(1), ms(502)], &(ms(0)..ms(1000)));
        assert_eq!(wait, ms(2));
    }

    #[test]
    fn one_change_is_a_clean_handover() {
        let trace = trace(&[(1, A), (100, A), (200, B), (300, B)]);
        let handovers = trace.handovers(&(ms(0)..ms(1000)));
        assert_eq!(
            handovers,
            [Handover {
                at: ms(200),
                from: A,
                to: B,
                changes: 1,
                overlap: Duration::ZERO,
            }]
        );
    }

    #[test]
    fn a_quarrel_is_one_affair_with_an_overlap() {
        let trace = trace(&[(1, A), (200, B), (201, A), (300, B), (1400, B), (1500, A)]);
        let handovers = trace.handovers(&(ms(0)..ms(2000)));
        let told: Vec<_> = handovers
            .iter()
            .map(|handover| (handover.changes, handover.overlap, handover.to))
            .collect();
        assert_eq!(told, [(3, ms(100), B), (1, Duration::ZERO, A)]);
        assert_eq!(trace.turns(), [A, B, A, B, A]);
    }

    #[test]
    fn the_answer_after_a_moment_is_later_than_it() {
        let trace = trace(&[(1, A), (100, A), (200, B)]);
        assert_eq!(
            trace.first_after(ms(100)).map(|answer| answer.from),
            Some(B)
        );
        assert!(trace.first_after(ms(200)).is_none());
    }
}
