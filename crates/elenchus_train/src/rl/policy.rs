//! The policy: an adapter that learns on a base that does not, and where a method asks for it, what is to be expected.

use candle_core::{DType, Tensor, Var};
use elenchus_candle::{Activations, CandleExecutor, TrainableLora};
use elenchus_lm::Executor;

use super::{
    method::{PolicyOutput, Values},
    rollout::Response,
};
use crate::{Example, Result, RewardModel, model::forward::reply_forward};

/// The names of the head's variables in a checkpoint.
const HEAD_WEIGHT: &str = "value_head.weight";
const HEAD_BIAS: &str = "value_head.bias";

/// An adapter as variables, and what values come from where a method asks for them.
pub(super) struct Policy<'a> {
    executor: &'a CandleExecutor,
    lora: &'a TrainableLora,
    values: ValueSource<'a>,
}

enum ValueSource<'a> {
    None,
    Head(ValueHead),
    /// `learns` says whether it is differentiable.
    Model {
        model: &'a RewardModel,
        learns: bool,
    },
}

/// `hidden · weight + bias`; zero at first, as nothing is known.
struct ValueHead {
    /// `(hidden_size, 1)`.
    weight: Var,
    /// `(1)`.
    bias: Var,
}

/// What the variables of a critic are called in a checkpoint, before their own names.
pub(super) const CRITIC: &str = "critic.";

impl<'a> Policy<'a> {
    /// A policy that begins as this adapter is.
    ///
    /// # Errors
    /// Values of a model that is not there.
    pub(super) fn new(
        executor: &'a CandleExecutor,
        lora: &'a TrainableLora,
        values: Values,
        value_model: Option<&'a RewardModel>,
    ) -> Result<Self> {
        let values = match (values, value_model) {
            (Values::None, _) => ValueSource::None,
            (Values::Head, _) => {
                let zeros = |shape: &[usize]| Var::zeros(shape, DType::F32, executor.device());
                let hidden_size = executor.config().hidden_size;
                ValueSource::Head(ValueHead { weight: zeros(&[hidden_size, 1])?, bias: zeros(&[1])? })
            }
            (Values::Model { rate }, Some(model)) => ValueSource::Model { model, learns: rate > 0.0 },
            (Values::Model { .. }, None) => {
                return Err(elenchus_lm::Error::Batch("a method's value model is not there".to_owned()).into());
            }
        };
        Ok(Self { executor, lora, values })
    }

    /// All that learns, by the names a checkpoint has.
    pub(super) fn vars(&self) -> Vec<(String, Var)> {
        let mut vars = self.lora.vars();
        match &self.values {
            ValueSource::Head(head) => {
                vars.extend([(HEAD_WEIGHT.to_owned(), head.weight.clone()), (HEAD_BIAS.to_owned(), head.bias.clone())]);
            }
            ValueSource::Model { model, learns: true } => {
                vars.extend(model.vars().into_iter().map(|(name, var)| (format!("{CRITIC}{name}"), var)));
            }
            ValueSource::None | ValueSource::Model { learns: false, .. } => {}
        }
        vars
    }

    /// Log-probabilities of all reply tokens of one pass, and the values that learn with them; differentiable unless
    /// activations are dropped. No dropout: the same numbers each time.
    pub(super) fn output(&self, examples: &[&Example], activations: Activations) -> Result<PolicyOutput> {
        let forward = reply_forward(self.executor, Some(self.lora), examples, None, activations)?;
        let values = match &self.values {
            ValueSource::None => None,
            ValueSource::Head(head) => {
                let (mut weight, mut bias) = (head.weight.as_tensor().clone(), head.bias.as_tensor().clone());
                if activations == Activations::Drop {
                    (weight, bias) = (weight.detach(), bias.detach());
                }
                // (tokens, hidden_size) x (hidden_size, 1)
                Some(forward.hidden.matmul(&weight)?.squeeze(1)?.broadcast_add(&bias)?)
            }
            ValueSource::Model { model, learns: true } => Some(model.values(self.executor, examples, activations)?),
            // No loss is made of them, so they are read once: see `frozen_values`.
            ValueSource::Model { learns: false, .. } => None,
        };
        Ok(PolicyOutput { logprobs: forward.logprobs, values })
    }

    /// Values of a model that does not learn, of all reply tokens of one pass.
    pub(crate) fn frozen_values(&self, examples: &[&Example]) -> Result<Option<Tensor>> {
        match &self.values {
            ValueSource::Model { model, learns: false } => {
                Ok(Some(model.values(self.executor, examples, Activations::Drop)?))
            }
            _ => Ok(None),
        }
    }
}

/// A prompt and a response as the trainer reads them.
pub(super) fn example(prompt: &[u32], response: &Response) -> Example {
    Example {
        tokens: [prompt, &response.tokens].concat(),
        reply_start: prompt.len(),
        is_ended: response.is_ended,
        weight: 1.0,
    }
}
