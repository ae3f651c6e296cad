//! The seam between the training loop and its methods: from an iteration's experience to a loss.
//!
//! A method sees numbers alone, no model and no text: it turns scores, log-probabilities and values into an
//! [`Objective`], whose loss follows from the policy's new log-probabilities. So the same lines train a bandit of five arms
//! and a language model. A method is one file: its [`Settings`], which a configuration names, and a [`Method`]. Which
//! methods a configuration can name is said by [`Methods`](super::Methods), the registry that a caller passes.

use std::{fmt::Debug, path::Path};

use candle_core::Tensor;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::experience::Experience;
use crate::{Error, Result, config_file::Misfit};

/// Numbers by name, as the papers and TRL call them.
pub type Stats = Vec<(&'static str, f64)>;

/// How a policy becomes better.
pub trait Method: Send {
    /// What the policy is asked for besides log-probabilities, and how often it learns from an iteration.
    fn plan(&self) -> Plan;

    /// The objective of an iteration; what the method learns about the run is kept for the next one.
    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)>;

    /// What the next iteration needs from earlier ones, for a checkpoint.
    fn state(&self) -> Value {
        Value::Null
    }

    /// Resumes from a [`Method::state`].
    fn restore(&mut self, state: Value) -> Result<()> {
        match state {
            Value::Null => Ok(()),
            other => Err(foreign_state(&other)),
        }
    }
}

/// A method's settings, as `[method]` of a configuration has them.
pub trait Settings: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The method's name in a configuration.
    const NAME: &'static str;
    /// Its name as papers write it.
    const TITLE: &'static str;
    /// What the original was trained with, as TOML: `preset = "paper"` puts it under a configuration. `None` where no
    /// settings were published that could be read.
    const PAPER: Option<&'static str> = None;

    /// The method at the beginning of a run.
    fn method(&self) -> Box<dyn Method>;

    /// Refuses values that make no sense: the field and why.
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

/// How often a response is resampled from its intermediate steps.
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

    /// Whether a mini-batch with these statistics is skipped.
    fn skips(&self, _: &Stats) -> bool {
        false
    }

    /// Whether the iteration ends after a mini-batch with these statistics.
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
pub fn stat(stats: &Stats, name: &str) -> Option<f64> {
    stats.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// A method's state out of a checkpoint, for [`Method::restore`].
pub fn restored<T: DeserializeOwned>(state: Value) -> Result<T> {
    serde_json::from_value(state.clone()).map_err(|_| foreign_state(&state))
}

fn foreign_state(state: &Value) -> Error {
    Error::OptimiserState(format!("the method's state is {state}"))
}
