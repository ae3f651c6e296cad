//! OLMo 2: Llama's block with norms after the parts in place of before them, and a norm of all queries and of all keys.

use super::{Architecture, llama};
use crate::{
    BlockSpec, NormPlacement, QkNorm, Result, RopeLayout,
    weights::{GgufKeys, HfConfig},
};

pub(super) static OLMO2: Architecture = Architecture {
    name: "olmo2",
    model_type: "olmo2",
    gguf_rope_layout: RopeLayout::Halves,
    hf_names: &llama::SANDWICH_NAMES,
    gguf_block,
    hf_block,
    ..llama::BASE
};

fn gguf_block(keys: &GgufKeys<'_>, layer: usize) -> Result<BlockSpec> {
    Ok(of(llama::gguf_block(keys, layer)?))
}

fn hf_block(config: &HfConfig, layer: usize) -> BlockSpec {
    of(llama::hf_block(config, layer))
}

fn of(block: BlockSpec) -> BlockSpec {
    BlockSpec { norms: NormPlacement::After, qk_norm: Some(QkNorm::Whole), ..block }
}
