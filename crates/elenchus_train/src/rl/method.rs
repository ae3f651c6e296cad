//! The seam behind which methods stand: from an iteration's experience to a loss.
//!
//! A method knows numbers alone, no model and no text: it turns scores, log-probabilities and values into an
//! [`Objective`], whose loss follows from the policy's new log-probabilities. So a bandit of five arms and a language
//! model are learned by the same lines. A method is one file and one line in the list below.

use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    apa, dpo, dvpo, experience::Experience, grpo, ipo, kto, p3o, ppo, ppo_max, rebel, reinforce, rloo, vine_ppo,
};
use crate::{Error, Result, config_file::Misfit};

/// Numbers by name, as the papers and TRL call them.
pub type Stats = Vec<(&'static str, f64)>;

/// How a policy becomes better.
pub trait Method: Send {
    /// What the policy is asked for besides log-probabilities, and how often it learns from an iteration.
    fn plan(&self) -> Plan;

    /// What is to be optimised, given what was experienced; and what the method knows now goes on to the next iteration.
    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)>;

    /// What the next iteration needs to know of earlier ones, for a checkpoint.
    fn state(&self) -> Value {
        Value::Null
    }

    /// Goes on from a [`Method::state`].
    fn restore(&mut self, state: Value) -> Result<()> {
        match state {
            Value::Null => Ok(()),
            other => Err(foreign_state(&other)),
        }
    }
}

/// How a method's settings become a method.
pub(super) trait Settings {
    /// What does the work.
    type Method: Method + 'static;

    /// The method at the beginning of a run.
    fn method(&self) -> Self::Method;

    /// What cannot be meant: the field and why.
    fn check(&self) -> Result<(), Misfit>;

    /// The folder of the model that [`Values::Model`] reads values from.
    fn value_model(&self) -> Option<&Path> {
        None
    }
}

/// How an iteration is learned from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Who says the responses.
    pub source: Source,
    /// Passes over the experience.
    pub epochs: usize,
    /// Responses in a step of the optimiser; 0 takes all at once.
    pub mini_batch: usize,
    /// What responses to one query have to do with each other.
    pub group: Group,
    /// Where [`super::Rollout::values`] come from.
    pub values: Values,
    /// Whether responses are judged.
    pub scores: bool,
    /// Whether [`super::Rollout::steps`] are wanted.
    pub steps: Option<Rerolls>,
    /// Whether [`Experience::mismatched_kl`] is wanted.
    pub mismatched_kl: bool,
}

impl Plan {
    /// One step from judged samples of the policy as it is: ratios are 1.
    pub const ON_POLICY: Self = Self {
        source: Source::Policy,
        epochs: 1,
        mini_batch: 0,
        group: Group::Alone,
        values: Values::None,
        scores: true,
        steps: None,
        mismatched_kl: false,
    };

    /// One step from pairs that the policy did not say.
    pub const OFFLINE: Self = Self { source: Source::Reference, group: Group::Together, ..Self::ON_POLICY };
}

/// Who says the responses that are learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The policy as it is.
    Policy,
    /// The reference, always: preferences that were written beforehand, or between what the reference says.
    Reference,
}

/// What responses to one query have to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Nothing: one is enough.
    Alone,
    /// They are compared before anything is learned, so there must be two.
    Compared,
    /// A loss has several of them in one term, so they are in one mini-batch as well.
    Together,
}

/// Where the value before a token comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// Nothing asks for it.
    None,
    /// From a head on the policy's own states, which learns with it.
    Head,
    /// From an adapter and a head of their own.
    Model {
        /// What they learn by, times the policy's learning rate; at 0 they are frozen.
        rate: f64,
    },
}

/// How often a response is said anew from within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rerolls {
    /// From each step's beginning.
    pub count: usize,
    /// Steps of a response, at most; the last has all the rest.
    pub most_steps: usize,
}

/// A loss over one iteration's experience.
pub trait Objective {
    /// The part of a mini-batch's loss that some whole responses make up: parts of a mini-batch are added. So are their
    /// statistics. `policy` has the tokens of these responses end to end.
    fn loss(&self, responses: &[usize], of: MiniBatch, policy: &PolicyOutput) -> Result<Loss>;

    /// Whether a mini-batch with these statistics must not be learned from.
    fn skips(&self, _: &Stats) -> bool {
        false
    }

    /// Whether the iteration is over behind a mini-batch with these statistics.
    fn stops(&self, _: &Stats) -> bool {
        false
    }
}

/// What the parts of a mini-batch are parts of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MiniBatch {
    /// Responses in all.
    pub responses: usize,
    /// Their tokens.
    pub tokens: usize,
}

/// The policy as it is now, of some responses; differentiable.
pub struct PolicyOutput {
    /// Log-probability of each token, (tokens).
    pub logprobs: Tensor,
    /// The value before each token, (tokens), where there is a value head.
    pub values: Option<Tensor>,
}

/// A loss and how it came about.
pub struct Loss {
    /// A scalar to go down.
    pub total: Tensor,
    /// Numbers to log.
    pub stats: Stats,
}

/// A number out of statistics.
pub(super) fn stat(stats: &Stats, name: &str) -> Option<f64> {
    stats.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// A method's state out of a checkpoint.
pub(super) fn restored<T: DeserializeOwned>(state: Value) -> Result<T> {
    serde_json::from_value(state.clone()).map_err(|_| foreign_state(&state))
}

fn foreign_state(state: &Value) -> Error {
    Error::OptimiserState(format!("the method's state is {state}"))
}

/// The methods there are: the name in a configuration, the settings beside it, and who does the work.
macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident($settings:ty) = $called:literal),* $(,)?) => {
        /// A method and its settings: `method = "rloo"`, or a table with the name and what differs from the defaults.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "name", rename_all = "kebab-case")]
        pub enum MethodSettings {
            $($(#[$doc])* $name($settings)),*
        }

        impl MethodSettings {
            /// The method at the beginning of a run.
            pub fn method(&self) -> Box<dyn Method> {
                match self {
                    $(Self::$name(settings) => Box::new(Settings::method(settings))),*
                }
            }

            /// The method's name, as papers write it.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => $called),*
                }
            }

            /// What cannot be meant: the field and why.
            pub(crate) fn check(&self) -> Result<(), Misfit> {
                match self {
                    $(Self::$name(settings) => Settings::check(settings)),*
                }
            }

            /// The folder of the model that values are read from, where the method reads them from one.
            pub fn value_model(&self) -> Option<&Path> {
                match self {
                    $(Self::$name(settings) => Settings::value_model(settings)),*
                }
            }
        }
    };
}

methods! {
    /// Proximal policy optimisation, with a value head.
    Ppo(ppo::PpoSettings) = "PPO",
    /// REINFORCE with the other responses to a query as baseline.
    Rloo(rloo::RlooSettings) = "RLOO",
    /// REINFORCE with the mean of all earlier rewards as baseline.
    Reinforce(reinforce::ReinforceSettings) = "REINFORCE",
    /// PPO with scaled and clipped rewards, and a critic that begins as a reward model.
    PpoMax(ppo_max::PpoMaxSettings) = "PPO-max",
    /// Group relative policy optimisation.
    Grpo(grpo::GrpoSettings) = "GRPO",
    /// Regression of log-ratios to differences of rewards.
    Rebel(rebel::RebelSettings) = "REBEL",
    /// Regression of log-ratios to advantages.
    Apa(apa::ApaSettings) = "APA",
    /// Pairwise PPO.
    P3o(p3o::P3oSettings) = "P3O-style",
    /// PPO by a value model that learned from preferences and learns no more.
    Dvpo(dvpo::DvpoSettings) = "DVPO",
    /// PPO by values that are measured.
    VinePpo(vine_ppo::VinePpoSettings) = "VinePPO",
    /// Direct preference optimisation.
    Dpo(dpo::DpoSettings) = "DPO",
    /// Identity preference optimisation.
    Ipo(ipo::IpoSettings) = "IPO",
    /// Kahneman-Tversky optimisation.
    Kto(kto::KtoSettings) = "KTO",
}

impl Default for MethodSettings {
    fn default() -> Self {
        Self::Rloo(rloo::RlooSettings::default())
    }
}

/// A name alone, or a table with a name.
pub(crate) fn name_or_table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MethodSettings, D::Error> {
    let mut value = Value::deserialize(deserializer)?;
    if value.is_string() {
        value = serde_json::json!({ "name": value });
    }
    serde_json::from_value(value).map_err(serde::de::Error::custom)
}
