//! How an adapter is stored: in the order in which the CPU engine reads it, so that the engine needs no copy.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use half::f16;

use super::{LoraPair, Pairs};
use crate::Linear;

/// Ranks, and B's rows, are stored in groups of this size.
pub(crate) const TILE: usize = 16;

/// A's columns are padded to a multiple of this.
const BLOCK: usize = 32;

/// Linears that read the same input: their first halves run together, then their second ones.
const STEPS: [&[Linear]; 4] =
    [&[Linear::Q, Linear::K, Linear::V], &[Linear::O], &[Linear::Gate, Linear::Up], &[Linear::Down]];

/// An adapter's numbers, the pairs of one step side by side.
#[derive(Debug)]
pub(super) struct PackedPairs {
    places: BTreeMap<(usize, Linear), PairPlace>,
    numbers: Numbers,
}

/// f16 where that loses nothing, as for shipped adapters.
#[derive(Debug)]
enum Numbers {
    F16(Vec<u16>),
    F32(Vec<f32>),
}

/// A pair's shape and place.
#[derive(Debug, Clone)]
pub(crate) struct PairPlace {
    /// `(out_features, in_features)` of the linear.
    pub shape: (usize, usize),
    pub rank: usize,
    pub scaling: f32,
    /// `(in_features padded to blocks, rank padded to tiles)`.
    a: Range<usize>,
    /// `(tiles of out_features, rank, 16)`.
    b: Range<usize>,
}

impl PackedPairs {
    pub fn new(pairs: &Pairs) -> Self {
        let mut places = BTreeMap::new();
        let mut numbers = Vec::new();
        let layers: BTreeSet<usize> = pairs.keys().map(|&(layer, _)| layer).collect();
        for (layer, step) in layers.into_iter().flat_map(|layer| STEPS.map(|step| (layer, step))) {
            let adapted = step.iter().filter_map(|&linear| Some(((layer, linear), pairs.get(&(layer, linear))?)));
            for (key, pair) in adapted.clone() {
                let a = push(&mut numbers, pack_a(pair));
                let place = PairPlace { shape: pair.shape(), rank: pair.rank, scaling: pair.scaling, a, b: 0..0 };
                places.insert(key, place);
            }
            for (key, pair) in adapted {
                let b = push(&mut numbers, pack_b(pair));
                if let Some(place) = places.get_mut(&key) {
                    place.b = b;
                }
            }
        }
        let exact = numbers.iter().all(|&number| f16::from_f32(number).to_f32().to_bits() == number.to_bits());
        let numbers = if exact { Numbers::F16(narrow(&numbers)) } else { Numbers::F32(numbers) };
        Self { places, numbers }
    }

    pub fn places(&self) -> &BTreeMap<(usize, Linear), PairPlace> {
        &self.places
    }

    /// A and B of a pair as the engine reads them; `None` if they are stored wider.
    pub fn halves(&self, place: &PairPlace) -> Option<(&[u16], &[u16])> {
        match &self.numbers {
            Numbers::F16(numbers) => Some((&numbers[place.a.clone()], &numbers[place.b.clone()])),
            Numbers::F32(_) => None,
        }
    }

    /// The same rounded to f16; `None` if it is f16 already, an error with the value that f16 cannot hold.
    pub fn narrowed(&self) -> Result<Option<Self>, f32> {
        let Numbers::F32(numbers) = &self.numbers else { return Ok(None) };
        match numbers.iter().find(|number| !f16::from_f32(**number).is_finite()) {
            Some(&value) => Err(value),
            None => Ok(Some(Self { places: self.places.clone(), numbers: Numbers::F16(narrow(numbers)) })),
        }
    }

    /// A pair as it was passed in.
    pub fn pair(&self, place: &PairPlace) -> LoraPair {
        let PairPlace { shape: (out_features, in_features), rank, scaling, .. } = *place;
        let number = |at: usize| match &self.numbers {
            Numbers::F16(numbers) => f16::from_bits(numbers[at]).to_f32(),
            Numbers::F32(numbers) => numbers[at],
        };
        let padded = rank.next_multiple_of(TILE);
        let a = |at: usize| number(place.a.start + at % in_features * padded + at / in_features);
        let b = |at: usize| {
            let (row, r) = (at / rank, at % rank);
            number(place.b.start + (row / TILE * rank + r) * TILE + row % TILE)
        };
        let (a, b) = ((0..rank * in_features).map(a).collect(), (0..out_features * rank).map(b).collect());
        LoraPair { a, b, rank, scaling }
    }
}

fn push(numbers: &mut Vec<f32>, more: Vec<f32>) -> Range<usize> {
    let start = numbers.len();
    numbers.extend(more);
    start..numbers.len()
}

fn narrow(numbers: &[f32]) -> Vec<u16> {
    numbers.iter().map(|&number| f16::from_f32(number).to_bits()).collect()
}

fn pack_a(pair: &LoraPair) -> Vec<f32> {
    let (_, in_features) = pair.shape();
    let padded = pair.rank.next_multiple_of(TILE);
    let mut a = vec![0.0; in_features.next_multiple_of(BLOCK) * padded];
    for (r, row) in pair.a.chunks_exact(in_features).enumerate() {
        for (k, &value) in row.iter().enumerate() {
            a[k * padded + r] = value;
        }
    }
    a
}

fn pack_b(pair: &LoraPair) -> Vec<f32> {
    let (out_features, _) = pair.shape();
    let mut b = vec![0.0; out_features.next_multiple_of(TILE) * pair.rank];
    for (row, of_row) in pair.b.chunks_exact(pair.rank).enumerate() {
        for (r, &value) in of_row.iter().enumerate() {
            b[(row / TILE * pair.rank + r) * TILE + row % TILE] = value;
        }
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_comes_back_to_the_bit() {
        for (rank, in_features, out_features) in [(1, 3, 5), (16, 32, 48), (17, 33, 40)] {
            for step in [1.0 / 8.0, 1.0 / 3.0] {
                let values = |count: usize| (0..count).map(|at| (at % 50) as f32 * step - 3.0).collect::<Vec<_>>();
                let (a, b) = (values(rank * in_features), values(out_features * rank));
                let pair = LoraPair { a, b, rank, scaling: 2.0 };
                let pairs = Pairs::from([((2, Linear::V), pair.clone()), ((0, Linear::Down), pair)]);
                let packed = PackedPairs::new(&pairs);
                let back: Pairs = packed.places().iter().map(|(&key, place)| (key, packed.pair(place))).collect();
                assert_eq!(back, pairs);
                let place = &packed.places()[&(2, Linear::V)];
                assert_eq!(packed.halves(place).is_some(), step == 1.0 / 8.0, "thirds do not fit f16");
                assert_eq!(packed.narrowed().unwrap().is_none(), step == 1.0 / 8.0);
            }
        }
    }

    #[test]
    fn f16_is_for_what_it_holds_exactly() {
        let with = |value: f32| {
            PackedPairs::new(&Pairs::from([(
                (0, Linear::Q),
                LoraPair { a: vec![value], b: vec![1.0], rank: 1, scaling: 1.0 },
            )]))
        };
        for exact in [0.0, -0.0, 2f32.powi(-24), 65504.0] {
            assert!(with(exact).narrowed().unwrap().is_none(), "{exact:e}");
        }
        for rounded in [2f32.powi(-26), 65503.0, 0.1] {
            assert!(with(rounded).narrowed().unwrap().is_some(), "{rounded:e}");
        }
        assert_eq!(with(70_000.0).narrowed().unwrap_err(), 70_000.0);
    }
}
