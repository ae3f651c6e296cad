//! Mistral from a Hugging Face folder: Llama with a sliding attention window. Its GGUF files say `llama`.

use super::{Architecture, llama};
use crate::{BlockSpec, RopeLayout, weights::HfConfig};

pub(super) static MISTRAL: Architecture = Architecture {
    name: "llama",
    model_type: "mistral",
    gguf_rope_layout: RopeLayout::Interleaved,
    gguf_names: &llama::GGUF_NAMES,
    hf_names: &llama::HF_NAMES,
    gguf_block: llama::gguf_block,
    hf_block,
    hf_default_kv_heads: Some(8),
};

/// transformers' default, where the file does not say `null`.
const WINDOW: usize = 4096;

fn hf_block(config: &HfConfig, layer: usize) -> BlockSpec {
    let sliding_window = config.sliding_window.unwrap_or(Some(WINDOW));
    BlockSpec { sliding_window, ..llama::hf_block(config, layer) }
}
