//! Multinomial logistic regression over what a text holds: words, pairs of words, pieces of words. Small data needs no
//! more, and what it learned can be read off its weights.

use std::collections::{BTreeMap, BTreeSet};

/// How it learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogisticSettings {
    /// Features that fewer texts hold are left out.
    pub min_texts: usize,
    /// Pull of every weight to zero.
    pub l2: f64,
    /// Full passes over the texts.
    pub steps: usize,
    /// Length of a step.
    pub learning_rate: f64,
}

impl Default for LogisticSettings {
    fn default() -> Self {
        Self { min_texts: 5, l2: 3e-3, steps: 300, learning_rate: 0.05 }
    }
}

/// Weights of features for `N` classes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Logistic<const N: usize> {
    /// Of each feature, one for each class.
    pub weights: BTreeMap<String, [f32; N]>,
    /// Of every text.
    pub bias: [f32; N],
}

impl<const N: usize> Logistic<N> {
    /// Learns from the features of texts and their classes; classes weigh alike however rare they are. `None` without
    /// texts.
    pub(super) fn train(texts: &[BTreeSet<String>], classes: &[usize], settings: LogisticSettings) -> Option<Self> {
        let mut counts = BTreeMap::<&str, usize>::new();
        texts.iter().flatten().for_each(|feature| *counts.entry(feature).or_default() += 1);
        counts.retain(|_, count| *count >= settings.min_texts);
        Self::fit(texts, classes, counts.into_keys().collect(), settings)
    }

    /// Learns the weights of some features; all others are nothing to it.
    pub(super) fn fit(
        texts: &[BTreeSet<String>],
        classes: &[usize],
        features: BTreeSet<&str>,
        settings: LogisticSettings,
    ) -> Option<Self> {
        let index: BTreeMap<&str, usize> =
            features.into_iter().enumerate().map(|(at, feature)| (feature, at)).collect();
        let rows: Vec<Vec<usize>> = texts
            .iter()
            .map(|text| text.iter().filter_map(|feature| index.get(feature.as_str()).copied()).collect())
            .collect();

        let mut of_class = [0usize; N];
        classes.iter().for_each(|&class| of_class[class] += 1);
        let present = of_class.iter().filter(|&&count| count > 0).count();
        if present == 0 {
            return None;
        }
        let share = |class: usize| 1.0 / (present * of_class[class]) as f64;

        // One more than there are features: the bias, which is not pulled to zero.
        let bias = index.len();
        let mut weights = vec![[0f64; N]; bias + 1];
        let (mut first, mut second) = (weights.clone(), weights.clone());
        for step in 1..=settings.steps {
            let mut gradient: Vec<[f64; N]> = weights.iter().map(|w| w.map(|w| w * settings.l2)).collect();
            gradient[bias] = [0.0; N];
            for (row, &truth) in rows.iter().zip(classes) {
                let scale = scale(row.len());
                let probabilities = softmax(logits(row.iter().map(|&at| weights[at]), scale, weights[bias]));
                for class in 0..N {
                    let error = (probabilities[class] - f64::from(u8::from(class == truth))) * share(truth);
                    row.iter().for_each(|&at| gradient[at][class] += error * scale);
                    gradient[bias][class] += error;
                }
            }
            // Adam (Kingma and Ba, 2015): steps of a like size for rare and common features.
            let (keep_first, keep_second) = (0.9f64, 0.999f64);
            for at in 0..weights.len() {
                for class in 0..N {
                    let g = gradient[at][class];
                    first[at][class] = keep_first * first[at][class] + (1.0 - keep_first) * g;
                    second[at][class] = keep_second * second[at][class] + (1.0 - keep_second) * g * g;
                    let mean = first[at][class] / (1.0 - keep_first.powi(step as i32));
                    let square = second[at][class] / (1.0 - keep_second.powi(step as i32));
                    weights[at][class] -= settings.learning_rate * mean / (square.sqrt() + 1e-8);
                }
            }
        }
        let narrow = |weights: [f64; N]| weights.map(|weight| weight as f32);
        let bias = narrow(weights[bias]);
        let weights = index.into_iter().map(|(feature, at)| (feature.to_owned(), narrow(weights[at]))).collect();
        Some(Self { weights, bias })
    }

    /// One number for each class, the highest for the likeliest; their differences are log-odds. `None` for a text that
    /// holds no known feature.
    pub(super) fn logits(&self, text: &BTreeSet<String>) -> Option<[f64; N]> {
        let known: Vec<[f64; N]> =
            text.iter().filter_map(|feature| Some(self.weights.get(feature)?.map(f64::from))).collect();
        let scale = scale(known.len());
        (!known.is_empty()).then(|| logits(known.into_iter(), scale, self.bias.map(f64::from)))
    }
}

/// Long texts weigh as much as short ones.
pub(super) fn scale(features: usize) -> f64 {
    1.0 / (features.max(1) as f64).sqrt()
}

pub(super) fn logits<const N: usize>(weights: impl Iterator<Item = [f64; N]>, scale: f64, bias: [f64; N]) -> [f64; N] {
    let mut sums = [0f64; N];
    weights.for_each(|weights| (0..N).for_each(|class| sums[class] += weights[class]));
    std::array::from_fn(|class| sums[class] * scale + bias[class])
}

fn softmax<const N: usize>(logits: [f64; N]) -> [f64; N] {
    let most = logits.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let exps = logits.map(|logit| (logit - most).exp());
    let sum: f64 = exps.iter().sum();
    exps.map(|exp| exp / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two features that stand in three of four texts of their class: the log-odds of a text with one of them are what
    /// counting gives.
    #[test]
    fn log_odds_are_those_of_the_counts() {
        let text = |feature: &str| BTreeSet::from([feature.to_owned()]);
        let texts = ["a", "a", "a", "b", "b", "b", "b", "a"].map(text);
        let classes = [0, 0, 0, 0, 1, 1, 1, 1];
        let settings = LogisticSettings { min_texts: 1, l2: 0.0, steps: 2000, learning_rate: 0.05 };
        let logistic = Logistic::<2>::train(&texts, &classes, settings).unwrap();
        for (feature, odds) in [("a", 3f64), ("b", 1.0 / 3.0)] {
            let [zero, one] = logistic.logits(&text(feature)).unwrap();
            assert!((zero - one - odds.ln()).abs() < 1e-3, "{feature}: {}", zero - one);
        }
        assert_eq!(logistic.logits(&text("c")), None);
        assert_eq!(Logistic::<2>::train(&[], &[], settings), None);
    }
}
