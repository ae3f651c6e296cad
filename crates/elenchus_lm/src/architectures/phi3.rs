//! Phi-3, Phi-3.5 and Phi-4: Llama's block, whose queries, keys and values are one matrix, and gate and up another. In
//! Phi-4-mini only three quarters of a head rotate.
//!
//! With LongRoPE they have two sets of frequencies: one for sequences of up to the context they were first trained with, and one
//! for longer ones. A sequence that grows would have to change all its keys, so models run with the first, at that context.

use super::{Architecture, TensorNames, llama};
use crate::{
    BlockSpec, Result, RopeLayout,
    weights::{GgufKeys, HfConfig},
};

pub(super) static PHI3: Architecture = Architecture {
    name: "phi3",
    model_type: "phi3",
    gguf_rope_layout: RopeLayout::Halves,
    gguf_names: &GGUF_NAMES,
    hf_names: &HF_NAMES,
    gguf_block,
    hf_block,
    gguf_own_keys: &["attention.sliding_window", "rope.scaling.attn_factor"],
    has_long_rope: true,
    has_partial_rotary: true,
    hf_default_eps: 1e-5,
    ..llama::BASE
};

static GGUF_NAMES: TensorNames = TensorNames {
    linears: ["attn_qkv", "attn_qkv", "attn_qkv", "attn_output", "ffn_up", "ffn_up", "ffn_down"],
    ..llama::GGUF_NAMES
};

static HF_NAMES: TensorNames = TensorNames {
    linears: [
        "self_attn.qkv_proj",
        "self_attn.qkv_proj",
        "self_attn.qkv_proj",
        "self_attn.o_proj",
        "mlp.gate_up_proj",
        "mlp.gate_up_proj",
        "mlp.down_proj",
    ],
    ..llama::HF_NAMES
};

/// llama.cpp reads the window and sees everything all the same; transformers, and training, have it.
fn gguf_block(keys: &GgufKeys<'_>, _: usize) -> Result<BlockSpec> {
    Ok(BlockSpec {
        rope_theta: Some(keys.f32_or("rope.freq_base", 1e4)?),
        sliding_window: Some(keys.usize_or("attention.sliding_window", 0)?).filter(|&window| window > 0),
        ..BlockSpec::default()
    })
}

fn hf_block(config: &HfConfig, _: usize) -> BlockSpec {
    BlockSpec {
        rope_theta: Some(config.rope_theta()),
        sliding_window: config.sliding_window.flatten(),
        ..BlockSpec::default()
    }
}
