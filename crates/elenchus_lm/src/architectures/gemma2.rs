//! Gemma 2: norms before and after each part, GeGLU, caps of attention scores and logits, and a window in every other layer.

use super::{Architecture, gemma3};
use crate::{
    BlockSpec, Result, Scales,
    weights::{GgufKeys, HfConfig},
};

pub(super) static GEMMA2: Architecture = Architecture {
    name: "gemma2",
    model_type: "gemma2",
    gguf_block,
    hf_block,
    gguf_scales: Some(gguf_scales),
    gguf_logit_cap: Some(gguf_logit_cap),
    hf_default_logit_cap: Some(LOGIT_CAP),
    gguf_own_keys: &["attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping"],
    ..gemma3::BASE
};

const PLAIN: BlockSpec = BlockSpec { qk_norm: None, ..gemma3::PLAIN };

/// The defaults of transformers and of llama.cpp alike.
const WINDOW: usize = 4096;
const ATTENTION_CAP: f32 = 50.0;
const LOGIT_CAP: f32 = 30.0;

/// GGUF files do not say which layers see everything; llama.cpp takes every second.
const INTERVAL: usize = 2;
/// Layers of the 27B model, which alone scales attention otherwise. Source: `gemma2.cpp` of llama.cpp.
const LAYERS_OF_27B: usize = 46;

fn gguf_block(keys: &GgufKeys<'_>, layer: usize) -> Result<BlockSpec> {
    let window = keys.usize_or("attention.sliding_window", WINDOW)?;
    Ok(BlockSpec {
        rope_theta: Some(keys.f32_or("rope.freq_base", 1e4)?),
        sliding_window: (!(layer + 1).is_multiple_of(INTERVAL)).then_some(window),
        attention_cap: Some(keys.f32_or("attn_logit_softcapping", ATTENTION_CAP)?),
        ..PLAIN
    })
}

fn hf_block(config: &HfConfig, layer: usize) -> BlockSpec {
    let is_full = match config.layer_types.as_ref().and_then(|types| types.get(layer)) {
        Some(kind) => kind == "full_attention",
        None => (layer + 1).is_multiple_of(INTERVAL),
    };
    BlockSpec {
        rope_theta: Some(config.rope_theta()),
        sliding_window: config.sliding_window.unwrap_or(Some(WINDOW)).filter(|_| !is_full),
        attention_cap: config.attn_logit_softcapping.unwrap_or(Some(ATTENTION_CAP)),
        ..PLAIN
    }
}

fn gguf_scales(keys: &GgufKeys<'_>) -> Result<Scales> {
    gemma3::scales(keys, LAYERS_OF_27B)
}

fn gguf_logit_cap(keys: &GgufKeys<'_>) -> Result<Option<f32>> {
    keys.f32_or("final_logit_softcapping", LOGIT_CAP).map(Some)
}
