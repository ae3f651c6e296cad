//! How variables move: the optimiser, its learning rate, and which examples a step learns from.

pub(crate) mod adamw;
pub(crate) mod batches;
mod schedule;
mod settings;

pub use adamw::{AdamW, AdamWSettings};
pub use schedule::{Decay, Schedule};
pub(crate) use settings::{OptimSettings, training_settings};
