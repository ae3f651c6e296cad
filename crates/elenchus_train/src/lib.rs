//! A character is learned from its lines, so the trainer begins with a designer's texts and knows no game.
//!
//! [`data`] turns texts into pairs of what was said to a character and what it replied. A pair's context goes through
//! [`elenchus_dialogue::messages`], the game's own prompt, so that what is trained is what is heard. This crate knows
//! no Bevy, and reads files only where it is told to.

mod adamw;
mod beginning;
pub mod bootstrap;
pub mod character_eval;
pub mod chat;
pub mod compare;
mod config_file;
pub mod data;
mod error;
mod example;
pub mod family;
mod forward;
pub mod judge;
mod lesson;
mod logit_kl;
mod numeric;
mod order;
mod perplexity;
mod report;
mod reward_model;
pub mod rl;
mod run_folder;
mod samples;
mod schedule;
mod sft;
mod sft_config;
mod shown_turns;
mod tensorboard;
pub mod text_stats;
pub mod virtue;

pub use adamw::{AdamW, AdamWSettings};
pub use error::{BrokenLine, Error, Result};
pub use example::{Example, example, examples};
pub use lesson::{Lesson, read_character, read_pairs};
pub use perplexity::{Perplexity, perplexity, spread};
pub use report::reward_report;
pub use reward_model::{
    Accuracy, Calibration, CalibrationBin, ExamplePair, Preference, Preferences, RewardCard, RewardConfig, RewardEvent,
    RewardKind, RewardLearner, RewardLesson, RewardLora, RewardLoss, RewardModel, RewardOutcome, RewardSettings,
    RewardStep, bradley_terry, read_preferences, train_reward,
};
pub use run_folder::RunFolder;
pub use samples::Sample;
pub use schedule::{Decay, Schedule};
pub use sft::{Learner, SftEvent, SftOutcome, SftResult, StepReport, batch, gradients, train};
pub use sft_config::{LoraSettings, SftConfig, SftSettings};
pub use shown_turns::shown_turns;
