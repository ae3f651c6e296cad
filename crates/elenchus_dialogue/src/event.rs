//! The engine's events.

use std::time::Duration;

use elenchus_lm::{AdapterId, Rng};

use crate::{Error, Refusal, RequestId, StopReason};

/// The engine's events. For each accepted request: `Started`, any number of `Delta`, then exactly one of `Finished` and
/// `Failed`. `Started` is absent where a request failed or was cancelled before it got a place.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EngineEvent {
    /// The model is being read; the share done, 0 to 1.
    Loading(f32),
    /// The model speaks from now on.
    Ready(BaseInfo),
    /// The model could not be loaded; [`crate::Engine::reload`] tries again. Requests fail until then.
    LoadFailed(Error),
    /// The reply has a place; its prompt is being read.
    Started(RequestId),
    /// More text, whole graphemes.
    Delta(RequestId, String),
    /// The reply is complete.
    Finished(RequestId, ReplyReport),
    /// There will be no reply.
    Failed(RequestId, Error),
}

/// A finished reply and what it cost.
#[derive(Debug, Clone)]
pub struct ReplyReport {
    /// All of it: the deltas joined.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// The generator's next state, for the conversation.
    pub rng: Rng,
    /// Identity of the adapter.
    pub adapter: Option<AdapterId>,
    /// Tokens sampled, the end token included if one was.
    pub reply_ids: Vec<u32>,
    /// Sentences that the filter refused; the reply was sampled again for each, or ends before the last.
    pub refused: Vec<Refusal>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, how many were remembered and not read again.
    pub cached_tokens: usize,
    /// From the engine's receipt of the request to its first token.
    pub first_token: Duration,
    /// Decoding speed after the first token, tokens a second; 0 for a single token.
    pub tokens_per_second: f32,
}

/// The model that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseInfo {
    /// File name.
    pub name: String,
    /// SHA-256 in hex.
    pub sha256: String,
    /// Longest context used, in tokens.
    pub context: usize,
}
