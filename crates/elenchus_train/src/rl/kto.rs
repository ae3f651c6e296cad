//! KTO, Kahneman-Tversky optimisation (Ethayarajh et al. 2024), in the form of TRL's `kto_trainer.py`.
//!
//! 1. A response is desirable or not by itself: of written preferences the chosen one is; of the reference's own responses
//!    those above the mean score of their query's.
//! 2. `z = max(0, mean log-ratio of responses under another query than their own)`, an estimate of divergence that nothing is
//!    learned from.
//! 3. `loss = mean of weight * (1 - sigmoid(beta * (log-ratio - z)))`, the sign turned where a response is undesirable.

use serde::{Deserialize, Serialize};

use super::{
    baseline::standardised,
    experience::{Experience, each},
    method::{Group, Loss, Method, MiniBatch, Objective, Plan, PolicyOutput, Settings, Stats},
    pairs::Responses,
};
use crate::{
    Result,
    config_file::{self, Misfit},
};

/// KTO's settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KtoSettings {
    /// How strongly the policy is kept near to the reference.
    pub beta: f64,
    /// How much a desirable response counts.
    pub desirable_weight: f32,
    /// How much an undesirable one does.
    pub undesirable_weight: f32,
    /// Passes over an iteration's responses.
    pub epochs: usize,
    /// Responses in a step of the optimiser; 0 takes all at once.
    pub mini_batch: usize,
}

impl Default for KtoSettings {
    fn default() -> Self {
        Self { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0, epochs: 1, mini_batch: 0 }
    }
}

impl Settings for KtoSettings {
    const NAME: &'static str = "kto";
    const TITLE: &'static str = "KTO";

    fn check(&self) -> Result<(), Misfit> {
        config_file::above_zero(&[("beta", self.beta)])?;
        config_file::not_negative(&[
            ("desirable_weight", f64::from(self.desirable_weight)),
            ("undesirable_weight", f64::from(self.undesirable_weight)),
        ])?;
        config_file::at_least_one(&[("epochs", self.epochs as u64)])
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(*self)
    }
}

impl Method for KtoSettings {
    fn plan(&self) -> Plan {
        Plan {
            epochs: self.epochs,
            mini_batch: self.mini_batch,
            group: Group::Compared,
            mismatched_kl: true,
            ..Plan::OFFLINE
        }
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let (scores, queries): (Vec<f32>, Vec<usize>) =
            experience.rollouts.iter().map(|rollout| (rollout.score, rollout.query)).unzip();
        // 1. In a group that is all alike nobody is either.
        let (signs, weights) = standardised(&scores, &queries, false)
            .into_iter()
            .map(|distance| match distance {
                d if d > 0.0 => (1.0, self.desirable_weight),
                d if d < 0.0 => (-1.0, self.undesirable_weight),
                _ => (0.0, 0.0),
            })
            .unzip();
        // 2.
        let reference_point = experience.mismatched_kl.max(0.0);
        let responses = Responses::new(&experience.rollouts, scores);
        let objective = Prospects { responses, signs, weights, beta: self.beta, reference_point };
        Ok((Box::new(objective), vec![("reference_point", f64::from(reference_point))]))
    }
}

struct Prospects {
    responses: Responses,
    signs: Vec<f32>,
    weights: Vec<f32>,
    beta: f64,
    reference_point: f32,
}

impl Objective for Prospects {
    fn loss(&self, responses: &[usize], of: MiniBatch, policy: &PolicyOutput) -> Result<Loss> {
        let logprobs = self.responses.logprobs(responses, policy)?;
        let device = logprobs.device();
        let (signs, weights) = (each(&self.signs, responses, device)?, each(&self.weights, responses, device)?);
        let log_ratio = (&logprobs - each(&self.responses.ref_logprobs, responses, device)?)?;
        let gain = (((log_ratio - f64::from(self.reference_point))? * signs)? * self.beta)?;
        // 3. 1 - sigmoid(x) = sigmoid(-x).
        let losses = (candle_nn::ops::sigmoid(&gain.neg()?)? * weights)?;
        let total = (losses.sum_all()? / of.responses as f64)?;
        let loss = f64::from(total.to_scalar::<f32>()?);
        Ok(Loss { total, stats: vec![("prospect_loss", loss)] })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pairs::loss_of_one_pair, *};

    /// numpy: log-ratios 1 (desirable) and -.5 (undesirable), z = 0; mean of 1 - sigmoid(.1) and 1 - sigmoid(.05).
    #[test]
    fn the_loss_of_a_pair() {
        let loss = loss_of_one_pair(&mut KtoSettings::default());
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let expected = ((1.0 - sigmoid(0.1)) + (1.0 - sigmoid(0.05))) / 2.0;
        assert!((loss - expected).abs() < 1e-6, "{loss} instead of {expected}");
    }
}
