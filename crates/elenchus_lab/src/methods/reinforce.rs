//! REINFORCE (Williams 1992) with a running mean of rewards as baseline, as in Ahmadian et al. 2024, "Back to Basics", 2.2.
//!
//! 1. `R_i = score_i - kl_coef * sum_t (logprob_t - ref_logprob_t)`: the whole response is one action.
//! 2. `A_i = R_i - b`, where `b` is the mean reward of all earlier iterations, of this one at first.
//! 3. `loss = -mean_i A_i * sum_t logprob_t`, one step from samples of the policy as it is.

use candle_core::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use elenchus_train::{
    Result,
    config_file::{self, Misfit},
    rl::{
        Loss, Method, MiniBatch, Objective, Plan, PolicyOutput, Settings, Stats,
        experience::{Experience, each, sums},
        restored,
    },
};

/// REINFORCE's settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReinforceSettings {
    /// The price of a nat of divergence from the reference.
    pub kl_coef: f32,
}

impl Default for ReinforceSettings {
    fn default() -> Self {
        Self { kl_coef: 0.05 }
    }
}

// Ahmadian et al. 2024, of TL;DR.
const PAPER: &str = r"
[sampling]
prompts = 512
group = 1
[method]
kl_coef = 0.03
[training]
learning_rate = 1e-6";

impl Settings for ReinforceSettings {
    const NAME: &'static str = "reinforce";
    const TITLE: &'static str = "REINFORCE";
    const PAPER: Option<&'static str> = Some(PAPER);

    fn check(&self) -> Result<(), Misfit> {
        config_file::not_negative(&[("kl_coef", f64::from(self.kl_coef))])
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(Reinforce { settings: *self, past: Past::default() })
    }
}

struct Reinforce {
    settings: ReinforceSettings,
    past: Past,
}

/// All earlier rewards.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Past {
    sum: f64,
    count: u64,
}

impl Method for Reinforce {
    fn plan(&self) -> Plan {
        Plan::ON_POLICY
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let rollouts = &experience.rollouts;
        let rewards: Vec<f32> = rollouts.iter().map(|rollout| rollout.sequence_reward(self.settings.kl_coef)).collect();
        let now = Past { sum: rewards.iter().map(|&reward| f64::from(reward)).sum(), count: rewards.len() as u64 };
        let known = if self.past.count == 0 { now } else { self.past };
        let baseline = (known.sum / known.count.max(1) as f64) as f32;
        self.past = Past { sum: self.past.sum + now.sum, count: self.past.count + now.count };
        let advantages = rewards.iter().map(|reward| reward - baseline).collect();
        let lengths = rollouts.iter().map(|rollout| rollout.logprobs.len()).collect();
        Ok((Box::new(LogLikelihood { advantages, lengths }), vec![("baseline", f64::from(baseline))]))
    }

    fn state(&self) -> Value {
        json!(self.past)
    }

    fn restore(&mut self, state: Value) -> Result<()> {
        self.past = restored(state)?;
        Ok(())
    }
}

/// Each response's log-probability, weighed.
struct LogLikelihood {
    advantages: Vec<f32>,
    lengths: Vec<usize>,
}

impl Objective for LogLikelihood {
    fn loss(&self, responses: &[usize], of: MiniBatch, policy: &PolicyOutput) -> Result<Loss> {
        let advantages = each(&self.advantages, responses, &Device::Cpu)?.to_device(policy.logprobs.device())?;
        let logprobs = sums(&policy.logprobs, responses.iter().map(|&at| self.lengths[at]))?;
        let total = ((advantages * logprobs)?.sum_all()? * (-1.0 / of.responses as f64))?;
        let pg_loss = f64::from(total.to_scalar::<f32>()?);
        Ok(Loss { total, stats: vec![("pg_loss", pg_loss)] })
    }
}

#[cfg(test)]
mod tests {
    use elenchus_train::rl::Rollout;

    use super::*;

    #[test]
    fn the_baseline_is_what_was_known_before() {
        let of = |scores: &[f32]| Experience {
            rollouts: scores
                .iter()
                .map(|&score| Rollout { score, logprobs: vec![-1.0], ref_logprobs: vec![-1.5], ..Rollout::default() })
                .collect(),
            ..Experience::default()
        };
        let mut method = ReinforceSettings { kl_coef: 0.2 }.method();
        let baseline = |method: &mut dyn Method, scores: &[f32]| method.objective(&of(scores)).unwrap().1[0].1;
        // Every reward is its score less 0.2 * 0.5.
        let near = |ours: f64, expected: f64| assert!((ours - expected).abs() < 1e-6, "{ours}");
        near(baseline(&mut *method, &[1.0, 2.0]), 1.4);
        near(baseline(&mut *method, &[9.0]), 1.4);
        near(baseline(&mut *method, &[0.0]), 3.9);
        let mut resumed = ReinforceSettings { kl_coef: 0.2 }.method();
        resumed.restore(method.state()).unwrap();
        near(baseline(&mut *resumed, &[0.0]), baseline(&mut *method, &[5.0]));
        assert!(resumed.restore(json!({ "kl_coef": 1 })).is_err());
    }
}
