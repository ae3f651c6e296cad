//! DVPO, decoupled value policy optimisation (Huang et al. 2025; `microsoft/DKI_LLM`, `dvpo/`).
//!
//! 1. Beforehand a value model learns from preferences what a reply is coming to (`elenchus train reward` with
//!    `training.loss = "value"`); it is frozen, and one serves every character.
//! 2. `reward_t = -kl_coef * kl_t`: no judge scores a response, the values are all.
//! 3. Advantages by GAE from the frozen values, whitened over all tokens.
//! 4. The clipped loss of PPO, without a value loss.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use elenchus_train::{
    Result,
    config_file::{self, Misfit},
    rl::{
        Experience, Method, Objective, Plan, Settings, Stats, Values,
        advantage::{estimated, token_rewards, whiten_all},
        clipped::{TokenMean, TokenRatio},
        kl::{AdaptiveKl, Estimator},
        restored,
    },
};

/// DVPO's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DvpoSettings {
    /// The folder of a value model, beside the configuration.
    pub value_model: PathBuf,
    /// The price of a nat of divergence from the reference, at first.
    pub kl_coef: f64,
    /// Nats a response that the price aims at; 0 keeps the price.
    pub kl_target: f64,
    /// Responses after which the price may have changed by a factor of e.
    pub kl_horizon: f64,
    /// Discount.
    pub gamma: f32,
    /// GAE's lambda. After a response nothing is expected, so near 1 a short one's last value is all but taken back.
    pub lam: f32,
    /// How far a token's probability may move before it is learned from no more.
    pub cliprange: f32,
    /// Passes over an iteration's responses.
    pub epochs: usize,
    /// Responses in a step of the optimiser; 0 takes all at once.
    pub mini_batch: usize,
}

impl Default for DvpoSettings {
    /// Without the value model, which has no default.
    fn default() -> Self {
        Self {
            value_model: PathBuf::new(),
            kl_coef: 0.05,
            kl_target: 0.0,
            kl_horizon: 10_000.0,
            gamma: 1.0,
            lam: 0.5,
            cliprange: 0.2,
            epochs: 2,
            mini_batch: 8,
        }
    }
}

// Huang et al. 2025, dvpo/.
const PAPER: &str = r"
[sampling]
max_tokens = 512
[method]
kl_coef = 0.2
kl_target = 6.0
gamma = 1.0
lam = 0.95
epochs = 4
[training]
learning_rate = 1.4e-6";

impl Settings for DvpoSettings {
    const NAME: &'static str = "dvpo";
    const TITLE: &'static str = "DVPO";
    const PAPER: Option<&'static str> = Some(PAPER);

    fn check(&self) -> Result<(), Misfit> {
        if self.value_model.as_os_str().is_empty() {
            let reason = "names no folder (hint: a model of `train reward` with training.loss = \"value\")";
            return Err(Misfit { field: "value_model", reason: reason.to_owned() });
        }
        config_file::not_negative(&[("kl_coef", self.kl_coef), ("kl_target", self.kl_target)])?;
        config_file::above_zero(&[("kl_horizon", self.kl_horizon), ("cliprange", f64::from(self.cliprange))])?;
        config_file::at_most_one(&[("gamma", f64::from(self.gamma)), ("lam", f64::from(self.lam))])?;
        config_file::at_least_one(&[("epochs", self.epochs as u64)])
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(Dvpo { state: State { kl_coef: self.kl_coef }, settings: self.clone() })
    }

    fn value_model(&self) -> Option<&Path> {
        Some(&self.value_model)
    }
}

struct Dvpo {
    settings: DvpoSettings,
    state: State,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    kl_coef: f64,
}

impl Method for Dvpo {
    fn plan(&self) -> Plan {
        Plan {
            epochs: self.settings.epochs,
            mini_batch: self.settings.mini_batch,
            values: Values::Model { rate: 0.0 },
            scores: false,
            ..Plan::ON_POLICY
        }
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let DvpoSettings { gamma, lam, cliprange, kl_target, kl_horizon, .. } = self.settings;
        let rollouts = &experience.rollouts;
        let kl_coef = self.state.kl_coef;
        // 2. and 3.
        let rewards = token_rewards(rollouts, kl_coef as f32, Estimator::K1);
        let (mut advantages, _) = estimated(&rewards, rollouts, gamma, lam);
        whiten_all(&mut advantages, true);
        if kl_target > 0.0 {
            let controller = AdaptiveKl { target: kl_target, horizon: kl_horizon };
            self.state.kl_coef = controller.next(kl_coef, experience.mean_kl(Estimator::K1), rollouts.len());
        }
        let last: f64 =
            rollouts.iter().filter_map(|rollout| rollout.values.last()).map(|&value| f64::from(value)).sum();
        let stats = vec![("kl_coef", kl_coef), ("last_value", last / rollouts.len().max(1) as f64)];
        // 4.
        Ok((Box::new(TokenRatio::new(rollouts, advantages, cliprange, 0.0, TokenMean::Tokens)), stats))
    }

    fn state(&self) -> Value {
        json!(self.state)
    }

    fn restore(&mut self, state: Value) -> Result<()> {
        self.state = restored(state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use elenchus_train::rl::Rollout;

    use super::*;

    /// numpy: logp [-1, -2, -.5], ref [-1.5, -1, -.5], price .2, frozen values [.1, .2, .3], gamma 1, lambda .95.
    #[test]
    fn nothing_but_divergence_is_paid_for_and_values_do_the_rest() {
        let rollout = Rollout {
            logprobs: vec![-1.0, -2.0, -0.5],
            ref_logprobs: vec![-1.5, -1.0, -0.5],
            values: vec![0.1, 0.2, 0.3],
            ..Rollout::default()
        };
        let rewards = token_rewards(std::slice::from_ref(&rollout), 0.2, Estimator::K1);
        let (advantages, _) = estimated(&rewards, &[rollout], 1.0, 0.95);
        for (ours, expected) in advantages[0].iter().zip([0.014_25, 0.015, -0.3]) {
            assert!((ours - expected).abs() < 1e-6, "{advantages:?}");
        }
    }

    #[test]
    fn one_model_learns_and_nobody_is_asked() {
        let plan = Settings::method(&DvpoSettings::default()).plan();
        assert_eq!((plan.values, plan.scores), (Values::Model { rate: 0.0 }, false));
    }
}
