//! The norms of a block and of the head: RMSNorm, or LayerNorm where they have a bias.

use candle_core::{Device, Result as CandleResult, Tensor};
use elenchus_lm::{Error, Result, TensorName, Weights};

use crate::{
    ops::{layer_norm, rms_norm},
    refused,
};

/// A norm of the residual stream; its parameters are `(hidden_size)`.
#[derive(Clone)]
pub(crate) struct Norm {
    pub weight: Tensor,
    /// In LayerNorm.
    pub bias: Option<Tensor>,
}

/// The norms of a layer's two parts: attention's, then the feed-forward part's.
#[derive(Clone)]
pub(crate) struct Norms {
    /// Of what they read.
    pub before: Option<[Norm; 2]>,
    /// RMSNorms of what they add, `(hidden_size)`.
    pub after: Option<[Tensor; 2]>,
}

impl Norm {
    /// From a model file.
    pub fn load(weights: &Weights, name: TensorName, device: &Device) -> Result<Self> {
        let tensor = |values: Vec<f32>| Tensor::new(values, device).map_err(refused);
        Ok(Self { weight: tensor(weights.norm(name)?)?, bias: weights.norm_bias(name)?.map(tensor).transpose()? })
    }

    /// Normalises the rows of `x` `(rows, hidden_size)`.
    pub fn of(&self, x: &Tensor, eps: f32) -> CandleResult<Tensor> {
        match &self.bias {
            Some(bias) => layer_norm(x, &self.weight, bias, eps),
            None => rms_norm(x, &self.weight, eps),
        }
    }

    /// The same times a constant.
    pub fn scaled(self, by: f32) -> CandleResult<Self> {
        let scale = |x: Tensor| crate::scaled(x, by);
        Ok(Self { weight: scale(self.weight)?, bias: self.bias.map(scale).transpose()? })
    }

    /// Numbers held.
    pub fn numbers(&self) -> usize {
        self.weight.elem_count() + self.bias.as_ref().map_or(0, Tensor::elem_count)
    }
}

impl Norms {
    /// Those of a layer.
    pub fn load(weights: &Weights, layer: usize, device: &Device) -> Result<Self> {
        let placement = weights.config().layers[layer].norms;
        let before = match placement.is_before() {
            true => {
                let [attention, ffn] = [TensorName::AttentionNorm(layer), TensorName::FfnNorm(layer)]
                    .map(|name| Norm::load(weights, name, device));
                Some([attention?, ffn?])
            }
            false => None,
        };
        let after = match placement.is_after() {
            true => {
                let [attention, ffn] = [TensorName::PostAttentionNorm(layer), TensorName::PostFfnNorm(layer)]
                    .map(|name| Ok::<_, Error>(Norm::load(weights, name, device)?.weight));
                Some([attention?, ffn?])
            }
            false => None,
        };
        Ok(Self { before, after })
    }

    /// What attention (0) or the feed-forward part (1) reads.
    pub fn read(&self, x: &Tensor, part: usize, eps: f32) -> CandleResult<Tensor> {
        match &self.before {
            Some(norms) => norms[part].of(x, eps),
            None => Ok(x.clone()),
        }
    }

    /// What it adds.
    pub fn added(&self, y: Tensor, part: usize, eps: f32) -> CandleResult<Tensor> {
        match &self.after {
            Some(weights) => rms_norm(&y, &weights[part], eps),
            None => Ok(y),
        }
    }

    /// Numbers held.
    pub fn numbers(&self) -> usize {
        let after = self.after.iter().flatten().map(Tensor::elem_count).sum::<usize>();
        self.before.iter().flatten().map(Norm::numbers).sum::<usize>() + after
    }
}
