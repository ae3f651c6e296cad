//! APA, advantage-induced policy alignment (Zhu et al. 2023; `microsoft/RLHF-APA`, `modeling_sppo.py`).
//!
//! Each token by itself, as the original:
//! 1. Advantages by GAE as PPO has them, whitened over all tokens.
//! 2. `loss = mean_t (logprob_t - ref_logprob_t - A_t / lambda)^2 + vf_coef * mean_t (v - return)^2 / 2`, where the reference is
//!    the policy the run began as.
//!
//! The square is 0 at the best policy only where advantages are shifted by `lambda log Z`, `Z = E_ref exp(A / lambda)`. The
//! original leaves that out; it can be had (`log_partition`) where a whole response is the action, since only a query has
//! several responses to estimate it from:
//! 1. `A_i = score_i - mean` over the responses to a query, and Z from the same responses, weighed by how much likelier the
//!    reference makes them than who said them.
//! 2. `loss = mean_i (sum_t logprob_t - sum_t ref_logprob_t - A_i / lambda + log Z)^2`.
//!
//! Where there are few responses to a query the estimate of Z is noisier than what is learned from it: it takes a `lambda` near
//! the spread of the scores, a low learning rate, or REBEL, in whose differences Z is gone.

use serde::{Deserialize, Serialize};

use elenchus_train::{
    Error, Result,
    config_file::{self, Misfit},
    rl::{
        Group, Loss, Method, MiniBatch, Objective, Plan, PolicyOutput, Settings, Stats, Values,
        advantage::{estimated, token_rewards, whiten_all},
        baseline::standardised,
        clipped::value_loss,
        experience::{Experience, Rollout, each, end_to_end},
        kl::{Estimator, MOST_LOG_RATIO},
        pairs::Responses,
    },
};

/// APA's settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApaSettings {
    /// The price of a nat of log-ratio: the original's `adv_coeff_sq` is its inverse.
    pub lambda: f64,
    /// Shift advantages by the logarithm of the partition function, a response being one action.
    pub log_partition: bool,
    /// The price of a nat of divergence in the rewards of tokens.
    pub kl_coef: f64,
    /// Discount.
    pub gamma: f32,
    /// GAE's lambda.
    pub lam: f32,
    /// Weight of the value loss.
    pub vf_coef: f64,
    /// Passes over an iteration's responses.
    pub epochs: usize,
    /// Responses in a step of the optimiser; 0 takes all at once.
    pub mini_batch: usize,
}

impl Default for ApaSettings {
    fn default() -> Self {
        Self {
            lambda: 0.1,
            log_partition: false,
            kl_coef: 0.05,
            gamma: 1.0,
            lam: 0.95,
            vf_coef: 1.0,
            epochs: 2,
            mini_batch: 8,
        }
    }
}

// Zhu et al. 2023, examples/apa_hh.py.
const PAPER: &str = r"
[method]
lambda = 0.1
kl_coef = 0.05
gamma = 1.0
lam = 0.95
vf_coef = 1.0
epochs = 2
[training]
learning_rate = 1e-6
[training.adamw]
beta1 = 0.9
beta2 = 0.95";

impl Settings for ApaSettings {
    const NAME: &'static str = "apa";
    const TITLE: &'static str = "APA";
    const PAPER: Option<&'static str> = Some(PAPER);

    fn check(&self) -> Result<(), Misfit> {
        config_file::above_zero(&[("lambda", self.lambda)])?;
        config_file::not_negative(&[("kl_coef", self.kl_coef), ("vf_coef", self.vf_coef)])?;
        config_file::at_most_one(&[("gamma", f64::from(self.gamma)), ("lam", f64::from(self.lam))])?;
        config_file::at_least_one(&[("epochs", self.epochs as u64)])
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(*self)
    }
}

impl Method for ApaSettings {
    fn plan(&self) -> Plan {
        let (values, group) = match self.log_partition {
            true => (Values::None, Group::Compared),
            false => (Values::Head, Group::Alone),
        };
        Plan { epochs: self.epochs, mini_batch: self.mini_batch, values, group, ..Plan::ON_POLICY }
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let rollouts = &experience.rollouts;
        if self.log_partition {
            let (targets, log_z) = shifted(rollouts, self.lambda);
            let stats = vec![("log_partition", log_z)];
            return Ok((Box::new(Whole { responses: Responses::new(rollouts, targets) }), stats));
        }
        let rewards = token_rewards(rollouts, self.kl_coef as f32, Estimator::K1);
        let (mut advantages, returns) = estimated(&rewards, rollouts, self.gamma, self.lam);
        whiten_all(&mut advantages, true);
        let targets = advantages.iter().zip(rollouts).map(|(advantages, rollout)| {
            let of = |(advantage, reference): (&f32, &f32)| reference + advantage / self.lambda as f32;
            advantages.iter().zip(&rollout.ref_logprobs).map(of).collect()
        });
        let (targets, values) = (targets.collect(), rollouts.iter().map(|rollout| rollout.values.clone()).collect());
        Ok((Box::new(Tokens { targets, values, returns, vf_coef: self.vf_coef }), Vec::new()))
    }
}

/// `A_i / lambda - log Z` of each response, and the mean of `log Z`. Z is estimated from the others: with the response itself
/// in it, the shift would take some of its own advantage away.
fn shifted(rollouts: &[Rollout], lambda: f64) -> (Vec<f32>, f64) {
    let (scores, queries): (Vec<f32>, Vec<usize>) =
        rollouts.iter().map(|rollout| (rollout.score, rollout.query)).unzip();
    let advantages = standardised(&scores, &queries, false);
    let of = |numbers: &[f32]| numbers.iter().map(|&x| f64::from(x)).sum::<f64>();
    // How much likelier the reference says it than who said it, and A / lambda.
    let terms: Vec<(f64, f64)> = rollouts
        .iter()
        .zip(&advantages)
        .map(|(rollout, &advantage)| (of(&rollout.ref_logprobs) - of(&rollout.logprobs), f64::from(advantage) / lambda))
        .collect();
    let mut sum = 0.0;
    let of = |at: usize| {
        let others = (0..rollouts.len()).filter(|&other| other != at && queries[other] == queries[at]);
        let log_z = log_partition(others.map(|other| terms[other]));
        sum += log_z;
        (terms[at].1 - log_z) as f32
    };
    let targets: Vec<f32> = (0..rollouts.len()).map(of).collect();
    (targets, sum / rollouts.len().max(1) as f64)
}

/// `log E exp(a)` from samples of another distribution, each with its log-ratio; of none 0.
fn log_partition(terms: impl Iterator<Item = (f64, f64)>) -> f64 {
    let most = f64::from(MOST_LOG_RATIO);
    let (mut weights, mut weighted) = (0.0, 0.0);
    for (log_ratio, a) in terms {
        let weight = log_ratio.clamp(-most, most).exp();
        weights += weight;
        weighted += weight * a.exp();
    }
    if weights > 0.0 { (weighted / weights).ln() } else { 0.0 }
}

/// The original: each token moves to its own target.
struct Tokens {
    /// Log-probabilities that are to be reached.
    targets: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    returns: Vec<Vec<f32>>,
    vf_coef: f64,
}

/// Values move as far as they want to.
const NO_CLIP: f32 = f32::MAX;

impl Objective for Tokens {
    fn loss(&self, responses: &[usize], of: MiniBatch, policy: &PolicyOutput) -> Result<Loss> {
        let device = policy.logprobs.device();
        let tensor = |numbers: &[Vec<f32>]| end_to_end(numbers, responses, device);
        let Some(values) = &policy.values else {
            return Err(Error::from(elenchus_lm::Error::Batch("APA was given no values".to_owned())));
        };
        let distance = (&policy.logprobs - tensor(&self.targets)?)?;
        let squares = (distance.sqr()?.sum_all()? / of.tokens as f64)?;
        let vf = value_loss(values, &tensor(&self.values)?, &tensor(&self.returns)?, NO_CLIP, of.tokens)?;
        let loss = f64::from(squares.to_scalar::<f32>()?);
        let total = (squares + (vf.loss * self.vf_coef)?)?;
        Ok(Loss { total, stats: [vec![("squared_loss", loss)], vf.stats].concat() })
    }
}

/// With the partition function: each response does.
struct Whole {
    responses: Responses,
}

impl Objective for Whole {
    fn loss(&self, responses: &[usize], of: MiniBatch, policy: &PolicyOutput) -> Result<Loss> {
        let logprobs = self.responses.logprobs(responses, policy)?;
        let device = logprobs.device();
        let log_ratio = (&logprobs - each(&self.responses.ref_logprobs, responses, device)?)?;
        let squares = (log_ratio - each(&self.responses.rewards, responses, device)?)?.sqr()?;
        let total = (squares.sum_all()? / of.responses as f64)?;
        let loss = f64::from(total.to_scalar::<f32>()?);
        Ok(Loss { total, stats: vec![("squared_loss", loss)] })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    const REFERENCE: [f32; 3] = [0.5, 0.3, 0.2];
    /// numpy: reference * exp(A / .1) / Z, A = [-.1, .05, .1].
    const BEST: [f32; 3] = [0.150_497_34, 0.404_689_36, 0.444_813_3];

    /// Ten responses as the reference says them; their scores have mean 0.
    fn rollouts() -> Vec<Rollout> {
        let arms = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2];
        let scores = [-0.1f32, 0.05, 0.1];
        let of = |arm: usize| Rollout {
            score: scores[arm],
            logprobs: vec![REFERENCE[arm].ln()],
            ref_logprobs: vec![REFERENCE[arm].ln()],
            ..Rollout::default()
        };
        arms.map(of).to_vec()
    }

    const ADVANTAGES: [f64; 3] = [-0.1, 0.05, 0.1];

    /// numpy: log Z = log 1.22221247; the shifted advantages.
    fn exact() -> [f32; 3] {
        let arms = [0usize, 0, 0, 0, 0, 1, 1, 1, 2, 2];
        let log_z = log_partition(arms.iter().map(|&arm| (0.0, ADVANTAGES[arm] / 0.1)));
        assert!((log_z.exp() - 1.222_212_47).abs() < 1e-8, "{log_z}");
        ADVANTAGES.map(|a| (a / 0.1 - log_z) as f32)
    }

    #[test]
    fn the_shift_is_the_logarithm_of_the_partition_function() {
        for (ours, expected) in exact().iter().zip([-0.120_066_27, 0.029_933_73, 0.079_933_73]) {
            assert!((ours * 0.1 - expected).abs() < 1e-6, "{ours}");
        }
        // Said by a policy that says all three alike: weights put that right.
        let uniform = (0..3).map(|arm| ((f64::from(REFERENCE[arm]) * 3.0).ln(), ADVANTAGES[arm] / 0.1));
        assert!((log_partition(uniform).exp() - 1.222_212_47).abs() < 1e-6);
        // Of each response by the others to its query: of ten samples, all but itself.
        let (targets, _) = shifted(&rollouts(), 0.1);
        let others = [0usize, 0, 0, 0, 0, 1, 1, 1, 2].map(|arm| (0.0, (ADVANTAGES[arm] + 0.015) / 0.1));
        let expected = (ADVANTAGES[2] + 0.015) / 0.1 - log_partition(others.into_iter());
        assert!((f64::from(targets[9]) - expected).abs() < 1e-5, "{targets:?}");
    }

    fn loss(objective: &dyn Objective, policy: [f32; 3]) -> f32 {
        let arms = [0usize, 0, 0, 0, 0, 1, 1, 1, 2, 2];
        let logprobs = Tensor::new(&arms.map(|arm| policy[arm].ln()), &Device::Cpu).unwrap();
        let values = Some(logprobs.zeros_like().unwrap());
        let places: Vec<usize> = (0..10).collect();
        let loss = objective.loss(&places, MiniBatch { responses: 10, tokens: 10 }, &PolicyOutput { logprobs, values });
        loss.unwrap().total.to_scalar::<f32>().unwrap()
    }

    #[test]
    fn the_square_is_zero_at_the_best_policy_with_the_shift_alone() {
        let arms = [0usize, 0, 0, 0, 0, 1, 1, 1, 2, 2];
        let exact = exact();
        let with = Whole { responses: Responses::new(&rollouts(), arms.map(|arm| exact[arm]).to_vec()) };
        assert!(loss(&with, BEST) < 1e-9, "{}", loss(&with, BEST));
        assert!(loss(&with, REFERENCE) > 0.1);
        let targets = rollouts().iter().map(|of| vec![of.ref_logprobs[0] + of.score / 0.1]).collect();
        let zeros = vec![vec![0.0]; 10];
        let without = Tokens { targets, values: zeros.clone(), returns: zeros, vf_coef: 0.0 };
        assert!((loss(&without, BEST) - 1.222_212_5f32.ln().powi(2)).abs() < 1e-5, "{}", loss(&without, BEST));
    }

    /// numpy: mean over arms of (shifted A / .1)^2.
    #[test]
    fn the_loss_where_nothing_is_learned_yet() {
        let mean = exact().iter().map(|target| target * target).sum::<f32>() / 3.0;
        assert!((mean - 0.723_377_95).abs() < 1e-5, "{mean}");
    }
}
