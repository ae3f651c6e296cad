//! Replies with what judges said of them, as a run keeps them: `rollouts.jsonl` and `held_out.jsonl`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    learner::{Prompt, RlLearner},
    rollout::Response,
};
use crate::{
    Result, RunFolder,
    judge::{Exchange, Judged, Judges},
};

/// Every response with its verdicts.
pub(super) const ROLLOUTS: &str = "rollouts.jsonl";
/// Replies to prompts that are never trained on, at each evaluation.
pub const HELD_OUT: &str = "held_out.jsonl";

/// One line of `rollouts.jsonl` and `held_out.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgedRollout {
    /// The iteration, from 1; of what is held out, iterations done.
    pub step: u64,
    /// What was said, and answered.
    #[serde(flatten)]
    pub exchange: Exchange,
    /// The weighted sum of scores, without penalty.
    pub score: Option<f32>,
    /// Each judge's score, and what it is made of as `judge/part`.
    pub scores: BTreeMap<String, Option<f32>>,
    /// Nats between the voice and the one it began as, over this reply's tokens; of what is held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// What judges with words said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub words: BTreeMap<String, String>,
}

/// A response as judges see it.
pub(super) fn exchange(learner: &RlLearner<'_>, prompt: &Prompt<'_>, response: &Response) -> Exchange {
    let words = &response.tokens[..response.tokens.len() - usize::from(response.is_ended)];
    Exchange {
        context: prompt.turns.to_vec(),
        reply: learner.model.tokenizer.decode(words).trim().to_owned(),
        is_ended: response.is_ended,
    }
}

/// A run's file of judged replies, at a step.
pub(super) struct RolloutLog<'a> {
    pub run: &'a RunFolder,
    pub file: &'a str,
    pub step: u64,
}

impl RolloutLog<'_> {
    /// Keeps replies with what judges said of them, and their divergence where it was measured.
    pub(super) fn note(&self, judges: &Judges, exchanges: &[Exchange], judged: &[Judged], kl: &[f64]) -> Result<()> {
        exchanges.iter().zip(judged).enumerate().try_for_each(|(at, (exchange, judged))| {
            let words = judges.names().zip(&judged.verdicts).filter(|(_, verdict)| !verdict.words.is_empty());
            let line = JudgedRollout {
                step: self.step,
                exchange: exchange.clone(),
                score: judged.score,
                scores: judges.named(judged).collect(),
                kl: kl.get(at).copied(),
                words: words.map(|(name, verdict)| (name.to_owned(), verdict.words.clone())).collect(),
            };
            self.run.append(self.file, &line)
        })
    }
}
