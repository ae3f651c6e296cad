//! Immutable weights as the file holds them, shared behind `Arc`; each executor packs its own copy from here.

use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;

use crate::{ChatTemplate, Linear, ModelConfig, Result, Tokenizer};

/// Names a tensor whatever file format it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorName {
    /// `(vocab_size, hidden_size)`.
    TokenEmbedding,
    /// The norm before the head, `(hidden_size)`.
    OutputNorm,
    /// The head, `(vocab_size, hidden_size)`; falls back to the embedding where a model ties the two.
    Output,
    /// The norm before attention of a layer.
    AttentionNorm(usize),
    /// The norm before the feed-forward part of a layer.
    FfnNorm(usize),
    /// One of a layer's seven matrices.
    Linear(usize, Linear),
}

/// A tensor's bytes in the map.
#[derive(Debug, Clone)]
pub struct RawTensor<'a> {
    /// Rows first.
    pub shape: Vec<usize>,
    /// Block type; dense types included.
    pub dtype: GgmlDType,
    /// The blocks, row by row.
    pub bytes: &'a [u8],
}

/// A mapped GGUF file or Hugging Face folder.
pub struct Weights {
    config: ModelConfig,
    hash: [u8; 32],
    path: PathBuf,
}

impl Weights {
    /// Opens a `.gguf` file or a folder with `config.json` and `*.safetensors`. Reads every byte once to hash it;
    /// `progress` hears the share read, 0 to 1.
    pub fn open(path: &Path, progress: &mut dyn FnMut(f32)) -> Result<Self> {
        let _ = (path, progress);
        todo!()
    }

    /// The architecture.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// SHA-256 of the file (of a folder: of its weight files' hashes, in name order).
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tokenizer the file or folder holds.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        todo!()
    }

    /// The chat template the file or folder holds.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        todo!()
    }

    /// A tensor, its shape checked against the configuration.
    pub fn tensor(&self, name: TensorName) -> Result<RawTensor<'_>> {
        let _ = name;
        todo!()
    }
}
