//! Reinforcement learning from judges: replies are spoken, judged, and what was better than expected becomes likelier.
//!
//! An iteration is a row of values: queries, responses, scores, [`Experience`], objective, gradients, a step. Methods
//! ([`Method`]) see numbers alone; the policy and the judges see no method.

mod advantage;
mod apa;
#[cfg(test)]
mod bandit;
mod baseline;
mod clipped;
mod config;
mod dpo;
mod dvpo;
mod experience;
mod gather;
mod grpo;
mod guards;
mod ipo;
mod iteration;
mod kl;
mod kto;
mod lesson;
mod method;
mod p3o;
mod pairs;
mod policy;
mod ppo;
mod ppo_max;
mod presets;
mod rebel;
mod reinforce;
mod report;
mod reroll;
mod review;
mod rloo;
mod rollout;
#[cfg(test)]
mod shared;
mod train;
mod vine_ppo;

pub use crate::numeric::{Variance, gae, whiten};
pub use apa::ApaSettings;
pub use baseline::{leave_one_out, standardised};
pub use clipped::TokenMean;
pub use config::{BudgetSettings, OfflineSettings, RlConfig, RlSettings, SamplingSettings};
pub use dpo::DpoSettings;
pub use dvpo::DvpoSettings;
pub use experience::{Experience, Rollout, ValuedStep};
pub use grpo::GrpoSettings;
pub use guards::GuardSettings;
pub use ipo::IpoSettings;
pub use kl::{AdaptiveKl, Estimator};
pub use kto::KtoSettings;
pub use lesson::RlLesson;
pub(crate) use method::name_or_table;
pub use method::{
    Group, Loss, Method, MethodSettings, MiniBatch, Objective, Plan, PolicyOutput, Rerolls, Source, Stats, Values,
};
pub use p3o::P3oSettings;
pub use ppo::PpoSettings;
pub use ppo_max::PpoMaxSettings;
pub use presets::Preset;
pub use rebel::RebelSettings;
pub use reinforce::ReinforceSettings;
pub use report::{RlReport, Seconds, Spent};
pub use review::preferred;
pub use rloo::RlooSettings;
pub use rollout::{Response, respond};
pub(crate) use train::{HELD_OUT, RESULT, RlResult};
pub use train::{JudgedRollout, RlEvent, RlLearner, RlOutcome, train};
pub use vine_ppo::VinePpoSettings;
