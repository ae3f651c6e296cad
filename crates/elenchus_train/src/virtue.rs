//! Characters that keep to principles: from a file of principles and some red-team prompts to revised replies to learn from,
//! and to preferences that reward models learn from.
//!
//! The character answers by the game's own way; a chat model behind an endpoint revises and judges, for the default model is
//! too small to do either well. Whatever it does not say is left out and counted, never made up.

mod better;
mod preferences;
mod preferences_config;
mod principles;
mod revise;
mod revise_config;

pub use better::Better;
pub(crate) use better::read_better;
pub use preferences::{Judged, JudgedReport, Outcome, Side, judge_preferences};
pub use preferences_config::{Aspect, PreferencesConfig, PreferencesLesson};
pub use principles::{Principle, Principles};
pub use revise::{LeftOut, Revised, RevisedReport, Step, revise};
pub use revise_config::{ReviseConfig, ReviseLesson};
