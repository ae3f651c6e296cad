//! The learning rate over a run: linear warm-up, then constant, linear or cosine to nothing.

use serde::{Deserialize, Serialize};

/// The shape after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Stays at the peak.
    Constant,
    /// A straight line to 0 at the last step.
    #[default]
    Linear,
    /// Half a cosine to 0 at the last step.
    Cosine,
}

/// A learning rate for each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps of the way up.
    pub warmup_steps: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// The way down.
    pub decay: Decay,
}

impl Schedule {
    /// The rate of a step, the first being 0, as `get_linear_schedule_with_warmup` and its sisters in transformers.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let after = (step - self.warmup_steps) as f64;
        let share = (after / self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64).min(1.0);
        self.peak
            * match self.decay {
                Decay::Constant => 1.0,
                Decay::Linear => 1.0 - share,
                Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_and_down() {
        let check = |decay, expected: [f64; 5]| {
            let schedule = Schedule { peak: 2.0, warmup_steps: 4, total_steps: 12, decay };
            for (step, expected) in [0, 2, 4, 8, 12].into_iter().zip(expected) {
                assert!((schedule.rate(step) - expected).abs() < 1e-12, "{decay:?} at {step}: {}", schedule.rate(step));
            }
            assert!((schedule.rate(1000) - expected[4]).abs() < 1e-12);
        };
        check(Decay::Constant, [0.0, 1.0, 2.0, 2.0, 2.0]);
        check(Decay::Linear, [0.0, 1.0, 2.0, 1.0, 0.0]);
        check(Decay::Cosine, [0.0, 1.0, 2.0, 1.0, 0.0]);
        let short = Schedule { peak: 1.0, warmup_steps: 10, total_steps: 5, decay: Decay::Linear };
        assert_eq!(short.rate(5), 0.5);
    }
}
