//! Qwen3, dense: Qwen2 with a norm of each head of queries and keys in place of biases.

use super::{Architecture, llama, qwen2};
use crate::{
    BlockSpec, QkNorm, Result, RopeLayout,
    weights::{GgufKeys, HfConfig},
};

pub(super) static QWEN3: Architecture = Architecture {
    name: "qwen3",
    model_type: "qwen3",
    gguf_rope_layout: RopeLayout::Halves,
    gguf_block,
    hf_block,
    hf_default_kv_heads: Some(32),
    hf_default_head_dim: Some(128),
    ..llama::BASE
};

fn gguf_block(keys: &GgufKeys<'_>, layer: usize) -> Result<BlockSpec> {
    Ok(BlockSpec { qk_norm: Some(QkNorm::Heads), ..llama::gguf_block(keys, layer)? })
}

fn hf_block(config: &HfConfig, layer: usize) -> BlockSpec {
    BlockSpec {
        qk_norm: Some(QkNorm::Heads),
        sliding_window: qwen2::sliding_window(config, layer),
        ..llama::hf_block(config, layer)
    }
}
