//! A tiny random model with a byte-level vocabulary, as a GGUF file: what tests load where no download may be needed.

use std::path::Path;

/// Shape of a tiny model.
#[derive(Debug, Clone, Copy)]
pub struct TinyModel {
    /// Seed of its weights.
    pub seed: u64,
    /// Blocks.
    pub layers: usize,
    /// Width; a multiple of 64.
    pub hidden: usize,
}

impl Default for TinyModel {
    fn default() -> Self {
        Self { seed: 0, layers: 2, hidden: 64 }
    }
}

impl TinyModel {
    /// Writes the model: Llama architecture, 256 bytes plus control tokens, SmolLM2's chat markup, Q8_0 weights.
    pub fn write_gguf(&self, path: &Path) {
        let _ = path;
        todo!()
    }

    /// Writes a PEFT adapter of rank 4 on q and v that fits the model; another seed is another voice.
    pub fn write_adapter(&self, folder: &Path, seed: u64) {
        let _ = (folder, seed);
        todo!()
    }
}
