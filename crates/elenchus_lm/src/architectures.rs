//! The supported decoder families: one file each, and one line in [`ALL`].
//!
//! A family defines the names of its tensors and the contents of its blocks; executors read the resulting
//! [`ModelConfig`] and know no family by name.

mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neo;
mod granite;
mod llama;
mod mistral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod smollm3;

use std::fmt;

use crate::{
    BlockSpec, Linear, NormKind, RopeLayout, Scales, TensorName,
    weights::{GgufKeys, HfConfig},
};

/// All families. Where two share a name in GGUF files, the first one is used.
const ALL: [&Architecture; 12] = [
    &llama::LLAMA,
    &mistral::MISTRAL,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &smollm3::SMOLLM3,
    &granite::GRANITE,
    &gemma2::GEMMA2,
    &gemma3::GEMMA3,
    &olmo2::OLMO2,
    &phi3::PHI3,
    &gpt2::GPT2,
    &gpt_neo::GPT_NEO,
];

/// A family of decoder.
pub struct Architecture {
    /// llama.cpp's name, the prefix of the keys in its GGUF files.
    pub name: &'static str,
    /// Whether llama.cpp knows the family.
    pub(crate) has_gguf: bool,
    /// Hugging Face's `model_type`.
    pub model_type: &'static str,
    /// The order of the rows of q and k in GGUF files.
    pub gguf_rope_layout: RopeLayout,
    /// How its residual stream is normalised.
    pub(crate) norm: NormKind,
    /// Whether its positions are embeddings.
    pub(crate) has_position_embedding: bool,
    /// Its tensors in GGUF files.
    pub(crate) gguf_names: &'static TensorNames,
    /// Its tensors in Hugging Face checkpoints.
    pub(crate) hf_names: &'static TensorNames,
    /// A layer by the keys of a GGUF file.
    pub(crate) gguf_block: fn(&GgufKeys<'_>, usize) -> crate::Result<BlockSpec>,
    /// A layer by a `config.json`.
    pub(crate) hf_block: fn(&HfConfig, usize) -> BlockSpec,
    /// Key and value heads if a `config.json` names none; `None` for as many as there are heads.
    pub(crate) hf_default_kv_heads: Option<usize>,
    /// Width of a head if a `config.json` names none; `None` for the hidden size divided by the heads.
    pub(crate) hf_default_head_dim: Option<usize>,
    /// Whether head and embedding are one tensor if a `config.json` does not say.
    pub(crate) hf_ties_by_default: bool,
    /// The constants of a GGUF file; `None` for none but 1.
    pub(crate) gguf_scales: Option<fn(&GgufKeys<'_>) -> crate::Result<Scales>>,
    /// The constants of a `config.json`; `None` for none but 1.
    pub(crate) hf_scales: Option<fn(&HfConfig) -> Scales>,
    /// The cap of the logits by the keys of a GGUF file; `None` for families without one.
    pub(crate) gguf_logit_cap: Option<fn(&GgufKeys<'_>) -> crate::Result<Option<f32>>>,
    /// The cap of the logits if a `config.json` says nothing; `None` for families without caps.
    pub(crate) hf_default_logit_cap: Option<f32>,
    /// Keys of GGUF files that would change the computation of other families, and that this one reads.
    pub(crate) gguf_own_keys: &'static [&'static str],
    /// Its own names of keys in a `config.json`, and the usual ones.
    pub(crate) hf_keys: &'static [(&'static str, &'static str)],
    /// How many times the hidden size the feed-forward part is wide if a `config.json` does not say.
    pub(crate) hf_default_inner: Option<usize>,
    /// Ends of the names of tensors in Hugging Face checkpoints that follow from the configuration.
    pub(crate) hf_buffers: &'static [&'static str],
    /// Hugging Face's name of the activation.
    pub(crate) hf_activation: &'static str,
    /// Whether rotary scaling of type `linear` is read from a `config.json`.
    pub(crate) hf_linear_rope: bool,
    /// Whether its context may be stretched by LongRoPE.
    pub(crate) has_long_rope: bool,
    /// Whether only a part of each head may rotate.
    pub(crate) has_partial_rotary: bool,
    /// Added to the mean square in norms if a `config.json` does not say.
    pub(crate) hf_default_eps: f32,
    /// Added to the weights of norms in Hugging Face checkpoints.
    pub(crate) hf_norm_offset: f32,
}

/// What a file format calls a family's tensors.
#[derive(Debug)]
pub(crate) struct TensorNames {
    pub token_embedding: &'static str,
    pub position_embedding: &'static str,
    pub output_norm: &'static str,
    pub output: &'static str,
    /// The prefix before a layer's number.
    pub block: &'static str,
    pub attention_norm: &'static str,
    pub ffn_norm: &'static str,
    pub post_attention_norm: &'static str,
    pub post_ffn_norm: &'static str,
    /// In the order of [`Linear::ALL`]. Those that share a name are one tensor, rows of the first above those of the next.
    pub linears: [&'static str; 7],
    /// Whether the weights of linears are stored with a row for each input: transformers' `Conv1D`.
    pub is_transposed: bool,
    pub q_norm: &'static str,
    pub k_norm: &'static str,
}

impl TensorNames {
    /// The linears of one tensor with `linear`, itself included, in the order of their rows.
    pub fn fused(&self, linear: Linear) -> Vec<Linear> {
        self.parts(self.linears[linear as usize])
    }

    /// The linears of the tensor of this name in a block.
    pub fn parts(&self, name: &str) -> Vec<Linear> {
        Linear::ALL.into_iter().filter(|&linear| self.linears[linear as usize] == name).collect()
    }

    /// The name after which a layer's number comes, without what Hugging Face calls the model: `layers.`.
    pub fn short_block(&self) -> &'static str {
        self.block.split_once('.').map_or(self.block, |(_, block)| block)
    }

    /// A tensor's full name.
    pub fn name(&self, tensor: TensorName) -> String {
        let in_block = |layer: usize, name: &str| format!("{}{layer}.{name}", self.block);
        match tensor {
            TensorName::TokenEmbedding => format!("{}.weight", self.token_embedding),
            TensorName::PositionEmbedding => format!("{}.weight", self.position_embedding),
            TensorName::OutputNormBias => format!("{}.bias", self.output_norm),
            TensorName::AttentionNormBias(layer) => in_block(layer, self.attention_norm) + ".bias",
            TensorName::FfnNormBias(layer) => in_block(layer, self.ffn_norm) + ".bias",
            TensorName::OutputNorm => format!("{}.weight", self.output_norm),
            TensorName::Output => format!("{}.weight", self.output),
            TensorName::AttentionNorm(layer) => in_block(layer, self.attention_norm) + ".weight",
            TensorName::FfnNorm(layer) => in_block(layer, self.ffn_norm) + ".weight",
            TensorName::PostAttentionNorm(layer) => in_block(layer, self.post_attention_norm) + ".weight",
            TensorName::PostFfnNorm(layer) => in_block(layer, self.post_ffn_norm) + ".weight",
            TensorName::Linear(layer, linear) => in_block(layer, self.linears[linear as usize]) + ".weight",
            TensorName::Bias(layer, linear) => in_block(layer, self.linears[linear as usize]) + ".bias",
            TensorName::QNorm(layer) => in_block(layer, self.q_norm) + ".weight",
            TensorName::KNorm(layer) => in_block(layer, self.k_norm) + ".weight",
        }
    }
}

impl Architecture {
    /// The family of a GGUF file's `general.architecture`.
    pub(crate) fn by_name(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|architecture| architecture.has_gguf && architecture.name == name)
    }

    /// The family of a `config.json`'s `model_type`.
    pub(crate) fn by_model_type(model_type: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|architecture| architecture.model_type == model_type)
    }

    /// For messages: the supported families.
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

/// How the families name their tensors in Hugging Face checkpoints, Llama's first.
pub(crate) fn all_hf_names() -> [&'static TensorNames; ALL.len()] {
    ALL.map(|architecture| architecture.hf_names)
}

/// One flag for each linear, in the order of [`Linear::ALL`].
pub(crate) fn flags(linears: &[Linear]) -> [bool; 7] {
    Linear::ALL.map(|linear| linears.contains(&linear))
}
