//! A character is learned from its lines, so the trainer begins with a designer's texts and knows no game.
//!
//! [`data`] turns texts into pairs of what was said to a character and what it replied. A pair's context goes through
//! [`elenchus_dialogue::messages`], the game's own prompt, so that what is trained is what is heard. This crate knows
//! no Bevy, and reads files only where it is told to.

mod adamw;
pub mod data;
mod error;
mod example;
mod forward;
mod perplexity;
mod run_folder;
mod schedule;
mod sft;
mod sft_config;

pub use adamw::{AdamW, AdamWSettings};
pub use error::{BrokenLine, Error, Result};
pub use example::{Example, example};
pub use perplexity::{Perplexity, perplexity};
pub use run_folder::RunFolder;
pub use schedule::{Decay, Schedule};
pub use sft::{Learner, SftEvent, StepReport, train};
pub use sft_config::{LoraSettings, SftConfig, SftSettings};
