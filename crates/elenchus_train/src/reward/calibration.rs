//! Whether a reward model's probabilities mean what they say: of the pairs it is 70% sure of, 70% should come out as it says.
//!
//! The probability that one reply is preferred to another is the sigmoid of the distance of their scores before they are
//! normalised, which is what Bradley and Terry's loss fits. Which side a pair is read from is free, so each is read from the
//! side that the model favours: probabilities lie between one half and one.

use serde::{Deserialize, Serialize};

use super::bradley_terry::Accuracy;

/// Bins between one half and one.
const BINS: usize = 5;

/// What a model predicted of pairs it never saw, and what was the case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// By how sure the model was, the least sure first.
    pub bins: Vec<CalibrationBin>,
    /// Mean of `-log p` of what was the case, in nats; a coin has 0.693.
    pub log_loss: f64,
}

/// Pairs that a model was about equally sure of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// How many.
    pub pairs: usize,
    /// The mean probability that the side which the model favours is the preferred one.
    pub predicted: f64,
    /// How often it was; ties of scores count half.
    pub observed: f64,
}

impl Calibration {
    /// Of scores, not normalised, of preferred replies and others.
    pub fn of(scores: &[(f32, f32)]) -> Self {
        let mut bins = vec![CalibrationBin::default(); BINS];
        let mut loss = 0.0;
        for (chosen, rejected) in scores {
            let distance = f64::from(chosen - rejected);
            let probability = 1.0 / (1.0 + (-distance.abs()).exp());
            let bin = &mut bins[(((probability - 0.5) * 2.0 * BINS as f64) as usize).min(BINS - 1)];
            bin.pairs += 1;
            bin.predicted += probability;
            bin.observed += if distance == 0.0 { 0.5 } else { f64::from(u8::from(distance > 0.0)) };
            // `log(1 + exp(-distance))` without an overflow.
            loss += (-distance).max(0.0) + (-distance.abs()).exp().ln_1p();
        }
        for bin in bins.iter_mut().filter(|bin| bin.pairs > 0) {
            bin.predicted /= bin.pairs as f64;
            bin.observed /= bin.pairs as f64;
        }
        Self { bins, log_loss: loss / scores.len() as f64 }
    }

    /// Of several measures on different pairs, as one.
    pub fn pooled<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut pooled = Self { bins: vec![CalibrationBin::default(); BINS], log_loss: 0.0 };
        let mut all = 0;
        for part in parts {
            let pairs: usize = part.bins.iter().map(|bin| bin.pairs).sum();
            all += pairs;
            pooled.log_loss += part.log_loss * pairs as f64;
            for (sum, bin) in pooled.bins.iter_mut().zip(&part.bins) {
                sum.pairs += bin.pairs;
                sum.predicted += bin.predicted * bin.pairs as f64;
                sum.observed += bin.observed * bin.pairs as f64;
            }
        }
        for bin in pooled.bins.iter_mut().filter(|bin| bin.pairs > 0) {
            bin.predicted /= bin.pairs as f64;
            bin.observed /= bin.pairs as f64;
        }
        pooled.log_loss /= all as f64;
        pooled
    }

    /// Mean distance of what was predicted from what was the case, over pairs (expected calibration error).
    pub fn error(&self) -> f64 {
        let pairs: usize = self.bins.iter().map(|bin| bin.pairs).sum();
        let sum: f64 = self.bins.iter().map(|bin| bin.pairs as f64 * (bin.predicted - bin.observed).abs()).sum();
        sum / pairs as f64
    }
}

impl CalibrationBin {
    /// What was observed, with Wilson's interval.
    pub fn accuracy(&self) -> Accuracy {
        Accuracy::wilson(self.observed * self.pairs as f64, self.pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // p = 1 / (1 + np.exp(-abs(d))); -np.log(1 / (1 + np.exp(-d))).mean()
    #[test]
    fn pairs_fall_into_bins_by_how_sure_the_model_is() {
        // Probabilities 0.5, 0.622, 0.731, 0.622 (against), 0.999994.
        let of = Calibration::of(&[(1.0, 1.0), (0.5, 0.0), (1.0, 0.0), (0.0, 0.5), (12.0, 0.0)]);
        let pairs: Vec<usize> = of.bins.iter().map(|bin| bin.pairs).collect();
        assert_eq!(pairs, [1, 2, 1, 0, 1]);
        let near = |ours: f64, expected: f64| assert!((ours - expected).abs() < 1e-5, "{ours} instead of {expected}");
        near(of.bins[0].observed, 0.5);
        near(of.bins[1].predicted, 0.622_459);
        near(of.bins[1].observed, 0.5);
        near(of.bins[4].observed, 1.0);
        near(of.log_loss, (std::f64::consts::LN_2 + 0.474_077 + 0.313_262 + 0.974_077 + 0.000_006) / 5.0);
        near(of.error(), (2.0 * 0.122_459 + 0.268_941 + 0.000_006) / 5.0);
        assert!(Calibration::of(&[(0.0, 1000.0)]).log_loss == 1000.0, "a far miss is no overflow");
    }

    #[test]
    fn parts_pooled_are_the_whole() {
        let scores: Vec<(f32, f32)> = (0..60).map(|at| ((at * 37 % 11) as f32 * 0.3, (at % 7) as f32 * 0.4)).collect();
        let pooled = Calibration::pooled(&[Calibration::of(&scores[..17]), Calibration::of(&scores[17..])]);
        let whole = Calibration::of(&scores);
        assert!((pooled.log_loss - whole.log_loss).abs() < 1e-12 && (pooled.error() - whole.error()).abs() < 1e-12);
        for (one, other) in pooled.bins.iter().zip(&whole.bins) {
            assert_eq!(one.pairs, other.pairs);
            assert!((one.predicted - other.predicted).abs() < 1e-12 && (one.observed - other.observed).abs() < 1e-12);
        }
    }
}
