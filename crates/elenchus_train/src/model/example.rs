//! A pair as the tokens the game would read and the tokens the character should say.
//!
//! The prompt is the game's own (`elenchus_dialogue::messages` through the model's chat template); only the reply and the
//! token that ends it are learned from.

use elenchus_dialogue::{Character, Model, messages};
use elenchus_lm::{Message, Role};

use crate::{Error, Result, data::Pair};

/// Tokens of a prompt and its reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Prompt, reply and, unless the reply was cut, the token that ends it.
    pub tokens: Vec<u32>,
    /// Where the reply begins.
    pub reply_start: usize,
    /// Whether the last token ends the reply.
    pub is_ended: bool,
    /// How often supervised fine-tuning counts each token of the reply.
    pub weight: f32,
}

/// The example of a pair, its reply cut after `max_tokens` tokens in all; `None` if the prompt alone has as many.
///
/// # Errors
/// The template does not put a reply where it asks for one, so that training would teach what the game never reads.
pub fn example(pair: &Pair, character: &Character, model: &Model, max_tokens: usize) -> Result<Option<Example>> {
    let mut messages = messages(character, &pair.facts, &pair.notes, &pair.context);
    let prompt = model.template.encode(&model.tokenizer, &messages, true)?;
    messages.push(Message { role: Role::Assistant, content: pair.reply.clone() });
    let mut tokens = model.template.encode(&model.tokenizer, &messages, false)?;
    if !tokens.starts_with(&prompt) {
        return Err(Error::Template);
    }
    let end = tokens[prompt.len()..].iter().position(|&id| model.tokenizer.is_end(id)).ok_or(Error::Template)?;
    tokens.truncate(prompt.len() + end + 1);
    let is_ended = tokens.len() <= max_tokens;
    tokens.truncate(max_tokens);
    let reply_start = prompt.len();
    Ok((tokens.len() > reply_start).then_some(Example { tokens, reply_start, is_ended, weight: 1.0 }))
}

/// The examples of some pairs, in their order; those whose prompt alone has `max_tokens` tokens are left out.
pub fn examples<'a>(
    pairs: impl IntoIterator<Item = &'a Pair>,
    character: &Character,
    model: &Model,
    max_tokens: usize,
) -> Result<Vec<Example>> {
    let of = |pair| example(pair, character, model, max_tokens).transpose();
    pairs.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use elenchus_dialogue::Turn;
    use elenchus_lm::{
        CpuExecutor, CpuSettings, Weights,
        testing::{IM_END, TinyModel},
    };

    use super::*;

    #[test]
    fn the_prompt_is_the_games_and_the_reply_is_what_is_learned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let engine = CpuExecutor::new(&weights, CpuSettings::default()).unwrap();
        let model = Model::new(std::sync::Arc::new(engine), &weights).unwrap();
        let character = "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]";
        let character = Character::parse(character, "test").unwrap();
        let context = vec![Turn { speaker: "Socrates".into(), text: "What is virtue?".into() }];
        let pair = Pair::new("w", context, "I do not know.");
        let of = |max| example(&pair, &character, &model, max).unwrap();

        let whole = of(1000).unwrap();
        let prompt =
            model.template.encode(&model.tokenizer, &messages(&character, &[], &[], &pair.context), true).unwrap();
        assert_eq!(whole.tokens[..whole.reply_start], prompt);
        assert_eq!(model.tokenizer.decode(&whole.tokens[whole.reply_start..]), "I do not know.");
        assert_eq!((whole.tokens.last(), whole.is_ended), (Some(&IM_END), true));

        let cut = of(whole.tokens.len() - 5).unwrap();
        assert_eq!(model.tokenizer.decode(&cut.tokens[cut.reply_start..]), "I do not k");
        assert!(!cut.is_ended);
        assert_eq!(of(whole.reply_start), None);
        let longer = Pair { context: [pair.context.clone(), pair.context.clone()].concat(), ..pair.clone() };
        let fit = examples([&longer, &pair], &character, &model, whole.tokens.len()).unwrap();
        assert_eq!(fit, std::slice::from_ref(&whole));
        assert!(of(whole.reply_start + 1).is_some());
    }
}
