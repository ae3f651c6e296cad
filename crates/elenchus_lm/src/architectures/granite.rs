//! Granite, dense: Llama's block with constants that scale embeddings, attention, residual stream and logits.

use super::{Architecture, llama};
use crate::{
    Result, Scales,
    weights::{GgufKeys, HfConfig},
};

pub(super) static GRANITE: Architecture = Architecture {
    name: "granite",
    model_type: "granite",
    gguf_scales: Some(gguf_scales),
    hf_scales: Some(hf_scales),
    gguf_own_keys: &["attention.scale", "logit_scale", "residual_scale", "embedding_scale"],
    ..llama::BASE
};

fn gguf_scales(keys: &GgufKeys<'_>) -> Result<Scales> {
    Ok(Scales {
        embedding: keys.f32_or("embedding_scale", 1.0)?,
        attention: Some(keys.f32_or("attention.scale", 0.0)?).filter(|&scale| scale != 0.0),
        residual: keys.f32_or("residual_scale", 1.0)?,
        logits: 1.0 / keys.f32_or("logit_scale", 1.0)?,
    })
}

fn hf_scales(config: &HfConfig) -> Scales {
    Scales {
        embedding: config.embedding_multiplier.unwrap_or(1.0),
        attention: Some(config.attention_multiplier.unwrap_or(1.0)),
        residual: config.residual_multiplier.unwrap_or(1.0),
        logits: 1.0 / config.logits_scaling.unwrap_or(1.0),
    }
}
