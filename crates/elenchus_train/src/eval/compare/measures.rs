//! What needs no judge: lengths, variety, and how far two voices are apart.

use serde::{Deserialize, Serialize};

use crate::text_stats::distinct;

/// Words in a row that are counted: one, two and three.
pub(super) const DISTINCT: usize = 3;

/// Where word counts lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lengths {
    /// A twentieth is no longer.
    pub p5: usize,
    /// A quarter is no longer.
    pub p25: usize,
    /// Half is no longer.
    pub median: usize,
    /// Three quarters are no longer.
    pub p75: usize,
    /// Nineteen twentieths are no longer.
    pub p95: usize,
}

impl Lengths {
    /// Of some counts (nearest rank); all 0 without any.
    pub fn of(counts: impl IntoIterator<Item = usize>) -> Self {
        let mut sorted: Vec<usize> = counts.into_iter().collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { p5: at(5), p25: at(25), median: at(50), p75: at(75), p95: at(95) }
    }
}

/// How many replies have so many words.
pub(super) struct Histogram {
    counts: Vec<usize>,
    total: usize,
}

impl Histogram {
    pub(super) fn of(words: impl IntoIterator<Item = usize>) -> Self {
        let (mut counts, mut total) = (Vec::new(), 0);
        for words in words {
            if words >= counts.len() {
                counts.resize(words + 1, 0);
            }
            counts[words] += 1;
            total += 1;
        }
        Self { counts, total }
    }

    /// The area between two cumulative distributions: how many words replies must be moved, in the mean, to have the
    /// other's lengths. NaN where one of them is of nothing.
    pub(super) fn distance(&self, other: &Self) -> f64 {
        let (mut ours, mut theirs, mut area) = (0, 0, 0.0);
        for at in 0..self.counts.len().max(other.counts.len()) {
            ours += self.counts.get(at).unwrap_or(&0);
            theirs += other.counts.get(at).unwrap_or(&0);
            area += (ours as f64 / self.total as f64 - theirs as f64 / other.total as f64).abs();
        }
        area
    }
}

#[cfg(test)]
/// Wasserstein-1 distance of two sets of counts; NaN where one is empty.
fn wasserstein(one: &[usize], other: &[usize]) -> f64 {
    let of = |counts: &[usize]| Histogram::of(counts.iter().copied());
    if one.is_empty() || other.is_empty() { f64::NAN } else { of(one).distance(&of(other)) }
}

/// Shares of distinct words, pairs and threes.
pub(super) fn distincts(replies: &[&str]) -> [f64; DISTINCT] {
    std::array::from_fn(|at| distinct(at + 1, replies.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // scipy.stats.wasserstein_distance([1, 3, 3], [2, 5]); ([0, 1, 3], [5, 6, 8]); ([4], [4])
    #[test]
    fn distance_of_lengths() {
        let check = |one: &[usize], other: &[usize], expected: f64| {
            assert!((wasserstein(one, other) - expected).abs() < 1e-12, "{one:?} {other:?}");
            assert!((wasserstein(other, one) - expected).abs() < 1e-12, "{other:?} {one:?}");
        };
        check(&[1, 3, 3], &[2, 5], 1.5);
        check(&[0, 1, 3], &[5, 6, 8], 5.0);
        check(&[4], &[4], 0.0);
        check(&[2, 2], &[2], 0.0);
        assert!(wasserstein(&[], &[1]).is_nan());
    }

    #[test]
    fn lengths_are_those_of_some_reply() {
        let lengths = Lengths::of((1..=100).rev());
        assert_eq!(lengths, Lengths { p5: 5, p25: 25, median: 50, p75: 75, p95: 95 });
        assert_eq!(Lengths::of([7]).p95, 7);
        assert_eq!(Lengths::of([]).median, 0);
    }
}
