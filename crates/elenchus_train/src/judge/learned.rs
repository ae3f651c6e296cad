//! A reward model as a judge: it has no words, costs a pass over the base that is there anyway, and works offline.

use std::sync::Arc;

use elenchus_candle::CandleExecutor;
use elenchus_dialogue::{Character, Model};

use super::{Exchange, Judge, Verdict};
use crate::{Result, RewardModel, data::Pair};

/// What a reward model thinks of replies; its normalised score.
pub struct LearnedJudge {
    name: String,
    reward: RewardModel,
    max_tokens: usize,
    executor: Arc<CandleExecutor>,
    model: Model,
    character: Arc<Character>,
}

impl LearnedJudge {
    /// A judge that reads at most `max_tokens` under the prompt of `character`, both as the reward model was trained.
    pub fn new(
        name: impl Into<String>,
        reward: RewardModel,
        max_tokens: usize,
        executor: Arc<CandleExecutor>,
        model: Model,
        character: Arc<Character>,
    ) -> Self {
        Self { name: name.into(), reward, max_tokens, executor, model, character }
    }
}

impl Judge for LearnedJudge {
    fn name(&self) -> &str {
        &self.name
    }

    /// A reply whose prompt alone is too long for the model has no score.
    fn judge(&self, exchanges: &[Exchange]) -> Result<Vec<Verdict>> {
        let Self { character, model, max_tokens, .. } = self;
        let mut verdicts = vec![Verdict::default(); exchanges.len()];
        let (mut places, mut examples) = (Vec::new(), Vec::new());
        for (place, exchange) in exchanges.iter().enumerate() {
            let Exchange { context, reply, .. } = exchange.clone();
            let pair = Pair::new(String::new(), context, reply);
            if let Some(example) = RewardModel::example(&pair, character, model, *max_tokens)? {
                places.push(place);
                examples.push(example);
            }
        }
        for (place, score) in places.into_iter().zip(self.reward.scores(&self.executor, &examples)?) {
            verdicts[place] = Verdict::of(score);
        }
        Ok(verdicts)
    }
}
