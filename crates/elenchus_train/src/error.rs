//! What can go wrong between a text and a trained adapter.

use std::{fmt, io, path::PathBuf};

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors name file, line and field, and end with what to do about them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read at all.
    #[error("{}: {cause}{hint}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        cause: io::Error,
        /// The fix, led by a space; empty if what the system says is enough.
        hint: &'static str,
    },
    /// A line that does not hold what it should, where the run was told to stop at one.
    #[error("{0}")]
    BrokenLine(BrokenLine),
    /// A text that cannot be downloaded.
    #[error("{what}: {reason}")]
    Download {
        /// The work, or the mirror.
        what: String,
        /// What was asked for, what came back, and the fix.
        reason: String,
    },
    /// An alias that leads nowhere or two ways.
    #[error("alias `{alias}`: {reason}")]
    Alias {
        /// The name that was to be replaced.
        alias: String,
        /// What is wrong, and the fix.
        reason: String,
    },
    /// The texts hold no words of the character.
    #[error("{character} replies nowhere in these texts (hint: {hint})")]
    NoReplies {
        /// The character as it was looked for.
        character: String,
        /// Who speaks there, or what else to do.
        hint: String,
    },
    /// Pairs that do not say who replies, and cannot be the character's.
    #[error(
        "a pair of {work} does not say who replies, and {character} speaks right before the reply, so it is somebody else's (hint: name who replies in a field `character`, or leave the file out)"
    )]
    NotTheirs {
        /// The work the pair is from.
        work: String,
        /// The character whose pairs were asked for.
        character: String,
    },
    /// A variable that would never learn.
    #[error(
        "variable `{0}` has no gradient: the loss does not depend on it (hint: is its adapter used in the forward pass?)"
    )]
    NoGradient(String),
    /// An optimiser state that belongs to other variables.
    #[error("optimiser state: {0} (hint: resume with the configuration the run was started with)")]
    OptimiserState(String),
    /// A training configuration that cannot be used.
    #[error("{file}: {reason}")]
    Config {
        /// The file.
        file: String,
        /// Which field, what it holds, and the fix.
        reason: String,
    },
    /// A run folder that cannot be used or continued.
    #[error("run {}: {reason}", folder.display())]
    Run {
        /// The folder.
        folder: PathBuf,
        /// What is wrong, and the fix.
        reason: String,
    },
    /// The loss left the numbers.
    #[error("the loss of step {step} is {loss} (hint: lower `learning_rate`)")]
    Diverged {
        /// The step, from 0.
        step: u64,
        /// NaN or infinite.
        loss: f64,
    },
    /// A reply that a reward model cannot read as it reads all others.
    #[error(
        "an example of {tokens} tokens does not end with its end token (hint: make it with `RewardModel::example`)"
    )]
    NotEnded {
        /// Its tokens.
        tokens: usize,
    },
    /// Scores that cannot be brought to mean 0 and variance 1.
    #[error("the reward model's scores have mean {mean} and variance {variance} (hint: lower `learning_rate`)")]
    Scores {
        /// Their mean.
        mean: f64,
        /// Their variance.
        variance: f64,
    },
    /// A folder that holds no reward model for this base.
    #[error("reward model {}: {reason}", folder.display())]
    RewardModel {
        /// The folder.
        folder: PathBuf,
        /// What is wrong, and the fix.
        reason: String,
    },
    /// A character that cannot be used.
    #[error(transparent)]
    Character(#[from] elenchus_dialogue::Error),
    /// A chat template whose prompts are not the beginning of its conversations.
    #[error(
        "the chat template does not continue its own prompt with the reply and an end token, so training would teach what the game never reads (hint: use a model whose template does)"
    )]
    Template,
    /// The language model failed.
    #[error(transparent)]
    Model(#[from] elenchus_lm::Error),
    /// The tensor library refused an operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A classifier of verdicts that cannot be used.
    #[error("{}: {reason}", file.display())]
    Classifier {
        /// The file.
        file: PathBuf,
        /// What is wrong, and the fix.
        reason: String,
    },
    /// A text that a classifier's tokenizer refused.
    #[error("the classifier's tokenizer: {0}")]
    Tokenizer(String),
    /// A judge that cannot be asked.
    #[error("judge `{judge}`: {reason}")]
    Judge {
        /// Its name.
        judge: String,
        /// Which setting or address, what is wrong, and the fix.
        reason: String,
    },
    /// A chat model that cannot be asked.
    #[error("chat model `{chat}`: {reason}")]
    Chat {
        /// Its name.
        chat: String,
        /// Which setting or address, what is wrong, and the fix.
        reason: String,
    },
    /// A chat model for which there is no more to spend.
    #[error("chat model `{chat}`: `{budget}` is spent: {used} used of {limit} (hint: {hint})")]
    ChatBudget {
        /// Its name.
        chat: String,
        /// The setting.
        budget: &'static str,
        /// What was used, earlier runs with the same cache included.
        used: u64,
        /// What was allowed.
        limit: u64,
        /// How to continue.
        hint: &'static str,
    },
    /// A chat model that none of a batch's requests reached.
    #[error(
        "chat model `{chat}`: {url} cannot be reached: all of {count} questions have {reason} (hint: is the server up? start again once it is; what was answered before is not asked again where `cache` is set)"
    )]
    ChatUnreachable {
        /// Its name.
        chat: String,
        /// Where it was looked for.
        url: String,
        /// Questions that were to be answered.
        count: usize,
        /// What happened to the last.
        reason: String,
    },
    /// Voices that cannot be compared as asked.
    #[error("{what}: {reason}")]
    Comparison {
        /// The file, the setting or the judge.
        what: String,
        /// What is wrong, and the fix.
        reason: String,
    },
    /// Pairs that cannot be split as asked.
    #[error("split: {0}")]
    Split(String),
}

/// A line that does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenLine {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1 in the unpacked text.
    pub line: usize,
    /// Which field, what is wrong with it, and the fix.
    pub reason: String,
}

impl fmt::Display for BrokenLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.reason)
    }
}
