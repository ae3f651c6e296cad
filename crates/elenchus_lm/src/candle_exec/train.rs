//! The same forward with a gradient: whole packed sequences, adapters as variables, the base frozen.
//!
//! Variables are in PEFT's order and precision (f32), so that what is trained is what is saved; rows are put into the
//! base's order on the way.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{
    CandleExecutor,
    ops::{Rotation, causal_attention, frozen_linear, rms_norm, rope, swiglu, token_logprobs},
};
use crate::{
    Error, Linear, LoraAdapter, LoraPair, Result,
    lora::{Half, tensor_name},
};

/// An adapter that learns.
pub struct TrainableLora {
    pairs: BTreeMap<(usize, Linear), TrainablePair>,
}

/// One linear's variables.
pub struct TrainablePair {
    /// `(rank, in_features)`.
    pub a: Var,
    /// `(out_features, rank)`, rows in PEFT's order.
    pub b: Var,
    /// `alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA.
    pub scaling: f32,
}

impl TrainableLora {
    /// Variables that start from an adapter, on an executor's device.
    pub fn new(lora: &LoraAdapter, executor: &CandleExecutor) -> Result<Self> {
        lora.check_fits(&executor.config)?;
        let var = |values: &[f32], shape: (usize, usize)| {
            Var::from_tensor(&Tensor::from_slice(values, shape, &executor.device)?).map_err(Error::from)
        };
        let pairs = lora.pairs().iter().map(|(&key, pair)| {
            let a = var(&pair.a, (pair.rank, pair.a.len() / pair.rank))?;
            let b = var(&pair.b, (pair.b.len() / pair.rank, pair.rank))?;
            Ok((key, TrainablePair { a, b, scaling: pair.scaling }))
        });
        Ok(Self { pairs: pairs.collect::<Result<_>>()? })
    }

    /// A fresh adapter on some linears of every layer, as PEFT begins: A uniform in `±1 / sqrt(in_features)` (Kaiming with
    /// `a = sqrt(5)`), B zero, so that the voice is at first the base's.
    pub fn fresh(executor: &CandleExecutor, linears: &[Linear], rank: usize, alpha: f32, seed: u64) -> Result<Self> {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut pairs = BTreeMap::new();
        for layer in 0..executor.config.num_layers {
            for &linear in linears {
                let (out_features, in_features) = linear.shape(&executor.config);
                let bound = 1.0 / (in_features as f32).sqrt();
                let a = (0..rank * in_features).map(|_| rng.random_range(-bound..bound)).collect();
                let b = vec![0.0; out_features * rank];
                pairs.insert((layer, linear), LoraPair { a, b, rank, scaling: alpha / rank as f32 });
            }
        }
        Self::new(&LoraAdapter::from_pairs("fresh", pairs), executor)
    }

    /// The adapter as it is now; later steps do not change it.
    pub fn to_adapter(&self, name: &str) -> Result<LoraAdapter> {
        let values = |var: &Var| var.flatten_all()?.to_vec1::<f32>();
        let pairs = self.pairs.iter().map(|(&key, pair)| {
            let rank = pair.a.dim(0)?;
            Ok((key, LoraPair { a: values(&pair.a)?, b: values(&pair.b)?, rank, scaling: pair.scaling }))
        });
        Ok(LoraAdapter::from_pairs(name, pairs.collect::<Result<_>>()?))
    }

    /// The variables by the names PEFT gives their tensors.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let both = |(&(layer, linear), pair): (&(usize, Linear), &TrainablePair)| {
            [
                (tensor_name(layer, linear, Half::A), pair.a.clone()),
                (tensor_name(layer, linear, Half::B), pair.b.clone()),
            ]
        };
        self.pairs.iter().flat_map(both).collect()
    }

    /// The variables by layer and linear.
    pub fn pairs(&self) -> &BTreeMap<(usize, Linear), TrainablePair> {
        &self.pairs
    }
}

/// Dropout on what enters A, as PEFT's `lora_dropout`: each adapted linear draws a mask of its own.
pub struct LoraDropout {
    /// The share that is left out, below 1.
    pub probability: f32,
    rng: Pcg64Mcg,
}

impl LoraDropout {
    /// Masks that a seed determines.
    pub fn new(probability: f32, seed: u64) -> Self {
        Self { probability, rng: Pcg64Mcg::seed_from_u64(seed) }
    }

    fn apply(&mut self, x: &Tensor) -> candle_core::Result<Tensor> {
        let keep = 1.0 - self.probability;
        let draw = |_| if self.rng.random::<f32>() < keep { 1.0 / keep } else { 0.0 };
        x * Tensor::from_vec((0..x.elem_count()).map(draw).collect::<Vec<f32>>(), x.shape(), x.device())?
    }
}

/// Sequences packed end to end.
#[derive(Debug, Clone, Copy)]
pub struct PackedSequences<'a> {
    /// The tokens of all sequences.
    pub tokens: &'a [u32],
    /// How many belong to each; their sum is `tokens.len()`.
    pub lengths: &'a [usize],
}

impl CandleExecutor {
    /// Hidden states before the head of every token, `(tokens, hidden_size)`, differentiable by the variables of `lora`.
    /// Sequences do not see each other.
    pub fn hidden_states(
        &self,
        batch: PackedSequences<'_>,
        lora: Option<&TrainableLora>,
        mut dropout: Option<&mut LoraDropout>,
    ) -> Result<Tensor> {
        let PackedSequences { tokens, lengths } = batch;
        let vocab_size = self.config.vocab_size;
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(Error::Batch(format!("token {id} is outside the vocabulary of {vocab_size}")));
        }
        let positions: Vec<usize> = lengths.iter().flat_map(|&length| 0..length).collect();
        if positions.len() != tokens.len() || tokens.is_empty() {
            let (sum, tokens) = (positions.len(), tokens.len());
            return Err(Error::Batch(format!("sequence lengths sum to {sum}, but there are {tokens} tokens")));
        }
        let rotation = Rotation::new(&self.config, &positions, &self.device)?;
        let orders = RowOrders::new(self)?;
        let eps = self.config.rms_norm_eps;
        let mut x = self.embedding.embed(&Tensor::new(tokens, &self.device)?)?;
        for (number, layer) in self.layers.iter().enumerate() {
            let mut linear = |x: &Tensor, linear: Linear| -> candle_core::Result<Tensor> {
                let y = frozen_linear(x, &layer.linears[linear as usize])?;
                let Some(pair) = lora.and_then(|lora| lora.pairs.get(&(number, linear))) else { return Ok(y) };
                let b = orders.apply(pair.b.as_tensor(), linear)?;
                let x = match dropout.as_deref_mut().filter(|dropout| dropout.probability > 0.0) {
                    Some(dropout) => dropout.apply(x)?,
                    None => x.clone(),
                };
                y + (x.matmul(&pair.a.t()?)?.matmul(&b.t()?)? * f64::from(pair.scaling))?
            };
            let h = rms_norm(&x, &layer.attention_norm, eps)?;
            let q = rope(&linear(&h, Linear::Q)?, &rotation)?;
            let k = rope(&linear(&h, Linear::K)?, &rotation)?;
            let v = linear(&h, Linear::V)?;
            let attended = causal_attention(&q, &k, &v, &self.config, lengths)?;
            x = (x + linear(&attended, Linear::O)?)?;
            let h = rms_norm(&x, &layer.ffn_norm, eps)?;
            let inner = swiglu(&linear(&h, Linear::Gate)?, &linear(&h, Linear::Up)?)?;
            x = (x + linear(&inner, Linear::Down)?)?;
        }
        Ok(rms_norm(&x, &self.output_norm, eps)?)
    }

    /// Log-probability of `targets[i]` given the hidden state `hidden[i]`, (positions). With `gradient`, differentiable.
    pub fn token_logprobs(&self, hidden: &Tensor, targets: &[u32], gradient: bool) -> Result<Tensor> {
        Ok(token_logprobs(hidden, &self.output, targets, gradient)?)
    }
}

/// Where the base keeps q and k rows in another order than PEFT.
struct RowOrders {
    q: Option<Tensor>,
    k: Option<Tensor>,
}

impl RowOrders {
    fn new(executor: &CandleExecutor) -> Result<Self> {
        let order = |heads| {
            let order = executor.config.rope_row_order(heads);
            let tensor =
                |order: Vec<usize>| Tensor::from_iter(order.into_iter().map(|row| row as u32), &executor.device);
            order.map(tensor).transpose()
        };
        Ok(Self { q: order(executor.config.num_heads)?, k: order(executor.config.num_kv_heads)? })
    }

    fn apply(&self, b: &Tensor, linear: Linear) -> candle_core::Result<Tensor> {
        match (linear, &self.q, &self.k) {
            (Linear::Q, Some(order), _) | (Linear::K, _, Some(order)) => b.index_select(order, 0),
            _ => Ok(b.clone()),
        }
    }
}
