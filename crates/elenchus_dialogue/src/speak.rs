//! The plainest reply: prompt, words, stop rules, and nobody else to wait for.
//!
//! A trainer listens to its character this way. The engine, which streams, batches and remembers, must agree with it.

use elenchus_lm::{Adapter, ChatTemplate, Executor, Rng, Sampler, Tokenizer, generate};

use crate::{Character, Result, Turn, prompt, reply::Assembler};

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
    let context = executor.config().max_positions;
    let prompt = prompt::fit(template, tokenizer, character, &[], turns, context)?;
    let speakers = turns.iter().map(|turn| turn.speaker.as_str());
    let assembler = std::cell::RefCell::new(Assembler::new(&character.stop, &character.name, speakers));
    let mut sampler = Sampler { settings: character.sampler.clone(), rng };
    let most = character.stop.max_tokens.max(1).min(context - prompt.len());
    let is_end = |id| tokenizer.is_end(id) || assembler.borrow_mut().push(tokenizer.token_bytes(id)).is_some();
    generate(executor, &prompt, adapter, &mut sampler, most, is_end)?;
    let mut assembler = assembler.into_inner();
    assembler.finish(crate::StopReason::EndToken);
    assembler.delta();
    Ok(assembler.shown().to_owned())
}
