//! A judge that likes long replies likes the voice that talks longer, so differences are looked at with length taken out, in two ways
//! that fail differently: a line through the differences, read where both replies are equally long; and the pairs alone whose
//! replies are.

use serde::Serialize;

use elenchus_train::bootstrap::{Interval, bootstrap, mean};

/// Two replies count as equally long within this share of the shorter, or [`MATCHED_WORDS`].
const MATCHED_SHARE: usize = 15;
const MATCHED_WORDS: usize = 2;
/// Matched pairs below which nothing is said of them.
const LEAST_MATCHED: usize = 5;

/// One prompt: the second reply's score less the first's, and both lengths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Paired {
    pub difference: f64,
    pub words: (usize, usize),
}

/// A difference without what length adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LengthControlled {
    /// What the line through the differences says of two equally long replies. None where all are as much longer.
    pub at_equal_length: Option<Interval>,
    /// What a reply that is e times as long scores more, by that line.
    pub slope: Option<f64>,
    /// Pairs whose replies are equally long.
    pub matched: usize,
    /// Their difference; none of fewer than five.
    pub of_matched: Option<Interval>,
}

impl Paired {
    /// How much longer the second is: the logarithm of the ratio.
    fn log_ratio(&self) -> f64 {
        let (first, second) = self.words;
        ((second + 1) as f64 / (first + 1) as f64).ln()
    }

    fn is_matched(&self) -> bool {
        let (first, second) = self.words;
        first.abs_diff(second) <= (first.min(second) * MATCHED_SHARE / 100).max(MATCHED_WORDS)
    }
}

impl LengthControlled {
    pub(super) fn of(pairs: &[Paired], seed: u64) -> Self {
        let points: Vec<(f64, f64)> = pairs.iter().map(|pair| (pair.log_ratio(), pair.difference)).collect();
        let line = |places: &mut dyn Iterator<Item = usize>| line(places.map(|at| points[at]));
        let at_equal_length = line(&mut (0..points.len())).and_then(|_| {
            // A sample without two lengths has no line; its level is all that is left.
            bootstrap(points.len(), seed, |places| match line(&mut places.iter().copied()) {
                Some((level, _)) => level,
                None => places.iter().map(|&at| points[at].1).sum::<f64>() / places.len() as f64,
            })
        });
        let matched: Vec<f64> = pairs.iter().filter(|pair| pair.is_matched()).map(|pair| pair.difference).collect();
        Self {
            at_equal_length,
            slope: line(&mut (0..points.len())).map(|(_, slope)| slope),
            matched: matched.len(),
            of_matched: if matched.len() < LEAST_MATCHED { None } else { mean(&matched, seed) },
        }
    }
}

/// Level at 0 and slope of the line of least squares; none where all points stand at one place.
fn line(points: impl Iterator<Item = (f64, f64)>) -> Option<(f64, f64)> {
    let (mut n, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (at, value) in points {
        n += 1.0;
        x += at;
        y += value;
        xx += at * at;
        xy += at * value;
    }
    let spread = xx - x * x / n;
    (n > 1.0 && spread > 1e-9).then(|| {
        let slope = (xy - x * y / n) / spread;
        ((y - slope * x) / n, slope)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // np.polyfit([0, 1, 2, 4], [1, 2, 2, 5], 1) -> 0.97142857, 0.8
    #[test]
    fn the_line_is_numpys() {
        let (level, slope) = line([(0.0, 1.0), (1.0, 2.0), (2.0, 2.0), (4.0, 5.0)].into_iter()).unwrap();
        assert!((level - 0.8).abs() < 1e-8 && (slope - 0.971_428_57).abs() < 1e-8, "{level} {slope}");
        assert_eq!(line([(1.0, 1.0), (1.0, 2.0)].into_iter()), None);
    }

    fn noise(at: usize) -> f64 {
        (at * 37 % 101) as f64 / 101.0 - 0.5
    }

    /// A judge that counts words finds a difference that is gone at equal length; one that does not keeps its own.
    #[test]
    fn what_length_alone_adds_is_taken_out() {
        let pairs = |worth: f64, per_log: f64| -> Vec<Paired> {
            let pair = |at: usize| {
                let words = (20 + at % 7, 20 + at % 7 + at % 40);
                let pair = Paired { difference: 0.0, words };
                Paired { difference: worth + per_log * pair.log_ratio() + 0.1 * noise(at), words }
            };
            (0..200).map(pair).collect()
        };
        let by_length = LengthControlled::of(&pairs(0.0, 1.0), 1);
        let level = by_length.at_equal_length.unwrap();
        assert!(!level.is_clear_of(0.0) && level.value.abs() < 0.02, "{level:?}");
        assert!((by_length.slope.unwrap() - 1.0).abs() < 0.05);
        let matched = by_length.of_matched.unwrap();
        assert!(matched.value < 0.15 && by_length.matched < 60, "{by_length:?}");
        let mean_of_all: f64 = pairs(0.0, 1.0).iter().map(|pair| pair.difference).sum::<f64>() / 200.0;
        assert!(mean_of_all > 0.3, "the plain difference is fooled: {mean_of_all}");

        let honest = LengthControlled::of(&pairs(0.5, 0.0), 1);
        let level = honest.at_equal_length.unwrap();
        assert!(level.is_clear_of(0.0) && (level.value - 0.5).abs() < 0.02, "{level:?}");
        assert!((honest.of_matched.unwrap().value - 0.5).abs() < 0.05);
    }

    #[test]
    fn nothing_is_said_of_too_few() {
        let alike = [Paired { difference: 1.0, words: (5, 5) }; 3];
        let of = LengthControlled::of(&alike, 1);
        assert_eq!((of.at_equal_length, of.slope, of.matched, of.of_matched), (None, None, 3, None));
    }
}
