//! How sure a measure over some replies is: what it would have been over others like them.
//!
//! All intervals of scores come from one percentile bootstrap (Efron and Tibshirani 1993, 13.3) over prompts. Two voices
//! answer the same prompts, so their difference is resampled prompt by prompt, and what makes a prompt hard falls out of it.
//! Where a measure is of several runs, the runs are resampled too: how far seeds are apart is part of how sure it is.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

/// Samples with replacement that an interval is made of.
pub(crate) const RESAMPLES: usize = 10_000;

/// A measure and where 95% of its resamples lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Over what was measured.
    pub value: f64,
    /// 2.5% of the resamples lie below.
    pub low: f64,
    /// 2.5% lie above.
    pub high: f64,
}

impl Interval {
    /// Whether it lies wholly above or wholly below a number.
    pub fn is_clear_of(&self, number: f64) -> bool {
        self.low > number || self.high < number
    }
}

/// The interval of any measure of `count` items, which hears the places of a sample. `None` without items, or where the
/// measure is not a number.
pub fn bootstrap(count: usize, seed: u64, mut measure: impl FnMut(&[usize]) -> f64) -> Option<Interval> {
    let mut places: Vec<usize> = (0..count).collect();
    let value = measure(&places);
    if count == 0 {
        return None;
    }
    resampled(value, seed, |rng| {
        places.iter_mut().for_each(|place| *place = rng.random_range(0..count));
        measure(&places)
    })
}

fn resampled(value: f64, seed: u64, mut draw: impl FnMut(&mut Pcg64Mcg) -> f64) -> Option<Interval> {
    if !value.is_finite() {
        return None;
    }
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut resamples: Vec<f64> = (0..RESAMPLES).map(|_| draw(&mut rng)).collect();
    resamples.sort_by(f64::total_cmp);
    let at = |share: f64| resamples[((RESAMPLES as f64 * share) as usize).min(RESAMPLES - 1)];
    Some(Interval { value, low: at(0.025), high: at(0.975) })
}

/// The interval of a mean.
pub fn mean(numbers: &[f64], seed: u64) -> Option<Interval> {
    let count = numbers.len() as f64;
    bootstrap(numbers.len(), seed, |places| places.iter().map(|&at| numbers[at]).sum::<f64>() / count)
}

/// The interval of a mean over runs that answered the same prompts, `(runs, prompts)`: both are resampled, prompts for all
/// runs alike. What is `None` is left out.
pub fn mean_over_runs(runs: &[Vec<Option<f64>>], seed: u64) -> Option<Interval> {
    let prompts = runs.iter().map(Vec::len).max()?;
    let mean = |runs: &mut dyn Iterator<Item = &Vec<Option<f64>>>, prompts: &[usize]| {
        let (mut sum, mut count) = (0.0, 0usize);
        for run in runs {
            for score in prompts.iter().filter_map(|&prompt| *run.get(prompt)?) {
                sum += score;
                count += 1;
            }
        }
        sum / count as f64
    };
    let mut places: Vec<usize> = (0..prompts).collect();
    let value = mean(&mut runs.iter(), &places);
    let mut drawn = vec![0; runs.len()];
    resampled(value, seed, |rng| {
        drawn.iter_mut().for_each(|run| *run = rng.random_range(0..runs.len()));
        places.iter_mut().for_each(|place| *place = rng.random_range(0..prompts));
        mean(&mut drawn.iter().map(|&run| &runs[run]), &places)
    })
}

/// The interval of `mean(first - second)` over pairs.
pub fn mean_difference(pairs: &[(f64, f64)], seed: u64) -> Option<Interval> {
    let differences: Vec<f64> = pairs.iter().map(|(first, second)| first - second).collect();
    mean(&differences, seed)
}

/// How often the first of two was better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wins {
    /// The first was.
    pub won: usize,
    /// Neither was.
    pub tied: usize,
    /// The second was.
    pub lost: usize,
}

impl Wins {
    /// Counts pairs of scores, higher for better.
    pub fn of(pairs: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut wins = Self::default();
        for (first, second) in pairs {
            match first.total_cmp(&second) {
                // Both zeros are one number.
                _ if first == second => wins.tied += 1,
                std::cmp::Ordering::Greater => wins.won += 1,
                _ => wins.lost += 1,
            }
        }
        wins
    }

    /// Pairs in all.
    pub fn total(self) -> usize {
        self.won + self.tied + self.lost
    }

    /// Share won, ties as halves, with Wilson's interval (1927). `None` without pairs.
    pub fn rate(self) -> Option<Interval> {
        wilson(self.won as f64 + self.tied as f64 / 2.0, self.total())
    }
}

/// Wilson's interval of a share at 95%: it stays within 0 and 1 and is honest about few items, as the normal one is not.
pub fn wilson(successes: f64, count: usize) -> Option<Interval> {
    const Z: f64 = 1.959_963_984_540_054;
    let n = count as f64;
    let value = successes / n;
    let (weight, centre) = (1.0 + Z * Z / n, value + Z * Z / (2.0 * n));
    let spread = Z * (value * (1.0 - value) / n + Z * Z / (4.0 * n * n)).sqrt();
    let interval = Interval { value, low: (centre - spread) / weight, high: (centre + spread) / weight };
    (count > 0).then_some(interval)
}

/// The middle number; of two, their mean. NaN without numbers.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_differ_are_as_unsure_as_they_differ() {
        let runs = |levels: &[f64]| -> Vec<Vec<Option<f64>>> {
            levels
                .iter()
                .map(|&level| (0..64).map(|at| (at != 7).then_some(level + f64::from(at % 2))).collect())
                .collect()
        };
        let alike = mean_over_runs(&runs(&[1.0, 1.0]), 3).unwrap();
        assert!((alike.value - 1.5).abs() < 0.01 && alike.high - alike.low < 0.3, "{alike:?}");
        let apart = mean_over_runs(&runs(&[0.0, 2.0]), 3).unwrap();
        assert_eq!(apart.value, alike.value);
        assert!(apart.low < 0.6 && apart.high > 2.4, "{apart:?}");
        assert_eq!(mean_over_runs(&[], 3), None);
        assert_eq!(mean_over_runs(&[vec![None; 3]], 3), None);
        let one = mean_over_runs(&runs(&[1.0]), 3).unwrap();
        let over_prompts = mean(&runs(&[1.0])[0].iter().copied().flatten().collect::<Vec<_>>(), 3).unwrap();
        assert_eq!(one.value, over_prompts.value);
        assert!((one.low - over_prompts.low).abs() < 0.02 && (one.high - over_prompts.high).abs() < 0.02);
    }

    fn near(ours: f64, expected: f64, within: f64) {
        assert!((ours - expected).abs() < within, "{ours} instead of {expected}");
    }

    /// Roughly normal: the sum of twelve uniform numbers, which has variance 1.
    fn normal(rng: &mut Pcg64Mcg) -> f64 {
        (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
    }

    #[test]
    fn the_interval_of_a_mean_is_about_two_standard_errors_wide() {
        let mut rng = Pcg64Mcg::seed_from_u64(1);
        let numbers: Vec<f64> = (0..400).map(|_| 3.0 + 2.0 * normal(&mut rng)).collect();
        let interval = mean(&numbers, 5).unwrap();
        near(interval.value, numbers.iter().sum::<f64>() / 400.0, 1e-12);
        near(interval.high - interval.value, 1.96 * 0.1, 0.02);
        near(interval.value - interval.low, 1.96 * 0.1, 0.02);
        assert_eq!(mean(&numbers, 5), Some(interval), "the same seed, the same interval");
        assert_ne!(mean(&numbers, 6), Some(interval));
    }

    /// Of many samples of a known mean, about 95% of the intervals hold it.
    #[test]
    fn intervals_cover_what_they_should() {
        let mut rng = Pcg64Mcg::seed_from_u64(2);
        let runs = 200;
        let covered = (0..runs)
            .filter(|&run| {
                let numbers: Vec<f64> = (0..40).map(|_| normal(&mut rng)).collect();
                !mean(&numbers, run).unwrap().is_clear_of(0.0)
            })
            .count();
        assert!((0.89..=0.99).contains(&(covered as f64 / runs as f64)), "{covered} of {runs}");
    }

    /// The second of each pair is 0.5 less than the first, whatever the prompt adds to both.
    #[test]
    fn what_a_prompt_adds_to_both_falls_out_of_their_difference() {
        let mut rng = Pcg64Mcg::seed_from_u64(3);
        let pairs: Vec<(f64, f64)> = (0..100)
            .map(|_| {
                let prompt = 10.0 * normal(&mut rng);
                (prompt + 0.1 * normal(&mut rng), prompt - 0.5 + 0.1 * normal(&mut rng))
            })
            .collect();
        let paired = mean_difference(&pairs, 1).unwrap();
        near(paired.value, 0.5, 0.05);
        assert!(paired.is_clear_of(0.4) && paired.is_clear_of(0.6) && !paired.is_clear_of(0.5), "{paired:?}");
        let alone = mean(&pairs.iter().map(|(first, _)| *first).collect::<Vec<_>>(), 1).unwrap();
        assert!(alone.high - alone.low > 20.0 * (paired.high - paired.low), "{alone:?}");
    }

    #[test]
    fn nothing_measured_has_no_interval() {
        assert_eq!(mean(&[], 1), None);
        assert_eq!(mean(&[f64::NAN, 1.0], 1), None);
        assert_eq!(Wins::default().rate(), None);
        let one = mean(&[2.0], 1).unwrap();
        assert_eq!((one.value, one.low, one.high), (2.0, 2.0, 2.0));
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn ties_are_halves() {
        let wins = Wins::of([(1.0, 0.0), (0.0, -0.0), (2.0, 2.0), (0.0, 1.0), (3.0, 1.0)]);
        assert_eq!(wins, Wins { won: 2, tied: 2, lost: 1 });
        near(wins.rate().unwrap().value, 0.6, 1e-12);
    }

    // from statsmodels.stats.proportion import proportion_confint; proportion_confint(8, 10, method="wilson")
    #[test]
    fn wilsons_interval() {
        let check = |successes: f64, count: usize, low: f64, high: f64| {
            let interval = wilson(successes, count).unwrap();
            near(interval.low, low, 1e-6);
            near(interval.high, high, 1e-6);
        };
        check(8.0, 10, 0.490_162_47, 0.943_317_81);
        check(0.0, 10, 0.0, 0.277_532_79);
        check(50.0, 100, 0.403_831_53, 0.596_168_47);
    }

    #[test]
    fn the_middle_of_an_even_count_lies_between_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
