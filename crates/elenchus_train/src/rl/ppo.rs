//! PPO as TRL's classic `PPOTrainer` has it (`ppo_trainer.py` of 0.8.6 to 0.11.4), after Ziegler et al. 2019.
//!
//! 1. `reward_t = -kl_coef * kl_t`, and the score on the last token.
//! 2. Generalised advantages and returns from the old values; advantages whitened over all tokens.
//! 3. `pg_loss = mean_t max(-A ratio, -A clip(ratio, 1 - cliprange, 1 + cliprange))`.
//! 4. `vf_loss = mean_t max((v - return)^2, (clip(v, old_v ± cliprange_value) - return)^2) / 2`.
//! 5. `loss = pg_loss + vf_coef * vf_loss`, several epochs of mini-batches; one whose mean ratio is beyond
//!    `ratio_threshold` is skipped.
//! 6. `kl_coef` follows the divergence towards `kl_target`.
//!
//! The value head reads the policy's hidden states and begins at zero. No dropout, so that the first ratio is 1.

use candle_core::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    advantage::{estimated, token_rewards, whiten_all},
    clipped,
    experience::{Experience, Rollout, end_to_end},
    kl::{AdaptiveKl, Estimator},
    method::{Loss, Method, MiniBatch, Objective, Plan, PolicyOutput, Settings, Stats, Values, restored, stat},
};
use crate::{
    Error, Result,
    config_file::{self, Misfit},
};

/// PPO's settings. The defaults are TRL's, but for the mini-batch, which is a quarter of an iteration here.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoSettings {
    /// The price of a nat of divergence from the reference, at first.
    pub kl_coef: f64,
    /// Nats a response that the price aims at; 0 keeps the price.
    pub kl_target: f64,
    /// Responses after which the price may have changed by a factor of e.
    pub kl_horizon: f64,
    /// How divergence is estimated from a token.
    pub kl_estimator: Estimator,
    /// Discount.
    pub gamma: f32,
    /// GAE's lambda.
    pub lam: f32,
    /// How far a token's probability may move before it is learned from no more.
    pub cliprange: f32,
    /// The same of values.
    pub cliprange_value: f32,
    /// Weight of the value loss.
    pub vf_coef: f64,
    /// Passes over an iteration's responses.
    pub epochs: usize,
    /// Responses in a step of the optimiser; 0 takes all at once.
    pub mini_batch: usize,
    /// Bring rewards to variance 1 first.
    pub whiten_rewards: bool,
    /// A mini-batch whose mean ratio is above this is not learned from.
    pub ratio_threshold: f64,
    /// An iteration is over where the policy has moved by one and a half times as many nats a token; 0 never ends one.
    pub early_stop_kl: f64,
}

impl Default for PpoSettings {
    fn default() -> Self {
        Self {
            kl_coef: 0.2,
            kl_target: 6.0,
            kl_horizon: 10_000.0,
            kl_estimator: Estimator::K1,
            gamma: 1.0,
            lam: 0.95,
            cliprange: 0.2,
            cliprange_value: 0.2,
            vf_coef: 0.1,
            epochs: 4,
            mini_batch: 8,
            whiten_rewards: false,
            ratio_threshold: 10.0,
            early_stop_kl: 0.0,
        }
    }
}

// TRL 0.8.6, ppo_config.py.
const PAPER: &str = r"
[sampling]
prompts = 128
group = 1
[method]
kl_coef = 0.2
kl_target = 6.0
kl_horizon = 10000.0
epochs = 4
mini_batch = 128
[training]
learning_rate = 1.41e-5
warmup_steps = 0
max_grad_norm = 1e9";

impl Settings for PpoSettings {
    const NAME: &'static str = "ppo";
    const TITLE: &'static str = "PPO";
    const PAPER: Option<&'static str> = Some(PAPER);

    fn check(&self) -> Result<(), Misfit> {
        config_file::not_negative(&[
            ("kl_coef", self.kl_coef),
            ("kl_target", self.kl_target),
            ("vf_coef", self.vf_coef),
            ("early_stop_kl", self.early_stop_kl),
        ])?;
        config_file::above_zero(&[
            ("kl_horizon", self.kl_horizon),
            ("cliprange", f64::from(self.cliprange)),
            ("cliprange_value", f64::from(self.cliprange_value)),
            ("ratio_threshold", self.ratio_threshold),
        ])?;
        config_file::at_most_one(&[("gamma", f64::from(self.gamma)), ("lam", f64::from(self.lam))])?;
        config_file::at_least_one(&[("epochs", self.epochs as u64)])
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(Ppo::new(*self))
    }
}

/// PPO, with the price of divergence as it is now.
#[derive(Debug, Clone)]
pub struct Ppo {
    settings: PpoSettings,
    state: State,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    kl_coef: f64,
}

impl Method for Ppo {
    fn plan(&self) -> Plan {
        Plan {
            epochs: self.settings.epochs,
            mini_batch: self.settings.mini_batch,
            values: Values::Head,
            ..Plan::ON_POLICY
        }
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        self.clipped_objective(experience, 0.0)
    }

    fn state(&self) -> Value {
        json!(self.state)
    }

    fn restore(&mut self, state: Value) -> Result<()> {
        self.state = restored(state)?;
        Ok(())
    }
}

impl Ppo {
    /// PPO at the beginning of a run.
    pub fn new(settings: PpoSettings) -> Self {
        Self { settings, state: State { kl_coef: settings.kl_coef } }
    }

    /// With whitened advantages of at most `clip_advantage`; 0 does not clip.
    pub fn clipped_objective(
        &mut self,
        experience: &Experience,
        clip_advantage: f32,
    ) -> Result<(Box<dyn Objective>, Stats)> {
        let PpoSettings { kl_target, kl_horizon, kl_estimator, .. } = self.settings;
        let rollouts = &experience.rollouts;
        let kl_coef = self.state.kl_coef;

        // 1.
        let mut rewards = token_rewards(rollouts, kl_coef as f32, kl_estimator);
        if self.settings.whiten_rewards {
            whiten_all(&mut rewards, false);
        }
        // 2.
        let (mut advantages, returns) = estimated(&rewards, rollouts, self.settings.gamma, self.settings.lam);
        whiten_all(&mut advantages, true);
        if clip_advantage > 0.0 {
            let clip = |advantage: &mut f32| *advantage = advantage.clamp(-clip_advantage, clip_advantage);
            advantages.iter_mut().flatten().for_each(clip);
        }
        // 6.
        let kl = experience.mean_kl(kl_estimator);
        if kl_target > 0.0 {
            let controller = AdaptiveKl { target: kl_target, horizon: kl_horizon };
            self.state.kl_coef = controller.next(kl_coef, kl, rollouts.len());
        }

        let objective = PpoObjective::new(self.settings, rollouts, advantages, returns);
        Ok((Box::new(objective), vec![("kl_coef", kl_coef)]))
    }
}

pub(super) struct PpoObjective {
    settings: PpoSettings,
    old_logprobs: Vec<Vec<f32>>,
    old_values: Vec<Vec<f32>>,
    advantages: Vec<Vec<f32>>,
    returns: Vec<Vec<f32>>,
}

impl PpoObjective {
    /// Of these tokens' advantages, whitened or not, and what their values should have been.
    pub(super) fn new(
        settings: PpoSettings,
        rollouts: &[Rollout],
        advantages: Vec<Vec<f32>>,
        returns: Vec<Vec<f32>>,
    ) -> Self {
        let (old_logprobs, old_values) =
            rollouts.iter().map(|rollout| (rollout.logprobs.clone(), rollout.values.clone())).unzip();
        Self { settings, old_logprobs, old_values, advantages, returns }
    }
}

impl Objective for PpoObjective {
    fn loss(&self, responses: &[usize], of: MiniBatch, policy: &PolicyOutput) -> Result<Loss> {
        let PpoSettings { cliprange, cliprange_value, vf_coef, .. } = self.settings;
        let device = policy.logprobs.device();
        let tensor =
            |numbers: &[Vec<f32>]| Ok::<_, Error>(end_to_end(numbers, responses, &Device::Cpu)?.to_device(device)?);
        let (old_logprobs, advantages) = (tensor(&self.old_logprobs)?, tensor(&self.advantages)?);
        let (old_values, returns) = (tensor(&self.old_values)?, tensor(&self.returns)?);
        let Some(values) = &policy.values else {
            return Err(elenchus_lm::Error::Batch("PPO was given no values".to_owned()).into());
        };
        // 3. to 5.
        let pg = clipped::policy_loss(&policy.logprobs, &old_logprobs, &advantages, cliprange, of.tokens)?;
        let vf = clipped::value_loss(values, &old_values, &returns, cliprange_value, of.tokens)?;
        let total = (pg.loss + (vf.loss * vf_coef)?)?;
        Ok(Loss { total, stats: [pg.stats, vf.stats].concat() })
    }

    fn skips(&self, stats: &Stats) -> bool {
        stat(stats, "ratio").is_some_and(|ratio| ratio > self.settings.ratio_threshold)
    }

    fn stops(&self, stats: &Stats) -> bool {
        let most = 1.5 * self.settings.early_stop_kl;
        most > 0.0 && stat(stats, "policykl").is_some_and(|kl| kl > most)
    }
}
