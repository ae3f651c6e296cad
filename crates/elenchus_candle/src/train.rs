//! The same forward with a gradient: whole packed sequences, adapters as variables, the base frozen.
//!
//! Variables are in PEFT's order and precision (f32), so that what is trained is what is saved; rows are put into the
//! base's order on the way.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use elenchus_lm::{Architecture, Error, Half, Linear, LoraAdapter, LoraPair, ModelConfig, Result, peft_tensor_name};

use super::{
    CandleExecutor,
    ops::{Activations, Block, CausalAttention, DropoutMask, Head, Projection, Rotation, Variables, token_logprobs},
    refused,
};

/// A trainable adapter.
pub struct TrainableLora {
    architecture: &'static Architecture,
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
            Tensor::from_slice(values, shape, &executor.device)
                .and_then(|tensor| Var::from_tensor(&tensor))
                .map_err(refused)
        };
        let pairs = lora.pairs().into_iter().map(|(key, pair)| {
            let a = var(&pair.a, (pair.rank, pair.a.len() / pair.rank))?;
            let b = var(&pair.b, (pair.b.len() / pair.rank, pair.rank))?;
            Ok((key, TrainablePair { a, b, scaling: pair.scaling }))
        });
        Ok(Self { architecture: executor.config.architecture, pairs: pairs.collect::<Result<_>>()? })
    }

    /// A fresh adapter on some linears of every layer that has them, as PEFT begins: A uniform in `±1 / sqrt(in_features)` (Kaiming
    /// with `a = sqrt(5)`), B zero, so that the voice is at first the base's.
    pub fn fresh(executor: &CandleExecutor, linears: &[Linear], rank: usize, alpha: f32, seed: u64) -> Result<Self> {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut pairs = BTreeMap::new();
        for layer in 0..executor.config.num_layers() {
            for &linear in linears.iter().filter(|&&linear| executor.config.layers[layer].has(linear)) {
                let (out_features, in_features) = linear.shape(&executor.config);
                let bound = 1.0 / (in_features as f32).sqrt();
                let a = (0..rank * in_features).map(|_| rng.random_range(-bound..bound)).collect();
                let b = vec![0.0; out_features * rank];
                pairs.insert((layer, linear), LoraPair { a, b, rank, scaling: alpha / rank as f32 });
            }
        }
        if pairs.is_empty() {
            let names: Vec<&str> = linears.iter().map(|linear| linear.hf_name()).collect();
            let (names, family) = (names.join(", "), executor.config.architecture);
            let reason = format!("{family:?} has none of the linears to adapt: {names} (hint: q_proj and v_proj)");
            return Err(Error::adapter("fresh", reason));
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
        let pairs = pairs.collect::<candle_core::Result<_>>().map_err(refused)?;
        Ok(LoraAdapter::from_pairs(name, pairs).for_family(self.architecture))
    }

    /// The variables by the names PEFT gives their tensors.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let both = |(&(layer, linear), pair): (&(usize, Linear), &TrainablePair)| {
            [
                (peft_tensor_name(layer, linear, Half::A), pair.a.clone()),
                (peft_tensor_name(layer, linear, Half::B), pair.b.clone()),
            ]
        };
        self.pairs.iter().flat_map(both).collect()
    }

    /// The variables by layer and linear.
    pub fn pairs(&self) -> &BTreeMap<(usize, Linear), TrainablePair> {
        &self.pairs
    }
}

/// Dropout on the input of A, as PEFT's `lora_dropout`: each adapted linear of each pass has its own mask.
pub struct LoraDropout {
    /// The share that is dropped, below 1.
    pub probability: f32,
    rng: Pcg64Mcg,
}

impl LoraDropout {
    /// Masks that a seed determines.
    pub fn new(probability: f32, seed: u64) -> Self {
        Self { probability, rng: Pcg64Mcg::seed_from_u64(seed) }
    }

    /// The next linear's mask.
    fn mask(&mut self) -> Option<DropoutMask> {
        let seed = self.rng.random();
        (self.probability > 0.0).then(|| DropoutMask::new(self.probability, seed))
    }
}

/// Sequences packed end to end; a prefix that several share is read once.
#[derive(Debug, Clone, Copy)]
pub struct PackedSequences<'a> {
    /// The tokens of all segments, end to end.
    pub tokens: &'a [u32],
    /// How tokens belong together.
    pub segments: &'a [Segment],
}

/// A stretch of tokens that one sequence ends with, or that several continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The earlier segment that it continues, by number; `None` where a sequence begins.
    pub behind: Option<usize>,
    /// Its number of tokens.
    pub length: usize,
}

impl Segment {
    /// A whole sequence.
    pub fn alone(length: usize) -> Self {
        Self { behind: None, length }
    }
}

impl CandleExecutor {
    /// Hidden states before the head of every token, `(tokens, hidden_size)`; differentiable by the variables of `lora`
    /// unless activations are dropped. A segment's tokens see those before them in it, and the segments it continues.
    ///
    /// # Errors
    /// A token outside the vocabulary, segments that do not sum to the number of tokens or continue one that is not
    /// before them, or more positions than the model has.
    pub fn hidden_states(
        &self,
        batch: PackedSequences<'_>,
        lora: Option<&TrainableLora>,
        dropout: Option<&mut LoraDropout>,
        activations: Activations,
    ) -> Result<Tensor> {
        let positions = self.positions(batch)?;
        self.read(batch, &positions, lora, dropout, activations).map_err(refused)
    }

    fn read(
        &self,
        batch: PackedSequences<'_>,
        positions: &[usize],
        lora: Option<&TrainableLora>,
        mut dropout: Option<&mut LoraDropout>,
        activations: Activations,
    ) -> candle_core::Result<Tensor> {
        let rotations = Rotation::of_layers(&self.config, positions, &self.device)?;
        let orders = RowOrders::new(self)?;
        let attention = CausalAttention::new(&self.config, batch.segments);
        let mut x = self.embed(batch.tokens, positions)?;
        for (number, layer) in self.layers.iter().enumerate() {
            let mut vars = Vec::new();
            let projections = Linear::ALL.map(|linear| {
                let weight = layer.linears[linear as usize].clone()?;
                let pair = lora.and_then(|lora| lora.pairs.get(&(number, linear)));
                let mask = pair.and_then(|_| dropout.as_deref_mut()?.mask());
                if let Some(pair) = pair {
                    vars.push((linear, pair.a.as_tensor().clone(), pair.b.as_tensor().clone()));
                }
                Some(Projection {
                    weight,
                    bias: layer.biases[linear as usize].clone(),
                    scaling: pair.map_or(0.0, |pair| pair.scaling),
                    dropout: mask,
                })
            });
            let variables = vars.into_iter().map(|(linear, a, b)| {
                let b = orders.apply(&b, linear)?;
                Ok(match activations {
                    Activations::Drop => (linear, a.detach(), b.detach()),
                    _ => (linear, a, b),
                })
            });
            let block = Block {
                projections,
                rotation: rotations[number].clone(),
                qk_norm: layer.qk_norm.clone(),
                residual_scale: self.config.scales.residual,
                norms: layer.norms.clone(),
                activation: self.config.layers[number].activation,
                eps: self.config.norm_eps,
                attention: attention.clone().of_layer(&self.config.layers[number]),
            };
            x = block.apply(&x, &variables.collect::<candle_core::Result<Vec<Variables>>>()?, activations)?;
        }
        self.output_norm.of(&x, self.config.norm_eps)
    }

    /// The position of every token.
    fn positions(&self, batch: PackedSequences<'_>) -> Result<Vec<usize>> {
        let PackedSequences { tokens, segments } = batch;
        let ModelConfig { vocab_size, max_positions, .. } = self.config;
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(Error::Batch(format!("token {id} is outside the vocabulary of {vocab_size}")));
        }
        let (mut positions, mut ends) = (Vec::with_capacity(tokens.len()), Vec::with_capacity(segments.len()));
        for (at, &Segment { behind, length }) in segments.iter().enumerate() {
            let start = match behind.map(|parent| ends.get(parent)) {
                None => 0,
                Some(Some(end)) => *end,
                Some(None) => {
                    return Err(Error::Batch(format!("segment {at} continues a segment that is not before it")));
                }
            };
            positions.extend(start..start + length);
            ends.push(start + length);
        }
        if positions.len() != tokens.len() || tokens.is_empty() {
            let (sum, tokens) = (positions.len(), tokens.len());
            return Err(Error::Batch(format!("segments sum to {sum}, but there are {tokens} tokens")));
        }
        match positions.iter().max() {
            Some(last) if *last >= max_positions => {
                Err(Error::Batch(format!("a sequence has {} tokens, the model {max_positions} positions", last + 1)))
            }
            _ => Ok(positions),
        }
    }

    /// Log-probability of `targets[i]` given the hidden state `hidden[i]`, (positions). With `gradient`, differentiable.
    pub fn token_logprobs(&self, hidden: &Tensor, targets: &[u32], gradient: bool) -> Result<Tensor> {
        let head = Head { matrix: &self.output, logit_cap: self.config.logit_cap };
        token_logprobs(hidden, head, targets, gradient).map_err(refused)
    }
}

/// The base's order of q and k rows, where it differs from PEFT's.
struct RowOrders {
    q: Option<Tensor>,
    k: Option<Tensor>,
}

impl RowOrders {
    fn new(executor: &CandleExecutor) -> candle_core::Result<Self> {
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

#[cfg(test)]
mod tests {
    use candle_core::{Device, backprop::GradStore};

    use elenchus_lm::{BlockType, Numerics, Weights, testing::TinyModel};

    use super::*;

    fn norm(x: &Tensor) -> f32 {
        x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt()
    }

    fn tiny(model: TinyModel) -> Weights {
        let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
        model.gguf_by(&crate::testing::quantised).write(file.path()).unwrap();
        // The map outlives the name.
        Weights::open(file.path(), &mut |_| {}).unwrap()
    }

    fn executor(weights: &Weights) -> CandleExecutor {
        CandleExecutor::new(weights, &Device::Cpu, Numerics::Exact).unwrap()
    }

    /// On all linears, B not zero, so that A has a gradient too.
    fn adapter(executor: &CandleExecutor) -> TrainableLora {
        let lora = TrainableLora::fresh(executor, &Linear::ALL, 4, 8.0, 7).unwrap();
        for pair in lora.pairs.values() {
            let values = (0..pair.b.elem_count()).map(|at| (at as f32 * 0.7).sin() * 0.2);
            pair.b.set(&Tensor::from_iter(values, &Device::Cpu).unwrap().reshape(pair.b.shape()).unwrap()).unwrap();
        }
        lora
    }

    /// Two sequences that begin with the same four tokens.
    const SEGMENTS: [Segment; 3] = [
        Segment { behind: None, length: 4 },
        Segment { behind: Some(0), length: 9 },
        Segment { behind: Some(0), length: 3 },
    ];

    fn pass(executor: &CandleExecutor, lora: &TrainableLora, activations: Activations) -> (Vec<f32>, GradStore) {
        let tokens: Vec<u32> = (0..16).map(|at| 40 + at as u32 * 5 % 60).collect();
        let packed = PackedSequences { tokens: &tokens, segments: &SEGMENTS };
        let mut dropout = LoraDropout::new(0.2, 11);
        let hidden = executor.hidden_states(packed, Some(lora), Some(&mut dropout), activations).unwrap();
        let logprobs = executor.token_logprobs(&hidden, &tokens, true).unwrap();
        (logprobs.to_vec1().unwrap(), logprobs.sum_all().unwrap().backward().unwrap())
    }

    /// Names the variables without a finite gradient above zero; an adapter on all linears of every layer should have
    /// none.
    fn unreached(lora: &TrainableLora, grads: &GradStore) -> Vec<String> {
        let is_reached = |var: &Var| grads.get(var).is_some_and(|grad| norm(grad) > 0.0 && norm(grad).is_finite());
        lora.vars().into_iter().filter(|(_, var)| !is_reached(var)).map(|(name, _)| name).collect()
    }

    #[test]
    fn every_variable_is_reached_in_all_numerics_and_recomputing_changes_no_bit() {
        use BlockType::{F16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        for dtype in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K, F16, F32] {
            // K-quants need widths that are multiples of 256.
            let hidden = if matches!(dtype, Q4K | Q5K | Q6K) { 256 } else { 64 };
            let weights = tiny(TinyModel { dtype, hidden, ..TinyModel::default() });
            for numerics in [Numerics::Exact, Numerics::Bf16, Numerics::Quantised] {
                let executor = CandleExecutor::new(&weights, &Device::Cpu, numerics).unwrap();
                let lora = adapter(&executor);
                let (kept, grads) = pass(&executor, &lora, Activations::Keep);
                assert_eq!(unreached(&lora, &grads), [""; 0], "{dtype:?}, {numerics:?}");
                let (recomputed, again) = pass(&executor, &lora, Activations::Recompute);
                assert_eq!(kept, recomputed, "{dtype:?}, {numerics:?}");
                assert_eq!(unreached(&lora, &again), [""; 0], "{dtype:?}, {numerics:?} recomputed");
                for (name, var) in lora.vars() {
                    let (kept, again) = (grads.get(&var).unwrap(), again.get(&var).unwrap());
                    assert_eq!(norm(&(kept - again).unwrap()), 0.0, "{name}, {dtype:?}, {numerics:?}");
                }
            }
        }
    }

    #[test]
    fn every_variable_of_every_kind_of_block_is_reached() {
        for architecture in ["gemma2", "phi3", "gpt2"] {
            let executor = executor(&tiny(TinyModel { architecture, dtype: BlockType::F32, ..TinyModel::default() }));
            let lora = adapter(&executor);
            let linears = if architecture == "gpt2" { 6 } else { 7 };
            assert_eq!(lora.pairs.len(), linears * executor.config.num_layers());
            let (kept, grads) = pass(&executor, &lora, Activations::Keep);
            assert_eq!(unreached(&lora, &grads), [""; 0], "{architecture}");
            let (recomputed, _) = pass(&executor, &lora, Activations::Recompute);
            assert_eq!(kept, recomputed, "{architecture}");
        }
    }

    #[test]
    fn an_adapter_on_nothing_is_an_error() {
        let executor = executor(&tiny(TinyModel { architecture: "gpt2", ..TinyModel::default() }));
        let error = TrainableLora::fresh(&executor, &[Linear::Gate], 4, 8.0, 7).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("gpt2 has none of the linears to adapt: gate_proj"), "{error}");
    }

    /// The mutant that the test above must catch: one layer's variable enters detached, as candle's own fused ops would
    /// leave it.
    #[test]
    fn a_detached_variable_is_named() {
        let executor = executor(&tiny(TinyModel::default()));
        let (lora, mut mutant) = (adapter(&executor), adapter(&executor));
        for (key, pair) in &mut mutant.pairs {
            let original = &lora.pairs[key];
            pair.a = original.a.clone();
            // A copy: the sums are the same, but no gradient reaches the original.
            pair.b = match key {
                (1, Linear::Up) => Var::from_tensor(&original.b.copy().unwrap()).unwrap(),
                _ => original.b.clone(),
            };
        }
        let (_, grads) = pass(&executor, &mutant, Activations::Keep);
        assert_eq!(unreached(&lora, &grads), [peft_tensor_name(1, Linear::Up, Half::B)]);
    }

    #[test]
    fn dropped_activations_leave_no_graph_and_the_same_numbers() {
        let executor = executor(&tiny(TinyModel::default()));
        let lora = TrainableLora::fresh(&executor, &[Linear::Q, Linear::V], 4, 8.0, 1).unwrap();
        let run = |activations| {
            let packed = PackedSequences { tokens: &[5, 6, 7], segments: &[Segment::alone(3)] };
            executor.hidden_states(packed, Some(&lora), None, activations).unwrap()
        };
        let (dropped, kept) = (run(Activations::Drop), run(Activations::Keep));
        assert!(!dropped.track_op() && kept.track_op());
        assert_eq!(norm(&(dropped - kept).unwrap()), 0.0);
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_named() {
        let executor = executor(&tiny(TinyModel::default()));
        let check = |tokens: &[u32], segments: &[(Option<usize>, usize)], expected: &str| {
            let segments: Vec<Segment> = segments.iter().map(|&(behind, length)| Segment { behind, length }).collect();
            let packed = PackedSequences { tokens, segments: &segments };
            let error = executor.hidden_states(packed, None, None, Activations::Drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let long = executor.config.max_positions;
        check(&[1, 2, 3], &[(None, 1), (Some(0), 1)], "sum to 2, but there are 3 tokens");
        check(&[1, 2, 3], &[(None, 1), (Some(1), 2)], "segment 1 continues a segment that is not before it");
        check(&[], &[], "sum to 0");
        check(&[1, 1_000_000], &[(None, 2)], "token 1000000");
        let of_long = format!("{} tokens, the model {long}", long + 1);
        check(&vec![1; long + 1], &[(None, 1), (Some(0), long)], &of_long);
    }
}
