//! What a response has to be better than.

/// Each response's reward less the mean reward of the others to the same query (Kool et al. 2019; Ahmadian et al. 2024).
/// `groups[i]` is the query of response `i`. A response without others has nothing to be compared with: 0.
pub fn leave_one_out(rewards: &[f32], groups: &[usize]) -> Vec<f32> {
    assert_eq!(rewards.len(), groups.len(), "a group for each reward");
    let others = |at: usize| (0..rewards.len()).filter(move |&other| other != at && groups[other] == groups[at]);
    let advantage = |at: usize| match others(at).count() {
        0 => 0.0,
        count => rewards[at] - others(at).map(|other| rewards[other]).sum::<f32>() / count as f32,
    };
    (0..rewards.len()).map(advantage).collect()
}

/// Each response's distance from the mean reward of its query's, in standard deviations (n - 1) where `scale` is set
/// (Shao et al. 2024, with TRL's 1e-4 beside the deviation).
pub fn standardised(rewards: &[f32], groups: &[usize], scale: bool) -> Vec<f32> {
    assert_eq!(rewards.len(), groups.len(), "a group for each reward");
    let of = |at: usize| {
        let group: Vec<f64> = (0..rewards.len())
            .filter(|&other| groups[other] == groups[at])
            .map(|other| f64::from(rewards[other]))
            .collect();
        let count = group.len() as f64;
        let mean = group.iter().sum::<f64>() / count;
        let distance = f64::from(rewards[at]) - mean;
        if !scale || group.len() < 2 {
            return distance as f32;
        }
        let variance = group.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (distance / (variance.sqrt() + 1e-4)) as f32
    };
    (0..rewards.len()).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn against_the_others_of_a_group() {
        let rewards = [1.0, 2.0, 4.0, 9.0];
        let advantages = leave_one_out(&rewards, &[0; 4]);
        for (ours, expected) in advantages.iter().zip([-4.0, -2.666_666_7, 0.0, 6.666_666_7]) {
            assert!((ours - expected).abs() < 1e-5, "{advantages:?}");
        }
        assert!(advantages.iter().sum::<f32>().abs() < 1e-5);
        // k/(k-1) times the distance from the mean, which is what Dr. GRPO takes.
        for (ours, dr_grpo) in advantages.iter().zip([-3.0, -2.0, 0.0, 5.0]) {
            assert!((ours - dr_grpo * 4.0 / 3.0).abs() < 1e-5);
        }
        assert_eq!(leave_one_out(&[1.0, 5.0, 3.0, 8.0, 2.0], &[7, 9, 7, 9, 4]), [-2.0, -3.0, 2.0, 3.0, 0.0]);
    }

    #[test]
    fn in_deviations_of_a_group() {
        let advantages = standardised(&[1.0, 2.0, 4.0, 9.0], &[0; 4], true);
        for (ours, expected) in advantages.iter().zip([-0.842_903_5, -0.561_935_7, 0.0, 1.404_839_2]) {
            assert!((ours - expected).abs() < 1e-5, "{advantages:?}");
        }
        assert_eq!(standardised(&[1.0, 2.0, 4.0, 9.0], &[0; 4], false), [-3.0, -2.0, 0.0, 5.0]);
        assert_eq!(standardised(&[3.0, 3.0, 8.0], &[0, 0, 1], true), [0.0, 0.0, 0.0]);
    }
}
