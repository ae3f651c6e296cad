//! Adapters as the kernels read them: f16, ranks side by side in A, a tile's columns side by side in B.

use half::f16;

use super::{kernels::LANES, packed::rotary_order};
use crate::{Adapter, Error, Linear, LoraPair, ModelConfig, Result};

/// An adapter's pairs by layer and linear.
#[derive(Debug)]
pub(super) struct PackedAdapter {
    layers: Vec<[Option<PackedPair>; 7]>,
}

/// One linear's update.
#[derive(Debug)]
pub(super) struct PackedPair {
    /// `(in_features padded to blocks, rank padded to 16)`.
    pub a: Vec<u16>,
    /// `(tiles, rank, 16)`.
    pub b: Vec<u16>,
    pub rank: usize,
    pub scale: f32,
}

impl PackedAdapter {
    /// Packs an adapter that fits.
    pub fn new(adapter: &Adapter, config: &ModelConfig) -> Result<Self> {
        let mut layers: Vec<[Option<PackedPair>; 7]> = (0..config.num_layers).map(|_| Default::default()).collect();
        for (&(layer, linear), pair) in adapter.lora.pairs() {
            let packed = PackedPair::new(pair, adapter.scale, rotary_order(config, linear)).map_err(|value| {
                let reason = format!("layer {layer} `{linear}`: the value {value} does not fit f16");
                Error::adapter(adapter.lora.name(), reason)
            })?;
            layers[layer][linear as usize] = Some(packed);
        }
        Ok(Self { layers })
    }

    /// The update of one linear, where it has one.
    pub fn pair(&self, layer: usize, linear: Linear) -> Option<&PackedPair> {
        self.layers[layer][linear as usize].as_ref()
    }

    /// The largest padded rank.
    pub fn most_rank(&self) -> usize {
        self.layers.iter().flatten().flatten().map(PackedPair::rank_padded).max().unwrap_or(0)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.layers.iter().flatten().flatten().map(|pair| 2 * (pair.a.len() + pair.b.len())).sum()
    }
}

impl PackedPair {
    fn new(pair: &LoraPair, scale: f32, order: Option<Vec<usize>>) -> Result<Self, f32> {
        let (out_features, in_features) = pair.shape();
        let narrow = |value: f32| match f16::from_f32(value) {
            narrow if narrow.is_finite() => Ok(narrow.to_bits()),
            _ => Err(value),
        };
        let rank_padded = pair.rank.next_multiple_of(LANES);
        let mut a = vec![0; in_features.next_multiple_of(32) * rank_padded];
        for (r, row) in pair.a.chunks_exact(in_features).enumerate() {
            for (k, &value) in row.iter().enumerate() {
                a[k * rank_padded + r] = narrow(value)?;
            }
        }
        let mut b = vec![0; out_features.div_ceil(LANES) * pair.rank * LANES];
        for row in 0..out_features {
            let from = order.as_ref().map_or(row, |order| order[row]) * pair.rank;
            for (r, &value) in pair.b[from..from + pair.rank].iter().enumerate() {
                b[(row / LANES * pair.rank + r) * LANES + row % LANES] = narrow(value)?;
            }
        }
        Ok(Self { a, b, rank: pair.rank, scale: pair.scaling * scale })
    }

    /// Rank, padded to whole vectors: what the first half leaves for each row.
    pub fn rank_padded(&self) -> usize {
        self.rank.next_multiple_of(LANES)
    }

    /// The second half of a tile, `(rank, 16)`.
    pub fn tile(&self, tile: usize) -> &[u16] {
        &self.b[tile * self.rank * LANES..(tile + 1) * self.rank * LANES]
    }
}
