//! Tokens to text that can be shown: whole graphemes, held back while a stop rule may still match.

use serde::{Deserialize, Serialize};

/// Why a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StopReason {
    /// The model's own end token.
    EndToken,
    /// A stop string.
    StopString,
    /// The text began to speak for another.
    OtherSpeaker,
    /// The limit of sentences.
    MaxSentences,
    /// The limit of tokens.
    MaxTokens,
    /// The limit of time.
    MaxSeconds,
    /// The context is full.
    ContextFull,
    /// Cancelled by the game; the text is what was said so far.
    Cancelled,
}
