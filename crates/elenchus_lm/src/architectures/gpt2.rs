//! GPT-2: LayerNorm, an embedding for each position, biases everywhere, and a feed-forward part without a gate. Queries, keys
//! and values are one matrix, which Hugging Face stores with a row for each input.

use super::{Architecture, TensorNames, flags, llama};
use crate::{
    Activation, BlockSpec, Linear, NormKind, Result, RopeLayout, Scales,
    weights::{GgufKeys, HfConfig},
};

pub(super) static GPT2: Architecture = BASE;

/// What GPT-Neo shares.
pub(super) const BASE: Architecture = Architecture {
    name: "gpt2",
    model_type: "gpt2",
    norm: NormKind::LayerNorm,
    has_position_embedding: true,
    // Nothing rotates, and its converter permutes no rows.
    gguf_rope_layout: RopeLayout::Halves,
    gguf_names: &GGUF_NAMES,
    hf_names: &HF_NAMES,
    gguf_block,
    hf_block,
    hf_scales: Some(hf_scales),
    hf_ties_by_default: true,
    hf_keys: &[
        ("n_embd", "hidden_size"),
        ("n_inner", "intermediate_size"),
        ("n_layer", "num_hidden_layers"),
        ("n_head", "num_attention_heads"),
        ("n_positions", "max_position_embeddings"),
        ("layer_norm_epsilon", "rms_norm_eps"),
        ("activation_function", "hidden_act"),
    ],
    hf_default_inner: Some(4),
    // The causal mask.
    hf_buffers: &[".attn.bias", ".attn.masked_bias"],
    hf_activation: "gelu_new",
    hf_default_eps: 1e-5,
    ..llama::BASE
};

const GGUF_NAMES: TensorNames = TensorNames {
    linears: ["attn_qkv", "attn_qkv", "attn_qkv", "attn_output", "", "ffn_up", "ffn_down"],
    ..llama::GGUF_NAMES
};

pub(super) const HF_NAMES: TensorNames = TensorNames {
    token_embedding: "transformer.wte",
    position_embedding: "transformer.wpe",
    output_norm: "transformer.ln_f",
    output: "lm_head",
    block: "transformer.h.",
    attention_norm: "ln_1",
    ffn_norm: "ln_2",
    post_attention_norm: "",
    post_ffn_norm: "",
    linears: ["attn.c_attn", "attn.c_attn", "attn.c_attn", "attn.c_proj", "", "mlp.c_fc", "mlp.c_proj"],
    is_transposed: true,
    q_norm: "",
    k_norm: "",
};

/// A block without positions, whose feed-forward part has no gate.
pub(super) fn block(biased: &[Linear]) -> BlockSpec {
    BlockSpec {
        biases: flags(biased),
        rope_theta: None,
        is_gated: false,
        activation: Activation::GeluTanh,
        ..BlockSpec::default()
    }
}

const LINEARS: [Linear; 6] = [Linear::Q, Linear::K, Linear::V, Linear::O, Linear::Up, Linear::Down];

fn gguf_block(_: &GgufKeys<'_>, _: usize) -> Result<BlockSpec> {
    Ok(block(&LINEARS))
}

fn hf_block(_: &HfConfig, _: usize) -> BlockSpec {
    block(&LINEARS)
}

fn hf_scales(config: &HfConfig) -> Scales {
    let is_scaled = config.scale_attn_weights.unwrap_or(true);
    Scales { attention: (!is_scaled).then_some(1.0), ..Scales::default() }
}
