//! Qwen2 and Qwen2.5: Llama's block with biases on queries, keys and values, and unpermuted rows in all files.

use super::{Architecture, flags, llama};
use crate::{
    BlockSpec, Linear, Result, RopeLayout,
    weights::{GgufKeys, HfConfig},
};

pub(super) static QWEN2: Architecture = Architecture {
    name: "qwen2",
    model_type: "qwen2",
    gguf_rope_layout: RopeLayout::Halves,
    gguf_block,
    hf_block,
    hf_default_kv_heads: Some(32),
    ..llama::BASE
};

const BIASED: [Linear; 3] = [Linear::Q, Linear::K, Linear::V];

fn gguf_block(keys: &GgufKeys<'_>, layer: usize) -> Result<BlockSpec> {
    Ok(BlockSpec { biases: flags(&BIASED), ..llama::gguf_block(keys, layer)? })
}

fn hf_block(config: &HfConfig, layer: usize) -> BlockSpec {
    BlockSpec {
        biases: flags(&BIASED),
        rope_theta: Some(config.rope_theta()),
        sliding_window: sliding_window(config, layer),
        ..BlockSpec::default()
    }
}

/// Layers from `max_window_layers` on have a sliding window, if the file enables windows.
pub(super) fn sliding_window(config: &HfConfig, layer: usize) -> Option<usize> {
    let windowed = config.use_sliding_window && layer >= config.max_window_layers.unwrap_or(28);
    if windowed { config.sliding_window.unwrap_or(Some(4096)) } else { None }
}
