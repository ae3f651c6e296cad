//! Mistral from a Hugging Face folder: Llama with a sliding attention window. Its GGUF files say `llama`.

use super::{Architecture, llama};
use crate::{BlockSpec, weights::HfConfig};

pub(super) static MISTRAL: Architecture =
    Architecture { model_type: "mistral", hf_block, hf_default_kv_heads: Some(8), ..llama::BASE };

/// transformers' default, unless the file says `null`.
const WINDOW: usize = 4096;

fn hf_block(config: &HfConfig, layer: usize) -> BlockSpec {
    let sliding_window = config.sliding_window.unwrap_or(Some(WINDOW));
    BlockSpec { sliding_window, ..llama::hf_block(config, layer) }
}
