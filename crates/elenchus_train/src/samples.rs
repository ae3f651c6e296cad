//! What the character answers while it learns, beside what the base answered before: the only measure a designer hears.
//!
//! Prompt, sampler and stop rules are the game's. Each line keeps its seed over the whole run, so that two replies differ
//! by what was learned between them and not by luck.

use std::sync::Arc;

use elenchus_dialogue::{Character, Model, Request, Turn, speak_many};
use elenchus_lm::{Adapter, Rng};
use serde::{Deserialize, Serialize};

use crate::{Result, data::STRANGER};

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

/// Who answers, and by what.
#[derive(Clone, Copy)]
pub(crate) struct Voice<'a> {
    pub model: &'a Model,
    pub character: &'a Character,
}

/// Asks every line of a voice, with an adapter or of the base alone. In a conversation of two the prompt does not name who
/// asks.
pub(crate) fn samples(
    voice: Voice<'_>,
    adapter: Option<&Adapter>,
    lines: &[String],
    seed: u64,
    step: u64,
) -> Result<Vec<Sample>> {
    let character = Arc::new(voice.character.clone());
    let request = |(number, line): (usize, &String)| Request {
        voice: adapter.cloned().map(Into::into),
        rng: Rng::from_seed(seed.wrapping_add(number as u64)),
        ..Request::new(character.clone(), vec![Turn { speaker: STRANGER.to_owned(), text: line.clone() }])
    };
    let requests: Vec<_> = lines.iter().enumerate().map(request).collect();
    let replies = speak_many(voice.model, &requests)?;
    let sample =
        |(line, reply): (&String, elenchus_dialogue::Spoken)| Sample { step, line: line.clone(), reply: reply.text };
    Ok(lines.iter().zip(replies).map(sample).collect())
}
