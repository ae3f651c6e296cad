//! GPT-Neo: GPT-2's block with matrices of their own for queries, keys and values, scores without a scale, and a window in
//! every second layer. llama.cpp does not know it.

use super::{Architecture, TensorNames, gpt2};
use crate::{BlockSpec, Linear, Scales, weights::HfConfig};

pub(super) static GPT_NEO: Architecture = Architecture {
    name: "gpt_neo",
    has_gguf: false,
    model_type: "gpt_neo",
    hf_names: &HF_NAMES,
    hf_block,
    hf_scales: Some(hf_scales),
    hf_keys: &[
        ("num_layers", "num_hidden_layers"),
        ("num_heads", "num_attention_heads"),
        ("layer_norm_epsilon", "rms_norm_eps"),
        ("activation_function", "hidden_act"),
    ],
    // The causal masks.
    hf_buffers: &[".attn.attention.bias", ".attn.attention.masked_bias"],
    ..gpt2::BASE
};

static HF_NAMES: TensorNames = TensorNames {
    linears: [
        "attn.attention.q_proj",
        "attn.attention.k_proj",
        "attn.attention.v_proj",
        "attn.attention.out_proj",
        "",
        "mlp.c_fc",
        "mlp.c_proj",
    ],
    is_transposed: false,
    ..gpt2::HF_NAMES
};

/// transformers' default.
const WINDOW: usize = 256;

fn hf_block(config: &HfConfig, layer: usize) -> BlockSpec {
    let is_local = config.attention_layer(layer).is_some_and(|kind| kind == "local");
    let sliding_window = is_local.then(|| config.window_size.unwrap_or(WINDOW));
    BlockSpec { sliding_window, ..gpt2::block(&[Linear::O, Linear::Up, Linear::Down]) }
}

fn hf_scales(_: &HfConfig) -> Scales {
    Scales { attention: Some(1.0), ..Scales::default() }
}
