//! Bradley and Terry: the chance that one reply is preferred to another is the sigmoid of the distance of their scores.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// `-log sigmoid(chosen - rejected - margin) + center * (chosen + rejected)^2` of each pair, `(pairs)`; differentiable.
/// `center` draws the scores, of which only distances matter, towards 0.
pub(crate) fn bradley_terry(chosen: &Tensor, rejected: &Tensor, margin: f64, center: f64) -> Result<Tensor> {
    let short = ((rejected - chosen)? + margin)?;
    // `log(exp(0) + exp(short))`, which neither overflows nor loses its gradient where both scores are the same.
    let loss = Tensor::stack(&[short.zeros_like()?, short], 0)?.log_sum_exp(0)?;
    loss + ((chosen + rejected)?.sqr()? * center)?
}

/// How often the preferred reply has the higher score, and within what it lies with 95% confidence (Wilson).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// The share; a tie counts half.
    pub accuracy: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Pairs measured.
    pub pairs: usize,
}

impl Accuracy {
    /// Of what chosen and rejected replies were given; NaN without pairs.
    pub fn of<T: PartialOrd>(pairs: impl IntoIterator<Item = (T, T)>) -> Self {
        let (mut right, mut count) = (0.0, 0);
        for (chosen, rejected) in pairs {
            right += match chosen.partial_cmp(&rejected) {
                Some(std::cmp::Ordering::Greater) => 1.0,
                Some(std::cmp::Ordering::Equal) => 0.5,
                _ => 0.0,
            };
            count += 1;
        }
        Self::wilson(right, count)
    }

    /// Of several measures on different pairs, as one.
    pub fn pooled<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let sum =
            |(right, count): (f64, usize), part: &Self| (right + part.accuracy * part.pairs as f64, count + part.pairs);
        let (right, count) = parts.into_iter().fold((0.0, 0), sum);
        Self::wilson(right, count)
    }

    pub(super) fn wilson(right: f64, pairs: usize) -> Self {
        let (n, z) = (pairs as f64, 1.959_963_984_540_054_f64);
        let accuracy = right / n;
        let center = (accuracy + z * z / (2.0 * n)) / (1.0 + z * z / n);
        let half = z / (1.0 + z * z / n) * (accuracy * (1.0 - accuracy) / n + z * z / (4.0 * n * n)).sqrt();
        Self { accuracy, low: center - half, high: center + half, pairs }
    }
}

impl std::fmt::Display for Accuracy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { accuracy, low, high, pairs } = self;
        write!(f, "{:.1}% [{:.1}, {:.1}] of {pairs}", accuracy * 100.0, low * 100.0, high * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn loss(chosen: f32, rejected: f32, margin: f64, center: f64) -> f32 {
        let of = |score: f32| Tensor::new(&[score], &Device::Cpu).unwrap();
        bradley_terry(&of(chosen), &of(rejected), margin, center).unwrap().to_vec1::<f32>().unwrap()[0]
    }

    // -math.log(1 / (1 + math.exp(-(c - r - margin)))) + center * (c + r) ** 2
    #[test]
    fn the_loss_is_the_formulas() {
        let check = |chosen, rejected, margin, center, expected: f32| {
            let loss = loss(chosen, rejected, margin, center);
            assert!((loss - expected).abs() < 1e-5, "{loss} instead of {expected}");
        };
        check(1.2, 0.3, 0.0, 0.0, 0.341_153_9);
        check(1.2, 0.3, 0.5, 0.0, 0.513_015_3);
        check(1.2, 0.3, 0.0, 0.01, 0.363_653_9);
        check(0.4, 0.4, 0.0, 0.0, std::f32::consts::LN_2);
        check(200.0, 0.0, 0.0, 0.0, 0.0);
        check(0.0, 200.0, 0.0, 0.0, 200.0);
    }

    #[test]
    fn gradients_are_finite_differences() {
        for (chosen, rejected) in [(1.2f32, 0.3f32), (-0.7, 2.0), (0.4, 0.4), (30.0, -30.0), (-30.0, 30.0)] {
            let var = |score: f32| Var::new(&[score], &Device::Cpu).unwrap();
            let (c, r) = (var(chosen), var(rejected));
            let grads = bradley_terry(&c, &r, 0.2, 0.01).unwrap().sum_all().unwrap().backward().unwrap();
            let grad = |var: &Var| grads.get(var).unwrap().to_vec1::<f32>().unwrap()[0];
            let step = 1e-2;
            let difference = |dc: f32, dr: f32| {
                let at = |sign: f32| loss(chosen + sign * dc, rejected + sign * dr, 0.2, 0.01);
                (at(1.0) - at(-1.0)) / (2.0 * step)
            };
            let (of_chosen, of_rejected) = (difference(step, 0.0), difference(0.0, step));
            assert!((grad(&c) - of_chosen).abs() < 1e-3, "{} instead of {of_chosen}", grad(&c));
            assert!((grad(&r) - of_rejected).abs() < 1e-3, "{} instead of {of_rejected}", grad(&r));
        }
    }

    // p, z = k / n, 1.959963984540054; c = (p + z*z/(2*n)) / (1 + z*z/n)
    // h = z / (1 + z*z/n) * (p*(1-p)/n + z*z/(4*n*n))**.5; c - h, c + h
    #[test]
    fn intervals_are_wilsons() {
        let check = |right: usize, pairs: usize, low: f64, high: f64| {
            let of = Accuracy::of((0..pairs).map(|at| if at < right { (1, 0) } else { (0, 1) }));
            assert!((of.low - low).abs() < 1e-6 && (of.high - high).abs() < 1e-6, "{of:?}");
        };
        check(8, 10, 0.490_162, 0.943_318);
        check(0, 10, 0.0, 0.277_533);
        check(90, 100, 0.825_634, 0.944_771);
        assert_eq!(Accuracy::of([(1, 1), (2, 1)]).accuracy, 0.75);
        let parts = [(8, 10), (0, 10), (82, 80)]
            .map(|(right, pairs)| Accuracy::of((0..pairs).map(|at| if at < right { (1, 0) } else { (0, 1) })));
        let pooled = Accuracy::pooled(&parts);
        assert!((pooled.accuracy - 0.88).abs() < 1e-9 && pooled.pairs == 100, "{pooled:?}");
    }
}
