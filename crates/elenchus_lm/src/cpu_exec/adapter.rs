//! Adapters as the kernels read them: the adapter's own memory, where it is in f16.

use super::kernels::LANES;
use crate::{Linear, LoraAdapter, lora::TILE};

// A tile of B stands beside a tile of the matrix, and ranks come by the vector.
const _: () = assert!(TILE == LANES);

/// An adapter at the strength it is worn, of which a copy in f16 was made where it is kept wider.
#[derive(Clone, Copy)]
pub(super) struct Worn<'a> {
    pub lora: &'a LoraAdapter,
    pub scale: f32,
}

/// One linear's update.
#[derive(Clone, Copy)]
pub(super) struct WornPair<'a> {
    /// `(in_features padded to blocks, rank padded to 16)`.
    pub a: &'a [u16],
    /// `(tiles, rank, 16)`.
    b: &'a [u16],
    rank: usize,
    pub scale: f32,
}

impl<'a> Worn<'a> {
    /// Whether two lines wear the same.
    pub fn same(one: Option<Self>, other: Option<Self>) -> bool {
        let key = |worn: Self| (std::ptr::from_ref(worn.lora), worn.scale.to_bits());
        one.map(key) == other.map(key)
    }

    /// The update of one linear, where it has one.
    pub fn pair(&self, layer: usize, linear: Linear) -> Option<WornPair<'a>> {
        let place = self.lora.places().get(&(layer, linear))?;
        let (a, b) = self.lora.halves(place).expect("what is wider was narrowed when it was made ready");
        Some(WornPair { a, b, rank: place.rank, scale: place.scaling * self.scale })
    }

    /// The largest rank, padded.
    pub fn most_rank(&self) -> usize {
        self.lora.places().values().map(|place| place.rank.next_multiple_of(LANES)).max().unwrap_or(0)
    }
}

impl<'a> WornPair<'a> {
    /// The second half of a tile, `(rank, 16)`.
    pub fn tile(&self, tile: usize) -> &'a [u16] {
        &self.b[tile * self.rank * LANES..(tile + 1) * self.rank * LANES]
    }
}
