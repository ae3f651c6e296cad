//! IPO, identity preference optimisation (Azar et al. 2023), with TRL's mean over tokens.
//!
//! `loss = (h - 1 / (2 beta))^2`, `h = log pi(chosen)/ref(chosen) / |chosen| - log pi(rejected)/ref(rejected) / |rejected|`:
//! a margin to be reached, not one to grow for ever where preferences never contradict each other.

use serde::{Deserialize, Serialize};

use elenchus_train::{
    Result,
    config_file::{self, Misfit},
    rl::{
        Loss, Method, MiniBatch, Objective, Plan, PolicyOutput, Settings, Stats,
        experience::{Experience, each},
        pairs::Responses,
    },
};

/// IPO's settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpoSettings {
    /// Half of its inverse is the margin.
    pub beta: f64,
    /// Divide by a response's tokens, as TRL does and the paper does not.
    pub per_token: bool,
    /// Passes over an iteration's pairs.
    pub epochs: usize,
    /// Responses in a step of the optimiser, whole pairs; 0 takes all at once.
    pub mini_batch: usize,
}

impl Default for IpoSettings {
    fn default() -> Self {
        Self { beta: 0.1, per_token: false, epochs: 1, mini_batch: 0 }
    }
}

impl Settings for IpoSettings {
    const NAME: &'static str = "ipo";
    const TITLE: &'static str = "IPO";

    fn check(&self) -> Result<(), Misfit> {
        config_file::above_zero(&[("beta", self.beta)])?;
        config_file::at_least_one(&[("epochs", self.epochs as u64)])
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(*self)
    }
}

impl Method for IpoSettings {
    fn plan(&self) -> Plan {
        Plan { epochs: self.epochs, mini_batch: self.mini_batch, ..Plan::OFFLINE }
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let scores = experience.rollouts.iter().map(|rollout| rollout.score).collect();
        let responses = Responses::new(&experience.rollouts, scores);
        Ok((Box::new(Margin { responses, settings: *self }), Vec::new()))
    }
}

struct Margin {
    responses: Responses,
    settings: IpoSettings,
}

impl Objective for Margin {
    fn loss(&self, responses: &[usize], of: MiniBatch, policy: &PolicyOutput) -> Result<Loss> {
        let pairs = self.responses.preferred(responses, of);
        let logprobs = self.responses.logprobs(responses, policy)?;
        let device = logprobs.device();
        let mut log_ratio = (&logprobs - each(&self.responses.ref_logprobs, responses, device)?)?;
        if self.settings.per_token {
            log_ratio = (log_ratio / each(&self.responses.lengths(), responses, device)?)?;
        }
        let margin = 0.5 / self.settings.beta;
        let total = pairs.mean(&logprobs, || Ok((pairs.differences(&log_ratio)? - margin)?.sqr()?))?;
        let loss = f64::from(total.to_scalar::<f32>()?);
        Ok(Loss { total, stats: vec![("preference_loss", loss)] })
    }
}

#[cfg(test)]
mod tests {
    use elenchus_train::rl::pairs::loss_of_one_pair;

    use super::*;

    /// numpy: of 5 and 6 tokens, (1/5 - (-.5)/6 - 5)^2; without the lengths (1.5 - 5)^2.
    #[test]
    fn the_loss_of_a_pair() {
        for (per_token, expected) in [(true, 22.246_944), (false, 12.25)] {
            let loss = loss_of_one_pair(&mut IpoSettings { per_token, ..IpoSettings::default() });
            assert!((loss - expected).abs() < 1e-4, "{per_token}: {loss}");
        }
    }
}
