//! REBEL, regression to relative rewards (Gao et al. 2024, eq. 1; `ZhaolinGao/REBEL`, `src/tldr/rebel.py`).
//!
//! 1. `R_i = score_i - kl_coef * sum_t (logprob_t - ref_logprob_t)`.
//! 2. For two responses to one query, `d = (logprob_1 - old_logprob_1) - (logprob_2 - old_logprob_2) - eta (R_1 - R_2)`,
//!    log-probabilities of whole responses.
//! 3. `loss = mean over pairs of d^2`: the policy moves until its log-ratio is what the rewards' difference says.

use serde::{Deserialize, Serialize};

use elenchus_train::{
    Result,
    config_file::{self, Misfit},
    rl::{
        Group, Loss, Method, MiniBatch, Objective, Plan, PolicyOutput, Settings, Stats,
        experience::{Experience, each},
        pairs::Responses,
    },
};

/// REBEL's settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RebelSettings {
    /// The price of a nat of divergence from the reference.
    pub kl_coef: f32,
    /// Nats of log-ratio for a difference of 1 in reward: the length of an iteration's step.
    pub eta: f32,
    /// Passes over an iteration's responses.
    pub epochs: usize,
    /// Responses in a step of the optimiser, whole groups; 0 takes all at once.
    pub mini_batch: usize,
}

impl Default for RebelSettings {
    fn default() -> Self {
        Self { kl_coef: 0.05, eta: 1.0, epochs: 4, mini_batch: 0 }
    }
}

// Gao et al. 2024, of TL;DR.
const PAPER: &str = r"
[sampling]
group = 2
max_tokens = 53
missing_end_penalty = 1.0
[method]
kl_coef = 0.05
eta = 1.0
epochs = 4
[training]
learning_rate = 3e-6
[training.adamw]
eps = 1e-5";

impl Settings for RebelSettings {
    const NAME: &'static str = "rebel";
    const TITLE: &'static str = "REBEL";
    const PAPER: Option<&'static str> = Some(PAPER);

    fn check(&self) -> Result<(), Misfit> {
        config_file::not_negative(&[("kl_coef", f64::from(self.kl_coef))])?;
        config_file::above_zero(&[("eta", f64::from(self.eta))])?;
        config_file::at_least_one(&[("epochs", self.epochs as u64)])
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(*self)
    }
}

impl Method for RebelSettings {
    fn plan(&self) -> Plan {
        Plan { epochs: self.epochs, mini_batch: self.mini_batch, group: Group::Together, ..Plan::ON_POLICY }
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let rewards = experience.rollouts.iter().map(|rollout| rollout.sequence_reward(self.kl_coef)).collect();
        let responses = Responses::new(&experience.rollouts, rewards);
        Ok((Box::new(Regression { responses, eta: self.eta }), Vec::new()))
    }
}

struct Regression {
    responses: Responses,
    eta: f32,
}

impl Objective for Regression {
    fn loss(&self, responses: &[usize], of: MiniBatch, policy: &PolicyOutput) -> Result<Loss> {
        let pairs = self.responses.pairs(responses, of, |_, _| std::cmp::Ordering::Greater);
        let logprobs = self.responses.logprobs(responses, policy)?;
        let device = logprobs.device();
        // A response's part of d: both sums are differences of these.
        let target = (each(&self.responses.rewards, responses, device)? * f64::from(self.eta))?;
        let part = ((&logprobs - each(&self.responses.old_logprobs, responses, device)?)? - target)?;
        let total = pairs.mean(&logprobs, || Ok(pairs.differences(&part)?.sqr()?))?;
        let loss = f64::from(total.to_scalar::<f32>()?);
        Ok(Loss { total, stats: vec![("regression_loss", loss)] })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use elenchus_train::rl::Rollout;

    use super::*;

    /// numpy: old = [.5, .3, .2], r = [0, 1, 2], eta = 1; the optimum is old * exp(r) / sum.
    #[test]
    fn the_optimum_of_two_responses_is_the_exponential_of_their_rewards() {
        let old = [0.5f32, 0.3, 0.2];
        let best = [0.179_000_02f32, 0.291_943_5, 0.529_056_5];
        let rollouts = [2usize, 0].map(|arm| Rollout {
            score: arm as f32,
            logprobs: vec![old[arm].ln()],
            ref_logprobs: vec![old[arm].ln()],
            ..Rollout::default()
        });
        let experience = Experience { rollouts: rollouts.to_vec(), ..Experience::default() };
        let (objective, _) = RebelSettings::default().objective(&experience).unwrap();
        for (policy, expected) in [(old, 4.0), (best, 0.0)] {
            let logprobs = Tensor::new(&[policy[2].ln(), policy[0].ln()], &Device::Cpu).unwrap();
            let of = MiniBatch { responses: 2, tokens: 2 };
            let loss = objective.loss(&[0, 1], of, &PolicyOutput { logprobs, values: None }).unwrap();
            let loss = loss.total.to_scalar::<f32>().unwrap();
            assert!((loss - expected).abs() < 1e-5, "{loss} instead of {expected}");
        }
    }
}
