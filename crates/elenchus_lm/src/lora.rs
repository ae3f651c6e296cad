//! LoRA adapters in PEFT's folder format, kept beside the base and never merged into it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use crate::{Linear, ModelConfig, Result};

/// A voice's low-rank update of some linears: `W x + scale * scaling * B (A x)`. Knows no base model until it is worn.
#[derive(Debug)]
pub struct LoraAdapter {
    name: String,
    pairs: BTreeMap<(usize, Linear), LoraPair>,
    hash: [u8; 32],
}

/// One linear's update, in Hugging Face's row order.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    /// `(rank, in_features)`, row-major.
    pub a: Vec<f32>,
    /// `(out_features, rank)`, row-major.
    pub b: Vec<f32>,
    /// The rank.
    pub rank: usize,
    /// `alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA.
    pub scaling: f32,
}

/// Identity of a worn adapter: a hash of its content and the scale it is worn at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(pub [u8; 32]);

/// An adapter at the strength it is worn; cheap to clone.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// The weights.
    pub lora: Arc<LoraAdapter>,
    /// Multiplies the update; 1 is as trained.
    pub scale: f32,
}

impl LoraAdapter {
    /// Reads a PEFT folder: `adapter_config.json` and `adapter_model.safetensors`.
    pub fn open(folder: &Path) -> Result<Self> {
        let _ = folder;
        todo!()
    }

    /// Reads the two files' bytes; `name` is what errors call the adapter.
    pub fn parse(name: &str, config_json: &[u8], safetensors: &[u8]) -> Result<Self> {
        let _ = (name, config_json, safetensors);
        todo!()
    }

    /// Checks every tensor against a base model's shapes.
    pub fn check_fits(&self, config: &ModelConfig) -> Result<()> {
        let _ = config;
        todo!()
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The updates by layer and linear.
    pub fn pairs(&self) -> &BTreeMap<(usize, Linear), LoraPair> {
        &self.pairs
    }

    /// Hash of the content: ranks, scalings and weights as f32.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }
}

impl Adapter {
    /// The adapter as trained.
    pub fn new(lora: Arc<LoraAdapter>) -> Self {
        Self { lora, scale: 1.0 }
    }

    /// Identity of content and scale.
    pub fn id(&self) -> AdapterId {
        todo!()
    }
}

impl std::fmt::Display for AdapterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
