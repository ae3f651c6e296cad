//! The model on candle tensors, on any device: the oracle, the trainer's forward and the GPU path.

use std::sync::Arc;

use candle_core::Device;

use crate::{Adapter, Executor, KvCache, ModelConfig, Result, Row, Weights};

/// How base weights take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Numerics {
    /// Blocks as they are, activations quantised to eight bits for the product: fast.
    #[default]
    Quantised,
    /// Dequantised to f32: the reference.
    Exact,
}

/// Runs a model on candle tensors.
pub struct CandleExecutor {
    config: ModelConfig,
}

impl CandleExecutor {
    /// Packs weights for a device.
    pub fn new(weights: &Arc<Weights>, device: &Device, numerics: Numerics) -> Result<Self> {
        let _ = (weights, device, numerics);
        todo!()
    }
}

impl Executor for CandleExecutor {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn new_cache(&self) -> KvCache {
        todo!()
    }

    fn cache_bytes_per_token(&self) -> usize {
        todo!()
    }

    fn prepare(&self, adapter: &Adapter) -> Result<()> {
        let _ = adapter;
        todo!()
    }

    fn forward(&self, batch: &mut [Row<'_>]) -> Result<Vec<Vec<f32>>> {
        let _ = batch;
        todo!()
    }
}
