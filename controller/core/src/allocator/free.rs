//! Which numbers are taken, and the lowest that is not.
//!
//! Taken numbers are kept as runs: maximal stretches without a gap. The lowest free number is then 0, or the one after
//! the run that starts at 0, whatever the size of the space; taking and freeing a number touches its two neighbours.

use std::collections::BTreeMap;

/// A set of numbers, kept as runs.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// First number of each run, to its last. No two runs touch.
    runs: BTreeMap<u128, u128>,
}

impl Runs {
    /// Takes a number; taking a taken one changes nothing.
    pub(super) fn insert(&mut self, number: u128) {
        let mut run = (number, number);
        if let Some((&first, &last)) = self.runs.range(..=number).next_back() {
            if last >= number {
                return;
            }
            if last + 1 == number {
                run.0 = first;
            }
        }
        if let Some(next) = number.checked_add(1)
            && let Some(last) = self.runs.remove(&next)
        {
            run.1 = last;
        }
        self.runs.insert(run.0, run.1);
    }

    /// Frees a number; freeing a free one changes nothing.
    pub(super) fn remove(&mut self, number: u128) {
        let Some((&first, &last)) = self.runs.range(..=number).next_back() else {
            return;
        };
        if last < number {
            return;
        }
        if first == number {
            self.runs.remove(&first);
        } else {
            self.runs.insert(first, number - 1);
        }
        if last > number {
            self.runs.insert(number + 1, last);
        }
    }

    /// The lowest number that is not taken and not above `most`.
    pub(super) fn lowest_free(&self, most: u128) -> Option<u128> {
        match self.runs.first_key_value() {
            Some((0, &last)) => last.checked_add(1).filter(|next| *next <= most),
            _ => Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set(steps in prop::collection::vec((any::<bool>(), 0..12_u128), 0..200), most in 0..12_u128) {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for (take, number) in steps {
                if take {
                    runs.insert(number);
                    set.insert(number);
                } else {
                    runs.remove(number);
                    set.remove(&number);
                }
                prop_assert_eq!(runs.lowest_free(most), (0..=most).find(|number| !set.contains(number)));
                let listed: Vec<u128> = runs.runs.iter().flat_map(|(first, last)| *first..=*last).collect();
                prop_assert_eq!(listed, set.iter().copied().collect::<Vec<_>>());
                let touching = runs.runs.values().any(|last| runs.runs.contains_key(&(last + 1)));
                prop_assert!(!touching);
            }
        }
    }

    #[test]
    fn works_at_the_end_of_the_numbers() {
        let mut runs = Runs::default();
        runs.insert(u128::MAX);
        runs.insert(u128::MAX - 1);
        assert_eq!(runs.lowest_free(u128::MAX), Some(0));
        runs.remove(u128::MAX);
        assert_eq!(
            runs.runs.into_iter().collect::<Vec<_>>(),
            [(u128::MAX - 1, u128::MAX - 1)]
        );
        let full = Runs {
            runs: BTreeMap::from([(0, u128::MAX)]),
        };
        assert_eq!(full.lowest_free(u128::MAX), None);
    }
}
