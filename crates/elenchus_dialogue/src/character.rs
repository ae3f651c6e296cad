//! `character.toml`: who a character is, how it draws words and when it stops.

use elenchus_lm::SamplerSettings;
use serde::{Deserialize, Serialize};

use crate::Result;

/// A character as its file describes it. Unknown keys are tolerated (and warned about), so that newer files still load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Character {
    /// Version of the format; this crate writes 1 and refuses newer ones.
    pub version: u32,
    /// The name spoken to and shown.
    pub name: String,
    /// The card: who this is, in the second person ("You are Socrates...").
    pub persona: String,
    /// Temperament, 0 to 1 each; told to the model in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub big_five: Option<BigFive>,
    /// Said when a conversation begins, if the game asks.
    #[serde(default)]
    pub greetings: Vec<String>,
    /// Said instead of a reply that failed; at least one.
    pub fallbacks: Vec<String>,
    /// How words are drawn.
    #[serde(default)]
    pub sampler: SamplerSettings,
    /// When a reply ends.
    #[serde(default)]
    pub stop: StopRules,
    /// Strength at which the folder's adapter is worn, if it has one.
    #[serde(default = "one")]
    pub adapter_scale: f32,
    /// The base the adapter was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseRef>,
}

fn one() -> f32 {
    1.0
}

/// The five-factor model of personality, 0 (low) to 1 (high).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BigFive {
    /// Openness to experience.
    pub openness: f32,
    /// Conscientiousness.
    pub conscientiousness: f32,
    /// Extraversion.
    pub extraversion: f32,
    /// Agreeableness.
    pub agreeableness: f32,
    /// Neuroticism.
    pub neuroticism: f32,
}

/// When a reply ends besides the model's own end token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StopRules {
    /// Texts that end the reply and are not part of it; may span tokens.
    pub strings: Vec<String>,
    /// End when the text begins to speak for another: `PLATO:` at the start of a line.
    pub other_speaker: bool,
    /// Sentences at most; 0 for no limit.
    pub max_sentences: usize,
    /// Tokens at most.
    pub max_tokens: usize,
    /// Seconds at most, from the first token on.
    pub max_seconds: f32,
}

impl Default for StopRules {
    fn default() -> Self {
        Self { strings: Vec::new(), other_speaker: true, max_sentences: 4, max_tokens: 160, max_seconds: 30.0 }
    }
}

/// Which base model an adapter was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRef {
    /// For people.
    pub name: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

impl Character {
    /// Reads the text of a `character.toml`; `file` is what errors call it.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let _ = (text, file);
        todo!()
    }
}
