//! Methods compared fairly: the same start, the same judges, the same prompts, the same budget, several seeds.
//!
//! Each run is an ordinary one in a folder of its own, so a comparison that is stopped resumes where it was, and its result is read from
//! the folders alone, at any moment.

mod config;
mod curves;
mod page;
mod report;

pub use config::{Entrant, MethodComparisonConfig, MethodRun};
pub use curves::{Curve, Look, Place, Standing};
pub use report::{MethodAbout, MethodComparisonReport};
