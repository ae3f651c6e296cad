//! A run's files as pages for people: everything is read from the run's folder, so a report can be written at any moment.

mod battery;
mod reward;
mod rl;
mod sft;

pub use reward::reward_report;
pub use rl::rl_report;
pub use sft::sft_report;
