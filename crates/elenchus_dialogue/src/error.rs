//! What can go wrong between a line and its reply.

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors end with what to do about them. `Clone`, so that one failure can be sent to every request it concerns.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A `character.toml` that cannot be used.
    #[error("{file}: {reason}")]
    Character {
        /// The file.
        file: String,
        /// Which field, what it holds, and the fix.
        reason: String,
    },
    /// No model is loaded.
    #[error("no model: {0}")]
    NoModel(String),
    /// The adapter does not fit this base.
    #[error("{0}")]
    Adapter(String),
    /// The prompt leaves no room for a reply, however much history is cut.
    #[error(
        "persona, facts and newest line need {tokens} tokens with room for a reply, but the context holds {context} (hint: shorten one of them)"
    )]
    PromptTooLong {
        /// Tokens of persona, facts and newest line, and those kept free for the reply.
        tokens: usize,
        /// Tokens the context holds.
        context: usize,
    },
    /// Every attempt at a reply was refused by the filter.
    #[error("the reply was refused {tries} times, last by the rule `{rule}`: {text:?}")]
    Refused {
        /// Replies sampled.
        tries: u32,
        /// The rule that refused the last one.
        rule: String,
        /// What it was to say.
        text: String,
    },
    /// The line to answer holds no words.
    #[error("there is nothing to answer: the line is empty")]
    EmptyLine,
    /// The language model failed.
    #[error("language model: {0}")]
    Model(String),
    /// The engine is shutting down or its thread has ended.
    #[error("the engine has stopped")]
    Stopped,
}

impl From<elenchus_lm::Error> for Error {
    fn from(error: elenchus_lm::Error) -> Self {
        Self::Model(error.to_string())
    }
}
