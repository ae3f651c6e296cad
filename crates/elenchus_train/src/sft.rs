//! Supervised fine-tuning: a character's lines become an adapter.

mod config;
mod dataset;
mod train;

pub use config::{LoraSettings, SftConfig, SftSettings};
pub use dataset::{Lesson, LessonExamples};
pub use train::{Learner, SftEvent, SftOutcome, SftResult, StepReport, batch, gradients, train};
