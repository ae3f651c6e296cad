//! Reinforcement learning from judges: replies are sampled and judged, and what was better than expected becomes likelier.
//!
//! An iteration is a row of values: queries, responses, scores, [`Experience`], objective, gradients, a step. Methods
//! ([`Method`]) see numbers alone; the policy and the judges know no method. A method of another crate is made of the same
//! parts (`advantage`, `baseline`, `clipped`, `experience`, `kl`, `pairs`) and is added to the registry, [`Methods`].

pub mod advantage;
#[cfg(any(test, feature = "testing"))]
pub mod bandit;
pub mod baseline;
pub mod clipped;
mod config;
mod dataset;
mod dpo;
pub mod experience;
mod gather;
mod grpo;
mod guards;
mod iteration;
mod judged_rollouts;
pub mod kl;
mod kto;
mod learner;
mod method;
mod methods;
pub mod pairs;
mod policy;
mod ppo;
mod presets;
mod report;
mod reroll;
mod review;
mod rloo;
mod rollout;
#[cfg(test)]
mod shared;
mod train;

pub use crate::fit::RESULT;
pub use config::{BudgetSettings, OfflineSettings, RlConfig, RlSettings, SamplingSettings};
pub use dataset::RlLesson;
pub use dpo::DpoSettings;
pub use experience::{Experience, Rollout, ValuedStep};
pub use grpo::GrpoSettings;
pub use guards::GuardSettings;
pub use judged_rollouts::{HELD_OUT, JudgedRollout};
pub use kto::KtoSettings;
pub use learner::{RlLearner, RlPrompt};
pub use method::{
    Group, Loss, Method, MiniBatch, Objective, Plan, PolicyOutput, Rerolls, Settings, Source, Stats, Values, restored,
    stat,
};
pub use methods::{MethodSettings, Methods, WrittenMethod};
pub use ppo::{Ppo, PpoSettings};
pub use presets::Preset;
pub use report::{RlReport, Seconds, Spent};
pub use review::preferred;
pub(crate) use review::write_review;
pub use rloo::RlooSettings;
pub use rollout::{Response, Sampling, respond};
pub use train::{RlEvent, RlOutcome, RlResult, train};
