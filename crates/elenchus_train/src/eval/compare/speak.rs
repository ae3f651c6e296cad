//! One voice's answers: the game's prompt, sampler and stop rules, and for each prompt the same seed for every voice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use elenchus_dialogue::{PromptMemory, Spoken, Turn};
use elenchus_lm::{Adapter, LoraAdapter};
use serde::{Deserialize, Serialize};

use super::setup::EvalSetup;
use crate::{
    Draw, Query, Result, Speaker,
    data::words,
    is_ended,
    judge::{Exchange, Judges},
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
    /// Its share of the time its voice took for all replies. They are generated in batches, and what prompts have in common is
    /// read once, so a game waits longer for a reply of its own.
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

    /// A conversation after its example turns. The speaker of its last turn speaks in them too, or the prompt would name them.
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

/// What a candidate said, as a reader sees it and as tokens.
pub(super) struct Answers {
    pub replies: Vec<Reply>,
    /// Prompt and reply.
    pub tokens: Vec<(Vec<u32>, Vec<u32>)>,
}

impl Answers {
    pub(super) fn prompts(&self) -> impl Iterator<Item = &[u32]> + Clone {
        self.tokens.iter().map(|(prompt, _)| prompt.as_slice())
    }
}

/// The candidate's answers to all prompts; of one that says the best of several, that which `judges` score best.
/// `on_progress` is called with how many prompts are done.
pub(super) fn answers(
    setup: &EvalSetup<'_>,
    candidate: &Candidate,
    prompts: &[Vec<Turn>],
    seed: u64,
    mut on_progress: impl FnMut(usize),
) -> Result<Answers> {
    let EvalSetup { model, character, .. } = *setup;
    let (adapter, draws) = (candidate.adapter(), candidate.best_of);
    let speaker = Speaker { model, character, adapter: adapter.as_ref() };
    let shown: Vec<Vec<Turn>> = prompts.iter().map(|prompt| candidate.after_shown(prompt)).collect();
    let query = |number: usize, draw| Query { facts: &[], turns: &shown[number], draw: Draw { seed, number, draw } };
    let queries: Vec<Query<'_>> =
        (0..prompts.len()).flat_map(|number| (0..draws as u64).map(move |draw| query(number, draw))).collect();
    let clock = Instant::now();
    let spoken = speaker.say_many(&queries, &mut PromptMemory::default(), |done| on_progress(done / draws))?;
    let seconds = clock.elapsed().as_secs_f64() / prompts.len() as f64;
    let reply = |spoken: &Spoken| Reply {
        text: spoken.text.clone(),
        is_ended: is_ended(spoken.stop),
        words: words(&spoken.text),
        seconds,
        scores: BTreeMap::new(),
    };
    let mut said: Vec<(Reply, Spoken)> = spoken.into_iter().map(|spoken| (reply(&spoken), spoken)).collect();
    if let Some(judges) = setup.choice.filter(|_| draws > 1) {
        said = best(judges, prompts, said, draws)?;
    }
    let (replies, spoken): (Vec<_>, Vec<_>) = said.into_iter().unzip();
    Ok(Answers { replies, tokens: spoken.into_iter().map(|spoken| (spoken.prompt, spoken.tokens)).collect() })
}

/// Of every `draws` answers the one with the best score; the first is what the candidate says anyway.
fn best(
    judges: &Judges,
    prompts: &[Vec<Turn>],
    said: Vec<(Reply, Spoken)>,
    draws: usize,
) -> Result<Vec<(Reply, Spoken)>> {
    let exchanges: Vec<Exchange> =
        said.iter().enumerate().map(|(place, (reply, _))| exchange(&prompts[place / draws], reply)).collect();
    let scores: Vec<Option<f32>> = judges.judge(&exchanges)?.into_iter().map(|judged| judged.score).collect();
    let places = (0..prompts.len()).map(|number| {
        let draws = number * draws..(number + 1) * draws;
        // One without a score is worse than any with one.
        let better =
            |best: usize, next: usize| scores[next].is_some_and(|next| scores[best].is_none_or(|best| next > best));
        draws.reduce(|best, next| if better(best, next) { next } else { best })
    });
    let kept: BTreeSet<usize> = places.flatten().collect();
    Ok(said.into_iter().enumerate().filter(|(place, _)| kept.contains(place)).map(|(_, said)| said).collect())
}
