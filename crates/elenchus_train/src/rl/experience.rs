//! What one iteration learns from: responses, what they were worth, and how likely each token was when it was said.
//!
//! Nothing is padded. Tokens of all responses lie end to end wherever a function takes them together, so there is no mask
//! to get wrong.

use candle_core::{Device, Tensor};

use super::kl::Estimator;
use crate::Result;

/// One response to a query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rollout {
    /// Which query; responses to the same one form a group.
    pub query: usize,
    /// What the response is worth.
    pub score: f32,
    /// Log-probability of each of its tokens under the policy that said them, in the numerics of training.
    pub logprobs: Vec<f32>,
    /// The same under the reference.
    pub ref_logprobs: Vec<f32>,
    /// The value before each token; empty where a method asks for none.
    pub values: Vec<f32>,
    /// The steps that the response is made of; empty where a method asks for none.
    pub steps: Vec<ValuedStep>,
}

/// A part of a response, and what was to be expected when it began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValuedStep {
    /// Its first token; the first step begins with 0.
    pub start: usize,
    /// Mean score of responses that begin with what was before.
    pub value: f32,
}

impl Rollout {
    /// Divergence from the reference, token by token.
    pub fn kl(&self, estimator: Estimator) -> impl Iterator<Item = f32> {
        self.logprobs.iter().zip(&self.ref_logprobs).map(move |(&logprob, &reference)| estimator.of(logprob, reference))
    }

    /// `score - kl_coef * sum of k1`: what the whole response is worth when its divergence has a price.
    pub fn sequence_reward(&self, kl_coef: f32) -> f32 {
        self.score - kl_coef * self.kl(Estimator::K1).sum::<f32>()
    }
}

/// The rollouts of one iteration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Experience {
    /// Each with at least one token; those of a query beside each other.
    pub rollouts: Vec<Rollout>,
    /// Mean over responses of the log-ratio of policy and reference under another query than their own; 0 where a method
    /// does not ask for it.
    pub mismatched_kl: f32,
}

impl Experience {
    /// Mean over responses of the summed divergence, in nats.
    pub fn mean_kl(&self, estimator: Estimator) -> f64 {
        let sum: f64 = self.rollouts.iter().flat_map(|rollout| rollout.kl(estimator)).map(f64::from).sum();
        sum / self.rollouts.len().max(1) as f64
    }

    /// Tokens of all responses.
    pub fn tokens(&self) -> usize {
        self.rollouts.iter().map(|rollout| rollout.logprobs.len()).sum()
    }
}

/// Numbers of some responses, end to end.
pub fn end_to_end(numbers: &[Vec<f32>], responses: &[usize], device: &Device) -> Result<Tensor> {
    let flat: Vec<f32> = responses.iter().flat_map(|&at| &numbers[at]).copied().collect();
    let count = flat.len();
    Ok(Tensor::from_vec(flat, count, device)?)
}

/// One number for each of some responses.
pub fn each(numbers: &[f32], responses: &[usize], device: &Device) -> Result<Tensor> {
    let picked: Vec<f32> = responses.iter().map(|&at| numbers[at]).collect();
    Ok(Tensor::from_vec(picked, responses.len(), device)?)
}

/// Sums over each response of what lies end to end, (responses); differentiable.
pub fn sums(tokens: &Tensor, lengths: impl IntoIterator<Item = usize>) -> Result<Tensor> {
    let mut start = 0;
    let sums = lengths.into_iter().map(|length| {
        let sum = tokens.narrow(0, start, length)?.sum_keepdim(0)?;
        start += length;
        Ok(sum)
    });
    Ok(Tensor::cat(&sums.collect::<Result<Vec<_>>>()?, 0)?)
}
