//! Adapters as the candle executor reads them.

use std::{collections::HashMap, sync::Arc};

use candle_core::{Device, Tensor};

use super::{
    ops::{LoraSegment, PreparedPair},
    refused,
};
use elenchus_lm::{Adapter, Linear, LoraPair, ModelConfig, Result};

/// An adapter's pairs by layer and linear.
pub(super) struct PreparedAdapter {
    pairs: HashMap<(usize, Linear), Arc<PreparedPair>>,
}

/// Neighbouring rows of a batch with the same adapter.
pub(super) struct Span {
    pub rows: std::ops::Range<usize>,
    pub adapter: Arc<PreparedAdapter>,
}

/// The segments of one linear.
pub(super) fn segments(spans: &[Span], layer: usize, linear: Linear) -> Vec<LoraSegment> {
    let pair = |span: &Span| Some((span.rows.clone(), span.adapter.pairs.get(&(layer, linear))?.clone()));
    spans.iter().filter_map(pair).map(|(rows, pair)| LoraSegment { rows, pair }).collect()
}

/// The adapter's matrices in this base's row order, its scale folded into B.
pub(super) fn prepare(adapter: &Adapter, config: &ModelConfig, device: &Device) -> Result<PreparedAdapter> {
    let mut pairs = HashMap::new();
    for ((layer, linear), LoraPair { a, b, rank, scaling }) in adapter.lora.pairs() {
        let heads = match linear {
            Linear::Q => Some(config.num_heads),
            Linear::K => Some(config.num_kv_heads),
            _ => None,
        };
        let scale = scaling * adapter.scale;
        let row = |row: usize| b[row * rank..(row + 1) * rank].iter().map(|b| b * scale);
        let b: Vec<f32> = match heads.and_then(|heads| config.rope_row_order(heads)) {
            Some(order) => order.into_iter().flat_map(row).collect(),
            None => (0..b.len() / rank).flat_map(row).collect(),
        };
        let on_device = if device.is_cpu() {
            None
        } else {
            let tensor = |values: &[f32], shape| Tensor::from_slice(values, shape, device);
            let tensors = (tensor(&a, (rank, a.len() / rank)), tensor(&b, (b.len() / rank, rank)));
            Some((tensors.0.map_err(refused)?, tensors.1.map_err(refused)?))
        };
        let prepared = PreparedPair { a, b, rank, device: on_device };
        pairs.insert((layer, linear), Arc::new(prepared));
    }
    Ok(PreparedAdapter { pairs })
}
