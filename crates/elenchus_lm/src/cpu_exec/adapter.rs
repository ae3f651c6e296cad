//! Adapters as the kernels read them: the adapter's own memory if it is in f16.

use super::kernels::LANES;
use crate::{
    Adapter, Linear, LoraAdapter, ModelConfig, Result,
    lora::{PairPlace, TILE},
};

// A tile of B is used beside a tile of the matrix, and ranks are read one vector at a time.
const _: () = assert!(TILE == LANES);

/// A prepared adapter.
pub(super) struct ReadyAdapter {
    /// An f16 copy of an adapter that is kept wider.
    narrowed: Option<LoraAdapter>,
    /// By layer and linear.
    places: Vec<[Option<PairPlace>; 7]>,
    most_rank: usize,
}

impl ReadyAdapter {
    /// For an adapter that fits.
    pub fn new(lora: &LoraAdapter, config: &ModelConfig) -> Result<Self> {
        let mut places = vec![const { [const { None }; 7] }; config.num_layers()];
        for (&(layer, linear), place) in lora.places() {
            places[layer][linear as usize] = Some(place.clone());
        }
        let ranks = lora.places().values().map(|place| place.rank.next_multiple_of(LANES));
        let most_rank = ranks.max().unwrap_or(0);
        Ok(Self { narrowed: lora.narrowed()?, places, most_rank })
    }
}

/// An adapter with its scale.
#[derive(Clone, Copy)]
pub(super) struct Scaled<'a> {
    ready: &'a ReadyAdapter,
    lora: &'a LoraAdapter,
    scale: f32,
}

/// One linear's update.
#[derive(Clone, Copy)]
pub(super) struct ScaledPair<'a> {
    /// `(in_features padded to blocks, rank padded to 16)`.
    pub a: &'a [u16],
    /// `(tiles, rank, 16)`.
    b: &'a [u16],
    rank: usize,
    pub scale: f32,
}

impl<'a> Scaled<'a> {
    /// `ready` was made from this adapter.
    pub fn new(adapter: &'a Adapter, ready: &'a ReadyAdapter) -> Self {
        Self { ready, lora: ready.narrowed.as_ref().unwrap_or(&adapter.lora), scale: adapter.scale }
    }

    /// Whether two lines have the same adapter: it is prepared once for each scale.
    pub fn same(one: Option<Self>, other: Option<Self>) -> bool {
        let ready = |scaled: Self| std::ptr::from_ref(scaled.ready);
        one.map(ready) == other.map(ready)
    }

    /// The update of one linear, if it has one.
    pub fn pair(&self, layer: usize, linear: Linear) -> Option<ScaledPair<'a>> {
        let place = self.ready.places[layer][linear as usize].as_ref()?;
        let (a, b) = self.lora.halves(place).expect("wider values were narrowed when it was prepared");
        Some(ScaledPair { a, b, rank: place.rank, scale: place.scaling * self.scale })
    }

    /// The largest rank, padded.
    pub fn most_rank(&self) -> usize {
        self.ready.most_rank
    }
}

impl<'a> ScaledPair<'a> {
    /// The second half of a tile, `(rank, 16)`.
    pub fn tile(&self, tile: usize) -> &'a [u16] {
        &self.b[tile * self.rank * LANES..(tile + 1) * self.rank * LANES]
    }
}
