//! Qwen2 and Qwen2.5: Llama's block with biases on queries, keys and values, and rows that no file permutes.

use super::{Architecture, flags, llama};
use crate::{
    BlockSpec, Linear, Result, RopeLayout,
    weights::{GgufKeys, HfConfig},
};

pub(super) static QWEN2: Architecture = Architecture {
    name: "qwen2",
    model_type: "qwen2",
    gguf_rope_layout: RopeLayout::Halves,
    gguf_names: &llama::GGUF_NAMES,
    hf_names: &llama::HF_NAMES,
    gguf_block,
    hf_block,
    hf_default_kv_heads: Some(32),
};

const BIASED: [Linear; 3] = [Linear::Q, Linear::K, Linear::V];

fn gguf_block(keys: &GgufKeys<'_>, layer: usize) -> Result<BlockSpec> {
    Ok(BlockSpec { biases: flags(&BIASED), ..llama::gguf_block(keys, layer)? })
}

/// From `max_window_layers` on the layers see a window, if the file says that windows are used.
fn hf_block(config: &HfConfig, layer: usize) -> BlockSpec {
    let windowed = config.use_sliding_window && layer >= config.max_window_layers.unwrap_or(28);
    BlockSpec {
        biases: flags(&BIASED),
        rope_theta: config.rope_theta(),
        sliding_window: if windowed { config.sliding_window.unwrap_or(Some(4096)) } else { None },
    }
}
