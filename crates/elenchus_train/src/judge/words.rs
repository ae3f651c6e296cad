//! A reader that learns from labelled verdicts which words and pairs of words are praise and which are blame: logistic
//! regression over three opinions.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use super::{
    LabelledVerdict, Opinion, VerdictReader,
    logistic::{Logistic, LogisticSettings, logits, scale},
};
use crate::{Error, Result};

/// How a [`Words`] reader learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WordsSettings {
    /// Words and pairs that fewer verdicts hold are left out.
    pub min_verdicts: usize,
    /// Words and pairs that are kept, those that tell most; the others are forgotten, and it learns again.
    pub most_features: usize,
    /// A verdict that holds fewer of them is not read: a bias and a few common words would speak for it.
    pub min_known: usize,
    /// Pull of every weight to zero.
    pub l2: f64,
    /// Full passes over the verdicts.
    pub steps: usize,
    /// Length of a step.
    pub learning_rate: f64,
}

impl Default for WordsSettings {
    fn default() -> Self {
        Self { min_verdicts: 5, most_features: 400, min_known: 12, l2: 3e-3, steps: 300, learning_rate: 0.05 }
    }
}

/// Multinomial logistic regression over the words and pairs of neighbouring words a verdict holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// Weights for [`Opinion::ALL`] of a word or a pair.
    weights: BTreeMap<String, [f32; 3]>,
    bias: [f32; 3],
    /// See [`WordsSettings::min_known`].
    min_known: usize,
}

impl Words {
    /// Learns from verdicts; opinions weigh alike however rare they are. `None` where no opinion is there.
    pub fn train(verdicts: &[&LabelledVerdict], settings: WordsSettings) -> Option<Self> {
        let texts: Vec<BTreeSet<String>> = verdicts.iter().map(|verdict| features(&verdict.verdict)).collect();
        let labels: Vec<usize> = verdicts.iter().map(|verdict| verdict.label as usize).collect();
        let mut counts = BTreeMap::<&str, usize>::new();
        texts.iter().flatten().for_each(|feature| *counts.entry(feature).or_default() += 1);
        counts.retain(|_, count| *count >= settings.min_verdicts);
        let words = Self::fit(&texts, &labels, counts.into_keys().collect(), settings)?;
        if words.weights.len() <= settings.most_features {
            return Some(words);
        }
        // How far apart it pulls the opinions.
        let tells = |weights: &[f32; 3]| {
            let mean = weights.iter().sum::<f32>() / 3.0;
            weights.iter().map(|weight| (weight - mean).powi(2)).sum::<f32>()
        };
        let mut kept: Vec<(&str, f32)> =
            words.weights.iter().map(|(feature, weights)| (feature.as_str(), tells(weights))).collect();
        kept.sort_by(|one, other| other.1.total_cmp(&one.1));
        kept.truncate(settings.most_features);
        Self::fit(&texts, &labels, kept.into_iter().map(|(feature, _)| feature).collect(), settings)
    }

    /// Learns the weights of some words and pairs.
    fn fit(
        texts: &[BTreeSet<String>],
        labels: &[usize],
        features: BTreeSet<&str>,
        settings: WordsSettings,
    ) -> Option<Self> {
        let WordsSettings { min_verdicts: min_texts, min_known, l2, steps, learning_rate, .. } = settings;
        let settings = LogisticSettings { min_texts, l2, steps, learning_rate };
        let Logistic { weights, bias } = Logistic::fit(texts, labels, features, settings)?;
        Some(Self { weights, bias, min_known })
    }
}

impl Words {
    /// The words and pairs that ship, learned from 960 written judgements of replies. Short verdicts it leaves to others.
    pub fn shipped() -> Result<Self> {
        Self::from_json(include_str!("words.json"), "the words that ship")
    }

    /// Reads what [`Words::to_json`] wrote; `file` is what errors call it.
    pub(crate) fn from_json(text: &str, file: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::Classifier {
            file: file.into(),
            reason: format!("{error} (hint: `elenchus train verdicts` writes such a file)"),
        })
    }

    /// As a file: one word or pair a line, weights to three digits.
    pub fn to_json(&self) -> String {
        let rounded = |weights: &[f32; 3]| weights.map(|weight| format!("{weight:.3}")).join(", ");
        let line = |(feature, weights): (&String, &[f32; 3])| {
            format!("    {}: [{}]", serde_json::Value::from(feature.as_str()), rounded(weights))
        };
        let lines: Vec<String> = self.weights.iter().map(line).collect();
        let (bias, lines) = (rounded(&self.bias), lines.join(",\n"));
        format!(
            "{{\n  \"min_known\": {},\n  \"bias\": [{bias}],\n  \"weights\": {{\n{lines}\n  }}\n}}\n",
            self.min_known
        )
    }
}

impl VerdictReader for Words {
    fn name(&self) -> &str {
        "words"
    }

    fn read(&self, verdict: &str) -> Result<Option<Opinion>> {
        let known: Vec<[f64; 3]> =
            features(verdict).iter().filter_map(|feature| Some(self.weights.get(feature)?.map(f64::from))).collect();
        if known.len() < self.min_known.max(1) {
            return Ok(None);
        }
        let count = known.len();
        let logits = logits(known.into_iter(), scale(count), self.bias.map(f64::from));
        Ok(Opinion::ALL.into_iter().max_by(|&one, &other| logits[one as usize].total_cmp(&logits[other as usize])))
    }
}

/// Words in lower case, and neighbours as pairs.
fn features(verdict: &str) -> BTreeSet<String> {
    let words: Vec<String> = verdict.unicode_words().map(str::to_lowercase).collect();
    let pairs = words.windows(2).map(|pair| pair.join(" "));
    pairs.chain(words.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str, label: Opinion) -> LabelledVerdict {
        LabelledVerdict { verdict: text.to_owned(), label, group: 0 }
    }

    /// Praise and blame differ in a pair of words alone, and blame is rare.
    #[test]
    fn it_learns_words_and_pairs_however_rare_an_opinion_is() {
        let mut verdicts = Vec::new();
        for at in 0..40 {
            verdicts.push(verdict(&format!("The reply is not dull, number {at}"), Opinion::For));
            if at % 10 == 0 {
                verdicts.push(verdict(&format!("The reply is dull, not clear, number {at}"), Opinion::Against));
                verdicts.push(verdict(&format!("The reply is average, number {at}"), Opinion::Undecided));
            }
        }
        let all: Vec<&LabelledVerdict> = verdicts.iter().collect();
        let settings = WordsSettings { min_verdicts: 3, min_known: 1, l2: 1e-3, ..WordsSettings::default() };
        let words = Words::train(&all, settings).unwrap();
        for (text, expected) in [
            ("the reply is not dull", Some(Opinion::For)),
            ("The reply is dull; not clear.", Some(Opinion::Against)),
            ("Average", Some(Opinion::Undecided)),
            ("καλός", None),
        ] {
            assert_eq!(words.read(text).unwrap(), expected, "{text}");
        }
        assert_eq!(Words::train(&[], settings), None);

        let few = Words::train(&all, WordsSettings { most_features: 12, ..settings }).unwrap();
        assert_eq!(few.weights.len(), 12);
        assert_eq!(few.read("the reply is dull").unwrap(), Some(Opinion::Against));
        let again = Words::from_json(&few.to_json(), "it").unwrap();
        let distance = again.weights.iter().map(|(feature, weights)| (weights[0] - few.weights[feature][0]).abs());
        assert!(distance.fold(0.0, f32::max) < 6e-4 && again.weights.len() == 12);
        assert!(Words::from_json("{\"bias\": 1}", "it").unwrap_err().to_string().contains("it: "));
    }
}
