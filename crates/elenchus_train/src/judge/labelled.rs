//! Readers of verdicts held to verdicts whose meaning is known.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize;

use super::{Opinion, VerdictReader};
use crate::{BrokenLine, Error, Result};

/// A verdict whose opinion somebody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledVerdict {
    /// The judge's words.
    pub verdict: String,
    /// Their scores.
    pub label: Opinion,
    /// What it was said of: verdicts of one group are alike, and stay together when some are kept back.
    pub group: u64,
}

/// A line of the file.
#[derive(Deserialize)]
struct Line {
    verdict: String,
    label: i8,
    idx: u64,
}

/// Reads JSON Lines of `{"verdict": "..", "label": -1, 0 or 1, "idx": number of what was judged}`; other fields are ignored.
pub fn read_labelled(file: &Path) -> Result<Vec<LabelledVerdict>> {
    let text = fs::read_to_string(file).map_err(|cause| Error::File {
        file: file.to_owned(),
        cause,
        hint: " (hint: JSON Lines of {verdict, label, idx})",
    })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let broken =
                |reason: String| Error::BrokenLine(BrokenLine { file: file.to_owned(), line: number + 1, reason });
            let Line { verdict, label, idx } = serde_json::from_str(line)
                .map_err(|error| broken(format!("{error} (hint: a line is {{\"verdict\", \"label\", \"idx\"}})")))?;
            let label = match label {
                -1 => Opinion::Against,
                0 => Opinion::Undecided,
                1 => Opinion::For,
                other => return Err(broken(format!("`label` is {other}, expected -1, 0 or 1"))),
            };
            Ok(LabelledVerdict { verdict, label, group: idx })
        })
        .collect()
}

/// How a reader's opinions agree with labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerdictScores {
    /// By label, then by what was read, the last column for what could not be read.
    counts: [[usize; 4]; 3],
}

impl VerdictScores {
    fn add(&mut self, label: Opinion, read: Option<Opinion>) {
        self.counts[label as usize][read.map_or(3, |read| read as usize)] += 1;
    }

    fn sum(&self, count: impl Fn(usize, usize) -> bool) -> usize {
        let all = (0..3).flat_map(|label| (0..4).map(move |read| (label, read)));
        all.filter(|&(label, read)| count(label, read)).map(|(label, read)| self.counts[label][read]).sum()
    }

    /// Verdicts.
    pub fn total(&self) -> usize {
        self.sum(|_, _| true)
    }

    /// The share that was read as it is labelled; what could not be read was not.
    pub fn accuracy(&self) -> f64 {
        self.sum(|label, read| label == read) as f64 / self.total() as f64
    }

    /// The mean over labels that occur of the harmonic mean of precision and recall.
    pub fn macro_f1(&self) -> f64 {
        let labels: Vec<usize> = (0..3).filter(|&one| self.sum(|label, _| label == one) > 0).collect();
        let f1 = |&one: &usize| {
            let right = self.counts[one][one] as f64;
            let of_label = self.sum(|label, _| label == one) as f64;
            let read_so = self.sum(|_, read| read == one) as f64;
            // Neither is 0: the label occurs.
            2.0 * right / (of_label + read_so)
        };
        labels.iter().map(f1).sum::<f64>() / labels.len() as f64
    }

    /// The share of the verdicts labelled so that were read as `read`; `None` where there are none.
    pub fn share(&self, label: Opinion, read: Opinion) -> Option<f64> {
        let all: usize = self.counts[label as usize].iter().sum();
        (all > 0).then(|| self.counts[label as usize][read as usize] as f64 / all as f64)
    }

    /// The share that could not be read.
    pub fn unread(&self) -> f64 {
        self.sum(|_, read| read == 3) as f64 / self.total() as f64
    }
}

/// Reads every verdict.
pub fn measure(reader: &dyn VerdictReader, verdicts: &[LabelledVerdict]) -> Result<VerdictScores> {
    let mut scores = VerdictScores::default();
    for verdict in verdicts {
        scores.add(verdict.label, reader.read(&verdict.verdict)?);
    }
    Ok(scores)
}

/// Reads every verdict by a reader that has learned from other groups alone: in turns, each of `folds` parts is kept back.
/// A reader that `learn` cannot make reads nothing.
pub fn measure_in_folds<R: VerdictReader>(
    verdicts: &[LabelledVerdict],
    folds: usize,
    learn: impl Fn(&[&LabelledVerdict]) -> Option<R>,
) -> Result<VerdictScores> {
    let groups: Vec<u64> = verdicts.iter().map(|verdict| verdict.group).collect::<BTreeSet<_>>().into_iter().collect();
    let fold = |verdict: &LabelledVerdict| groups.binary_search(&verdict.group).map_or(0, |at| at % folds);
    let mut scores = VerdictScores::default();
    for kept in 0..folds {
        let others: Vec<&LabelledVerdict> = verdicts.iter().filter(|verdict| fold(verdict) != kept).collect();
        let reader = learn(&others);
        for verdict in verdicts.iter().filter(|verdict| fold(verdict) == kept) {
            let read = reader.as_ref().map(|reader| reader.read(&verdict.verdict)).transpose()?;
            scores.add(verdict.label, read.flatten());
        }
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::LeadingWord;

    fn verdict(text: &str, label: Opinion, group: u64) -> LabelledVerdict {
        LabelledVerdict { verdict: text.into(), label, group }
    }

    #[test]
    fn scores_are_what_they_are_called() {
        use Opinion::{Against, For, Undecided};
        let verdicts = [
            ("Yes", For),
            ("Yes", For),
            ("No", For),
            ("Hm", For),
            ("No", Against),
            ("Yes", Against),
            ("Neutral", Undecided),
        ]
        .map(|(text, label)| verdict(text, label, 0));
        let scores = measure(&LeadingWord, &verdicts).unwrap();
        assert_eq!(scores.total(), 7);
        assert_eq!(scores.accuracy(), 4.0 / 7.0);
        // For: 2 of 4 found, 2 of 3 right; against: 1 of 2, 1 of 2; undecided: all.
        assert!((scores.macro_f1() - (4.0 / 7.0 + 0.5 + 1.0) / 3.0).abs() < 1e-12);
        assert_eq!(scores.share(For, Against), Some(0.25));
        assert_eq!(scores.share(Against, For), Some(0.5));
        assert_eq!(scores.unread(), 1.0 / 7.0);
        assert_eq!(measure(&LeadingWord, &verdicts[..1]).unwrap().share(Against, For), None);
        assert_eq!(
            measure(&LeadingWord, &verdicts[..1]).unwrap().macro_f1(),
            1.0,
            "labels that do not occur do not count"
        );
    }

    /// Each group's verdict can only be read by who has seen it; who has not reads nothing.
    #[test]
    fn nobody_is_measured_on_a_group_that_was_learned_from() {
        struct Seen(Vec<String>);
        impl VerdictReader for Seen {
            fn name(&self) -> &str {
                "seen"
            }
            fn read(&self, verdict: &str) -> Result<Option<Opinion>> {
                Ok(self.0.iter().any(|seen| seen == verdict).then_some(Opinion::For))
            }
        }
        let verdicts: Vec<_> = (0..60).map(|at| verdict(&format!("of {}", at % 12), Opinion::For, at % 12)).collect();
        let learn = |others: &[&LabelledVerdict]| Some(Seen(others.iter().map(|one| one.verdict.clone()).collect()));
        let scores = measure_in_folds(&verdicts, 5, learn).unwrap();
        assert_eq!((scores.total(), scores.unread()), (60, 1.0));
        assert_eq!(measure(&learn(&verdicts.iter().collect::<Vec<_>>()).unwrap(), &verdicts).unwrap().unread(), 0.0);
    }

    #[test]
    fn a_broken_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("verdicts.jsonl");
        let good = r#"{"verdict": "Good.", "label": 1, "idx": 3, "score": 5}"#;
        fs::write(&file, format!("{good}\n\n")).unwrap();
        assert_eq!(read_labelled(&file).unwrap(), [verdict("Good.", Opinion::For, 3)]);
        for (line, says) in [
            (r#"{"verdict": "Good.", "label": 2, "idx": 3}"#, "`label` is 2"),
            (r#"{"verdict": "Good.", "label": 1}"#, "idx"),
            ("Good.", "hint"),
        ] {
            fs::write(&file, format!("{good}\n{line}\n")).unwrap();
            let error = read_labelled(&file).unwrap_err().to_string();
            assert!(error.contains("verdicts.jsonl:2:") && error.contains(says), "{error}");
        }
        let error = read_labelled(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none") && error.contains("JSON Lines"), "{error}");
    }
}
