//! Numbers brought to variance 1, and to mean 0 where asked.

/// Which number of samples a variance is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variance {
    /// n - 1, as TRL and torch.
    Unbiased,
    /// n, as OpenAI's lm-human-preferences.
    Biased,
}

/// `(x - mean) / sqrt(variance + 1e-8)`, the mean added again unless `shift_mean` is set. Fewer than two numbers have no
/// unbiased variance and are left as they are.
pub fn whiten(numbers: &mut [f32], shift_mean: bool, variance: Variance) {
    let count = numbers.len() as f64;
    let least = match variance {
        Variance::Unbiased => 2,
        Variance::Biased => 1,
    };
    if numbers.len() < least {
        return;
    }
    let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let squares: f64 = numbers.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
    let scale = 1.0 / (squares / (count - (least - 1) as f64) + 1e-8).sqrt();
    let shift = if shift_mean { 0.0 } else { mean };
    numbers.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) * scale + shift) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_references() {
        let check = |numbers: &[f32], shift_mean: bool, variance: Variance, expected: &[f32]| {
            let mut ours = numbers.to_vec();
            whiten(&mut ours, shift_mean, variance);
            let distance = ours.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(distance < 1e-5 && ours.len() == expected.len(), "{ours:?} instead of {expected:?}");
        };
        use Variance::*;
        // The masked mean of [1, 2, 3, 4] under [0, 1, 1, 0]: with nothing padded, [2, 3].
        check(&[2.0, 3.0], true, Unbiased, &[-0.707_106_77, 0.707_106_77]);
        check(&[2.0, 3.0], false, Unbiased, &[1.792_893_2, 3.207_106_8]);
        // vwxyzjn/summarize_from_feedback_details, and "The N implementation details of RLHF with PPO".
        let n = [1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0];
        let unbiased =
            [0.139_406_6, 0.504_555, 0.869_703_3, 1.234_851_7, 1.6, 1.965_148_3, 2.330_296_7, 2.695_445, 3.060_593_4];
        check(&n, false, Unbiased, &unbiased);
        let biased = [
            0.050_807_78,
            0.438_105_08,
            0.825_402_4,
            1.212_701_7,
            1.6,
            1.987_298_3,
            2.374_596_6,
            2.761_895,
            3.149_193_2,
        ];
        check(&n, false, Biased, &biased);
        check(&[5.0], true, Unbiased, &[5.0]);
        check(&[], true, Biased, &[]);
        check(&[3.0, 3.0], true, Unbiased, &[0.0, 0.0]);
    }
}
