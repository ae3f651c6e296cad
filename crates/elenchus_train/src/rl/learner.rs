//! The inputs of a training run, and its prompts as the game would make them.

use std::sync::Arc;

use elenchus_candle::{CandleExecutor, TrainableLora};
use elenchus_dialogue::{Character, Model, Turn, messages};
use elenchus_lm::{Adapter, LoraAdapter};

use crate::{Example, ExamplePair, Result, RewardModel, judge::Judges};

/// Inputs of a training run.
#[derive(Clone, Copy)]
pub struct RlLearner<'a> {
    /// The base in training numerics.
    pub executor: &'a CandleExecutor,
    /// The same base as a game runs it; its name is written into the adapter.
    pub model: &'a Model,
    /// Who answers.
    pub character: &'a Character,
    /// What the policy begins as; the reference.
    pub start: &'a LoraAdapter,
    /// What is said to the character; the newest turn last.
    pub prompts: &'a [RlPrompt],
    /// Who judges.
    pub judges: &'a Judges,
    /// Pairs that were written beforehand; empty without `offline`.
    pub offline: &'a [Example],
    /// What methods learn from that learn from preferences; where it is empty, judges prefer among the reference's replies.
    pub preferences: &'a [ExamplePair],
    /// What values are read from, for methods that want a model of them; a critic begins as a copy that was read for it.
    pub value_model: Option<&'a RewardModel>,
}

/// What is said to the character, and what the game tells it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RlPrompt {
    /// What was said, the newest turn last.
    pub turns: Vec<Turn>,
    /// Standing facts.
    pub facts: Vec<String>,
    /// Notes beside the newest turn.
    pub notes: Vec<String>,
}

impl From<Vec<Turn>> for RlPrompt {
    /// Nothing is told.
    fn from(turns: Vec<Turn>) -> Self {
        Self { turns, ..Self::default() }
    }
}

/// A prompt as turns and as the tokens the game would read.
pub(super) struct Prompt<'a> {
    pub turns: &'a [Turn],
    pub tokens: Vec<u32>,
}

/// Prompts as the game would make them, those that are too long left out.
pub(super) fn encode<'a>(learner: &RlLearner<'a>, most: usize) -> Result<Vec<Prompt<'a>>> {
    let mut prompts = Vec::new();
    for RlPrompt { turns, facts, notes } in learner.prompts {
        let messages = messages(learner.character, facts, notes, turns);
        let tokens = learner.model.template.encode(&learner.model.tokenizer, &messages, true)?;
        if tokens.len() <= most {
            prompts.push(Prompt { turns, tokens });
        }
    }
    Ok(prompts)
}

/// The adapter as it is now, for an executor.
pub(super) fn adapter_of(lora: &TrainableLora, scale: f32) -> Result<Adapter> {
    Ok(Adapter { lora: Arc::new(lora.to_adapter("policy")?), scale })
}
