//! What the character itself says: the game's own prompt, sampler and stop rules, with a seed that follows from a number, so
//! that a resumed run says what it would have said.

use std::sync::Arc;

use elenchus_dialogue::{Character, Model, Request, Spoken, StopReason, Turn, speak};
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

impl Speaker<'_> {
    /// The answer to the newest turn; none where it has no words.
    pub(super) fn say(&self, turns: &[Turn], draw: Draw) -> Result<Option<String>> {
        let spoken = self.say_knowing(&[], turns, draw)?;
        Ok((!spoken.text.trim().is_empty()).then(|| spoken.text.trim().to_owned()))
    }

    /// The same with facts in the prompt, and with the reply's tokens.
    pub fn say_knowing(&self, facts: &[String], turns: &[Turn], draw: Draw) -> Result<Spoken> {
        let Self { model, character, adapter } = *self;
        let Draw { seed, number, draw } = draw;
        let rng = Rng::from_seed(mixed(mixed(seed, number as u64), draw));
        let request = Request {
            voice: adapter.cloned().map(Into::into),
            facts: facts.to_vec(),
            rng,
            ..Request::new(Arc::new(character.clone()), turns.to_vec())
        };
        Ok(speak(model, &request)?)
    }

    /// What the character says when it is asked about a reply of its own.
    pub(super) fn say_about(&self, turns: &[Turn], reply: &str, asks: &str, draw: Draw) -> Result<Option<String>> {
        let asker = turns.last().map_or(STRANGER, |turn| turn.speaker.as_str());
        let turn = |speaker: &str, text: &str| Turn { speaker: speaker.to_owned(), text: text.to_owned() };
        let more = [turn(&self.character.name, reply), turn(asker, asks)];
        self.say(&[turns, &more].concat(), draw)
    }
}

/// Whether a reply came to an end, by itself or by a rule of its own; not if it was cut off.
pub fn is_ended(stop: StopReason) -> bool {
    !matches!(stop, StopReason::MaxTokens | StopReason::ContextFull)
}
