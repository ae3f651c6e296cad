//! A reward model is an adapter and one number per hidden feature: it adapts the base that all share, so a learned
//! judge costs a few megabytes and a pass, not a second model.
//!
//! Its score is read at the token that ends the reply, which is put there even where a reply was cut, so that every score
//! is read at the same place. Scores are normalised to mean 0 and variance 1 over replies to the texts it learned from, so
//! that several models can be weighed against each other.

mod bradley_terry;
mod calibration;
mod config;
mod preference;
mod preferences;
mod saved;
mod train;
mod value;
mod written;

use candle_core::{Tensor, Var};
use elenchus_candle::{Activations, CandleExecutor, LoraDropout, TrainableLora};
use elenchus_dialogue::{Character, Model};
use elenchus_lm::{Executor, Linear};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

pub use bradley_terry::Accuracy;
pub(crate) use bradley_terry::bradley_terry;
pub use calibration::{Calibration, CalibrationBin};
pub use config::{RewardConfig, RewardKind, RewardLora, RewardLoss, RewardSettings};
pub use preference::{Preference, Preferences};
pub use preferences::RewardLesson;
pub use saved::RewardCard;
pub use train::{ExamplePair, RewardEvent, RewardLearner, RewardOutcome, RewardStep, train_reward};

pub use written::read_preferences;

use crate::{
    Error, Example, Result,
    data::Pair,
    example,
    model::forward::{last_hidden_states, passes, reply_states},
    numeric::mixed,
};

/// Hugging Face's name for the head of a sequence classifier.
const HEAD: &str = "score.weight";

/// Which of a seed's uses the head is.
const HEAD_SEED: u64 = 1;

/// Tokens of one forward pass where nothing is learned, at least one example.
const PASS_TOKENS: usize = 1024;

/// Scores replies.
pub struct RewardModel {
    lora: TrainableLora,
    /// `(hidden_size, 1)`.
    head: Var,
    gain: f32,
    bias: f32,
}

impl RewardModel {
    /// A model that has learned nothing: a fresh adapter, the head normal with a standard deviation of
    /// `1 / sqrt(hidden_size + 1)`.
    pub fn fresh(executor: &CandleExecutor, linears: &[Linear], rank: usize, alpha: f32, seed: u64) -> Result<Self> {
        let lora = TrainableLora::fresh(executor, linears, rank, alpha, seed)?;
        let hidden_size = executor.config().hidden_size;
        let std = 1.0 / ((hidden_size + 1) as f32).sqrt();
        let mut rng = Pcg64Mcg::seed_from_u64(mixed(seed, HEAD_SEED));
        let head: Vec<f32> = (0..hidden_size).map(|_| std * normal(&mut rng)).collect();
        Self::new(executor, lora, &head, 1.0, 0.0)
    }

    fn new(executor: &CandleExecutor, lora: TrainableLora, head: &[f32], gain: f32, bias: f32) -> Result<Self> {
        let head = Tensor::from_slice(head, (head.len(), 1), executor.device())?;
        Ok(Self { lora, head: Var::from_tensor(&head)?, gain, bias })
    }

    /// All that learns, by name.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let mut vars = self.lora.vars();
        vars.push((HEAD.to_owned(), self.head.clone()));
        vars
    }

    /// Normalised scores of ended examples, higher for better.
    ///
    /// # Errors
    /// An example that does not end with its end token: [`RewardModel::example`] makes one that does.
    pub fn scores(&self, executor: &CandleExecutor, examples: &[Example]) -> Result<Vec<f32>> {
        let scores = self.raw_scores(executor, examples)?;
        Ok(scores.into_iter().map(|score| self.gain * score + self.bias).collect())
    }

    /// What [`RewardModel::scores`] reads: the game's prompt, the reply, and always the token that ends it. Of a reply that is
    /// too long for `max_tokens` the beginning is read; `None` if the prompt alone leaves no room.
    pub fn example(pair: &Pair, character: &Character, model: &Model, max_tokens: usize) -> Result<Option<Example>> {
        let Some(mut example) = example(pair, character, model, usize::MAX)? else { return Ok(None) };
        if example.tokens.len() > max_tokens {
            let end = example.tokens[example.tokens.len() - 1];
            example.tokens.truncate(max_tokens.saturating_sub(1));
            if example.tokens.len() <= example.reply_start {
                return Ok(None);
            }
            example.tokens.push(end);
        }
        Ok(Some(example))
    }

    /// Sets gain and bias so that the scores of these examples have mean 0 and variance 1.
    ///
    /// # Errors
    /// Scores that are all the same, or no numbers.
    pub fn normalise(&mut self, executor: &CandleExecutor, reference: &[Example]) -> Result<()> {
        let scores: Vec<f64> = self.raw_scores(executor, reference)?.into_iter().map(f64::from).collect();
        let count = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / count;
        let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / count;
        let gain = 1.0 / variance.sqrt();
        if !(gain.is_finite() && mean.is_finite()) {
            return Err(Error::Scores { mean, variance });
        }
        (self.gain, self.bias) = (gain as f32, (-gain * mean) as f32);
        Ok(())
    }

    fn raw_scores(&self, executor: &CandleExecutor, examples: &[Example]) -> Result<Vec<f32>> {
        let mut scores = Vec::with_capacity(examples.len());
        for pass in passes(&examples.iter().collect::<Vec<_>>(), PASS_TOKENS) {
            scores.extend(self.pass(executor, pass, None, Activations::Drop)?.to_vec1::<f32>()?);
        }
        Ok(scores)
    }

    /// What is expected before each reply token, normalised as scores are, `(targets)`, example by example; differentiable
    /// unless activations are dropped. Of a model that learned values (`training.loss = "value"`) this is what it learned;
    /// a model of whole replies is a critic to begin with.
    pub fn values(&self, executor: &CandleExecutor, examples: &[&Example], activations: Activations) -> Result<Tensor> {
        let values = self.pass_values(executor, examples, None, activations)?;
        Ok(((values * f64::from(self.gain))? + f64::from(self.bias))?)
    }

    /// Values before normalisation.
    fn pass_values(
        &self,
        executor: &CandleExecutor,
        examples: &[&Example],
        dropout: Option<&mut LoraDropout>,
        activations: Activations,
    ) -> Result<Tensor> {
        let hidden = reply_states(executor, Some(&self.lora), examples, dropout, activations)?;
        Ok(hidden.matmul(&self.head(activations))?.squeeze(1)?)
    }

    fn head(&self, activations: Activations) -> Tensor {
        match activations {
            Activations::Drop => self.head.as_detached_tensor(),
            _ => self.head.as_tensor().clone(),
        }
    }

    /// Scores before normalisation, `(examples)`, differentiable unless activations are dropped.
    fn pass(
        &self,
        executor: &CandleExecutor,
        examples: &[&Example],
        dropout: Option<&mut LoraDropout>,
        activations: Activations,
    ) -> Result<Tensor> {
        if let Some(at) = examples.iter().position(|example| !example.is_ended) {
            return Err(Error::NotEnded { tokens: examples[at].tokens.len() });
        }
        let hidden = last_hidden_states(executor, Some(&self.lora), examples, dropout, activations)?;
        Ok(hidden.matmul(&self.head(activations))?.squeeze(1)?)
    }
}

/// One number from N(0, 1), by Box and Muller.
fn normal(rng: &mut Pcg64Mcg) -> f32 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

#[cfg(test)]
mod tests;
