//! Chance for the machine, from a seed: which node next, how long to wait. Nothing secret hangs on it; nonces come from
//! elsewhere.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    /// Some share of `whole`.
    pub(crate) fn share(&mut self, whole: std::time::Duration) -> std::time::Duration {
        let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX).max(1);
        std::time::Duration::from_nanos(self.next() % nanos)
    }

    /// Puts `count` random ones of `all` (or all, if fewer) at its front, and drops the rest.
    pub(crate) fn choose<T>(&mut self, all: &mut Vec<T>, count: usize) {
        for place in 0..count.min(all.len()) {
            let other = place + self.below(all.len() - place);
            all.swap(place, other);
        }
        all.truncate(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_one_is_chosen_sometimes_and_none_twice() {
        let mut dice = Dice::new(1);
        let mut seen = [0; 10];
        for _ in 0..1000 {
            let mut all: Vec<usize> = (0..10).collect();
            dice.choose(&mut all, 3);
            assert_eq!(all.len(), 3);
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), 3);
            for n in all {
                seen[n] += 1;
            }
        }
        assert!(
            seen.iter().all(|count| (200..400).contains(count)),
            "{seen:?}"
        );
        let mut few = vec![1];
        dice.choose(&mut few, 3);
        assert_eq!(few, [1]);
    }
}
