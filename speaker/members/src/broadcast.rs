//! News on its way to everyone: each piece is put into packets a limited number of times, the freshest first, and news of
//! a node replaces what was said of it before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// Told so often already, then the youngest first.
type Place = (u32, Reverse<u64>);

/// The queue of news. It holds one piece for each node at most.
#[derive(Debug, Default)]
pub(crate) struct Broadcasts {
    queue: BTreeMap<Place, (String, Vec<u8>)>,
    places: HashMap<String, Place>,
    count: u64,
}

impl Broadcasts {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether news of `node` is still on its way.
    pub(crate) fn holds(&self, node: &str) -> bool {
        self.places.contains_key(node)
    }

    /// News of `node` to tell.
    pub(crate) fn push(&mut self, node: &str, message: Vec<u8>) {
        if let Some(old) = self.places.remove(node) {
            self.queue.remove(&old);
        }
        self.count += 1;
        let place = (0, Reverse(self.count));
        self.places.insert(node.to_owned(), place);
        self.queue.insert(place, (node.to_owned(), message));
    }

    /// As much news as fits `room` bytes, each piece costing `overhead` more, at most `parts` pieces. What has been told
    /// `limit` times is forgotten.
    pub(crate) fn take(
        &mut self,
        room: usize,
        overhead: usize,
        parts: usize,
        limit: u32,
    ) -> Vec<Vec<u8>> {
        let mut left = room;
        let mut chosen = Vec::new();
        for (place, (_, message)) in &self.queue {
            if chosen.len() == parts {
                break;
            }
            if let Some(rest) = left.checked_sub(message.len() + overhead) {
                left = rest;
                chosen.push(*place);
            }
        }
        let mut told = Vec::with_capacity(chosen.len());
        for place in chosen {
            let Some((node, message)) = self.queue.remove(&place) else {
                continue;
            };
            told.push(message.clone());
            let (times, age) = place;
            if times + 1 >= limit {
                self.places.remove(&node);
            } else {
                let place = (times + 1, age);
                self.places.insert(node.clone(), place);
                self.queue.insert(place, (node, message));
            }
        }
        told
    }
}

/// How often a piece of news is told among `nodes`.
pub(crate) fn retransmit_limit(mult: u32, nodes: usize) -> u32 {
    // The number of decimal digits of n is the least k with 10^k > n, which is ⌈log10(n + 1)⌉.
    let digits = (1..20)
        .find(|k| nodes < 10_usize.saturating_pow(*k))
        .unwrap_or(20);
    mult.saturating_mul(if nodes == 0 { 0 } else { digits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_news_goes_first_and_each_piece_a_limited_number_of_times() {
        let mut news = Broadcasts::default();
        news.push("a", vec![1; 10]);
        news.push("b", vec![2; 10]);
        assert_eq!(news.take(12, 2, 9, 3), [vec![2; 10]], "the youngest");
        assert_eq!(
            news.take(12, 2, 9, 3),
            [vec![1; 10]],
            "the one told less often"
        );
        assert_eq!(news.take(24, 2, 9, 3), [vec![2; 10], vec![1; 10]]);
        assert_eq!(news.take(24, 2, 1, 3), [vec![2; 10]]);
        assert!(!news.holds("b") && news.holds("a"));
        assert_eq!(news.take(24, 2, 9, 3), [vec![1; 10]]);
        assert!(news.is_empty() && !news.holds("a"));
    }

    #[test]
    fn newer_news_of_a_node_replaces_older() {
        let mut news = Broadcasts::default();
        news.push("a", vec![1; 10]);
        news.take(100, 2, 9, 3);
        news.push("a", vec![2; 4]);
        assert_eq!(news.take(100, 2, 9, 1), [vec![2; 4]]);
        assert!(news.is_empty());
    }

    #[test]
    fn what_does_not_fit_waits() {
        let mut news = Broadcasts::default();
        news.push("small", vec![1; 4]);
        news.push("large", vec![2; 40]);
        assert_eq!(news.take(20, 2, 9, 2), [vec![1; 4]]);
        assert!(news.holds("large"));
        assert!(news.take(0, 2, 9, 2).is_empty());
    }

    #[test]
    fn limits_grow_with_the_logarithm_of_the_nodes() {
        let limits: Vec<u32> = [0, 1, 9, 10, 99, 100, 1000]
            .map(|n| retransmit_limit(4, n))
            .to_vec();
        assert_eq!(limits, [0, 4, 4, 8, 8, 12, 16]);
    }
}
