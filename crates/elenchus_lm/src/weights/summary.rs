//! What a model is, by its header alone.

use std::{collections::HashMap, path::Path};

use super::{TensorName, Weights};
use crate::{BlockType, CpuExecutor, Result};

/// A model in a few words and numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSummary {
    /// Hugging Face's `model_type`.
    pub architecture: &'static str,
    /// Numbers in all matrices and vectors.
    pub parameters: usize,
    /// The block type of most of them.
    pub block_type: BlockType,
    /// Bytes of the weight files.
    pub file_bytes: usize,
    /// Bytes that the CPU engine packs the weights into.
    pub packed_bytes: usize,
    /// Longest context, in tokens.
    pub max_positions: usize,
}

impl Weights {
    /// What a file or folder holds. Checks what [`Self::open`] checks, but reads and hashes no weights.
    pub fn summary(path: &Path) -> Result<ModelSummary> {
        Self::open_unhashed(path)?.summarise()
    }

    pub(super) fn summarise(&self) -> Result<ModelSummary> {
        let (mut numbers, mut packed_bytes) = (HashMap::<BlockType, usize>::new(), 0);
        for name in TensorName::all(&self.config) {
            if name != TensorName::Output || !self.tied {
                let tensor = self.tensor(name)?;
                *numbers.entry(tensor.dtype).or_default() += tensor.shape.iter().product::<usize>();
                packed_bytes += match tensor.shape.len() {
                    2 => CpuExecutor::packed_bytes(tensor),
                    _ => tensor.shape.iter().product::<usize>() * size_of::<f32>(),
                };
            }
        }
        let most = numbers.iter().max_by_key(|(_, count)| **count).map(|(block_type, _)| *block_type);
        Ok(ModelSummary {
            architecture: self.config.architecture.model_type,
            parameters: numbers.values().sum(),
            block_type: most.unwrap_or(BlockType::F32),
            file_bytes: self.file_bytes(),
            packed_bytes,
            max_positions: self.config.max_positions,
        })
    }
}
