//! The forward of a pass: log-probabilities of replies, given all that came before them.
//!
//! Examples of a character begin with the same words, its persona. A pass reads them once: the tokens that all its examples
//! begin with are its prefix, and the gradient through it is the sum over the examples, as it is without sharing.

use candle_core::Tensor;
use elenchus_lm::{Activations, CandleExecutor, LoraDropout, PackedSequences, TrainableLora};

use crate::{Example, Result};

/// What a pass gives of all reply tokens of its examples, example by example.
pub(crate) struct ReplyForward {
    /// The states that foresee the tokens, `(targets, hidden_size)`.
    pub hidden: Tensor,
    /// Log-probabilities of the tokens, `(targets)`.
    pub logprobs: Tensor,
}

/// Log-probabilities of all reply tokens of some examples, `(targets)`, example by example, differentiable by the
/// variables of `lora` unless activations are dropped.
pub(crate) fn reply_logprobs(
    executor: &CandleExecutor,
    lora: Option<&TrainableLora>,
    examples: &[&Example],
    dropout: Option<&mut LoraDropout>,
    activations: Activations,
) -> Result<Tensor> {
    Ok(reply_forward(executor, lora, examples, dropout, activations)?.logprobs)
}

/// The same with the states that it was computed from.
pub(crate) fn reply_forward(
    executor: &CandleExecutor,
    lora: Option<&TrainableLora>,
    examples: &[&Example],
    dropout: Option<&mut LoraDropout>,
    activations: Activations,
) -> Result<ReplyForward> {
    let Packed { tokens, prefix, lengths } = pack(examples);
    let (mut positions, mut targets, mut end) = (Vec::new(), Vec::new(), 0);
    for (example, length) in examples.iter().zip(&lengths) {
        // The token before foresees it.
        let first = end + example.reply_start - 1;
        positions.extend((first..).take(example.tokens.len() - example.reply_start).map(|at| at as u32));
        targets.extend_from_slice(&example.tokens[example.reply_start..]);
        end += length;
    }
    let packed = PackedSequences { tokens: &tokens, prefix, lengths: &lengths };
    let hidden = executor.hidden_states(packed, lora, dropout, activations)?;
    let hidden = hidden.index_select(&Tensor::new(positions, hidden.device())?, 0)?;
    let logprobs = executor.token_logprobs(&hidden, &targets, activations != Activations::Drop)?;
    Ok(ReplyForward { hidden, logprobs })
}

/// The hidden state of each example's last token, `(examples, hidden_size)`; differentiable as [`reply_logprobs`] is.
pub(crate) fn last_hidden_states(
    executor: &CandleExecutor,
    lora: Option<&TrainableLora>,
    examples: &[&Example],
    dropout: Option<&mut LoraDropout>,
    activations: Activations,
) -> Result<Tensor> {
    let Packed { tokens, prefix, lengths } = pack(examples);
    let ends = lengths.iter().scan(prefix, |end, length| {
        *end += length;
        Some(*end as u32 - 1)
    });
    let ends: Vec<u32> = ends.collect();
    let packed = PackedSequences { tokens: &tokens, prefix, lengths: &lengths };
    let hidden = executor.hidden_states(packed, lora, dropout, activations)?;
    Ok(hidden.index_select(&Tensor::new(ends, hidden.device())?, 0)?)
}

/// Examples end to end, what all begin with once.
struct Packed {
    tokens: Vec<u32>,
    prefix: usize,
    lengths: Vec<usize>,
}

fn pack(examples: &[&Example]) -> Packed {
    let prefix = match examples {
        [first, others @ ..] if !others.is_empty() => {
            others.iter().fold(shareable(first), |common, example| common.min(common_prefix(first, example)))
        }
        _ => 0,
    };
    let shared = examples.first().map_or(&[][..], |first| &first.tokens[..prefix]);
    let rests = examples.iter().flat_map(|example| &example.tokens[prefix..]);
    Packed {
        tokens: shared.iter().chain(rests).copied().collect(),
        prefix,
        lengths: examples.iter().map(|example| example.tokens.len() - prefix).collect(),
    }
}

/// Tokens of an example that others may share: all before the one that foresees its reply.
fn shareable(example: &Example) -> usize {
    example.reply_start - 1
}

/// How many tokens two examples both begin with, of those they may share.
fn common_prefix(a: &Example, b: &Example) -> usize {
    let most = shareable(a).min(shareable(b));
    a.tokens[..most].iter().zip(&b.tokens[..most]).take_while(|(a, b)| a == b).count()
}

/// Cuts examples into passes of at most `tokens` tokens, a common prefix counted once, and at least one example each.
pub(crate) fn passes<'a>(examples: &'a [&'a Example], tokens: usize) -> impl Iterator<Item = &'a [&'a Example]> {
    group_passes(examples, 1, tokens)
}

/// The same of groups that must be in one pass: each `group` examples from the first on.
pub(crate) fn group_passes<'a>(
    examples: &'a [&'a Example],
    group: usize,
    tokens: usize,
) -> impl Iterator<Item = &'a [&'a Example]> {
    let mut rest = examples;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let (mut prefix, mut sum, mut count) = (shareable(first), 0, 0);
        for group in rest.chunks(group) {
            prefix = group.iter().fold(prefix, |prefix, example| prefix.min(common_prefix(first, example)));
            sum += group.iter().map(|example| example.tokens.len()).sum::<usize>();
            if count > 0 && sum - (count + group.len() - 1) * prefix > tokens {
                break;
            }
            count += group.len();
        }
        let (pass, others) = rest.split_at(count);
        rest = others;
        Some(pass)
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use elenchus_lm::{Linear, Numerics, Weights, testing::TinyModel};

    use super::*;

    fn example(text: &[u32], reply: usize) -> Example {
        Example { tokens: text.to_vec(), reply_start: text.len() - reply, is_ended: false }
    }

    #[test]
    fn a_pass_counts_what_its_examples_share_once() {
        let of = |rest: &[u32]| example(&[&[40, 41, 42, 43, 44, 45], rest].concat(), 1);
        let (a, b, c) = (of(&[50, 51]), of(&[60, 61, 62]), of(&[70, 71]));
        let all = [&a, &b, &c];
        let check = |tokens: usize, expected: &[usize]| {
            let counts: Vec<usize> = passes(&all, tokens).map(<[_]>::len).collect();
            assert_eq!(counts, expected, "{tokens} tokens");
        };
        check(1, &[1, 1, 1]);
        // 6 shared, then 2, 3 and 2.
        check(13, &[3]);
        check(12, &[2, 1]);
        check(10, &[1, 1, 1]);
        check(1000, &[3]);

        let pairs = [&a, &b, &c, &a];
        let check = |tokens: usize, expected: &[usize]| {
            let counts: Vec<usize> = group_passes(&pairs, 2, tokens).map(<[_]>::len).collect();
            assert_eq!(counts, expected, "{tokens} tokens");
        };
        check(1, &[2, 2]);
        check(14, &[2, 2]);
        // 6 shared, then 2, 3, 2 and 2.
        check(15, &[4]);
    }

    /// The same log-probabilities and gradients as one example at a time.
    #[test]
    fn sharing_a_prefix_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let executor = CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap();
        elenchus_lm::testing::write_random_adapter(folder.path(), weights.config(), 4, 7);
        let adapter = elenchus_lm::LoraAdapter::open(folder.path()).unwrap();
        let lora = TrainableLora::new(&adapter, &executor).unwrap();
        assert!(lora.pairs().keys().any(|(_, linear)| *linear == Linear::V));

        let text = |from: u32, count: u32| (from..from + count).map(|at| 32 + at * 7 % 90).collect::<Vec<u32>>();
        let of = |from, count, reply| example(&[text(3, 20), text(from, count)].concat(), reply);
        let (a, b, c) = (of(1, 9, 4), of(30, 17, 17), of(50, 3, 1));
        for examples in [vec![&a], vec![&a, &b], vec![&a, &b, &c], vec![&a, &a]] {
            let run = |examples: &[&Example], activations| {
                let logprobs = reply_logprobs(&executor, Some(&lora), examples, None, activations).unwrap();
                let grads = match activations {
                    Activations::Drop => None,
                    _ => Some(logprobs.sqr().unwrap().sum_all().unwrap().backward().unwrap()),
                };
                (logprobs.to_vec1::<f32>().unwrap(), grads)
            };
            let alone: Vec<_> = examples.iter().map(|example| run(&[*example], Activations::Keep)).collect();
            let expected: Vec<f32> = alone.iter().flat_map(|(logprobs, _)| logprobs.clone()).collect();
            for activations in [Activations::Drop, Activations::Keep, Activations::Recompute] {
                let (ours, grads) = run(&examples, activations);
                let distance = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(ours.len() == expected.len() && distance < 2e-5, "{activations:?}: {distance}");
                let Some(grads) = grads else { continue };
                for (name, var) in lora.vars() {
                    let sum = alone.iter().map(|(_, grads)| grads.as_ref().unwrap().get(&var).unwrap().clone());
                    let sum = sum.reduce(|a, b| (a + b).unwrap()).unwrap();
                    let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
                    let distance = norm(&(grads.get(&var).unwrap() - &sum).unwrap()) / norm(&sum);
                    assert!(distance < 1e-4, "{name}, {activations:?}: {distance}");
                }
            }
        }
    }
}
