//! The results of runs, on axes on which they can be compared: divergence, tokens, updates, seconds.
//!
//! A run is looked at a few times, each time by what judges say of the same held-out prompts. Between two looks a prompt's
//! score is drawn as a line, so that runs meet at the same place of an axis; beyond the last look nothing is made up. Over
//! divergence it is a line in its square root: a small step moves the reward in proportion and divergence by the square
//! (Gao et al. 2023 draw reward over it for that), so that a line in divergence itself would make those who leap look worse.

use std::collections::BTreeMap;

use serde::Serialize;

use super::MethodRun;
use elenchus_train::{
    Result, RunFolder,
    bootstrap::{Interval, mean_over_runs, median},
    rl::{HELD_OUT, JudgedRollout, RESULT, RlReport, RlResult, Spent},
};

/// Seeds the bootstraps, so that a report says the same each time.
const SEED: u64 = 1;

/// One look at what is held out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Look {
    /// Iterations done.
    pub step: u64,
    /// Spent by then.
    pub spent: Spent,
    /// Mean nats a reply from where it began.
    pub kl: f64,
    /// Mean score.
    pub score: f64,
    /// Each prompt's; what could not be scored is `None`.
    #[serde(skip)]
    pub scores: Vec<Option<f64>>,
    /// What was said.
    #[serde(skip)]
    pub replies: Vec<JudgedRollout>,
}

/// A run as far as it has come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// Whose.
    pub label: String,
    /// Which of the method's runs.
    pub seed: u64,
    /// In the order of steps.
    pub looks: Vec<Look>,
    /// Memory its process held at most.
    pub peak_bytes: Option<u64>,
    /// Median seconds of an iteration, and of what is said, judged, and learned in it: what else a machine does now and
    /// then is not the method's.
    pub seconds: [f64; 4],
    /// Why it ended before its time.
    pub halted: Option<String>,
    /// Whether it has ended.
    pub is_over: bool,
}

/// What can be the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Nats a reply.
    Kl(f64),
    /// Tokens said.
    Tokens(f64),
    /// Steps of the optimiser.
    Updates(f64),
    /// Seconds of iterations.
    Seconds(f64),
}

impl Place {
    /// Where a look is, on an axis on which scores lie on lines.
    fn of(self, look: &Look) -> f64 {
        match self {
            // An estimate may be a little below zero.
            Self::Kl(_) => look.kl.max(0.0).sqrt(),
            Self::Tokens(_) => look.spent.tokens as f64,
            Self::Updates(_) => look.spent.updates as f64,
            Self::Seconds(_) => look.spent.seconds,
        }
    }

    fn wanted(self) -> f64 {
        match self {
            Self::Kl(kl) => kl.sqrt(),
            Self::Tokens(x) | Self::Updates(x) | Self::Seconds(x) => x,
        }
    }
}

/// A method at one place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// Whose.
    pub label: String,
    /// Runs that came there.
    pub runs: usize,
    /// Of how many.
    pub of: usize,
    /// Mean score over prompts and these runs; `None` where no run came there.
    pub score: Option<Interval>,
    /// Standard deviation of the runs' means, n - 1.
    pub deviation: Option<f64>,
    /// To the baseline's runs with the same seeds, prompt by prompt.
    pub difference: Option<Interval>,
}

impl Curve {
    /// Reads a run's folder, which may be anywhere in its run.
    pub fn read(run: &MethodRun, folder: &RunFolder) -> Result<Self> {
        let reports: Vec<RlReport> = folder.metrics()?;
        let mut looks = BTreeMap::<u64, Vec<JudgedRollout>>::new();
        for line in folder.lines::<JudgedRollout>(HELD_OUT)? {
            looks.entry(line.step).or_default().push(line);
        }
        let looks = looks.into_iter().map(|(step, replies)| {
            let scores: Vec<Option<f64>> = replies.iter().map(|reply| reply.score.map(f64::from)).collect();
            let known: Vec<f64> = scores.iter().copied().flatten().collect();
            let kl = replies.iter().filter_map(|reply| reply.kl).sum::<f64>() / replies.len().max(1) as f64;
            let spent = Spent::of(&reports[..reports.len().min(step as usize)]);
            let score = known.iter().sum::<f64>() / known.len().max(1) as f64;
            Look { step, spent, kl, score, scores, replies }
        });
        let result: Option<RlResult> = folder.json(RESULT)?;
        let usual = |of: fn(&RlReport) -> f64| {
            if reports.is_empty() { 0.0 } else { median(&reports.iter().map(of).collect::<Vec<_>>()) }
        };
        Ok(Self {
            label: run.label.clone(),
            seed: run.seed,
            looks: looks.collect(),
            peak_bytes: reports.iter().filter_map(|report| report.peak_bytes).max(),
            seconds: [
                usual(|report| report.seconds.total()),
                usual(|report| report.seconds.respond),
                usual(|report| report.seconds.judge),
                usual(|report| report.seconds.recompute + report.seconds.learn),
            ],
            halted: result.as_ref().and_then(|result| result.halted.clone()),
            is_over: result.is_some(),
        })
    }

    /// Each prompt's score where the run first comes to a place, by a line between the looks before and after it.
    pub fn at(&self, place: Place) -> Option<Vec<Option<f64>>> {
        let wanted = place.wanted();
        let after = self.looks.iter().position(|look| place.of(look) >= wanted)?;
        let look = &self.looks[after];
        let Some(before) = after.checked_sub(1).map(|at| &self.looks[at]) else { return Some(look.scores.clone()) };
        let (from, to) = (place.of(before), place.of(look));
        let share = if to > from { (wanted - from) / (to - from) } else { 1.0 };
        let between = |(before, after): (&Option<f64>, &Option<f64>)| {
            before.zip(*after).map(|(before, after)| before + share * (after - before))
        };
        Some(before.scores.iter().zip(&look.scores).map(between).collect())
    }
}

/// All methods at one place, in the order in which they first appear.
pub(super) fn standings(curves: &[Curve], baseline: &str, place: Place) -> Vec<Standing> {
    let mut labels: Vec<&str> = Vec::new();
    curves.iter().for_each(|curve| {
        if !labels.contains(&curve.label.as_str()) {
            labels.push(&curve.label);
        }
    });
    let runs_of = |label: &str| -> Vec<(u64, Vec<Option<f64>>)> {
        let there = curves.iter().filter(|curve| curve.label == label);
        there.filter_map(|curve| Some((curve.seed, curve.at(place)?))).collect()
    };
    let base = runs_of(baseline);
    let standing = |label: &str| {
        let runs = runs_of(label);
        let of = curves.iter().filter(|curve| curve.label == label).count();
        let differences: Vec<Vec<Option<f64>>> = runs
            .iter()
            .filter_map(|(seed, ours)| {
                let (_, theirs) = base.iter().find(|(other, _)| other == seed)?;
                Some(ours.iter().zip(theirs).map(|(ours, theirs)| Some((*ours)? - (*theirs)?)).collect())
            })
            .collect();
        let run_means: Vec<f64> = runs.iter().filter_map(|(_, scores)| plain_mean(scores)).collect();
        Standing {
            label: label.to_owned(),
            runs: runs.len(),
            of,
            score: mean_over_runs(&runs.iter().map(|(_, scores)| scores.clone()).collect::<Vec<_>>(), SEED),
            deviation: deviation(&run_means),
            difference: (label != baseline).then(|| mean_over_runs(&differences, SEED)).flatten(),
        }
    };
    labels.into_iter().map(standing).collect()
}

fn plain_mean(scores: &[Option<f64>]) -> Option<f64> {
    let known: Vec<f64> = scores.iter().copied().flatten().collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

fn deviation(means: &[f64]) -> Option<f64> {
    let count = means.len() as f64;
    let mean = means.iter().sum::<f64>() / count;
    (means.len() > 1).then(|| (means.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(step: u64, kl: f64, scores: &[Option<f64>]) -> Look {
        let spent = Spent { tokens: 100 * step, updates: step, seconds: step as f64 * 2.0 };
        let score = plain_mean(scores).unwrap_or_default();
        Look { step, spent, kl, score, scores: scores.to_vec(), replies: Vec::new() }
    }

    fn curve(label: &str, seed: u64, looks: Vec<Look>) -> Curve {
        Curve { label: label.to_owned(), seed, looks, peak_bytes: None, seconds: [0.0; 4], halted: None, is_over: true }
    }

    #[test]
    fn runs_meet_between_their_looks_and_not_beyond_them() {
        let one = curve(
            "A",
            1,
            vec![
                look(0, 0.0, &[Some(0.0), Some(1.0)]),
                look(10, 0.5, &[Some(1.0), None]),
                look(20, 2.0, &[Some(4.0), Some(3.0)]),
            ],
        );
        assert_eq!(
            one.at(Place::Kl(0.125)),
            Some(vec![Some(0.5), None]),
            "half the way is a quarter of the divergence"
        );
        assert_eq!(one.at(Place::Kl(2.0)), Some(vec![Some(4.0), None]), "both looks must have a score");
        assert_eq!(one.at(Place::Kl(2.1)), None);
        assert_eq!(one.at(Place::Tokens(0.0)), Some(vec![Some(0.0), Some(1.0)]));
        assert_eq!(one.at(Place::Updates(5.0)), Some(vec![Some(0.5), None]));
        assert_eq!(one.at(Place::Seconds(40.0)), Some(vec![Some(4.0), None]));
    }

    #[test]
    fn differences_are_of_the_same_prompts_and_seeds() {
        let run = |label: &str, seed: u64, end: [f64; 3]| {
            curve(label, seed, vec![look(0, 0.0, &[Some(0.0); 3]), look(10, 1.0, &end.map(Some))])
        };
        let curves = [
            run("base", 1, [1.0, 2.0, 3.0]),
            run("other", 1, [2.0, 3.0, 4.0]),
            run("base", 2, [3.0, 2.0, 1.0]),
            run("other", 2, [4.0, 3.0, 2.0]),
            run("short", 1, [0.5, 0.5, 0.5]),
        ];
        let standings = standings(&curves, "base", Place::Tokens(1000.0));
        let [base, other, short] = &standings[..] else { panic!("{standings:?}") };
        assert_eq!((base.runs, base.of, base.difference), (2, 2, None));
        assert_eq!(base.score.unwrap().value, 2.0);
        let difference = other.difference.unwrap();
        assert_eq!((difference.value, difference.low, difference.high), (1.0, 1.0, 1.0), "prompt by prompt");
        assert_eq!((short.runs, short.of), (1, 1));
        assert!((short.difference.unwrap().value + 1.5).abs() < 1e-12, "to the baseline of its own seed");
        assert_eq!(base.deviation, Some(0.0));
        let nowhere = super::standings(&curves, "base", Place::Kl(3.0));
        assert!(nowhere.iter().all(|standing| standing.score.is_none() && standing.runs == 0));
    }
}
