//! Everything that can go wrong between a file and a logit, named by cause.

use std::path::PathBuf;

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors end with what to do about them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A model file is damaged or not what its name says.
    #[error("{}: {reason}", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// Which field, what it holds and what was expected.
        reason: String,
    },
    /// A model this crate cannot run.
    #[error("{what} is not supported: {hint}")]
    Unsupported {
        /// The feature or architecture.
        what: String,
        /// What is supported, or what to do.
        hint: String,
    },
    /// An adapter folder is damaged, of an unsupported kind, or made for another base.
    #[error("adapter {name}: {reason}")]
    Adapter {
        /// Folder or name.
        name: String,
        /// Which field or tensor, its numbers, and the fix.
        reason: String,
    },
    /// The tokenizer could not be built or refused a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template could not be compiled or rendered.
    #[error("chat template: {0}")]
    ChatTemplate(String),
    /// A batch that cannot be run: the caller's mistake.
    #[error("batch: {0}")]
    Batch(String),
    /// An executor's tensor library refused an operation.
    #[error(transparent)]
    Tensors(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps an I/O error with the file it happened on.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// A damaged model file.
    pub fn model_file(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::ModelFile { path: path.into(), reason: reason.into() }
    }

    /// A damaged or unfit adapter.
    pub fn adapter(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Adapter { name: name.into(), reason: reason.into() }
    }
}
