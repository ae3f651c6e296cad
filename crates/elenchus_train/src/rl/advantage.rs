//! From scores to what each token was worth: the pieces that methods with values share.

use super::{experience::Rollout, kl::Estimator};
use crate::numeric::{Variance, gae, whiten};

/// `-kl_coef * kl_t` for each token, and the score on the last.
pub fn token_rewards(rollouts: &[Rollout], kl_coef: f32, estimator: Estimator) -> Vec<Vec<f32>> {
    let of = |rollout: &Rollout| {
        let mut rewards: Vec<f32> = rollout.kl(estimator).map(|kl| -kl_coef * kl).collect();
        if let Some(last) = rewards.last_mut() {
            *last += rollout.score;
        }
        rewards
    };
    rollouts.iter().map(of).collect()
}

/// Generalised advantages and returns of each response's tokens.
pub fn estimated(rewards: &[Vec<f32>], rollouts: &[Rollout], gamma: f32, lam: f32) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    rewards.iter().zip(rollouts).map(|(rewards, rollout)| gae(rewards, &rollout.values, gamma, lam)).unzip()
}

/// Whitens the tokens of all responses together.
pub fn whiten_all(numbers: &mut [Vec<f32>], shift_mean: bool) {
    let mut flat = numbers.concat();
    whiten(&mut flat, shift_mean, Variance::Unbiased);
    let mut flat = flat.into_iter();
    numbers.iter_mut().flatten().zip(&mut flat).for_each(|(number, white)| *number = white);
}
