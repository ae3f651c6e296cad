//! RLOO, REINFORCE Leave-One-Out (Kool et al. 2019; Ahmadian et al. 2024), with the clip of TRL's `rloo_trainer.py`.
//!
//! 1. `R_i = score_i - kl_coef * sum_t (logprob_t - ref_logprob_t)`: the whole response is one action.
//! 2. `A_i = R_i - mean of the other R_j to the same query`.
//! 3. `ratio_i = exp(sum_t logprob_t - sum_t old_logprob_t)`.
//! 4. `loss = mean_i max(-A_i ratio_i, -A_i clip(ratio_i, 1 - cliprange, 1 + cliprange))`.

use serde::{Deserialize, Serialize};

use super::{
    baseline::leave_one_out,
    clipped::SequenceRatio,
    experience::Experience,
    method::{Group, Method, Objective, Plan, Settings, Stats},
};
use crate::{
    Result,
    config_file::{self, Misfit},
};

/// RLOO's settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RlooSettings {
    /// The price of a nat of divergence from the reference.
    pub kl_coef: f32,
    /// How far a response's probability may move before it is learned from no more.
    pub cliprange: f32,
    /// Passes over an iteration's responses; one is on-policy.
    pub epochs: usize,
    /// Responses in a step of the optimiser; 0 takes all at once.
    pub mini_batch: usize,
}

impl Default for RlooSettings {
    fn default() -> Self {
        Self { kl_coef: 0.05, cliprange: 0.2, epochs: 1, mini_batch: 0 }
    }
}

// Ahmadian et al. 2024, of TL;DR.
const PAPER: &str = r"
[sampling]
prompts = 128
group = 4
[method]
kl_coef = 0.03
[training]
learning_rate = 1e-6";

impl Settings for RlooSettings {
    const NAME: &'static str = "rloo";
    const TITLE: &'static str = "RLOO";
    const PAPER: Option<&'static str> = Some(PAPER);

    fn check(&self) -> Result<(), Misfit> {
        config_file::not_negative(&[("kl_coef", f64::from(self.kl_coef))])?;
        config_file::above_zero(&[("cliprange", f64::from(self.cliprange))])?;
        config_file::at_least_one(&[("epochs", self.epochs as u64)])
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(Rloo(*self))
    }
}

struct Rloo(RlooSettings);

impl Method for Rloo {
    fn plan(&self) -> Plan {
        Plan { epochs: self.0.epochs, mini_batch: self.0.mini_batch, group: Group::Compared, ..Plan::ON_POLICY }
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let rollouts = &experience.rollouts;
        let rewards: Vec<f32> = rollouts.iter().map(|rollout| rollout.sequence_reward(self.0.kl_coef)).collect();
        let queries: Vec<usize> = rollouts.iter().map(|rollout| rollout.query).collect();
        let objective = SequenceRatio::new(rollouts, leave_one_out(&rewards, &queries), self.0.cliprange);
        let mean = |numbers: &[f32]| numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / numbers.len().max(1) as f64;
        Ok((Box::new(objective), vec![("reward", mean(&rewards))]))
    }
}
