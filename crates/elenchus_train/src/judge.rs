//! Judges of replies: what they say, and the numbers it becomes.
//!
//! A judge sees a reply with what was said before it. What it thinks becomes one number, or none: a reply that a judge
//! cannot score is left out of learning and never given a made-up number. Judges that answer in words have a
//! [`VerdictReader`] make one of three opinions of them, in one place, so that readers can be exchanged and measured
//! against labels ([`measure`]). Several judges together are a [`Judges`].

mod chat;
mod ensemble;
mod free;
mod information;
mod judges;
mod labelled;
mod learned;
mod logistic;
mod model;
mod ngrams;
mod question;
mod reader;
mod rules;
mod sentiment;
mod settings;
mod words;

use std::collections::BTreeMap;

use elenchus_dialogue::Turn;
use serde::{Deserialize, Serialize};

pub use chat::{ChatJudge, ChatJudgeSettings};
pub(crate) use ensemble::DISAGREEMENT;
pub(crate) use ensemble::EnsembleJudge;
pub use ensemble::{Combination, Combined, Spread, Uwo};
pub use free::FreeJudges;
pub use information::Information;
pub use judges::{Judged, Judges, WeightedJudge};
pub use labelled::{LabelledVerdict, VerdictScores, measure, measure_in_folds, read_labelled};
pub use learned::LearnedJudge;
pub use logistic::LogisticSettings;
pub use model::{ModelJudge, ModelJudgeSettings};
pub use ngrams::{NgramStyle, StyleTest};

pub(crate) use question::quote;
pub use question::{Question, VerdictForm};
pub use reader::{LeadingWord, Lexicon, Opinion, Or, Structured, VerdictReader};
pub use rules::{Rule, Rules, Scripted};
pub use sentiment::Sentiment;
pub use settings::{JudgeContext, JudgeSettings, ReaderSettings, WeightedJudgeSettings, by_words};
pub use words::{Words, WordsSettings};

use crate::Result;
pub use crate::chat::Cost;

/// A reply and what it replies to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// What was said before, oldest first; the last turn is what is replied to.
    pub context: Vec<Turn>,
    /// What the character said.
    pub reply: String,
    /// Whether the character ended it by itself; a reply that was cut off was not.
    pub is_ended: bool,
}

/// What a judge makes of one reply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What it said; empty where a judge has no words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub words: String,
    /// Its score, higher for better; `None` where the reply could not be scored.
    pub score: Option<f32>,
    /// What the score is made of, by name, where it is made of several numbers: logged, and not weighed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, f32>,
    /// What it took.
    #[serde(default)]
    pub cost: Cost,
}

/// Says what it thinks of replies.
pub trait Judge: Send + Sync {
    /// What logs and tables call it.
    fn name(&self) -> &str;

    /// A verdict on each reply, in their order.
    ///
    /// # Errors
    /// What makes judging on useless: a budget that is spent, a file that is broken. What goes wrong with one reply leaves
    /// that reply without a score.
    fn judge(&self, exchanges: &[Exchange]) -> Result<Vec<Verdict>>;
}

impl Verdict {
    /// A verdict without words, at no cost.
    pub fn of(score: f32) -> Self {
        Self { score: Some(score), ..Self::default() }
    }
}
