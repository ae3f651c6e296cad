//! The clipped surrogate of PPO (Schulman et al. 2017, eq. 7), over tokens or whole responses, and its value loss.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    experience::{Rollout, each, end_to_end, sums},
    kl::{MOST_LOG_RATIO, k3},
    method::{Loss, MiniBatch, Objective, PolicyOutput, Stats},
};
use crate::Result;

/// A loss and how it came about.
pub struct Clipped {
    /// A scalar.
    pub loss: Tensor,
    /// Numbers to log.
    pub stats: Stats,
}

/// `sum max(-A ratio, -A clip(ratio)) / count`, where `ratio = exp(logprobs - old)`.
pub(crate) fn policy_loss(
    logprobs: &Tensor,
    old_logprobs: &Tensor,
    advantages: &Tensor,
    cliprange: f32,
    count: usize,
) -> Result<Clipped> {
    let (low, high) = (1.0 - cliprange, 1.0 + cliprange);
    let log_ratio = (logprobs - old_logprobs)?.clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO)?;
    let ratio = log_ratio.exp()?;
    let losses = (advantages.neg()? * &ratio)?;
    let clipped = (advantages.neg()? * ratio.clamp(low, high)?)?;
    let loss = (losses.maximum(&clipped)?.sum_all()? / count as f64)?;

    let share = |sum: f64| sum / count as f64;
    let (losses, clipped) = (losses.to_vec1::<f32>()?, clipped.to_vec1::<f32>()?);
    let log_ratios = log_ratio.to_vec1::<f32>()?;
    let of = |f: fn(f64) -> f64| share(log_ratios.iter().map(|&log_ratio| f(f64::from(log_ratio))).sum());
    let is_clipped = losses.iter().zip(&clipped).filter(|(loss, clipped)| clipped > loss).count();
    let stats = vec![
        ("pg_loss", f64::from(loss.to_scalar::<f32>()?)),
        ("clipfrac", share(is_clipped as f64)),
        ("approxkl", of(|log_ratio| 0.5 * log_ratio * log_ratio)),
        ("policykl", of(|log_ratio| -log_ratio)),
        ("ratio", of(f64::exp)),
    ];
    Ok(Clipped { loss, stats })
}

/// `0.5 sum max((v - return)^2, (clip(v, old ± cliprange) - return)^2) / count`.
pub fn value_loss(
    values: &Tensor,
    old_values: &Tensor,
    returns: &Tensor,
    cliprange: f32,
    count: usize,
) -> Result<Clipped> {
    let near = (old_values + (values - old_values)?.clamp(-cliprange, cliprange)?)?;
    let (losses, clipped) = ((values - returns)?.sqr()?, (near - returns)?.sqr()?);
    let loss = (losses.maximum(&clipped)?.sum_all()? * (0.5 / count as f64))?;
    let (losses, clipped) = (losses.to_vec1::<f32>()?, clipped.to_vec1::<f32>()?);
    let is_clipped = losses.iter().zip(&clipped).filter(|(loss, clipped)| clipped > loss).count();
    let stats =
        vec![("vf_loss", f64::from(loss.to_scalar::<f32>()?)), ("vf_clipfrac", is_clipped as f64 / count as f64)];
    Ok(Clipped { loss, stats })
}

/// Clips the ratio of whole responses: each is one action.
pub struct SequenceRatio {
    advantages: Vec<f32>,
    old_logprobs: Vec<f32>,
    lengths: Vec<usize>,
    cliprange: f32,
}

impl SequenceRatio {
    /// Of responses with these advantages.
    pub fn new(rollouts: &[Rollout], advantages: Vec<f32>, cliprange: f32) -> Self {
        Self {
            advantages,
            old_logprobs: rollouts.iter().map(|rollout| rollout.logprobs.iter().sum()).collect(),
            lengths: rollouts.iter().map(|rollout| rollout.logprobs.len()).collect(),
            cliprange,
        }
    }
}

impl Objective for SequenceRatio {
    fn loss(&self, responses: &[usize], of: MiniBatch, policy: &PolicyOutput) -> Result<Loss> {
        let device = policy.logprobs.device();
        let advantages = each(&self.advantages, responses, &Device::Cpu)?.to_device(device)?;
        let old = each(&self.old_logprobs, responses, &Device::Cpu)?.to_device(device)?;
        let logprobs = sums(&policy.logprobs, responses.iter().map(|&at| self.lengths[at]))?;
        let clipped = policy_loss(&logprobs, &old, &advantages, self.cliprange, of.responses)?;
        Ok(Loss { total: clipped.loss, stats: clipped.stats })
    }
}

/// Clips the ratio of each token; where it has a price, divergence is part of the loss, by k3.
pub struct TokenRatio {
    advantages: Vec<Vec<f32>>,
    old_logprobs: Vec<Vec<f32>>,
    ref_logprobs: Vec<Vec<f32>>,
    cliprange: f32,
    kl_coef: f64,
    mean: TokenMean,
}

/// What a loss over tokens is a mean of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenMean {
    /// Of each response's mean, so that long and short ones count alike (GRPO).
    #[default]
    Responses,
    /// Of all tokens (DAPO, BNPO).
    Tokens,
}

impl TokenRatio {
    /// Of tokens with these advantages.
    pub fn new(rollouts: &[Rollout], advantages: Vec<Vec<f32>>, cliprange: f32, kl_coef: f64, mean: TokenMean) -> Self {
        let (old_logprobs, ref_logprobs) =
            rollouts.iter().map(|rollout| (rollout.logprobs.clone(), rollout.ref_logprobs.clone())).unzip();
        Self { advantages, old_logprobs, ref_logprobs, cliprange, kl_coef, mean }
    }
}

impl Objective for TokenRatio {
    fn loss(&self, responses: &[usize], of: MiniBatch, policy: &PolicyOutput) -> Result<Loss> {
        let device = policy.logprobs.device();
        let tensor = |numbers: &[Vec<f32>]| end_to_end(numbers, responses, device);
        let old = tensor(&self.old_logprobs)?;
        // What a token counts; positive, so that it may as well stand within the maximum of the clipped loss.
        let weights: Vec<Vec<f32>> =
            self.old_logprobs.iter().map(|tokens| vec![self.weight(tokens.len(), of); tokens.len()]).collect();
        let weights = tensor(&weights)?;
        let weighted = (tensor(&self.advantages)? * &weights)?;
        let pg = policy_loss(&policy.logprobs, &old, &weighted, self.cliprange, 1)?;
        let mut loss = Loss { total: pg.loss, stats: pg.stats };
        for (name, value) in &mut loss.stats {
            if *name != "pg_loss" {
                *value /= of.tokens as f64;
            }
        }
        if self.kl_coef > 0.0 {
            let kl = (k3(&policy.logprobs, &tensor(&self.ref_logprobs)?)? * weights)?.sum_all()?;
            loss.stats.push(("kl_loss", f64::from(kl.to_scalar::<f32>()?)));
            loss.total = (loss.total + (kl * self.kl_coef)?)?;
        }
        Ok(loss)
    }
}

impl TokenRatio {
    fn weight(&self, tokens: usize, of: MiniBatch) -> f32 {
        match self.mean {
            TokenMean::Responses => 1.0 / (of.responses * tokens) as f32,
            TokenMean::Tokens => 1.0 / of.tokens as f32,
        }
    }
}
