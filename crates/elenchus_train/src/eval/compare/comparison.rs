//! What a comparison measured: what tables, pages and blind pairs are made of.

use std::collections::BTreeMap;

use elenchus_dialogue::Turn;
use serde::{Deserialize, Serialize};

use super::{
    measures::{DISTINCT, Lengths},
    planted::Planted,
    speak::Reply,
};
use crate::{
    bootstrap::{Interval, Wins},
    judge::StyleTest,
};

/// All that was measured: what tables, pages and blind pairs are made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Who answered.
    pub character: String,
    /// Determines replies and resamples.
    pub seed: u64,
    /// What was said to every voice.
    pub prompts: Vec<Vec<Turn>>,
    /// The voice that others are held to: the first with an adapter.
    pub baseline: String,
    /// Who judged.
    pub judges: Vec<JudgeAbout>,
    /// How well the judge of style knows its works, where one was trained.
    #[serde(default)]
    pub style: Option<StyleTest>,
    /// What judges make of planted bad replies.
    #[serde(default)]
    pub planted: Vec<Planted>,
    /// The character itself.
    pub own: Manner,
    /// Each voice.
    pub voices: Vec<VoiceReport>,
}

/// A judge by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeAbout {
    /// What tables call it.
    pub name: String,
    /// Whether a voice was trained to please it.
    pub optimised: bool,
}

/// What is seen of replies from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manner {
    /// How many.
    pub replies: usize,
    /// Their words.
    pub words: Lengths,
    /// Share that ends in a question.
    pub questions: f64,
    /// Distinct words, pairs and threes among all.
    pub distinct: [f64; DISTINCT],
}

/// One voice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VoiceReport {
    /// Its name.
    pub name: String,
    /// What each judge makes of it; a judge that could score none of its replies is missing.
    pub scores: BTreeMap<String, JudgeReport>,
    /// What its replies look like.
    pub manner: Manner,
    /// Wasserstein-1 distance of its word counts from the character's own, in words.
    pub length_distance: f64,
    /// The same less the baseline's: below 0 is nearer to the character. None for the baseline.
    pub length_distance_difference: Option<Interval>,
    /// Nats a token between it and the baseline along its own replies, over the whole vocabulary. None for the baseline
    /// and for a voice that says the best of several.
    pub kl: Option<Interval>,
    /// On the held-out replies. None for a voice that says the best of several: its adapter's row has it.
    pub perplexity: Option<f64>,
    /// A reply's share of the time that all replies took, prompts included: see [`Reply::seconds`].
    pub seconds: f64,
    /// What it said, one reply to each prompt.
    pub replies: Vec<Reply>,
}

/// One judge on one voice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgeReport {
    /// Replies it could score.
    pub scored: usize,
    /// Its mean score.
    pub mean: Interval,
    /// Less the baseline's, over the prompts where both were scored. None for the baseline.
    pub difference: Option<Interval>,
    /// How often it liked this voice's reply better than the baseline's. None for the baseline.
    pub wins: Option<Wins>,
}
