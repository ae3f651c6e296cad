//! Llama, SmolLM2, and all else that llama.cpp writes as `llama`, Mistral's files included.

use super::{Architecture, TensorNames, flags};
use crate::{
    BlockSpec, Linear, NormKind, Result, RopeLayout,
    weights::{GgufKeys, HfConfig},
};

pub(super) static LLAMA: Architecture = BASE;

/// What most families share.
pub(super) const BASE: Architecture = Architecture {
    name: "llama",
    has_gguf: true,
    model_type: "llama",
    norm: NormKind::RmsNorm,
    has_position_embedding: false,
    gguf_rope_layout: RopeLayout::Interleaved,
    gguf_names: &GGUF_NAMES,
    hf_names: &HF_NAMES,
    gguf_block,
    hf_block,
    hf_default_kv_heads: None,
    hf_default_head_dim: None,
    hf_ties_by_default: false,
    gguf_scales: None,
    hf_scales: None,
    gguf_logit_cap: None,
    hf_default_logit_cap: None,
    gguf_own_keys: &[],
    hf_keys: &[],
    hf_default_inner: None,
    // Older checkpoints store the rotary frequencies.
    hf_buffers: &[".rotary_emb.inv_freq"],
    hf_activation: "silu",
    hf_linear_rope: false,
    has_long_rope: false,
    has_partial_rotary: false,
    hf_default_eps: 1e-6,
    hf_norm_offset: 0.0,
};

pub(super) const GGUF_NAMES: TensorNames = TensorNames {
    token_embedding: "token_embd",
    position_embedding: "position_embd",
    output_norm: "output_norm",
    output: "output",
    block: "blk.",
    attention_norm: "attn_norm",
    ffn_norm: "ffn_norm",
    post_attention_norm: "post_attention_norm",
    post_ffn_norm: "post_ffw_norm",
    linears: ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"],
    is_transposed: false,
    q_norm: "attn_q_norm",
    k_norm: "attn_k_norm",
};

pub(super) const HF_NAMES: TensorNames = TensorNames {
    token_embedding: "model.embed_tokens",
    // Families with one have other names throughout: `gpt2`.
    position_embedding: "",
    output_norm: "model.norm",
    output: "lm_head",
    block: "model.layers.",
    attention_norm: "input_layernorm",
    ffn_norm: "post_attention_layernorm",
    // Families with norms after a part have other names: `SANDWICH_NAMES`.
    post_attention_norm: "",
    post_ffn_norm: "",
    linears: [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ],
    is_transposed: false,
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
};

/// Hugging Face's names where norms stand after the parts.
pub(super) static SANDWICH_NAMES: TensorNames = TensorNames {
    ffn_norm: "pre_feedforward_layernorm",
    post_attention_norm: "post_attention_layernorm",
    post_ffn_norm: "post_feedforward_layernorm",
    ..HF_NAMES
};

/// Biases if the file has them, as llama.cpp loads it.
pub(super) fn gguf_block(keys: &GgufKeys<'_>, layer: usize) -> Result<BlockSpec> {
    Ok(BlockSpec {
        biases: keys.biases(&GGUF_NAMES, layer),
        rope_theta: Some(keys.f32_or("rope.freq_base", 10_000.0)?),
        ..BlockSpec::default()
    })
}

/// `attention_bias` and `mlp_bias` are transformers'.
pub(super) fn hf_block(config: &HfConfig, _: usize) -> BlockSpec {
    let [attention, mlp] = [(config.attention_bias, &Linear::ALL[..4]), (config.mlp_bias, &Linear::ALL[4..])]
        .map(|(has_biases, linears)| flags(if has_biases { linears } else { &[] }));
    BlockSpec {
        biases: std::array::from_fn(|at| attention[at] || mlp[at]),
        rope_theta: Some(config.rope_theta()),
        ..BlockSpec::default()
    }
}
