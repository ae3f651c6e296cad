//! One voice's answers: the game's prompt, sampler and stop rules, and for each prompt the same seed whoever speaks.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use elenchus_dialogue::{Request, Spoken, StopReason, Turn, speak_many};
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
    /// Its share of the time in which the replies beside it were decoded, prompts included.
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

/// Prompts answered between two calls of `on_progress`.
pub(super) const TOGETHER: usize = 16;

/// One answer of a candidate among its answers to a prompt, and its tokens.
type Answer = (Reply, Spoken);

/// The candidate's answers to some prompts, the first of which is at `place`, decoded together: `draws` to each prompt, those
/// of a prompt beside each other.
fn speak_some(
    setup: &EvalSetup<'_>,
    candidate: &Candidate,
    (place, prompts): (usize, &[Vec<Turn>]),
    draws: std::ops::Range<u64>,
    seed: u64,
) -> Result<Vec<Answer>> {
    let EvalSetup { model, character, .. } = *setup;
    let (adapter, character) = (candidate.adapter(), Arc::new(character.clone()));
    let requests = prompts.iter().zip(place..).flat_map(|(prompt, place)| {
        let (character, adapter) = (&character, &adapter);
        draws.clone().map(move |draw| Request {
            voice: adapter.clone().map(Into::into),
            rng: Rng::from_seed(mixed(mixed(seed, place as u64), draw)),
            ..Request::new(character.clone(), candidate.after_shown(prompt))
        })
    });
    let requests: Vec<Request> = requests.collect();
    let clock = Instant::now();
    let spoken = speak_many(model, &requests)?;
    let seconds = clock.elapsed().as_secs_f64() / requests.len().max(1) as f64;
    let answer = |spoken: Spoken| {
        let reply = Reply {
            text: spoken.text.clone(),
            is_ended: !matches!(spoken.stop, StopReason::MaxTokens | StopReason::ContextFull),
            words: words(&spoken.text),
            seconds,
            scores: BTreeMap::new(),
        };
        (reply, spoken)
    };
    Ok(spoken.into_iter().map(answer).collect())
}

/// What the candidate says to some prompts, the first of which is at `place`.
///
/// With `best_of`, it is the answer with the best score of `judges` among several, the first of which is what the candidate
/// says anyway; its seconds are those of all of them, without the judges'.
pub(super) fn speak(
    setup: &EvalSetup<'_>,
    candidate: &Candidate,
    (place, prompts): (usize, &[Vec<Turn>]),
    judges: Option<&Judges>,
    seed: u64,
) -> Result<Vec<Answer>> {
    let several = judges.filter(|_| candidate.best_of > 1);
    let draws = if several.is_some() { candidate.best_of } else { 1 };
    let spoken = speak_some(setup, candidate, (place, prompts), 0..draws as u64, seed)?;
    let Some(judges) = several else { return Ok(spoken) };

    let exchanges = spoken.iter().enumerate().map(|(at, (reply, _))| exchange(&prompts[at / draws], reply));
    let scores = judges.judge(&exchanges.collect::<Vec<_>>())?.into_iter().map(|judged| judged.score);
    let mut scored = spoken.into_iter().zip(scores);
    let best = prompts.iter().map(|_| {
        let of = scored.by_ref().take(draws);
        // One without a score is worse than any with one, and of equals the first is kept.
        let better = |best: (Answer, Option<f32>), next: (Answer, Option<f32>)| match (best.1, next.1) {
            (Some(best_score), Some(next_score)) if next_score > best_score => next,
            (None, Some(_)) => next,
            _ => best,
        };
        of.reduce(better)
    });
    let best = best.flatten().map(|((mut reply, spoken), _)| {
        reply.seconds *= draws as f64;
        (reply, spoken)
    });
    Ok(best.collect())
}
