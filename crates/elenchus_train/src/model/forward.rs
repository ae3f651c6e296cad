//! The forward of a pass: log-probabilities of replies, given all that came before them.
//!
//! Examples of a character begin with the same words, its persona, and replies to one prompt with the whole of it. A pass
//! reads once what neighbours begin with: the gradient through it is the sum over them, as it is without sharing.

use candle_core::Tensor;
use elenchus_candle::{Activations, CandleExecutor, LoraDropout, PackedSequences, Segment, TrainableLora};

use crate::{Example, Result};

/// What a pass gives of all reply tokens of its examples, example by example.
pub(crate) struct ReplyForward {
    /// The states that predict the tokens, `(targets, hidden_size)`.
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
    let hidden = reply_states(executor, lora, examples, dropout, activations)?;
    let targets: Vec<u32> =
        examples.iter().flat_map(|example| &example.tokens[example.reply_start..]).copied().collect();
    let logprobs = executor.token_logprobs(&hidden, &targets, activations != Activations::Drop)?;
    Ok(ReplyForward { hidden, logprobs })
}

/// The states that predict all reply tokens, `(targets, hidden_size)`, example by example.
pub(crate) fn reply_states(
    executor: &CandleExecutor,
    lora: Option<&TrainableLora>,
    examples: &[&Example],
    dropout: Option<&mut LoraDropout>,
    activations: Activations,
) -> Result<Tensor> {
    let packed = pack(examples);
    // The token before predicts it.
    let of = |(example, &end): (&&Example, &usize)| {
        let reply = example.tokens.len() - example.reply_start;
        (end - reply - 1..end - 1).map(|at| at as u32)
    };
    let positions: Vec<u32> = examples.iter().zip(&packed.ends).flat_map(of).collect();
    let hidden = executor.hidden_states(packed.sequences(), lora, dropout, activations)?;
    Ok(hidden.index_select(&Tensor::new(positions, hidden.device())?, 0)?)
}

/// The hidden state of each example's last token, `(examples, hidden_size)`; differentiable as [`reply_logprobs`] is.
pub(crate) fn last_hidden_states(
    executor: &CandleExecutor,
    lora: Option<&TrainableLora>,
    examples: &[&Example],
    dropout: Option<&mut LoraDropout>,
    activations: Activations,
) -> Result<Tensor> {
    let packed = pack(examples);
    let ends: Vec<u32> = packed.ends.iter().map(|&end| end as u32 - 1).collect();
    let hidden = executor.hidden_states(packed.sequences(), lora, dropout, activations)?;
    Ok(hidden.index_select(&Tensor::new(ends, hidden.device())?, 0)?)
}

/// Examples end to end, what neighbours begin with once.
#[derive(Default)]
struct Packed {
    tokens: Vec<u32>,
    segments: Vec<Segment>,
    /// The end of each example.
    ends: Vec<usize>,
}

/// A beginning that is shorter is not worth a segment of its own.
const SHARED: usize = 8;

fn pack(examples: &[&Example]) -> Packed {
    let mut packed = Packed::default();
    packed.push(examples, None, 0);
    packed
}

impl Packed {
    fn sequences(&self) -> PackedSequences<'_> {
        PackedSequences { tokens: &self.tokens, segments: &self.segments }
    }

    /// Appends examples that continue a segment, which has their first `read` tokens.
    fn push(&mut self, examples: &[&Example], behind: Option<usize>, read: usize) {
        // Neighbours that share more than what was read; those that do not are by themselves.
        for run in examples.chunk_by(|a, b| common_prefix(a, b) >= read + SHARED) {
            let Some((first, others)) = run.split_first() else { continue };
            if others.is_empty() {
                self.segment(&first.tokens[read..], behind);
                self.ends.push(self.tokens.len());
                continue;
            }
            let neighbours = run.windows(2).map(|pair| common_prefix(pair[0], pair[1]));
            let shared = neighbours.min().unwrap_or(read);
            let beginning = self.segment(&first.tokens[read..shared], behind);
            self.push(run, Some(beginning), shared);
        }
    }

    fn segment(&mut self, tokens: &[u32], behind: Option<usize>) -> usize {
        self.tokens.extend_from_slice(tokens);
        self.segments.push(Segment { behind, length: tokens.len() });
        self.segments.len() - 1
    }
}

/// Tokens of an example that others may share: all before the one that predicts its reply.
fn shareable(example: &Example) -> usize {
    example.reply_start - 1
}

/// How many tokens two examples both begin with, of those they may share.
fn common_prefix(a: &Example, b: &Example) -> usize {
    let most = shareable(a).min(shareable(b));
    a.tokens[..most].iter().zip(&b.tokens[..most]).take_while(|(a, b)| a == b).count()
}

/// Cuts examples into passes of at most `tokens` tokens, what is shared counted once, and at least one example each.
pub(crate) fn passes<'a>(examples: &'a [&'a Example], tokens: usize) -> impl Iterator<Item = &'a [&'a Example]> {
    joined_passes(examples, |_| false, tokens)
}

/// The same, where `joined` says of an example's place, never 0, that it must be in the pass of the one before.
pub(crate) fn joined_passes<'a>(
    examples: &'a [&'a Example],
    joined: impl Fn(usize) -> bool,
    tokens: usize,
) -> impl Iterator<Item = &'a [&'a Example]> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let next = |end: usize| (end + 1..examples.len()).find(|&at| !joined(at)).unwrap_or(examples.len());
        if start == examples.len() {
            return None;
        }
        let mut end = next(start);
        while end < examples.len() && pack(&examples[start..next(end)]).tokens.len() <= tokens {
            end = next(end);
        }
        let pass = &examples[start..end];
        start = end;
        Some(pass)
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use elenchus_lm::{Linear, Numerics, Weights, testing::TinyModel};

    use super::*;

    fn example(text: &[u32], reply: usize) -> Example {
        Example { tokens: text.to_vec(), reply_start: text.len() - reply, is_ended: false, weight: 1.0 }
    }

    /// 20 tokens that all begin with.
    const PERSONA: u32 = 20;

    /// A persona, a prompt after it, and a reply.
    fn of(prompt: std::ops::Range<u32>, reply: std::ops::Range<u32>) -> Example {
        let text = |tokens: std::ops::Range<u32>| tokens.map(|at| 32 + at * 7 % 90);
        let tokens: Vec<u32> = text(0..PERSONA).chain(text(prompt)).chain(text(reply.clone())).collect();
        example(&tokens, reply.len())
    }

    #[test]
    fn what_neighbours_begin_with_is_read_once() {
        let check = |examples: &[&Example], expected: &[(Option<usize>, usize)]| {
            let Packed { tokens, segments, ends } = pack(examples);
            let segments: Vec<_> = segments.iter().map(|of| (of.behind, of.length)).collect();
            assert_eq!(segments, expected);
            assert_eq!(ends.len(), examples.len());
            assert_eq!(tokens.len(), expected.iter().map(|(_, length)| length).sum::<usize>());
            for (example, end) in examples.iter().zip(ends) {
                let last = end.checked_sub(1).map(|at| tokens[at]);
                assert_eq!(last, example.tokens.last().copied());
            }
        };
        // 30 tokens of prompt, of which the last predicts the reply and is shared with no other.
        let [a, b, c] = [40..44, 50..57, 60..61].map(|reply| of(100..130, reply));
        let [d, e] = [40..44, 50..57].map(|reply| of(200..210, reply));
        let short = of(300..301, 40..42);
        check(&[], &[]);
        check(&[&a], &[(None, 54)]);
        check(&[&a, &b, &c], &[(None, 49), (Some(0), 5), (Some(0), 8), (Some(0), 2)]);
        check(&[&a, &d], &[(None, 20), (Some(0), 34), (Some(0), 14)]);
        check(
            &[&a, &b, &short, &d, &e],
            &[
                (None, 20),
                (Some(0), 29),
                (Some(1), 5),
                (Some(1), 8),
                (Some(0), 3),
                (Some(0), 9),
                (Some(5), 5),
                (Some(5), 8),
            ],
        );
        // What does not follow each other is not looked for.
        check(&[&a, &d, &b], &[(None, 20), (Some(0), 34), (Some(0), 14), (Some(0), 37)]);
        // Nothing in common, and too little of it.
        let other = example(&[90; 12], 1);
        let alike = example(&[90, 90, 90, 90, 90, 90, 90, 91, 92], 1);
        check(&[&a, &other, &alike], &[(None, 54), (None, 12), (None, 9)]);
        check(&[&a, &a], &[(None, 49), (Some(0), 5), (Some(0), 5)]);
    }

    #[test]
    fn a_pass_counts_what_its_examples_share_once() {
        let [a, b, c] = [40..42, 50..53, 60..62].map(|reply| of(100..101, reply));
        let all = [&a, &b, &c];
        let check = |tokens: usize, expected: &[usize]| {
            let counts: Vec<usize> = passes(&all, tokens).map(<[_]>::len).collect();
            assert_eq!(counts, expected, "{tokens} tokens");
        };
        check(1, &[1, 1, 1]);
        // 20 shared, then 3, 4 and 3.
        check(30, &[3]);
        check(29, &[2, 1]);
        check(26, &[1, 1, 1]);
        check(1000, &[3]);

        let pairs = [&a, &b, &c, &a];
        let check = |tokens: usize, expected: &[usize]| {
            let counts: Vec<usize> = joined_passes(&pairs, |at| at % 2 == 1, tokens).map(<[_]>::len).collect();
            assert_eq!(counts, expected, "{tokens} tokens");
        };
        check(1, &[2, 2]);
        check(32, &[2, 2]);
        // 20 shared, then 3, 4, 3 and 3.
        check(33, &[4]);
    }

    /// The same log-probabilities and gradients as one example at a time.
    #[test]
    fn sharing_beginnings_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let executor = CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap();
        elenchus_lm::testing::write_random_adapter(folder.path(), weights.config(), 4, 7);
        let adapter = elenchus_lm::LoraAdapter::open(folder.path()).unwrap();
        let lora = TrainableLora::new(&adapter, &executor).unwrap();
        assert!(lora.pairs().keys().any(|(_, linear)| *linear == Linear::V));

        let [a, b, c] = [40..44, 50..67, 60..61].map(|reply| of(100..118, reply));
        let [d, e] = [40..44, 50..57].map(|reply| of(200..210, reply));
        let trees: [&[&Example]; 5] = [&[&a], &[&a, &b], &[&a, &b, &c], &[&a, &a], &[&a, &b, &d, &e, &c]];
        for examples in trees {
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
                let (ours, grads) = run(examples, activations);
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
