//! `VinePPO` (Kazemnejad et al. 2024; `McGill-NLP/VinePPO`): what is to be expected is measured, not learned.
//!
//! 1. A response is cut into sentences. The value at the beginning of each is the mean score of `rollouts` responses that are
//!    resampled from there; after the last nothing is to be expected.
//! 2. `A_i = r_i + V_{i+1} - V_i` for every token of step i; the score is the last step's reward.
//! 3. Advantages whitened over all tokens; the clipped loss of PPO with k3 in it, and no critic.
//!
//! Beginnings share the pages of the response they are from, so a value costs what is resampled and what judges it.

use serde::{Deserialize, Serialize};

use elenchus_train::{
    Result,
    config_file::{self, Misfit},
    rl::{
        Method, Objective, Plan, Rerolls, Settings, Stats,
        advantage::whiten_all,
        clipped::{TokenMean, TokenRatio},
        experience::{Experience, Rollout},
    },
};

/// `VinePPO`'s settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VinePpoSettings {
    /// Responses from each step's beginning.
    pub rollouts: usize,
    /// Steps of a response that are valued, at most.
    pub most_steps: usize,
    /// The price of a nat of divergence from the reference, in the loss.
    pub kl_coef: f64,
    /// Bring advantages to mean 0 and variance 1.
    pub whiten: bool,
    /// How far a token's probability may move before it is learned from no more.
    pub cliprange: f32,
    /// Passes over an iteration's responses.
    pub epochs: usize,
    /// Responses in a step of the optimiser; 0 takes all at once.
    pub mini_batch: usize,
}

impl Default for VinePpoSettings {
    fn default() -> Self {
        Self { rollouts: 3, most_steps: 4, kl_coef: 0.05, whiten: true, cliprange: 0.2, epochs: 2, mini_batch: 8 }
    }
}

// Kazemnejad et al. 2024, polIter_rho1bSft2_vineppo_MATH.jsonnet.
const PAPER: &str = r"
[sampling]
prompts = 64
group = 8
[method]
rollouts = 9
most_steps = 25
kl_coef = 1e-4
epochs = 2
mini_batch = 64
whiten = true
[training]
learning_rate = 1e-6
max_grad_norm = 1.0";

impl Settings for VinePpoSettings {
    const NAME: &'static str = "vine-ppo";
    const TITLE: &'static str = "VinePPO";
    const PAPER: Option<&'static str> = Some(PAPER);

    fn check(&self) -> Result<(), Misfit> {
        config_file::not_negative(&[("kl_coef", self.kl_coef)])?;
        config_file::above_zero(&[("cliprange", f64::from(self.cliprange))])?;
        config_file::at_least_one(&[
            ("rollouts", self.rollouts as u64),
            ("most_steps", self.most_steps as u64),
            ("epochs", self.epochs as u64),
        ])
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(*self)
    }
}

impl Method for VinePpoSettings {
    fn plan(&self) -> Plan {
        Plan {
            epochs: self.epochs,
            mini_batch: self.mini_batch,
            steps: Some(Rerolls { count: self.rollouts, most_steps: self.most_steps }),
            ..Plan::ON_POLICY
        }
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let rollouts = &experience.rollouts;
        let mut advantages: Vec<Vec<f32>> = rollouts.iter().map(advantages).collect();
        if self.whiten {
            whiten_all(&mut advantages, true);
        }
        let steps: usize = rollouts.iter().map(|rollout| rollout.steps.len()).sum();
        let stats = vec![("steps", steps as f64 / rollouts.len().max(1) as f64)];
        let objective = TokenRatio::new(rollouts, advantages, self.cliprange, self.kl_coef, TokenMean::Tokens);
        Ok((Box::new(objective), stats))
    }
}

/// 2.
fn advantages(rollout: &Rollout) -> Vec<f32> {
    let mut advantages = Vec::with_capacity(rollout.logprobs.len());
    for (at, step) in rollout.steps.iter().enumerate() {
        let (end, worth) = match rollout.steps.get(at + 1) {
            Some(next) => (next.start, next.value),
            None => (rollout.logprobs.len(), rollout.score),
        };
        advantages.extend(std::iter::repeat_n(worth - step.value, end - step.start));
    }
    advantages
}

#[cfg(test)]
mod tests {
    use elenchus_train::rl::ValuedStep;

    use super::*;

    /// numpy: V = [.2, .5, .4], score 1.
    #[test]
    fn a_step_is_worth_what_it_adds() {
        let steps = [(0, 0.2), (2, 0.5), (3, 0.4)].map(|(start, value)| ValuedStep { start, value });
        let rollout = Rollout { score: 1.0, logprobs: vec![-1.0; 5], steps: steps.to_vec(), ..Rollout::default() };
        let expected = [0.3, 0.3, -0.1, 0.6, 0.6];
        let ours = advantages(&rollout);
        assert!(ours.len() == 5 && ours.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{ours:?}");
    }
}
