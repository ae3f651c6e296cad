//! What a character says outside a game: the game's own prompt, sampler and stop rules, with a seed that follows from a
//! number, so that a resumed run says what it would have said.

use std::sync::Arc;

use elenchus_dialogue::{Character, Model, PromptMemory, Request, Spoken, StopReason, Turn, speak_many_remembering};
use elenchus_lm::{Adapter, Rng};

use crate::{Result, numeric::mixed};

/// Queries between two calls of `on_progress`: so many that the rows of a batch are seldom idle.
const CHUNK: usize = 48;

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

/// What is answered.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Facts in the prompt.
    pub facts: &'a [String],
    /// What was said; the newest turn is answered.
    pub turns: &'a [Turn],
    /// Determines the answer.
    pub draw: Draw,
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
    /// The answers, generated in batches; each is what it would be alone. `memory` keeps what was read of the prompts for the
    /// next call: that of a conversation's next line, say. `on_progress` is called with how many are done, first with 0.
    ///
    /// # Errors
    /// The first query without a reply.
    pub fn say_many(
        &self,
        queries: &[Query<'_>],
        memory: &mut PromptMemory,
        mut on_progress: impl FnMut(usize),
    ) -> Result<Vec<Spoken>> {
        let Self { model, character, adapter } = *self;
        let character = Arc::new(character.clone());
        let request = |query: &Query<'_>| {
            let Draw { seed, number, draw } = query.draw;
            Request {
                voice: adapter.cloned().map(Into::into),
                facts: query.facts.to_vec(),
                rng: Rng::from_seed(mixed(mixed(seed, number as u64), draw)),
                ..Request::new(character.clone(), query.turns.to_vec())
            }
        };
        let mut spoken = Vec::with_capacity(queries.len());
        for chunk in queries.chunks(CHUNK) {
            on_progress(spoken.len());
            let requests: Vec<Request> = chunk.iter().map(request).collect();
            spoken.extend(speak_many_remembering(model, &requests, memory)?);
        }
        Ok(spoken)
    }

    /// The texts of [`Self::say_many`]; none where the character has no words.
    pub(crate) fn texts(&self, queries: &[Query<'_>], memory: &mut PromptMemory) -> Result<Vec<Option<String>>> {
        let text = |spoken: Spoken| Some(spoken.text.trim().to_owned()).filter(|text| !text.is_empty());
        Ok(self.say_many(queries, memory, |_| ())?.into_iter().map(text).collect())
    }
}

/// Whether a reply came to an end, by itself or by a rule of its own; not if it was cut off.
pub fn is_ended(stop: StopReason) -> bool {
    !matches!(stop, StopReason::MaxTokens | StopReason::ContextFull)
}

#[cfg(test)]
mod tests {
    use elenchus_dialogue::speak_many;
    use elenchus_lm::{CpuExecutor, CpuSettings, Weights, testing::TinyModel};

    use super::*;

    #[test]
    fn an_answer_follows_from_its_draw_whatever_is_asked_beside_it_and_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let model =
            Model::new(Arc::new(CpuExecutor::new(&weights, CpuSettings::default()).unwrap()), &weights).unwrap();
        let text =
            "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]\n[stop]\nmax_tokens = 9";
        let character = Character::parse(text, "test").unwrap();
        let speaker = Speaker { model: &model, character: &character, adapter: None };
        let facts = ["The harbour is closed.".to_owned()];
        let turns: Vec<Vec<Turn>> = (0..CHUNK + 3)
            .map(|at| vec![Turn { speaker: "Stranger".into(), text: "Well? ".repeat(at % 5 + 1) }])
            .collect();
        let queries: Vec<Query<'_>> = (turns.iter().enumerate())
            .map(|(number, turns)| Query {
                facts: &facts[..number % 2],
                turns,
                draw: Draw { seed: 7, number: number / 2, draw: number as u64 % 2 },
            })
            .collect();
        let mut progress = Vec::new();
        let mut memory = PromptMemory::default();
        let all = speaker.say_many(&queries, &mut memory, |done| progress.push(done)).unwrap();
        assert_eq!((all.len(), progress), (queries.len(), vec![0, CHUNK]));
        for (query, spoken) in queries.iter().zip(&all) {
            let Draw { seed, number, draw } = query.draw;
            let request = Request {
                facts: query.facts.to_vec(),
                rng: Rng::from_seed(mixed(mixed(seed, number as u64), draw)),
                ..Request::new(Arc::new(character.clone()), query.turns.to_vec())
            };
            assert_eq!(speak_many(&model, &[request]).unwrap()[0], *spoken);
        }
        assert_eq!(speaker.say_many(&queries[..4], &mut memory, |_| ()).unwrap(), all[..4], "whatever was read before");
    }
}
