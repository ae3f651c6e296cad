//! Llama, SmolLM2, and what else llama.cpp writes as `llama`, Mistral's files among it.

use super::{Architecture, TensorNames, flags};
use crate::{
    BlockSpec, Linear, Result, RopeLayout,
    weights::{GgufKeys, HfConfig},
};

pub(super) static LLAMA: Architecture = Architecture {
    name: "llama",
    model_type: "llama",
    gguf_rope_layout: RopeLayout::Interleaved,
    gguf_names: &GGUF_NAMES,
    hf_names: &HF_NAMES,
    gguf_block,
    hf_block,
    hf_default_kv_heads: None,
};

pub(super) static GGUF_NAMES: TensorNames = TensorNames {
    token_embedding: "token_embd",
    output_norm: "output_norm",
    output: "output",
    block: "blk.",
    attention_norm: "attn_norm",
    ffn_norm: "ffn_norm",
    linears: ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"],
};

pub(super) static HF_NAMES: TensorNames = TensorNames {
    token_embedding: "model.embed_tokens",
    output_norm: "model.norm",
    output: "lm_head",
    block: "model.layers.",
    attention_norm: "input_layernorm",
    ffn_norm: "post_attention_layernorm",
    linears: [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ],
};

/// Biases where the file holds them, as llama.cpp loads it.
pub(super) fn gguf_block(keys: &GgufKeys<'_>, layer: usize) -> Result<BlockSpec> {
    Ok(BlockSpec {
        biases: keys.biases(&GGUF_NAMES, layer),
        rope_theta: keys.f32_or("rope.freq_base", 10_000.0)?,
        sliding_window: None,
    })
}

/// `attention_bias` and `mlp_bias` are transformers'.
pub(super) fn hf_block(config: &HfConfig, _: usize) -> BlockSpec {
    let [attention, mlp] = [(config.attention_bias, &Linear::ALL[..4]), (config.mlp_bias, &Linear::ALL[4..])]
        .map(|(has_biases, linears)| flags(if has_biases { linears } else { &[] }));
    BlockSpec {
        biases: std::array::from_fn(|at| attention[at] || mlp[at]),
        rope_theta: config.rope_theta(),
        sliding_window: None,
    }
}
