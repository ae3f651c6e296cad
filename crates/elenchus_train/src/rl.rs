//! Reinforcement learning from judges: replies are spoken, judged, and what was better than expected becomes likelier.
//!
//! An iteration is a row of values: queries, responses, scores, [`Experience`], objective, gradients, a step. Methods
//! ([`Method`]) see numbers alone; the policy and the judges see no method.

#[cfg(test)]
mod bandit;
mod baseline;
mod clipped;
mod config;
mod experience;
mod gae;
mod guards;
mod iteration;
mod kl;
mod lesson;
mod method;
mod policy;
mod ppo;
mod reinforce;
mod report;
mod review;
mod rloo;
mod rollout;
#[cfg(test)]
mod shared;
mod train;
mod whiten;

pub use baseline::leave_one_out;
pub use config::{OfflineSettings, RlConfig, RlSettings, SamplingSettings};
pub use experience::{Experience, Rollout};
pub use gae::gae;
pub use guards::GuardSettings;
pub use kl::{AdaptiveKl, Estimator};
pub use lesson::RlLesson;
pub use method::{Loss, Method, MethodSettings, MiniBatch, Objective, Plan, PolicyOutput, Stats};
pub use ppo::PpoSettings;
pub use reinforce::ReinforceSettings;
pub(crate) use report::distinct;
pub use report::{RlReport, Seconds, distinct_2, is_question};
pub use rloo::RlooSettings;
pub use rollout::{Response, respond};
pub(crate) use train::{HELD_OUT, RESULT, RlResult};
pub use train::{JudgedRollout, RlEvent, RlLearner, RlOutcome, train};
pub use whiten::{Variance, whiten};
