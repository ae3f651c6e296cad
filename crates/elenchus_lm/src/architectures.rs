//! The families of decoder that can be run: one file each, and one line in [`ALL`].
//!
//! A family says what its files are called and what its blocks have; executors read the [`ModelConfig`] that comes of it
//! and know no family by name.

mod llama;
mod mistral;
mod qwen2;

use std::fmt;

use crate::{
    BlockSpec, Linear, RopeLayout, TensorName,
    weights::{GgufKeys, HfConfig},
};

/// All families. Of two with the same name in GGUF files the first is meant there.
const ALL: [&Architecture; 3] = [&llama::LLAMA, &mistral::MISTRAL, &qwen2::QWEN2];

/// A family of decoder.
pub struct Architecture {
    /// llama.cpp's name, with which the keys of its GGUF files begin.
    pub name: &'static str,
    /// Hugging Face's `model_type`.
    pub model_type: &'static str,
    /// How the rows of q and k lie in GGUF files.
    pub gguf_rope_layout: RopeLayout,
    /// Its tensors in GGUF files.
    pub(crate) gguf_names: &'static TensorNames,
    /// Its tensors in Hugging Face checkpoints.
    pub(crate) hf_names: &'static TensorNames,
    /// A layer by the keys of a GGUF file.
    pub(crate) gguf_block: fn(&GgufKeys<'_>, usize) -> crate::Result<BlockSpec>,
    /// A layer by a `config.json`.
    pub(crate) hf_block: fn(&HfConfig, usize) -> BlockSpec,
    /// Key and value heads where a `config.json` names none; `None` for as many as there are heads.
    pub(crate) hf_default_kv_heads: Option<usize>,
}

/// What a file format calls a family's tensors.
pub(crate) struct TensorNames {
    pub token_embedding: &'static str,
    pub output_norm: &'static str,
    pub output: &'static str,
    /// Before a layer's number.
    pub block: &'static str,
    pub attention_norm: &'static str,
    pub ffn_norm: &'static str,
    /// In the order of [`Linear::ALL`].
    pub linears: [&'static str; 7],
}

impl TensorNames {
    /// A tensor's full name.
    pub fn name(&self, tensor: TensorName) -> String {
        let in_block = |layer: usize, name: &str| format!("{}{layer}.{name}", self.block);
        match tensor {
            TensorName::TokenEmbedding => format!("{}.weight", self.token_embedding),
            TensorName::OutputNorm => format!("{}.weight", self.output_norm),
            TensorName::Output => format!("{}.weight", self.output),
            TensorName::AttentionNorm(layer) => in_block(layer, self.attention_norm) + ".weight",
            TensorName::FfnNorm(layer) => in_block(layer, self.ffn_norm) + ".weight",
            TensorName::Linear(layer, linear) => in_block(layer, self.linears[linear as usize]) + ".weight",
            TensorName::Bias(layer, linear) => in_block(layer, self.linears[linear as usize]) + ".bias",
        }
    }
}

impl Architecture {
    /// The family of a GGUF file's `general.architecture`.
    pub(crate) fn by_name(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|architecture| architecture.name == name)
    }

    /// The family of a `config.json`'s `model_type`.
    pub(crate) fn by_model_type(model_type: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|architecture| architecture.model_type == model_type)
    }

    /// For messages: what can be run.
    pub(crate) fn known() -> String {
        ALL.map(|architecture| architecture.model_type).join(", ")
    }

    /// Llama's.
    pub fn llama() -> &'static Self {
        &llama::LLAMA
    }
}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type)
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.model_type == other.model_type
    }
}

/// One flag for each linear, in the order of [`Linear::ALL`].
pub(crate) fn flags(linears: &[Linear]) -> [bool; 7] {
    Linear::ALL.map(|linear| linears.contains(&linear))
}
