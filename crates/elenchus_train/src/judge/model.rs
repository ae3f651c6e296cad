//! A model in this process as judge: the question of [`super::ChatJudge`], answered by the game's own way from messages to
//! words. It needs no server and costs nothing but time; how far a small model's opinion can be trusted is for measures to
//! say.

use elenchus_dialogue::Model;
use elenchus_lm::{Adapter, Continued, Rng, Sampler, SamplerSettings, generate_many};
use serde::{Deserialize, Serialize};

use super::{Exchange, Judge, Opinion, Question, Verdict, VerdictForm, VerdictReader};
use crate::{Error, Result, model::shared_prefix::shared_prefix};

/// What is asked of the model, and how it answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelJudgeSettings {
    /// What logs and tables call the judge; two judges of one configuration need two names.
    pub name: String,
    /// What is asked of each reply, in words.
    pub criterion: String,
    /// How the verdict should look.
    pub form: VerdictForm,
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// Tokens of a verdict at most.
    pub max_tokens: usize,
    /// Determines every verdict, whatever stands beside it in a batch.
    pub seed: u64,
}

impl Default for ModelJudgeSettings {
    fn default() -> Self {
        Self {
            name: "model".to_owned(),
            criterion: String::new(),
            form: VerdictForm::default(),
            temperature: 0.0,
            max_tokens: 64,
            seed: 0,
        }
    }
}

/// A judge that shares its executor with the characters.
pub struct ModelJudge {
    settings: ModelJudgeSettings,
    model: Model,
    adapter: Option<Adapter>,
    reader: Box<dyn VerdictReader>,
}

impl ModelJudge {
    /// A judge whose words a reader makes numbers of; [`super::Structured`] where the form is structured. With an adapter
    /// it speaks in another voice than the bare base's.
    pub fn new(
        settings: ModelJudgeSettings,
        model: Model,
        adapter: Option<Adapter>,
        reader: Box<dyn VerdictReader>,
    ) -> Result<Self> {
        let fail = |reason: &str| Err(Error::Judge { judge: settings.name.clone(), reason: reason.to_owned() });
        if settings.criterion.trim().is_empty() {
            return fail("`criterion` is empty (hint: criterion = \"Is the reply in character?\")");
        }
        if settings.max_tokens == 0 {
            return fail("`max_tokens` is 0, expected at least 1");
        }
        if !(settings.temperature.is_finite() && settings.temperature >= 0.0) {
            return fail("`temperature` is no number of 0 or more");
        }
        if let Some(adapter) = &adapter {
            model.executor.prepare(adapter)?;
        }
        Ok(Self { settings, model, adapter, reader })
    }

    /// What is asked about one exchange; the reason where its context has no room for the question.
    fn prompt(&self, exchange: &Exchange) -> Result<Result<Vec<u32>, String>> {
        let question = Question { criterion: self.settings.criterion.clone(), form: self.settings.form };
        let Model { tokenizer, template, .. } = &self.model;
        let prompt = template.encode(tokenizer, &question.messages(exchange), true)?;
        let (tokens, context) = (prompt.len(), self.model.max_tokens());
        Ok(if tokens < context {
            Ok(prompt)
        } else {
            Err(format!("no verdict: the question has {tokens} tokens, the model's context {context}"))
        })
    }

    /// What the model says to each prompt. What they all begin with is read once.
    fn words(&self, prompts: &[&[u32]]) -> Result<Vec<String>> {
        let Model { executor, tokenizer, .. } = &self.model;
        let adapter = self.adapter.as_ref();
        let (beginning, _) = shared_prefix(&**executor, adapter, prompts.iter().copied())?;
        let settings = SamplerSettings { temperature: self.settings.temperature, ..SamplerSettings::SOFTMAX };
        let sampler = Sampler { settings, rng: Rng::from_seed(self.settings.seed) };
        let mut samplers = vec![sampler; prompts.len()];
        let sequences = prompts.iter().zip(&mut samplers).map(|(prompt, sampler)| Continued {
            prompt,
            cache: beginning.clone(),
            adapter,
            sampler,
            max_tokens: self.settings.max_tokens.min(self.model.max_tokens() - prompt.len()),
        });
        let generated = generate_many(&**executor, sequences.collect(), |id| tokenizer.is_end(id))?;
        Ok(generated.iter().map(|ids| tokenizer.decode(ids).trim().to_owned()).collect())
    }
}

impl Judge for ModelJudge {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn judge(&self, exchanges: &[Exchange]) -> Result<Vec<Verdict>> {
        let prompts: Vec<Result<Vec<u32>, String>> =
            exchanges.iter().map(|exchange| self.prompt(exchange)).collect::<Result<_>>()?;
        let asked: Vec<&[u32]> = prompts.iter().flatten().map(Vec::as_slice).collect();
        let mut words = self.words(&asked)?.into_iter();
        let verdict = |prompt: &Result<Vec<u32>, String>| {
            let words = match prompt {
                Ok(_) => words.next().unwrap_or_default(),
                Err(reason) => return Ok(Verdict { words: reason.clone(), ..Verdict::default() }),
            };
            let score = self.reader.read(&words)?.map(Opinion::value);
            Ok(Verdict { words, score, ..Verdict::default() })
        };
        prompts.iter().map(verdict).collect()
    }
}
