//! A character is learned from its lines, so the trainer begins with a designer's texts and knows no game.
//!
//! [`data`] turns texts into pairs of what was said to a character and what it replied. A pair's context goes through
//! [`elenchus_dialogue::messages`], the game's own prompt, so that what is trained is what is heard. This crate knows
//! no Bevy, and reads only the files that it is given. Further methods of reinforcement learning, their comparison and
//! benchmarks are `elenchus_lab`'s.

#![warn(unreachable_pub)]

pub mod bootstrap;
mod character_folder;
pub mod chat;
pub mod config_file;
pub mod data;
pub mod draw;
mod error;
pub mod eval;
mod fit;
pub mod judge;
pub mod model;
pub mod numeric;
mod optim;
pub mod report;
mod reward;
pub mod rl;
mod run_folder;
mod samples;
pub mod sentences;
mod sft;
mod speaker;
mod tensorboard;
mod text_stats;
pub mod virtue;

pub use character_folder::{copy_report, save_character};
pub use data::{read_character, read_pairs};
pub use error::{BrokenLine, Error, Result};
pub use model::{Example, Perplexity, example, examples, perplexity, spread};
pub use optim::{AdamW, AdamWSettings, Decay, Schedule};
pub use reward::{
    Accuracy, Calibration, CalibrationBin, ExamplePair, Preference, Preferences, RewardCard, RewardConfig, RewardEvent,
    RewardKind, RewardLearner, RewardLesson, RewardLora, RewardLoss, RewardModel, RewardOutcome, RewardSettings,
    RewardStep, read_preferences, train_reward,
};
pub use run_folder::RunFolder;
pub use samples::Sample;
pub use sft::{
    Learner, Lesson, LessonExamples, LoraSettings, SftConfig, SftEvent, SftOutcome, SftResult, SftSettings, StepReport,
    batch, gradients, train,
};
pub use speaker::{Draw, Query, Speaker, is_ended};
