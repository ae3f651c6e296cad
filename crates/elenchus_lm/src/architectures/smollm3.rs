//! SmolLM3: Llama's block, where every fourth layer has no positions.

use super::{Architecture, llama, qwen2};
use crate::{
    BlockSpec, Result,
    weights::{GgufKeys, HfConfig},
};

pub(super) static SMOLLM3: Architecture = Architecture {
    name: "smollm3",
    model_type: "smollm3",
    gguf_block,
    hf_block,
    hf_default_kv_heads: Some(4),
    hf_ties_by_default: true,
    ..llama::BASE
};

/// GGUF files do not say which layers have no positions; llama.cpp takes every fourth.
const INTERVAL: usize = 4;

fn gguf_block(keys: &GgufKeys<'_>, layer: usize) -> Result<BlockSpec> {
    let block = llama::gguf_block(keys, layer)?;
    Ok(BlockSpec { rope_theta: block.rope_theta.filter(|_| !(layer + 1).is_multiple_of(INTERVAL)), ..block })
}

fn hf_block(config: &HfConfig, layer: usize) -> BlockSpec {
    let interval = config.no_rope_layer_interval.filter(|&interval| interval > 0).unwrap_or(INTERVAL);
    let has_rope = match config.no_rope_layers.as_ref().and_then(|layers| layers.get(layer)) {
        Some(&flag) => flag != 0,
        None => !(layer + 1).is_multiple_of(interval),
    };
    let block = llama::hf_block(config, layer);
    BlockSpec {
        rope_theta: block.rope_theta.filter(|_| has_rope),
        sliding_window: qwen2::sliding_window(config, layer),
        ..block
    }
}
