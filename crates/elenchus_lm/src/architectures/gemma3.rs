//! Gemma 3, text: norms before and after each part, GeGLU, a norm of each head of queries and keys, and five layers with a
//! window and a short rotary base for each that sees everything.

use super::{Architecture, llama};
use crate::{
    Activation, BlockSpec, NormPlacement, QkNorm, Result, RopeLayout, Scales,
    weights::{GgufKeys, HfConfig},
};

pub(super) static GEMMA3: Architecture = Architecture {
    name: "gemma3",
    model_type: "gemma3_text",
    gguf_block,
    hf_block,
    gguf_scales: Some(gguf_scales),
    gguf_own_keys: &["attention.sliding_window", "rope.scaling.type", "rope.scaling.factor"],
    hf_linear_rope: true,
    ..BASE
};

/// What Gemma 2 and 3 have in common.
pub(super) const BASE: Architecture = Architecture {
    gguf_rope_layout: RopeLayout::Halves,
    hf_names: &llama::SANDWICH_NAMES,
    hf_default_kv_heads: Some(4),
    hf_default_head_dim: Some(256),
    hf_ties_by_default: true,
    hf_scales: Some(hf_scales),
    hf_activation: "gelu_pytorch_tanh",
    // llama.cpp's converter writes the sums.
    hf_norm_offset: 1.0,
    ..llama::BASE
};

pub(super) const PLAIN: BlockSpec = BlockSpec {
    biases: [false; 7],
    rope_theta: None,
    rope_scaling: 1.0,
    qk_norm: Some(QkNorm::Heads),
    norms: NormPlacement::Both,
    is_gated: true,
    activation: Activation::GeluTanh,
    sliding_window: None,
    attention_cap: None,
};

/// GGUF files do not say which layers see everything; llama.cpp takes every sixth.
const INTERVAL: usize = 6;
/// Layers of the 27B model, which alone scales attention otherwise. Source: `llama_model` of llama.cpp.
const LAYERS_OF_27B: usize = 62;

fn gguf_block(keys: &GgufKeys<'_>, layer: usize) -> Result<BlockSpec> {
    let window = keys.usize_or("attention.sliding_window", 1024)?;
    Ok(match (layer + 1).is_multiple_of(INTERVAL) {
        true => BlockSpec {
            rope_theta: Some(keys.f32_or("rope.freq_base", 1e6)?),
            rope_scaling: match keys.str_or("rope.scaling.type", "none")? {
                "linear" => keys.f32_or("rope.scaling.factor", 1.0)?,
                "none" => 1.0,
                other => return Err(keys.unsupported("rope.scaling.type", other)),
            },
            ..PLAIN
        },
        false => BlockSpec {
            rope_theta: Some(keys.f32_or("rope.freq_base_swa", 1e4)?),
            sliding_window: Some(window),
            ..PLAIN
        },
    })
}

fn hf_block(config: &HfConfig, layer: usize) -> BlockSpec {
    let is_full = match config.layer_types.as_ref().and_then(|types| types.get(layer)) {
        Some(kind) => kind == "full_attention",
        None => (layer + 1).is_multiple_of(config.sliding_window_pattern().unwrap_or(INTERVAL)),
    };
    let (rope_theta, rope_scaling) = config.rope_of(is_full);
    let window = config.sliding_window.unwrap_or(Some(4096));
    BlockSpec { rope_theta: Some(rope_theta), rope_scaling, sliding_window: window.filter(|_| !is_full), ..PLAIN }
}

fn gguf_scales(keys: &GgufKeys<'_>) -> Result<Scales> {
    scales(keys, LAYERS_OF_27B)
}

/// Gemma 2's too. The 27B model of each is known by its layers.
pub(super) fn scales(keys: &GgufKeys<'_>, layers_of_27b: usize) -> Result<Scales> {
    let hidden = keys.usize("embedding_length")?;
    let attention = match keys.usize("block_count")? {
        layers if layers == layers_of_27b => {
            Some(1.0 / (hidden as f32 / keys.usize("attention.head_count")? as f32).sqrt())
        }
        _ => None,
    };
    Ok(Scales { embedding: (hidden as f32).sqrt(), attention, ..Scales::default() })
}

fn hf_scales(config: &HfConfig) -> Scales {
    let embedding = (config.hidden_size as f32).sqrt();
    let attention = 1.0 / config.query_pre_attn_scalar.unwrap_or(256.0).sqrt();
    Scales { embedding, attention: Some(attention), ..Scales::default() }
}
