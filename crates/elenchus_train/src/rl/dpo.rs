//! DPO, direct preference optimisation (Rafailov et al. 2023).
//!
//! `loss = -log sigmoid(beta * h)`, `h = log pi(chosen)/ref(chosen) - log pi(rejected)/ref(rejected)`, over pairs that the
//! policy did not say: preferences out of files, or the reference's own responses in the order of the judges' scores.

use serde::{Deserialize, Serialize};

use super::{
    experience::{Experience, each},
    method::{Loss, Method, MiniBatch, Objective, Plan, PolicyOutput, Settings, Stats},
    pairs::Responses,
};
use crate::{
    Result,
    config_file::{self, Misfit},
};

/// DPO's settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpoSettings {
    /// How strongly the policy is kept near to the reference.
    pub beta: f64,
    /// Passes over an iteration's pairs.
    pub epochs: usize,
    /// Responses in a step of the optimiser, whole pairs; 0 takes all at once.
    pub mini_batch: usize,
}

impl Default for DpoSettings {
    fn default() -> Self {
        Self { beta: 0.1, epochs: 1, mini_batch: 0 }
    }
}

// Rafailov et al. 2023, appendix B.
const PAPER: &str = r"
[sampling]
prompts = 64
group = 2
[method]
beta = 0.1
[training]
learning_rate = 1e-6
warmup_steps = 150";

impl Settings for DpoSettings {
    const NAME: &'static str = "dpo";
    const TITLE: &'static str = "DPO";
    const PAPER: Option<&'static str> = Some(PAPER);

    fn check(&self) -> Result<(), Misfit> {
        config_file::above_zero(&[("beta", self.beta)])?;
        config_file::at_least_one(&[("epochs", self.epochs as u64)])
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(*self)
    }
}

impl Method for DpoSettings {
    fn plan(&self) -> Plan {
        Plan { epochs: self.epochs, mini_batch: self.mini_batch, ..Plan::OFFLINE }
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let scores = experience.rollouts.iter().map(|rollout| rollout.score).collect();
        let responses = Responses::new(&experience.rollouts, scores);
        Ok((Box::new(LogSigmoid { responses, beta: self.beta }), Vec::new()))
    }
}

struct LogSigmoid {
    responses: Responses,
    beta: f64,
}

impl Objective for LogSigmoid {
    fn loss(&self, responses: &[usize], of: MiniBatch, policy: &PolicyOutput) -> Result<Loss> {
        let pairs = self.responses.preferred(responses, of);
        let logprobs = self.responses.logprobs(responses, policy)?;
        let log_ratio = (&logprobs - each(&self.responses.ref_logprobs, responses, logprobs.device())?)?;
        // -log sigmoid(x) = log(1 + e^-x), without overflow: max(-x, 0) + log(1 + e^-|x|).
        let total = pairs.mean(&logprobs, || {
            let x = (pairs.differences(&log_ratio)? * self.beta)?;
            Ok((x.neg()?.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?)
        })?;
        let right = match pairs.first.is_empty() {
            true => 0.0,
            false => pairs.stat(&pairs.differences(&log_ratio)?, |h| if h > 0.0 { 1.0 } else { 0.0 })?,
        };
        let loss = f64::from(total.to_scalar::<f32>()?);
        Ok(Loss { total, stats: vec![("preference_loss", loss), ("preference_accuracy", right)] })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pairs::loss_of_one_pair, *};

    /// numpy: chosen -10 and rejected -12 under the policy, -11 and -11.5 under the reference; log(1 + exp(-.1 * 1.5)).
    #[test]
    fn the_loss_of_a_pair() {
        let loss = loss_of_one_pair(&mut DpoSettings { beta: 0.1, ..DpoSettings::default() });
        assert!((loss - 0.620_957).abs() < 1e-6, "{loss}");
    }
}
