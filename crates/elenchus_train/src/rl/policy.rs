//! The policy: an adapter that learns on a base that does not, and for PPO a head that says what is to be expected.

use candle_core::{DType, Var};
use elenchus_lm::{Activations, CandleExecutor, TrainableLora};

use super::{method::PolicyOutput, rollout::Response};
use crate::{Example, Result, forward::reply_forward};

/// The names of the head's variables in a checkpoint.
const HEAD_WEIGHT: &str = "value_head.weight";
const HEAD_BIAS: &str = "value_head.bias";

/// An adapter as variables, and a value head where a method asks for one.
pub struct Policy<'a> {
    executor: &'a CandleExecutor,
    lora: &'a TrainableLora,
    head: Option<ValueHead>,
}

/// `hidden · weight + bias`; zero at first, as nothing is known.
struct ValueHead {
    /// `(hidden_size, 1)`.
    weight: Var,
    /// `(1)`.
    bias: Var,
}

impl<'a> Policy<'a> {
    /// A policy that begins as this adapter is.
    pub fn new(
        executor: &'a CandleExecutor,
        lora: &'a TrainableLora,
        hidden_size: usize,
        values: bool,
    ) -> Result<Self> {
        let zeros = |shape: &[usize]| Var::zeros(shape, DType::F32, executor.device());
        let head = || Ok::<_, crate::Error>(ValueHead { weight: zeros(&[hidden_size, 1])?, bias: zeros(&[1])? });
        Ok(Self { executor, lora, head: values.then(head).transpose()? })
    }

    /// All that learns, by the names a checkpoint has.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let head = self.head.iter().flat_map(|head| {
            [(HEAD_WEIGHT.to_owned(), head.weight.clone()), (HEAD_BIAS.to_owned(), head.bias.clone())]
        });
        self.lora.vars().into_iter().chain(head).collect()
    }

    /// Log-probabilities and values of all reply tokens of one pass; differentiable unless activations are dropped. No
    /// dropout: the same numbers each time.
    pub fn output(&self, examples: &[&Example], activations: Activations) -> Result<PolicyOutput> {
        let forward = reply_forward(self.executor, Some(self.lora), examples, None, activations)?;
        let values = |head: &ValueHead| {
            let (mut weight, mut bias) = (head.weight.as_tensor().clone(), head.bias.as_tensor().clone());
            if activations == Activations::Drop {
                (weight, bias) = (weight.detach(), bias.detach());
            }
            // (tokens, hidden_size) x (hidden_size, 1)
            Ok::<_, crate::Error>(forward.hidden.matmul(&weight)?.squeeze(1)?.broadcast_add(&bias)?)
        };
        let values = self.head.as_ref().map(values).transpose()?;
        Ok(PolicyOutput { logprobs: forward.logprobs, values })
    }
}

/// A prompt and a response as the trainer reads them.
pub(super) fn example(prompt: &[u32], response: &Response) -> Example {
    Example { tokens: [prompt, &response.tokens].concat(), reply_start: prompt.len(), is_ended: response.is_ended }
}
