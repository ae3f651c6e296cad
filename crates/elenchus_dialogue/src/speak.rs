//! The plainest reply: prompt, words, stop rules, and nobody else to wait for.
//!
//! A trainer listens to its character this way. The engine, which streams, batches and remembers, must agree with it.

use elenchus_lm::{Adapter, ChatTemplate, Executor, Rng, Sampler, Tokenizer, generate};

use crate::{Character, Result, StopReason, Turn, prompt, reply::Assembler};

/// A reply and how it came to be.
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
}

/// What a character answers to the newest turn, as a game would show it. Ends by the character's rules except the one of
/// time, so that a seed determines every word.
pub fn speak(
    executor: &dyn Executor,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    character: &Character,
    adapter: Option<&Adapter>,
    turns: &[Turn],
    rng: Rng,
) -> Result<String> {
    Ok(speak_whole(executor, tokenizer, template, character, adapter, turns, rng)?.text)
}

/// The same with its tokens and its end: for whoever measures replies.
pub fn speak_whole(
    executor: &dyn Executor,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    character: &Character,
    adapter: Option<&Adapter>,
    turns: &[Turn],
    rng: Rng,
) -> Result<Spoken> {
    speak_knowing(executor, tokenizer, template, character, adapter, &[], turns, rng)
}

/// The same of a character that a game has told facts.
pub fn speak_knowing(
    executor: &dyn Executor,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    character: &Character,
    adapter: Option<&Adapter>,
    facts: &[String],
    turns: &[Turn],
    rng: Rng,
) -> Result<Spoken> {
    let context = executor.config().max_positions;
    let prompt = prompt::fit(template, tokenizer, character, facts, turns, context)?;
    let speakers = turns.iter().map(|turn| turn.speaker.as_str());
    // The assembler, and what ended the reply.
    let state = std::cell::RefCell::new((Assembler::new(&character.stop, &character.name, speakers), None));
    let mut sampler = Sampler { settings: character.sampler.clone(), rng };
    let most = character.stop.max_tokens.max(1).min(context - prompt.len());
    let is_end = |id| {
        let (assembler, stop) = &mut *state.borrow_mut();
        *stop =
            if tokenizer.is_end(id) { Some(StopReason::EndToken) } else { assembler.push(tokenizer.token_bytes(id)) };
        stop.is_some()
    };
    let tokens = generate(executor, &prompt, adapter, &mut sampler, most, is_end)?;
    let (mut assembler, stop) = state.into_inner();
    let stop = stop.unwrap_or(if tokens.len() < character.stop.max_tokens {
        StopReason::ContextFull
    } else {
        StopReason::MaxTokens
    });
    assembler.finish(stop);
    assembler.delta();
    Ok(Spoken { text: assembler.shown().to_owned(), stop, prompt, tokens })
}
