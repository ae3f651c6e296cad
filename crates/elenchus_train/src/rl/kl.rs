//! How far the policy is from its reference, and what that costs.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Log-ratios beyond this say that something is broken; their exponentials would leave the numbers.
pub const MOST_LOG_RATIO: f32 = 20.0;

/// Estimators of `KL(policy || reference)` from one token that the policy sampled, by Schulman's names
/// (joschu.net/blog/kl-approx.html).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Estimator {
    /// `log p/q`: unbiased, may be negative. TRL's `kl`.
    #[default]
    K1,
    /// `(log p/q)^2 / 2`. TRL's `mse`.
    K2,
    /// `q/p - 1 - log q/p`: unbiased and never negative.
    K3,
    /// `|log p/q|`. TRL's `abs`.
    Abs,
}

impl Estimator {
    /// The estimate for a token.
    pub fn of(self, logprob: f32, ref_logprob: f32) -> f32 {
        let log_ratio = (logprob - ref_logprob).clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO);
        match self {
            Self::K1 => log_ratio,
            Self::K2 => 0.5 * log_ratio * log_ratio,
            Self::K3 => (-log_ratio).exp() - 1.0 + log_ratio,
            Self::Abs => log_ratio.abs(),
        }
    }
}

/// [`Estimator::K3`] of tokens, differentiable by the policy. On its own samples the expected gradient is that of
/// `KL(reference || policy)`: what is divergence as a number is the other divergence as a loss.
pub fn k3(logprobs: &Tensor, ref_logprobs: &Tensor) -> Result<Tensor> {
    let log_ratio = (logprobs - ref_logprobs)?.clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO)?;
    Ok(((log_ratio.neg()?.exp()? - 1.0)? + log_ratio)?)
}

/// Drives the price of divergence so that it comes near a target (Ziegler et al. 2019, 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdaptiveKl {
    /// Nats a response.
    pub target: f64,
    /// Responses after which an error of 1 has changed the price by a factor of e.
    pub horizon: f64,
}

impl AdaptiveKl {
    /// The price after an iteration over so many responses, whose divergence was `kl` nats a response.
    pub fn next(self, kl_coef: f64, kl: f64, responses: usize) -> f64 {
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        kl_coef * (1.0 + error * responses as f64 / self.horizon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(ours: f64, expected: f64) {
        assert!((ours - expected).abs() < 1e-6, "{ours} instead of {expected}");
    }

    // d = np.array([-1, -2, -.5]) - np.array([-1.5, -1, -.5]); d; .5*d**2; np.exp(-d) - 1 + d
    #[test]
    fn estimators() {
        let check = |estimator: Estimator, expected: [f64; 3]| {
            for ((logprob, reference), expected) in [(-1.0, -1.5), (-2.0, -1.0), (-0.5, -0.5)].into_iter().zip(expected)
            {
                near(f64::from(estimator.of(logprob, reference)), expected);
            }
        };
        check(Estimator::K1, [0.5, -1.0, 0.0]);
        check(Estimator::K2, [0.125, 0.5, 0.0]);
        check(Estimator::K3, [0.106_530_66, 0.718_281_83, 0.0]);
        check(Estimator::Abs, [0.5, 1.0, 0.0]);
        assert!(Estimator::K3.of(-1e9, 0.0).is_finite());
    }

    // TRL 0.8.6, tests/test_ppo_trainer.py: the divergences it expects of these log-probabilities.
    #[test]
    fn estimators_as_trl_tests_them() {
        let (logprobs, reference) = ([0.5, 0.2, 0.1, 0.6, 0.2, 0.1], [0.4, 0.3, 0.0, 0.7, 0.1, 0.3]);
        for (estimator, expected) in [
            (Estimator::K1, [0.1, -0.1, 0.1, -0.1, 0.1, -0.2]),
            (Estimator::Abs, [0.1, 0.1, 0.1, 0.1, 0.1, 0.2]),
            (Estimator::K2, [0.005, 0.005, 0.005, 0.005, 0.005, 0.02]),
        ] {
            for at in 0..6 {
                near(f64::from(estimator.of(logprobs[at], reference[at])), expected[at]);
            }
        }
    }

    // .2 * (1 + np.clip(kl/6 - 1, -.2, .2) * 256/10000)
    #[test]
    fn the_price_follows_the_divergence() {
        let controller = AdaptiveKl { target: 6.0, horizon: 10_000.0 };
        for (kl, expected) in [(12.0, 0.201_024), (6.6, 0.200_512), (0.0, 0.198_976), (-3.0, 0.198_976)] {
            near(controller.next(0.2, kl, 256), expected);
        }
    }
}
