//! One iteration in numbers, as `metrics.jsonl` keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use crate::{
    judge::{Cost, Exchange},
    tensorboard::Curves,
    text_stats::{distinct_2, is_question},
};

/// The result of an iteration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RlReport {
    /// From 1.
    pub step: u64,
    /// Responses sampled.
    pub responses: usize,
    /// Those that a judge could not score: left out.
    pub unscored: usize,
    /// Mean weighted score of the others, without penalties.
    pub score: f64,
    /// Mean score of each judge.
    pub scores: BTreeMap<String, f64>,
    /// Nats a response between policy and reference.
    pub kl: f64,
    /// Nats a token between engine and trainer.
    pub engine_kl: f64,
    /// Mean tokens of a response.
    pub reply_tokens: f64,
    /// Tokens that were said only to learn what is to be expected, of all responses together.
    #[serde(skip_serializing_if = "is_zero")]
    pub rerolled_tokens: usize,
    /// Mean words of a response.
    pub reply_words: f64,
    /// Share of responses that ended.
    pub ended: f64,
    /// Share that ends in a question.
    pub questions: f64,
    /// Distinct pairs of words among all.
    pub distinct_2: f64,
    /// What the method says of itself, means over its steps.
    pub stats: BTreeMap<String, f64>,
    /// Steps of the optimiser.
    pub updates: usize,
    /// Of those, how many were skipped.
    pub skipped: usize,
    /// Mean negative log-probability a token of the pairs that were written beforehand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline_loss: Option<f64>,
    /// Before clipping, mean over the steps.
    pub grad_norm: f64,
    /// Of this iteration.
    pub learning_rate: f64,
    /// What judges took.
    pub cost: Cost,
    /// Spent on the parts of the iteration.
    pub seconds: Seconds,
    /// Memory the process has held at most; `None` where the system does not say.
    #[serde(alias = "resident_bytes", skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Where an iteration's time goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seconds {
    /// Sampling responses.
    pub respond: f64,
    /// Judging them.
    pub judge: f64,
    /// Log-probabilities of policy and reference, and values.
    pub recompute: f64,
    /// Gradients and steps.
    pub learn: f64,
}

impl Seconds {
    /// All parts.
    pub fn total(self) -> f64 {
        self.respond + self.judge + self.recompute + self.learn
    }
}

/// What iterations took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Tokens said, those that were only said to value others among them.
    pub tokens: u64,
    /// Steps of the optimiser.
    pub updates: u64,
    /// Without looks at what is held out.
    pub seconds: f64,
}

impl Spent {
    /// All of these.
    pub fn of(reports: &[RlReport]) -> Self {
        let mut spent = Self::default();
        for report in reports {
            let said = (report.reply_tokens * report.responses as f64).round() as u64;
            spent.tokens += said + report.rerolled_tokens as u64;
            spent.updates += report.updates as u64;
            spent.seconds += report.seconds.total();
        }
        spent
    }
}

impl Curves for RlReport {
    fn step(&self) -> u64 {
        self.step
    }

    fn seconds(&self) -> f64 {
        self.seconds.total()
    }

    /// TRL's tags where it has them.
    fn scalars(&self) -> Vec<(String, f64)> {
        let plain = [
            ("objective/scores", self.score),
            ("objective/kl", self.kl),
            ("engine/kl", self.engine_kl),
            ("reply/tokens", self.reply_tokens),
            ("reply/words", self.reply_words),
            ("reply/ended", self.ended),
            ("reply/questions", self.questions),
            ("reply/distinct_2", self.distinct_2),
            ("reply/unscored", self.unscored as f64),
            ("train/grad_norm", self.grad_norm),
            ("train/learning_rate", self.learning_rate),
            ("seconds/respond", self.seconds.respond),
            ("seconds/judge", self.seconds.judge),
            ("seconds/recompute", self.seconds.recompute),
            ("seconds/learn", self.seconds.learn),
        ];
        let judges = self.scores.iter().map(|(name, score)| (format!("judge/{name}"), *score));
        let method = self.stats.iter().map(|(name, value)| (format!("policy/{name}"), *value));
        let rest = [
            self.offline_loss.map(|loss| ("offline/loss".to_owned(), loss)),
            self.peak_bytes.map(|bytes| ("memory/peak_bytes".to_owned(), bytes as f64)),
        ];
        let plain = plain.into_iter().map(|(tag, value)| (tag.to_owned(), value));
        plain.chain(judges).chain(method).chain(rest.into_iter().flatten()).collect()
    }
}

/// What is seen of replies from outside.
pub(super) fn describe(report: &mut RlReport, exchanges: &[Exchange]) {
    let mean = |of: &dyn Fn(&Exchange) -> f64| exchanges.iter().map(of).sum::<f64>() / exchanges.len().max(1) as f64;
    let share = |of: fn(&Exchange) -> bool| mean(&|exchange| f64::from(u8::from(of(exchange))));
    report.responses = exchanges.len();
    report.reply_words = mean(&|exchange| exchange.reply.unicode_words().count() as f64);
    report.ended = share(|exchange| exchange.is_ended);
    report.questions = share(|exchange| is_question(&exchange.reply));
    report.distinct_2 = distinct_2(exchanges.iter().map(|exchange| exchange.reply.as_str()));
}
