//! GRPO, group relative policy optimisation (Shao et al. 2024, `DeepSeekMath`), with the variants of TRL's `grpo_trainer.py`.
//!
//! 1. `A_i = (score_i - mean) / (std + 1e-4)` over the responses to one query, n - 1 under the deviation.
//! 2. `loss = mean of max(-A ratio, -A clip(ratio, 1 - cliprange, 1 + cliprange)) + kl_coef * k3(policy, reference)` over
//!    tokens: of each response first, or of all together.

use serde::{Deserialize, Serialize};

use super::{
    baseline::standardised,
    clipped::{TokenMean, TokenRatio},
    experience::Experience,
    method::{Group, Method, Objective, Plan, Settings, Stats},
};
use crate::{
    Result,
    config_file::{self, Misfit},
};

/// GRPO's settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpoSettings {
    /// The price of a nat of divergence from the reference, in the loss.
    pub kl_coef: f64,
    /// Divide by the group's standard deviation; Dr. GRPO does not.
    pub scale_rewards: bool,
    /// What the loss is a mean of.
    pub mean: TokenMean,
    /// How far a token's probability may move before it is learned from no more.
    pub cliprange: f32,
    /// Passes over an iteration's responses.
    pub epochs: usize,
    /// Responses in a step of the optimiser; 0 takes all at once.
    pub mini_batch: usize,
}

impl Default for GrpoSettings {
    fn default() -> Self {
        Self {
            kl_coef: 0.04,
            scale_rewards: true,
            mean: TokenMean::Responses,
            cliprange: 0.2,
            epochs: 1,
            mini_batch: 0,
        }
    }
}

// Shao et al. 2024, 4.2.
const PAPER: &str = r"
[sampling]
prompts = 16
group = 64
max_tokens = 1024
[method]
kl_coef = 0.04
[training]
learning_rate = 1e-6";

impl Settings for GrpoSettings {
    const NAME: &'static str = "grpo";
    const TITLE: &'static str = "GRPO";
    const PAPER: Option<&'static str> = Some(PAPER);

    fn check(&self) -> Result<(), Misfit> {
        config_file::not_negative(&[("kl_coef", self.kl_coef)])?;
        config_file::above_zero(&[("cliprange", f64::from(self.cliprange))])?;
        config_file::at_least_one(&[("epochs", self.epochs as u64)])
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(*self)
    }
}

impl Method for GrpoSettings {
    fn plan(&self) -> Plan {
        Plan { epochs: self.epochs, mini_batch: self.mini_batch, group: Group::Compared, ..Plan::ON_POLICY }
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let rollouts = &experience.rollouts;
        let (scores, queries): (Vec<f32>, Vec<usize>) =
            rollouts.iter().map(|rollout| (rollout.score, rollout.query)).unzip();
        let advantages = standardised(&scores, &queries, self.scale_rewards);
        let of_tokens =
            advantages.iter().zip(rollouts).map(|(&advantage, rollout)| vec![advantage; rollout.logprobs.len()]);
        let objective = TokenRatio::new(rollouts, of_tokens.collect(), self.cliprange, self.kl_coef, self.mean);
        Ok((Box::new(objective), Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{
        super::{
            experience::Rollout,
            method::{MiniBatch, PolicyOutput, stat},
        },
        *,
    };

    /// numpy, of two responses with 1 and 2 tokens: A = [-.70710678, .70710678] (but for the 1e-4), ratios [1.1, 1, 1.3],
    /// k3 of [lp - ref].
    #[test]
    fn the_loss_is_the_formulas() {
        let rollout = |score: f32, logprobs: &[f32]| Rollout {
            score,
            logprobs: logprobs.to_vec(),
            ref_logprobs: vec![-1.0; logprobs.len()],
            ..Rollout::default()
        };
        let experience =
            Experience { rollouts: vec![rollout(0.0, &[-1.0]), rollout(1.0, &[-0.5, -2.0])], ..Experience::default() };
        let now = [-1.0 + 1.1f32.ln(), -0.5, -2.0 + 1.3f32.ln()];
        let of = |mean, kl_coef| {
            let (objective, _) =
                GrpoSettings { mean, kl_coef, ..GrpoSettings::default() }.objective(&experience).unwrap();
            let logprobs = Tensor::new(&now, &Device::Cpu).unwrap();
            let of = MiniBatch { responses: 2, tokens: 3 };
            let loss = objective.loss(&[0, 1], of, &PolicyOutput { logprobs, values: None }).unwrap();
            assert!((stat(&loss.stats, "ratio").unwrap() - 3.4 / 3.0).abs() < 1e-6, "{:?}", loss.stats);
            f64::from(loss.total.to_scalar::<f32>().unwrap())
        };
        let a = 0.5 / (0.5f64.sqrt() + 1e-4);
        let k3 = now.map(|lp| (-1.0 - f64::from(lp)).exp() - 1.0 + (f64::from(lp) + 1.0));
        for (mean, weights) in [(TokenMean::Responses, [0.5, 0.25, 0.25]), (TokenMean::Tokens, [1.0 / 3.0; 3])] {
            let pg = weights[0] * a * 1.1 - weights[1] * a - weights[2] * a * 1.2;
            let kl: f64 = k3.iter().zip(weights).map(|(k3, weight)| k3 * weight).sum();
            for (kl_coef, expected) in [(0.0, pg), (0.3, pg + 0.3 * kl)] {
                assert!((of(mean, kl_coef) - expected).abs() < 1e-5, "{mean:?}, {kl_coef}: {expected}");
            }
        }
    }
}
