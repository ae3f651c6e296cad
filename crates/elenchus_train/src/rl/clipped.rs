//! The clipped surrogate of PPO (Schulman et al. 2017, eq. 7), over tokens or whole responses, and its value loss.

use candle_core::Tensor;

use super::{kl::MOST_LOG_RATIO, method::Stats};
use crate::Result;

/// A loss and how it came about.
pub(super) struct Clipped {
    pub loss: Tensor,
    pub stats: Stats,
}

/// `sum max(-A ratio, -A clip(ratio)) / count`, where `ratio = exp(logprobs - old)`.
pub(super) fn policy_loss(
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
pub(super) fn value_loss(
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
