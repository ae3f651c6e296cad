//! What the character itself says: the game's own prompt, sampler and stop rules, with a seed that follows from a number, so
//! that a resumed run says what it would have said.

use std::sync::Arc;

use elenchus_dialogue::{Character, Model, Request, Spoken, StopReason, Turn, speak_many};
use elenchus_lm::{Adapter, Rng};

use crate::{Result, data::STRANGER, numeric::mixed};

/// A character as it speaks.
#[derive(Clone, Copy)]
pub struct Speaker<'a> {
    /// The base as a game runs it.
    pub model: &'a Model,
    /// Who speaks.
    pub character: &'a Character,
    /// Its adapter; the base alone without.
    pub adapter: Option<&'a Adapter>,
}

/// What an answer's generator follows from.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// The run's.
    pub seed: u64,
    /// The prompt's number.
    pub number: usize,
    /// Counts the answers to the same prompt.
    pub draw: u64,
}

/// What a character answers.
#[derive(Clone, Copy)]
pub struct Prompt<'a> {
    /// The conversation; its newest turn is answered.
    pub turns: &'a [Turn],
    /// Facts of the game in the prompt.
    pub facts: &'a [String],
    /// What the answer's generator follows from.
    pub draw: Draw,
}

impl Speaker<'_> {
    /// The answers, decoded together; each is what it would be alone.
    pub fn answer(&self, prompts: &[Prompt<'_>]) -> Result<Vec<Spoken>> {
        let Self { model, character, adapter } = *self;
        let character = Arc::new(character.clone());
        let request = |&Prompt { turns, facts, draw }: &Prompt<'_>| Request {
            voice: adapter.cloned().map(Into::into),
            facts: facts.to_vec(),
            rng: Rng::from_seed(mixed(mixed(draw.seed, draw.number as u64), draw.draw)),
            ..Request::new(character.clone(), turns.to_vec())
        };
        Ok(speak_many(model, &prompts.iter().map(request).collect::<Vec<_>>())?)
    }

    /// The answers' words; none where there are none.
    pub(super) fn say<'t>(&self, said: impl IntoIterator<Item = (&'t [Turn], Draw)>) -> Result<Vec<Option<String>>> {
        let prompts: Vec<Prompt<'_>> =
            said.into_iter().map(|(turns, draw)| Prompt { turns, facts: &[], draw }).collect();
        let words = |spoken: Spoken| Some(spoken.text.trim().to_owned()).filter(|words| !words.is_empty());
        Ok(self.answer(&prompts)?.into_iter().map(words).collect())
    }

    /// A conversation in which the character is asked about a reply of its own.
    pub(super) fn asked_about(&self, turns: &[Turn], reply: &str, asks: &str) -> Vec<Turn> {
        let asker = turns.last().map_or(STRANGER, |turn| turn.speaker.as_str());
        let turn = |speaker: &str, text: &str| Turn { speaker: speaker.to_owned(), text: text.to_owned() };
        [turns, &[turn(&self.character.name, reply), turn(asker, asks)]].concat()
    }
}

/// Whether a reply came to an end, by itself or by a rule of its own; not if it was cut off.
pub fn is_ended(stop: StopReason) -> bool {
    !matches!(stop, StopReason::MaxTokens | StopReason::ContextFull)
}
