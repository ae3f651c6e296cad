//! Generalised advantage estimation (Schulman et al. 2016), one response at a time.

/// Advantages and returns of a response's tokens. `values[t]` is what is expected before token `t`; after the last token
/// nothing is.
pub(crate) fn gae(rewards: &[f32], values: &[f32], gamma: f32, lam: f32) -> (Vec<f32>, Vec<f32>) {
    assert_eq!(rewards.len(), values.len(), "a reward and a value for each token");
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        next_advantage = delta + gamma * lam * next_advantage;
        next_value = values[t];
        advantages[t] = next_advantage;
    }
    let returns = advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect();
    (advantages, returns)
}

#[cfg(test)]
mod tests {
    use super::{super::whiten::*, *};

    fn near(ours: &[f32], expected: &[f32]) {
        let distance = ours.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(distance < 1e-5 && ours.len() == expected.len(), "{ours:?} instead of {expected:?}");
    }

    // rewards = [-.1, .2, 1] (log-ratios [.5, -1, 0] at price .2, score 1), values = [.1, .2, .3], gamma 1, lambda .95
    #[test]
    fn advantages_returns_and_whitened() {
        let (mut advantages, returns) = gae(&[-0.1, 0.2, 1.0], &[0.1, 0.2, 0.3], 1.0, 0.95);
        near(&advantages, &[0.916_75, 0.965, 0.7]);
        near(&returns, &[1.016_75, 1.165, 1.0]);
        whiten(&mut advantages, true, Variance::Unbiased);
        near(&advantages, &[0.397_932_24, 0.739_776_1, -1.137_708_3]);
    }

    /// With lambda 1 the advantage is the discounted return less the value; with lambda 0 it is the one-step error.
    #[test]
    fn its_two_ends() {
        let (rewards, values) = ([0.5, -1.0, 2.0], [0.3, 0.7, -0.2]);
        let (advantages, _) = gae(&rewards, &values, 0.9, 1.0);
        near(&advantages, &[0.5 - 0.9 + 1.62 - 0.3, -1.0 + 1.8 - 0.7, 2.0 + 0.2]);
        let (advantages, _) = gae(&rewards, &values, 0.9, 0.0);
        near(&advantages, &[0.5 + 0.63 - 0.3, -1.0 - 0.18 - 0.7, 2.0 + 0.2]);
    }
}
