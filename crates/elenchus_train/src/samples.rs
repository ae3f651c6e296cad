//! What the character answers while it learns, beside what the base answered before: the only measure a designer hears.
//!
//! Prompt, sampler and stop rules are the game's. Each line keeps its seed over the whole run, so that two replies differ
//! by what was learned between them and not by luck.

use std::sync::Arc;

use elenchus_dialogue::{Turn, speak};
use elenchus_lm::{Adapter, Rng, TrainableLora};
use serde::{Deserialize, Serialize};

use crate::{Learner, Result};

/// Who asks; in a conversation of two the prompt does not name them.
const ASKER: &str = "Stranger";

/// One line of `samples.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Steps taken so far; at 0 the base answers alone.
    pub step: u64,
    /// What was asked.
    pub line: String,
    /// What was answered.
    pub reply: String,
}

/// Asks every line of the adapter as it is now, or of the base alone.
pub(crate) fn samples(
    learner: &Learner<'_>,
    lora: Option<&TrainableLora>,
    lines: &[String],
    seed: u64,
    step: u64,
) -> Result<Vec<Sample>> {
    let scale = learner.character.adapter_scale;
    let adapter =
        |lora: &TrainableLora| Ok::<_, crate::Error>(Adapter { lora: Arc::new(lora.to_adapter("sample")?), scale });
    let adapter = lora.map(adapter).transpose()?;
    let answer = |(number, line): (usize, &String)| {
        let turns = [Turn { speaker: ASKER.to_owned(), text: line.clone() }];
        let rng = Rng::from_seed(seed.wrapping_add(number as u64));
        let Learner { executor, tokenizer, template, character, .. } = *learner;
        let reply = speak(executor, tokenizer, template, character, adapter.as_ref(), &turns, rng)?;
        Ok(Sample { step, line: line.clone(), reply })
    };
    lines.iter().enumerate().map(answer).collect()
}
