//! One voice's answers: the game's prompt, sampler and stop rules, and for each prompt the same seed whoever speaks.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use elenchus_dialogue::{Request, Spoken, StopReason, Turn, speak};
use elenchus_lm::{Adapter, LoraAdapter, Rng};
use serde::{Deserialize, Serialize};

use super::EvalSetup;
use crate::{
    Result,
    data::words,
    judge::{Exchange, Judges},
    numeric::mixed,
};

/// A voice that answers under the character's prompt.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// What tables call it.
    pub name: String,
    /// Its adapter; the base alone without.
    pub lora: Option<Arc<LoraAdapter>>,
    /// Turns in front of every conversation, as if they had been said.
    pub shown: Vec<Turn>,
    /// Replies to each prompt of which judges keep the one with the best score; 1 for everybody who just answers.
    pub best_of: usize,
}

/// What was said to one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// As a game would show it.
    pub text: String,
    /// Whether the character ended it, by itself or by a rule of its own; not if it was cut off.
    pub is_ended: bool,
    /// Its words.
    pub words: usize,
    /// From the prompt's first token to the reply's last.
    pub seconds: f64,
    /// Each judge's score; none where it could not score it.
    #[serde(default)]
    pub scores: BTreeMap<String, Option<f32>>,
}

impl Candidate {
    /// The base with the character's persona and no more.
    pub fn persona() -> Self {
        Self { name: "persona".to_owned(), lora: None, shown: Vec::new(), best_of: 1 }
    }

    /// The same with turns in which the character has answered before.
    pub fn examples(shown: Vec<Turn>) -> Self {
        Self { name: "examples".to_owned(), shown, ..Self::persona() }
    }

    /// A voice with an adapter.
    pub fn adapted(name: impl Into<String>, lora: Arc<LoraAdapter>) -> Self {
        Self { name: name.into(), lora: Some(lora), ..Self::persona() }
    }

    /// The same voice, which generates several replies and keeps the best.
    pub fn best_of(&self, count: usize) -> Self {
        Self { name: format!("{}, best of {count}", self.name), best_of: count, ..self.clone() }
    }

    /// Its adapter as an executor takes it.
    pub(super) fn adapter(&self) -> Option<Adapter> {
        self.lora.clone().map(Adapter::new)
    }

    /// A conversation after its example turns. Whoever spoke last now is who spoke in them, or the prompt would name them.
    pub(super) fn after_shown(&self, turns: &[Turn]) -> Vec<Turn> {
        let speaker = turns.last().map(|turn| &turn.speaker);
        let shown = self.shown.iter().enumerate().map(|(at, turn)| match speaker {
            Some(speaker) if at % 2 == 0 => Turn { speaker: speaker.clone(), ..turn.clone() },
            _ => turn.clone(),
        });
        shown.chain(turns.iter().cloned()).collect()
    }
}

/// A reply as judges see it: without example turns.
pub(super) fn exchange(prompt: &[Turn], reply: &Reply) -> Exchange {
    Exchange { context: prompt.to_vec(), reply: reply.text.clone(), is_ended: reply.is_ended }
}

/// The candidate's answer to the prompt at `place`; `draw` counts its answers to the same prompt.
pub(super) fn speak_once(
    setup: &EvalSetup<'_>,
    candidate: &Candidate,
    prompt: &[Turn],
    place: usize,
    draw: u64,
    seed: u64,
) -> Result<(Reply, Spoken)> {
    let EvalSetup { model, character, .. } = *setup;
    let rng = Rng::from_seed(mixed(mixed(seed, place as u64), draw));
    let (adapter, turns) = (candidate.adapter(), candidate.after_shown(prompt));
    let request = Request { voice: adapter.map(Into::into), rng, ..Request::new(Arc::new(character.clone()), turns) };
    let clock = Instant::now();
    let spoken = speak(model, &request)?;
    let reply = Reply {
        text: spoken.text.clone(),
        is_ended: !matches!(spoken.stop, StopReason::MaxTokens | StopReason::ContextFull),
        words: words(&spoken.text),
        seconds: clock.elapsed().as_secs_f64(),
        scores: BTreeMap::new(),
    };
    Ok((reply, spoken))
}

/// The answer with the best score among several; the first is what the candidate says anyway. Its seconds are those of
/// all of them, without the judges'.
pub(super) fn speak_best(
    setup: &EvalSetup<'_>,
    candidate: &Candidate,
    judges: &Judges,
    prompt: &[Turn],
    place: usize,
    seed: u64,
) -> Result<(Reply, Spoken)> {
    let (first, others) = (0, 1..candidate.best_of as u64);
    let mut best = speak_once(setup, candidate, prompt, place, first, seed)?;
    let score = |reply: &Reply| Ok::<_, crate::Error>(judges.judge(&[exchange(prompt, reply)])?[0].score);
    let (mut best_score, mut seconds) = (score(&best.0)?, best.0.seconds);
    for draw in others {
        let next = speak_once(setup, candidate, prompt, place, draw, seed)?;
        seconds += next.0.seconds;
        let next_score = score(&next.0)?;
        // One without a score is worse than any with one.
        if next_score.is_some_and(|next| best_score.is_none_or(|best| next > best)) {
            (best, best_score) = (next, next_score);
        }
    }
    best.0.seconds = seconds;
    Ok(best)
}
