//! Replies without an engine: prompt, sampler, stop rules and filter are the game's, and nothing waits for a frame.
//!
//! A trainer and an evaluation listen to characters this way. A reply is the engine's own [`Speech`], so that the two
//! cannot differ; only the limit of time is left out, so that a seed determines every word.

use std::time::Instant;

use elenchus_lm::{Adapter, Logits};

use crate::{
    Model, Refusal, Request, Result, StopReason,
    prefix_cache::PrefixCache,
    prompt::{self, TokenCounts},
    scheduler::{Pending, plan},
    speech::{Ending, Sequence, Speech},
};

/// A reply and how it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// What a game would show.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// The tokens it answers to.
    pub prompt: Vec<u32>,
    /// The tokens that were said, without the one that ended them.
    pub tokens: Vec<u32>,
    /// What the filter refused on the way. A reply of which every attempt was refused has no text.
    pub refused: Vec<Refusal>,
}

/// Replies decoded together.
const ROWS: usize = 8;
/// Prompt tokens read in one step.
const PREFILL: usize = 256;
/// Bytes of prompts that are remembered.
const REMEMBERED: usize = 256 << 20;

/// What was read of conversations, so that [`speak_many_remembering`] reads only what is new in them. It belongs to the one
/// model it was first used with.
#[derive(Default)]
pub struct PromptMemory(Option<PrefixCache>);

/// What characters answer to the newest turn of each request, as a game would show it: decoded in batches, and each reply is
/// what it would be alone. `id` and `priority` of the requests mean nothing here.
///
/// # Errors
/// The first request that has no reply, unless a filter refused it.
pub fn speak_many(model: &Model, requests: &[Request]) -> Result<Vec<Spoken>> {
    speak_all(model, requests, &mut PrefixCache::new(&model.executor.new_cache()), false)
}

/// The same for conversations that continue: what is read here is remembered for the next call. The replies are the same.
///
/// # Errors
/// As [`speak_many`].
pub fn speak_many_remembering(model: &Model, requests: &[Request], memory: &mut PromptMemory) -> Result<Vec<Spoken>> {
    let remembered = memory.0.get_or_insert_with(|| PrefixCache::new(&model.executor.new_cache()));
    speak_all(model, requests, remembered, true)
}

fn speak_all(
    model: &Model,
    requests: &[Request],
    remembered: &mut PrefixCache,
    continues: bool,
) -> Result<Vec<Spoken>> {
    let Model { executor, tokenizer, .. } = model;
    let context = model.max_tokens();
    let mut spoken: Vec<Option<Spoken>> = vec![None; requests.len()];
    let mut waiting = requests.iter().enumerate();
    let mut counts = TokenCounts::default();
    let mut speeches: Vec<(usize, Speech)> = Vec::new();
    loop {
        while speeches.len() < ROWS {
            let Some((place, request)) = waiting.next() else { break };
            let (character, facts, adapter) = (&request.character, &request.facts, request.adapter());
            if let Some(adapter) = adapter {
                executor.prepare(adapter)?;
            }
            let prompt = prompt::fit(model, request, context, &mut counts)?;
            let voice = adapter.map(Adapter::id);
            let persona = prompt::persona_prefix(model, character, facts)?;
            if prompt.starts_with(&persona) && persona.len() < prompt.len() {
                // What all replies of a character begin with is read once.
                let cache = remembered.longest(voice, &persona).unwrap_or_else(|| executor.new_cache());
                let mut read = Sequence { adapter: adapter.cloned(), tokens: persona, cache };
                while read.unread() > 0 {
                    executor.forward(&mut [read.row(read.unread().min(PREFILL), Logits::None)])?;
                }
                remembered.store(voice, read.tokens, read.cache);
            }
            let cache = remembered.longest(voice, &prompt[..prompt.len().saturating_sub(1)]);
            let cache = cache.unwrap_or_else(|| executor.new_cache());
            let pending = Pending { request: request.clone(), received: Instant::now() };
            speeches.push((place, Speech::new(pending, prompt, cache, context, tokenizer)?.untimed()));
        }
        if speeches.is_empty() {
            break;
        }
        let demands: Vec<_> = speeches.iter().map(|(_, speech)| speech.demand()).collect();
        let counts = plan(&demands, PREFILL, ROWS);
        let mut rows: Vec<_> = (speeches.iter_mut().zip(&counts).filter(|(_, count)| **count > 0))
            .map(|((_, speech), &count)| speech.sequence.row(count, Logits::Last))
            .collect();
        let mut logits = executor.forward(&mut rows)?.into_iter();
        for ((_, speech), _) in speeches.iter_mut().zip(&counts).filter(|(_, count)| **count > 0) {
            if let Some(mut logits) = logits.next()
                && speech.sequence.unread() == 0
            {
                speech.advance(&mut logits, tokenizer);
            }
        }
        let (ended, rest) = speeches.into_iter().partition(|(_, speech)| speech.ending.is_some());
        speeches = rest;
        for (place, mut speech) in ended {
            let stop = match speech.ending.take() {
                Some(Ending::Stopped(stop)) => stop,
                Some(Ending::Failed(crate::Error::Refused { .. })) | None => StopReason::Refused,
                Some(Ending::Failed(error)) => return Err(error),
            };
            let (report, mut sequence) = speech.into_report(stop);
            if continues {
                let known = sequence.tokens[..sequence.cache.len()].to_vec();
                remembered.store(sequence.adapter_id(), known, sequence.cache);
            }
            let tokens = sequence.tokens.split_off(report.prompt_tokens);
            spoken[place] =
                Some(Spoken { text: report.text, stop, prompt: sequence.tokens, tokens, refused: report.refused });
            remembered.evict(REMEMBERED);
        }
    }
    Ok(spoken.into_iter().flatten().collect())
}
