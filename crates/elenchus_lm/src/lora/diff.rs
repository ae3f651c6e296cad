//! The distance between two voices. Only the update `scaling * B A` counts, since many pairs A, B give the same one.
//!
//! No update is ever formed: `<B A, B' A'> = sum((B^T B') o (A A'^T))`, two small products of rank by rank.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::Sum,
};

use super::{LoraAdapter, LoraPair, matrix::module_name};
use crate::{Error, Linear, Result};

/// Two adapters compared.
#[derive(Debug, Clone)]
pub struct LoraDiff {
    /// Every linear that at least one of them adapts; the other's update there is zero.
    pub overlaps: BTreeMap<(usize, Linear), Overlap>,
    /// Adapted by the first alone.
    pub only_first: BTreeSet<(usize, Linear)>,
    /// Adapted by the second alone.
    pub only_second: BTreeSet<(usize, Linear)>,
}

/// Inner products (Frobenius) of two updates; those of several linears add up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Overlap {
    /// Of the first with itself: its squared norm.
    pub first: f64,
    /// Of the second with itself.
    pub second: f64,
    /// Of the two.
    pub both: f64,
}

impl LoraDiff {
    /// Fails if the two adapt linears of different shapes.
    pub fn between(first: &LoraAdapter, second: &LoraAdapter) -> Result<Self> {
        let only = |one: &LoraAdapter, other: &LoraAdapter| {
            one.places().keys().filter(|&key| !other.places().contains_key(key)).copied().collect()
        };
        let keys: BTreeSet<(usize, Linear)> = first.places().keys().chain(second.places().keys()).copied().collect();
        let mut overlaps = BTreeMap::new();
        for key in keys {
            let (a, b) = (first.pair(key), second.pair(key));
            if let (Some(a), Some(b)) = (&a, &b)
                && a.shape() != b.shape()
            {
                let module = module_name(key.0, key.1);
                let reason = format!("`{module}` is {:?} there, but {:?} in {}", b.shape(), a.shape(), first.name);
                return Err(Error::adapter(&second.name, format!("{reason} (hint: trained on another base model?)")));
            }
            let product = |a: &Option<LoraPair>, b: &Option<LoraPair>| {
                a.as_ref().zip(b.as_ref()).map_or(0.0, |(a, b)| inner(a, b))
            };
            overlaps.insert(key, Overlap { first: product(&a, &a), second: product(&b, &b), both: product(&a, &b) });
        }
        Ok(Self { overlaps, only_first: only(first, second), only_second: only(second, first) })
    }

    /// All linears together.
    pub fn total(&self) -> Overlap {
        self.overlaps.values().copied().sum()
    }
}

impl Overlap {
    /// Norm of the first update minus the second. Rounding leaves it uncertain by some 1e-8 of their norms; equal
    /// updates written as the same A and B give 0.
    pub fn norm_of_difference(&self) -> f64 {
        (self.first + self.second - 2.0 * self.both).max(0.0).sqrt()
    }

    /// Norm of the difference over that of the second update; `None` where that is zero.
    pub fn relative(&self) -> Option<f64> {
        (self.second > 0.0).then(|| self.norm_of_difference() / self.second.sqrt())
    }

    /// 1 for the same direction, 0 for unrelated ones; `None` where an update is zero.
    pub fn cosine(&self) -> Option<f64> {
        (self.first > 0.0 && self.second > 0.0).then(|| self.both / (self.first.sqrt() * self.second.sqrt()))
    }
}

impl Sum for Overlap {
    fn sum<I: Iterator<Item = Self>>(overlaps: I) -> Self {
        overlaps.fold(Self::default(), |sum, next| Self {
            first: sum.first + next.first,
            second: sum.second + next.second,
            both: sum.both + next.both,
        })
    }
}

/// Frobenius inner product of two updates of one shape, in f64.
fn inner(x: &LoraPair, y: &LoraPair) -> f64 {
    let (_, columns) = x.shape();
    // (rank of x, rank of y), row-major.
    let mut by_a = vec![0f64; x.rank * y.rank];
    for (sum, at) in by_a.iter_mut().zip(0..) {
        let (x_row, y_row) = (&x.a[at / y.rank * columns..][..columns], &y.a[at % y.rank * columns..][..columns]);
        *sum = x_row.iter().zip(y_row).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
    }
    let mut by_b = vec![0f64; x.rank * y.rank];
    for (x_row, y_row) in x.b.chunks_exact(x.rank).zip(y.b.chunks_exact(y.rank)) {
        for (sums, &x) in by_b.chunks_exact_mut(y.rank).zip(x_row) {
            sums.iter_mut().zip(y_row).for_each(|(sum, &y)| *sum += f64::from(x) * f64::from(y));
        }
    }
    let sum: f64 = by_a.iter().zip(&by_b).map(|(a, b)| a * b).sum();
    f64::from(x.scaling) * f64::from(y.scaling) * sum
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::*;

    fn random(seed: u64, rank: usize, scaling: f32) -> LoraPair {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut values = |count: usize| (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
        LoraPair { a: values(rank * 7), b: values(9 * rank), rank, scaling }
    }

    fn dense(pair: &LoraPair) -> Vec<f64> {
        let LoraPair { a, b, rank, scaling } = pair;
        let product = |row: usize, column: usize, r: usize| f64::from(b[row * rank + r]) * f64::from(a[r * 7 + column]);
        let entry = |at: usize| (0..*rank).map(|r| product(at / 7, at % 7, r)).sum::<f64>();
        (0..63).map(|at| f64::from(*scaling) * entry(at)).collect()
    }

    fn adapter(name: &str, pairs: &[((usize, Linear), LoraPair)]) -> LoraAdapter {
        LoraAdapter::from_pairs(name, pairs.iter().cloned().collect())
    }

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12 * expected.abs().max(1.0), "{found} is not {expected}");
    }

    #[test]
    fn distances_are_those_of_the_dense_updates() {
        for (rank, other_rank) in [(1, 1), (3, 2), (2, 5)] {
            let (x, y) = (random(1, rank, 2.0), random(2, other_rank, 0.3));
            let diff = LoraDiff::between(
                &adapter("x", &[((0, Linear::Q), x.clone())]),
                &adapter("y", &[((0, Linear::Q), y.clone())]),
            )
            .unwrap();
            let (x, y) = (dense(&x), dense(&y));
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            let difference: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
            let total = diff.total();
            close(total.norm_of_difference(), dot(&difference, &difference).sqrt());
            close(total.relative().unwrap(), (dot(&difference, &difference) / dot(&y, &y)).sqrt());
            close(total.cosine().unwrap(), dot(&x, &y) / (dot(&x, &x) * dot(&y, &y)).sqrt());
        }
    }

    #[test]
    fn equal_opposite_and_missing_updates() {
        let (q, v) = (random(1, 3, 2.0), random(2, 2, 1.0));
        let both = adapter("both", &[((0, Linear::Q), q.clone()), ((1, Linear::V), v.clone())]);
        let same = LoraDiff::between(&both, &both).unwrap().total();
        assert_eq!((same.norm_of_difference(), same.relative()), (0.0, Some(0.0)));
        close(same.cosine().unwrap(), 1.0);

        let opposite = adapter("opposite", &[((0, Linear::Q), LoraPair { scaling: -2.0, ..q.clone() })]);
        let one = adapter("one", &[((0, Linear::Q), q)]);
        let turned = LoraDiff::between(&one, &opposite).unwrap().total();
        close(turned.relative().unwrap(), 2.0);
        close(turned.cosine().unwrap(), -1.0);

        let diff = LoraDiff::between(&both, &one).unwrap();
        assert_eq!(diff.only_first, BTreeSet::from([(1, Linear::V)]));
        assert!(diff.only_second.is_empty());
        let missing = diff.overlaps[&(1, Linear::V)];
        assert_eq!((missing.relative(), missing.cosine()), (None, None));
        close(diff.total().norm_of_difference().powi(2), dense(&v).iter().map(|x| x * x).sum());
        assert_eq!(LoraDiff::between(&one, &both).unwrap().only_second, diff.only_first);
    }

    #[test]
    fn another_shape_is_refused_with_both_names() {
        let narrow = LoraPair { a: vec![1.0; 7], b: vec![1.0; 8], rank: 1, scaling: 1.0 };
        let [x, y] =
            [("x", random(1, 3, 1.0)), ("y", narrow)].map(|(name, pair)| adapter(name, &[((0, Linear::Q), pair)]));
        let error = LoraDiff::between(&x, &y).unwrap_err().to_string();
        assert!(error.contains("adapter y: `layers.0.self_attn.q_proj` is (8, 7) there, but (9, 7) in x"), "{error}");
    }
}
