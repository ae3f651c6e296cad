//! The forward of a pass: log-probabilities of replies, given all that came before them.

use candle_core::Tensor;
use elenchus_lm::{CandleExecutor, LoraDropout, PackedSequences, TrainableLora};

use crate::{Example, Result};

/// Log-probabilities of all reply tokens of some examples, `(targets)`, example by example, differentiable by the
/// variables of `lora` with `gradient`.
pub(crate) fn reply_logprobs(
    executor: &CandleExecutor,
    lora: Option<&TrainableLora>,
    examples: &[&Example],
    dropout: Option<&mut LoraDropout>,
    gradient: bool,
) -> Result<Tensor> {
    let tokens: Vec<u32> = examples.iter().flat_map(|example| &example.tokens).copied().collect();
    let lengths: Vec<usize> = examples.iter().map(|example| example.tokens.len()).collect();
    let (mut positions, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
    for example in examples {
        // The token before foresees it.
        positions.extend((example.reply_start..example.tokens.len()).map(|at| (start + at - 1) as u32));
        targets.extend_from_slice(&example.tokens[example.reply_start..]);
        start += example.tokens.len();
    }
    let hidden = executor.hidden_states(PackedSequences { tokens: &tokens, lengths: &lengths }, lora, dropout)?;
    let hidden = hidden.index_select(&Tensor::new(positions, hidden.device())?, 0)?;
    Ok(executor.token_logprobs(&hidden, &targets, gradient)?)
}

/// Cuts examples into passes of at most `tokens` tokens, at least one example each.
pub(crate) fn passes<'a>(examples: &'a [&'a Example], tokens: usize) -> impl Iterator<Item = &'a [&'a Example]> {
    let mut rest = examples;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = |example: &&&Example| {
            sum += example.tokens.len();
            sum <= tokens
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (pass, others) = rest.split_at(count);
        rest = others;
        (!pass.is_empty()).then_some(pass)
    })
}
