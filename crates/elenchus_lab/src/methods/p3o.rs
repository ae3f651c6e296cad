//! Pairwise PPO (Wu et al. 2023, arXiv 2310.00212). The exact constants of its two clips were published nowhere that could be
//! read, so this is P3O-style.
//!
//! 1. `R_i = score_i - kl_coef * sum_t (logprob_t - ref_logprob_t)`.
//! 2. The gradient of two responses to one query is `(R_1 - R_2) * grad (logprob_1 - logprob_2) / 2`: what is added to both
//!    rewards is gone before anything is computed.
//! 3. Off-policy each response's ratio is clipped by itself (`separate`; of two responses, RLOO), or a pair is weighed by the
//!    clipped product of both ratios (`joint`).

use serde::{Deserialize, Serialize};

use elenchus_train::{
    Result,
    config_file::{self, Misfit},
    rl::{
        Group, Loss, Method, MiniBatch, Objective, Plan, PolicyOutput, Settings, Stats,
        baseline::leave_one_out,
        clipped::SequenceRatio,
        experience::{Experience, each},
        kl::MOST_LOG_RATIO,
        pairs::Responses,
    },
};

/// P3O's settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct P3oSettings {
    /// The price of a nat of divergence from the reference.
    pub kl_coef: f32,
    /// What is clipped.
    pub clip: PairClip,
    /// How far it may move.
    pub cliprange: f32,
    /// Passes over an iteration's responses.
    pub epochs: usize,
    /// Responses in a step of the optimiser, whole groups; 0 takes all at once.
    pub mini_batch: usize,
}

/// The two versions of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PairClip {
    /// Each response's ratio: V1.
    Separate,
    /// The product of both: V2.
    #[default]
    Joint,
}

impl Default for P3oSettings {
    fn default() -> Self {
        Self { kl_coef: 0.05, clip: PairClip::Joint, cliprange: 0.2, epochs: 2, mini_batch: 0 }
    }
}

impl Settings for P3oSettings {
    const NAME: &'static str = "p3o";
    const TITLE: &'static str = "P3O-style";

    fn check(&self) -> Result<(), Misfit> {
        config_file::not_negative(&[("kl_coef", f64::from(self.kl_coef))])?;
        config_file::above_zero(&[("cliprange", f64::from(self.cliprange))])?;
        config_file::at_least_one(&[("epochs", self.epochs as u64)])
    }

    fn method(&self) -> Box<dyn Method> {
        Box::new(*self)
    }
}

impl Method for P3oSettings {
    fn plan(&self) -> Plan {
        Plan { epochs: self.epochs, mini_batch: self.mini_batch, group: Group::Together, ..Plan::ON_POLICY }
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let rollouts = &experience.rollouts;
        let rewards: Vec<f32> = rollouts.iter().map(|rollout| rollout.sequence_reward(self.kl_coef)).collect();
        let objective: Box<dyn Objective> = match self.clip {
            PairClip::Separate => {
                let queries: Vec<usize> = rollouts.iter().map(|rollout| rollout.query).collect();
                Box::new(SequenceRatio::new(rollouts, leave_one_out(&rewards, &queries), self.cliprange))
            }
            PairClip::Joint => {
                Box::new(JointRatio { responses: Responses::new(rollouts, rewards), cliprange: self.cliprange })
            }
        };
        Ok((objective, Vec::new()))
    }
}

struct JointRatio {
    responses: Responses,
    cliprange: f32,
}

impl Objective for JointRatio {
    fn loss(&self, responses: &[usize], of: MiniBatch, policy: &PolicyOutput) -> Result<Loss> {
        let pairs = self.responses.pairs(responses, of, |_, _| std::cmp::Ordering::Greater);
        let logprobs = self.responses.logprobs(responses, policy)?;
        let device = logprobs.device();
        let rewards = each(&self.responses.rewards, responses, device)?;
        let log_ratio = (logprobs.detach() - each(&self.responses.old_logprobs, responses, device)?)?;
        let (low, high) = (1.0 - self.cliprange, 1.0 + self.cliprange);
        let total = pairs.mean(&logprobs, || {
            // The product of both ratios is the exponential of the sum of their logarithms.
            let weight = pairs.sums(&log_ratio)?.clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO)?.exp()?.clamp(low, high)?;
            let gain = (pairs.differences(&rewards)? * pairs.differences(&logprobs)?)?;
            Ok(((gain * weight)? * -0.5)?)
        })?;
        let loss = f64::from(total.to_scalar::<f32>()?);
        Ok(Loss { total, stats: vec![("pg_loss", loss)] })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor, Var};

    use elenchus_train::rl::{PpoSettings, Rollout};

    use super::*;

    /// Two queries with two responses each; a judge is kinder to the first by `shift`, and values do not know of it.
    fn gradient(method: &mut dyn Method, responses: &[(usize, u32, f32)], shift: f32) -> Vec<f32> {
        let logits = Var::new(&[0f32, 0.0, 0.0], &Device::Cpu).unwrap();
        let third = (1.0f32 / 3.0).ln();
        let rollouts = responses.iter().map(|&(query, _, reward)| Rollout {
            query,
            score: if query == 0 { reward + shift } else { reward },
            logprobs: vec![third],
            ref_logprobs: vec![third],
            values: vec![0.25],
            ..Rollout::default()
        });
        let experience = Experience { rollouts: rollouts.collect(), ..Experience::default() };
        let (objective, _) = method.objective(&experience).unwrap();
        let arms: Vec<u32> = responses.iter().map(|response| response.1).collect();
        let all = candle_nn::ops::log_softmax(logits.as_tensor(), 0).unwrap();
        let logprobs = all.index_select(&Tensor::new(arms, &Device::Cpu).unwrap(), 0).unwrap();
        let values = Some((logprobs.zeros_like().unwrap() + 0.25).unwrap());
        let of = MiniBatch { responses: responses.len(), tokens: responses.len() };
        let places: Vec<usize> = (0..responses.len()).collect();
        let loss = objective.loss(&places, of, &PolicyOutput { logprobs, values }).unwrap();
        loss.total.backward().unwrap().get(&logits).unwrap().to_vec1::<f32>().unwrap()
    }

    const CLIPS: [PairClip; 2] = [PairClip::Separate, PairClip::Joint];

    fn p3o(clip: PairClip) -> P3oSettings {
        P3oSettings { kl_coef: 0.0, clip, ..P3oSettings::default() }
    }

    /// numpy: rewards 2 and .5 of arms 0 and 2; (2 - .5) / 2 * (onehot(0) - onehot(2)).
    #[test]
    fn of_two_responses_both_clips_give_the_same_first_step() {
        for clip in CLIPS {
            let gradient = gradient(&mut p3o(clip), &[(0, 0, 2.0), (0, 2, 0.5)], 0.0);
            let near = gradient.iter().zip([-0.75, 0.0, 0.75]).all(|(ours, expected)| (ours - expected).abs() < 1e-6);
            assert!(near, "{clip:?}: {gradient:?}");
        }
    }

    /// All numbers are binary fractions, so that not a bit is lost where something is added.
    #[test]
    fn what_a_query_adds_to_its_rewards_changes_no_bit_of_it_and_changes_ppo() {
        let responses = [(0, 0, 2.0), (0, 2, 0.5), (1, 1, 1.0), (1, 2, 0.0)];
        for clip in CLIPS {
            let of =
                |shift| gradient(&mut p3o(clip), &responses, shift).into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(of(0.0), of(64.0), "{clip:?}");
        }
        let of = |shift| {
            let settings = PpoSettings { kl_coef: 0.0, kl_target: 0.0, ..PpoSettings::default() };
            gradient(&mut *Settings::method(&settings), &responses, shift)
        };
        let distance = of(0.0).iter().zip(of(64.0)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(distance > 0.1, "{distance}");
    }

    /// Beyond the clip of the product a pair counts no more than its edge, whatever its ratios are.
    #[test]
    fn the_joint_clip_is_of_the_product() {
        let rollouts = [1.0, 0.0].map(|score| Rollout {
            score,
            logprobs: vec![-2.0],
            ref_logprobs: vec![-2.0],
            ..Rollout::default()
        });
        let experience = Experience { rollouts: rollouts.to_vec(), ..Experience::default() };
        let (objective, _) = p3o(PairClip::Joint).objective(&experience).unwrap();
        let weight = |now: [f32; 2]| {
            let logprobs = Var::new(&now, &Device::Cpu).unwrap();
            let policy = PolicyOutput { logprobs: logprobs.as_tensor().clone(), values: None };
            let loss = objective.loss(&[0, 1], MiniBatch { responses: 2, tokens: 2 }, &policy).unwrap();
            -2.0 * loss.total.backward().unwrap().get(&logprobs).unwrap().to_vec1::<f32>().unwrap()[0]
        };
        for (now, expected) in [
            ([-2.0, -2.0], 1.0),
            ([-1.0, -3.0], 1.0),
            ([-1.9, -2.0], 0.1f32.exp()),
            ([-1.0, -2.0], 1.2),
            ([-3.0, -2.0], 0.8),
        ] {
            assert!((weight(now) - expected).abs() < 1e-5, "{now:?}: {} instead of {expected}", weight(now));
        }
    }
}
