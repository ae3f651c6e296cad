//! PPO-max (Zheng et al. 2023, "Secrets of RLHF in Large Language Models"; `OpenLMLab/MOSS-RLHF`): PPO that is kept in check.
//!
//! 1. Scores are divided by the running standard deviation of all scores so far, their mean stays, and clipped.
//! 2. The critic is a model of its own that begins as a reward model (`critic`), not a head that knows nothing.
//! 3. Whitened advantages may be clipped as well.
//! 4. All else is PPO; the mix with likelihood is `[offline]`, which any method may have.
//!
//! With all of this left out it is PPO, bit for bit.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use elenchus_train::{
    Result,
    config_file::{self, Misfit},
    rl::{Experience, Method, Objective, Plan, Ppo, PpoSettings, Settings, Stats, Values, restored},
};

/// PPO-max's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoMaxSettings {
    /// Divide scores by the deviation of all so far.
    pub scale_rewards: bool,
    /// How large a scaled score may be; 0 does not clip.
    pub clip_reward: f32,
    /// How large a whitened advantage may be; 0 does not clip.
    pub clip_advantage: f32,
    /// The folder of a reward model that the critic begins as; a head on the policy's states if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critic: Option<PathBuf>,
    /// The critic's learning rate, times the policy's.
    pub critic_rate: f64,
    /// All else.
    pub ppo: PpoSettings,
}

impl Default for PpoMaxSettings {
    fn default() -> Self {
        Self {
            scale_rewards: true,
            clip_reward: 10.0,
            clip_advantage: 0.0,
            critic: None,
            critic_rate: 3.0,
            ppo: PpoSettings { kl_coef: 0.02, kl_target: 0.0, ..PpoSettings::default() },
        }
    }
}

// Zheng et al. 2023, train_ppo_en.sh.
const PAPER: &str = r"
[sampling]
prompts = 128
group = 1
[method]
scale_rewards = true
clip_reward = 10.0
critic_rate = 3.0
[method.ppo]
kl_coef = 0.02
kl_target = 0.0
lam = 0.95
cliprange = 0.2
cliprange_value = 0.2
mini_batch = 32
epochs = 1
[training]
learning_rate = 5e-7
warmup_steps = 500
[training.adamw]
beta1 = 0.9
beta2 = 0.95
eps = 1e-6";

impl Settings for PpoMaxSettings {
    const NAME: &'static str = "ppo-max";
    const TITLE: &'static str = "PPO-max";
    const PAPER: Option<&'static str> = Some(PAPER);

    fn check(&self) -> Result<(), Misfit> {
        config_file::not_negative(&[
            ("clip_reward", f64::from(self.clip_reward)),
            ("clip_advantage", f64::from(self.clip_advantage)),
        ])?;
        config_file::above_zero(&[("critic_rate", self.critic_rate)])?;
        self.ppo.check()
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(PpoMax { ppo: Ppo::new(self.ppo), settings: self.clone(), scores: RunningMoments::default() })
    }

    fn value_model(&self) -> Option<&Path> {
        self.critic.as_deref()
    }
}

struct PpoMax {
    settings: PpoMaxSettings,
    ppo: Ppo,
    scores: RunningMoments,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    scores: RunningMoments,
    ppo: Value,
}

impl Method for PpoMax {
    fn plan(&self) -> Plan {
        let values = match self.settings.critic {
            Some(_) => Values::Model { rate: self.settings.critic_rate },
            None => Values::Head,
        };
        Plan { values, ..self.ppo.plan() }
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let PpoMaxSettings { scale_rewards, clip_reward, clip_advantage, .. } = self.settings;
        let mut experience = experience.clone();
        let scores: Vec<f64> = experience.rollouts.iter().map(|rollout| f64::from(rollout.score)).collect();
        self.scores.add(&scores);
        let deviation = self.scores.std();
        for rollout in &mut experience.rollouts {
            if scale_rewards && deviation > 0.0 {
                rollout.score = (f64::from(rollout.score) / deviation) as f32;
            }
            if clip_reward > 0.0 {
                rollout.score = rollout.score.clamp(-clip_reward, clip_reward);
            }
        }
        let (objective, mut stats) = self.ppo.clipped_objective(&experience, clip_advantage)?;
        stats.push(("score_std", deviation));
        Ok((objective, stats))
    }

    fn state(&self) -> Value {
        json!(State { scores: self.scores, ppo: self.ppo.state() })
    }

    fn restore(&mut self, state: Value) -> Result<()> {
        let State { scores, ppo } = restored(state)?;
        self.scores = scores;
        self.ppo.restore(ppo)
    }
}

/// Mean and variance of all numbers so far (Welford; Chan et al. for a batch at once).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunningMoments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl RunningMoments {
    fn add(&mut self, numbers: &[f64]) {
        if numbers.is_empty() {
            return;
        }
        let (before, more) = (self.count as f64, numbers.len() as f64);
        let mean = numbers.iter().sum::<f64>() / more;
        let squares: f64 = numbers.iter().map(|x| (x - mean).powi(2)).sum();
        let (distance, count) = (mean - self.mean, before + more);
        self.mean += distance * more / count;
        self.squares += squares + distance * distance * before * more / count;
        self.count += numbers.len() as u64;
    }

    /// n - 1; 0 of fewer than two numbers.
    fn std(&self) -> f64 {
        if self.count < 2 { 0.0 } else { (self.squares / (self.count - 1) as f64).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use elenchus_train::rl::{MiniBatch, PolicyOutput, Rollout};

    use super::*;

    #[test]
    fn moments_run_on() {
        let mut moments = RunningMoments::default();
        assert_eq!(moments.std(), 0.0);
        moments.add(&[1.0, 2.0, 3.0]);
        moments.add(&[]);
        moments.add(&[4.0, 6.0]);
        // np.mean, np.std(ddof=1) of all five.
        assert!((moments.mean - 3.2).abs() < 1e-12 && (moments.std() - 1.923_538_41).abs() < 1e-8, "{moments:?}");
    }

    fn experience(factor: f32) -> Experience {
        let rollout = |at: usize, score: f32| Rollout {
            query: at / 2,
            score: score * factor,
            logprobs: vec![-1.0 - at as f32 * 0.125, -0.5],
            ref_logprobs: vec![-1.25, -0.75],
            values: vec![0.25, 0.5],
            ..Rollout::default()
        };
        let rollouts = [0.5, -1.0, 2.0, 0.25].iter().enumerate().map(|(at, &score)| rollout(at, score));
        Experience { rollouts: rollouts.collect(), ..Experience::default() }
    }

    /// Bits of the loss and of its gradient where the policy has moved on.
    fn bits(method: &mut dyn Method, factor: f32, iterations: usize) -> Vec<u32> {
        let mut bits = Vec::new();
        for _ in 0..iterations {
            let experience = experience(factor);
            let (objective, _) = method.objective(&experience).unwrap();
            let now: Vec<f32> = experience.rollouts.iter().flat_map(|of| &of.logprobs).map(|lp| lp + 0.1).collect();
            let logprobs = candle_core::Var::from_tensor(&Tensor::new(now, &Device::Cpu).unwrap()).unwrap();
            let values = Some(Tensor::new(&[0.3f32, 0.4, 0.5, 0.6, 0.1, 0.2, 0.3, 0.4], &Device::Cpu).unwrap());
            let policy = PolicyOutput { logprobs: logprobs.as_tensor().clone(), values };
            let loss = objective.loss(&[0, 1, 2, 3], MiniBatch { responses: 4, tokens: 8 }, &policy).unwrap();
            bits.push(loss.total.to_scalar::<f32>().unwrap().to_bits());
            let grads = loss.total.backward().unwrap();
            bits.extend(grads.get(&logprobs).unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits));
        }
        bits
    }

    #[test]
    fn without_its_parts_it_is_ppo_bit_for_bit() {
        let plain = PpoMaxSettings { scale_rewards: false, clip_reward: 0.0, ..PpoMaxSettings::default() };
        assert_eq!(bits(&mut *plain.method(), 1.0, 3), bits(&mut *plain.ppo.method(), 1.0, 3));
        assert_ne!(bits(&mut *PpoMaxSettings::default().method(), 1.0, 3), bits(&mut *plain.ppo.method(), 1.0, 3));
    }

    /// A power of two, so that a division by the deviation gives the same bits.
    #[test]
    fn scores_that_are_all_a_thousand_times_as_large_change_nothing() {
        let of = |factor| bits(&mut *PpoMaxSettings::default().method(), factor, 3);
        assert_eq!(of(1.0), of(1024.0));
    }

    #[test]
    fn its_state_resumes() {
        let mut one = PpoMaxSettings::default().method();
        bits(&mut *one, 1.0, 2);
        let mut other = PpoMaxSettings::default().method();
        other.restore(one.state()).unwrap();
        assert_eq!(bits(&mut *one, 3.0, 1), bits(&mut *other, 3.0, 1));
        assert!(other.restore(json!({ "scores": 1 })).is_err());
    }
}
