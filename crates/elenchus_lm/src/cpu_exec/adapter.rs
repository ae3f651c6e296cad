//! Adapters as the kernels read them: f16, ranks side by side in A, a tile's columns side by side in B.

use std::ops::Range;

use half::f16;

use super::{kernels::LANES, packed::rotary_order};
use crate::{Adapter, Error, Linear, LoraPair, ModelConfig, Result};

/// An adapter's pairs by layer and linear.
#[derive(Debug)]
pub(super) struct PackedAdapter {
    /// All halves in the order a pass reads them, so that what comes next lies next.
    data: Vec<u16>,
    layers: Vec<[Option<Place>; 7]>,
    most_rank: usize,
}

/// Where a pair lies.
#[derive(Debug)]
struct Place {
    a: Range<usize>,
    b: Range<usize>,
    rank: usize,
    scale: f32,
}

/// One linear's update.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedPair<'a> {
    /// `(in_features padded to blocks, rank padded to 16)`.
    pub a: &'a [u16],
    /// `(tiles, rank, 16)`.
    b: &'a [u16],
    rank: usize,
    pub scale: f32,
}

/// Linears that read the same input: their first halves are met together, then their second ones.
const STEPS: [&[Linear]; 4] =
    [&[Linear::Q, Linear::K, Linear::V], &[Linear::O], &[Linear::Gate, Linear::Up], &[Linear::Down]];

impl PackedAdapter {
    /// Packs an adapter that fits.
    pub fn new(adapter: &Adapter, config: &ModelConfig) -> Result<Self> {
        let pairs = adapter.lora.pairs();
        let mut packed = Self { data: Vec::new(), layers: Vec::new(), most_rank: 0 };
        for layer in 0..config.num_layers {
            let mut places: [Option<Place>; 7] = Default::default();
            for step in STEPS {
                let adapted = step.iter().filter_map(|&linear| Some((linear, pairs.get(&(layer, linear))?)));
                for (linear, pair) in adapted.clone() {
                    let a = packed.push(pack_a(pair)).map_err(|value| misfit(adapter, layer, linear, value))?;
                    let scale = pair.scaling * adapter.scale;
                    places[linear as usize] = Some(Place { a, b: 0..0, rank: pair.rank, scale });
                    packed.most_rank = packed.most_rank.max(pair.rank.next_multiple_of(LANES));
                }
                for (linear, pair) in adapted {
                    let b = pack_b(pair, rotary_order(config, linear));
                    let b = packed.push(b).map_err(|value| misfit(adapter, layer, linear, value))?;
                    if let Some(place) = &mut places[linear as usize] {
                        place.b = b;
                    }
                }
            }
            packed.layers.push(places);
        }
        Ok(packed)
    }

    fn push(&mut self, values: Vec<f32>) -> Result<Range<usize>, f32> {
        let start = self.data.len();
        for value in values {
            let narrow = f16::from_f32(value);
            if !narrow.is_finite() {
                return Err(value);
            }
            self.data.push(narrow.to_bits());
        }
        Ok(start..self.data.len())
    }

    /// The update of one linear, where it has one.
    pub fn pair(&self, layer: usize, linear: Linear) -> Option<PackedPair<'_>> {
        let Place { a, b, rank, scale } = self.layers[layer][linear as usize].as_ref()?;
        Some(PackedPair { a: &self.data[a.clone()], b: &self.data[b.clone()], rank: *rank, scale: *scale })
    }

    /// The largest padded rank.
    pub fn most_rank(&self) -> usize {
        self.most_rank
    }
}

impl<'a> PackedPair<'a> {
    /// The second half of a tile, `(rank, 16)`.
    pub fn tile(&self, tile: usize) -> &'a [u16] {
        &self.b[tile * self.rank * LANES..(tile + 1) * self.rank * LANES]
    }
}

fn misfit(adapter: &Adapter, layer: usize, linear: Linear, value: f32) -> Error {
    Error::adapter(adapter.lora.name(), format!("layer {layer} `{linear}`: the value {value} does not fit f16"))
}

fn pack_a(pair: &LoraPair) -> Vec<f32> {
    let (_, in_features) = pair.shape();
    let rank_padded = pair.rank.next_multiple_of(LANES);
    let mut a = vec![0.0; in_features.next_multiple_of(32) * rank_padded];
    for (r, row) in pair.a.chunks_exact(in_features).enumerate() {
        for (k, &value) in row.iter().enumerate() {
            a[k * rank_padded + r] = value;
        }
    }
    a
}

/// `order` names for each row of the packed matrix the one it is in the adapter.
fn pack_b(pair: &LoraPair, order: Option<Vec<usize>>) -> Vec<f32> {
    let (out_features, _) = pair.shape();
    let mut b = vec![0.0; out_features.div_ceil(LANES) * pair.rank * LANES];
    for row in 0..out_features {
        let from = order.as_ref().map_or(row, |order| order[row]) * pair.rank;
        for (r, &value) in pair.b[from..from + pair.rank].iter().enumerate() {
            b[(row / LANES * pair.rank + r) * LANES + row % LANES] = value;
        }
    }
    b
}
