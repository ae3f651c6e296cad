//! The two halves of an update, in either file format, and how they are combined into pairs.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::{LoraPair, Pairs, Precision, fused::split};
use crate::{Error, Linear, ModelConfig, Result};

/// One of a pair's two matrices.
#[derive(Debug, Clone, Copy)]
pub enum Half {
    /// `(rank, in_features)`.
    A = 0,
    /// `(out_features, rank)`.
    B = 1,
}

/// Where a tensor belongs.
pub(super) struct TensorKey {
    pub layer: usize,
    /// The linears of its module, more than one where the base has them in one matrix.
    pub parts: Vec<Linear>,
    /// Its module's whole name.
    pub module: String,
    pub half: Half,
}

/// A or B, row-major.
pub(super) struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub data: Vec<f32>,
}

impl Matrix {
    /// Checks and widens a tensor; `shape` is rows first.
    pub fn read(name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<Self, String> {
        let &[rows, columns] = shape else { return Err(format!("tensor `{name}` has shape {shape:?}, expected two")) };
        if rows == 0 || columns == 0 {
            return Err(format!("tensor `{name}` is empty: {rows} x {columns}"));
        }
        let data: Vec<f32> = match dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect(),
            other => return Err(format!("tensor `{name}` is {other:?}, expected F32, F16 or BF16")),
        };
        let broken = data.iter().filter(|value| !value.is_finite()).count();
        if broken > 0 {
            let of = data.len();
            return Err(format!(
                "tensor `{name}` has {broken} of {of} values NaN or infinite (hint: training diverged?)"
            ));
        }
        Ok(Self { rows, columns, data })
    }
}

/// Matrices without their other half so far.
#[derive(Default)]
pub(super) struct Halves(BTreeMap<(usize, Vec<Linear>), (String, [Option<Matrix>; 2])>);

impl Halves {
    /// Adds a matrix; each is allowed once.
    pub fn insert(&mut self, tensor_name: &str, key: &TensorKey, matrix: Matrix) -> Result<(), String> {
        let entry = self.0.entry((key.layer, key.parts.clone())).or_default();
        entry.0.clone_from(&key.module);
        match entry.1[key.half as usize].replace(matrix) {
            None => Ok(()),
            Some(_) => Err(format!("tensor `{tensor_name}` is there twice under two names")),
        }
    }

    /// Whether no matrix was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pairs, once every A has its B of the same rank; `scaling` is called with module name and rank. The
    /// configuration says how high the parts of a module are, where it is known.
    pub fn into_pairs(
        self,
        name: &str,
        config: Option<&ModelConfig>,
        scaling: impl Fn(&str, usize) -> Result<f32, String>,
    ) -> Result<Pairs> {
        let mut pairs = BTreeMap::new();
        for ((layer, parts), (module, halves)) in self.0 {
            let [Some(a), Some(b)] = halves else {
                return Err(Error::adapter(name, format!("`{module}` has only one of lora_A and lora_B")));
            };
            let rank = a.rows;
            if b.columns != rank {
                let reason = format!("`{module}`: lora_A has rank {rank}, lora_B has rank {}", b.columns);
                return Err(Error::adapter(name, reason));
            }
            let scaling = scaling(&module, rank).map_err(|reason| Error::adapter(name, reason))?;
            let pair = LoraPair { a: a.data, b: b.data, rank, scaling };
            let split = split(&parts, pair, config).map_err(|reason| format!("`{module}`: {reason}"));
            for (linear, pair) in split.map_err(|reason| Error::adapter(name, reason))? {
                if pairs.insert((layer, linear), pair).is_some() {
                    let reason = format!("`{}` is there twice under two names", module_name(layer, linear));
                    return Err(Error::adapter(name, reason));
                }
            }
        }
        Ok(pairs)
    }
}

impl Precision {
    /// The values' bytes; a value that only f32 can hold is an error rather than written as infinite.
    pub(super) fn encode(self, values: &[f32]) -> Result<Vec<u8>, String> {
        match self {
            Self::F32 => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Self::F16 => {
                let mut bytes = Vec::with_capacity(2 * values.len());
                for &value in values {
                    let narrow = half::f16::from_f32(value);
                    if !narrow.is_finite() {
                        return Err(format!("the value {value} does not fit f16 (hint: write f32)"));
                    }
                    bytes.extend(narrow.to_le_bytes());
                }
                Ok(bytes)
            }
        }
    }
}

/// What a linear is called in messages and in a trainer's checkpoints: as the end of Llama's module in PEFT.
pub(super) fn module_name(layer: usize, linear: Linear) -> String {
    format!("layers.{layer}.{}.{linear}", linear.hf_module())
}

/// The most common value; of several, the largest.
pub(super) fn commonest<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts = BTreeMap::<T, usize>::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}
