//! What was said, and what of it was right.

use std::num::NonZeroUsize;

use elenchus_dialogue::StopReason;
use serde::{Deserialize, Serialize};

use super::setup::{Group, LineSet};
use crate::bootstrap::Interval;

/// A line and its reply.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exchange {
    /// What was said.
    pub line: String,
    /// Who answers.
    pub speaker: String,
    /// What it answers; empty where the filter refused every attempt and a game would show a fallback line.
    pub reply: String,
    /// Why it ended.
    pub stop: StopReason,
    /// What the filter refused before this reply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
}

/// A sentence that the filter refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// By which rule.
    pub rule: String,
    /// What was to be said.
    pub text: String,
}

/// A conversation as it went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Played {
    /// What it is about.
    pub group: Group,
    /// A part of the group; empty where there are none.
    pub kind: String,
    /// Facts of the game.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<String>,
    /// Line by line.
    pub exchanges: Vec<Exchange>,
    /// What is wrong with the last reply; several faults where every reply is judged.
    pub faults: Vec<String>,
}

/// How often replies were right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRow {
    /// What was asked of them.
    pub check: String,
    /// Whether it is a part of the row above it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_part: bool,
    /// How many were.
    pub right: usize,
    /// Of how many.
    pub of: usize,
    /// The share, Wilson's interval at 95%; `null` without replies.
    pub share: Option<Interval>,
    /// The first that was not: line, reply and what is wrong.
    pub failure: Option<Failure>,
}

/// A reply that was not right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was said.
    pub line: String,
    /// What was answered.
    pub reply: String,
    /// What is wrong.
    pub fault: String,
}

/// The whole battery.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CharacterReport {
    /// Who.
    pub character: String,
    /// Whom it talked to where no player was.
    pub partner: Option<String>,
    /// What was said to it.
    pub lines: LineSet,
    /// Determined every reply.
    pub seed: u64,
    /// How often each conversation was held.
    pub seeds: NonZeroUsize,
    /// Whether replies were filtered.
    pub is_filtered: bool,
    /// By check.
    pub rows: Vec<CheckRow>,
    /// Replies in all.
    pub replies: usize,
    /// Of these, those that were sampled again because the filter refused a sentence.
    pub sampled_again: usize,
    /// Replies of which every attempt was refused: a game shows a fallback line.
    pub refused: usize,
    /// Refused sentences by rule.
    pub refused_by_rule: std::collections::BTreeMap<String, usize>,
    /// Mean words of a reply to the player.
    pub mean_words: f64,
    /// All that was said.
    pub conversations: Vec<Played>,
}

impl CharacterReport {
    /// The row of a check.
    pub fn row(&self, check: &str) -> Option<&CheckRow> {
        self.rows.iter().find(|row| row.check == check)
    }
}
