//! How well a model predicts a character's replies: the measure of what an adapter has learned.

use elenchus_candle::{Activations, CandleExecutor, TrainableLora};

use crate::{
    Example, Result,
    model::forward::{passes, reply_logprobs},
};

/// Tokens read in one forward pass, at least one example.
const PASS_TOKENS: usize = 1024;

/// Sums over the replies of some examples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Perplexity {
    /// Tokens of replies, end tokens left out.
    pub tokens: usize,
    /// Sum of their log-probabilities.
    pub logprob: f64,
    /// End tokens.
    pub end_tokens: usize,
    /// Sum of theirs.
    pub end_logprob: f64,
}

impl Perplexity {
    /// `exp` of the mean negative log-probability of a reply's token; NaN without tokens.
    pub fn of_tokens(&self) -> f64 {
        (-self.logprob / self.tokens as f64).exp()
    }

    /// The same of the tokens that end replies.
    pub fn of_ends(&self) -> f64 {
        (-self.end_logprob / self.end_tokens as f64).exp()
    }
}

/// Reply perplexity under an adapter, or the base's without one. `progress` hears how many examples were read.
pub fn perplexity(
    executor: &CandleExecutor,
    lora: Option<&TrainableLora>,
    examples: &[Example],
    mut progress: impl FnMut(usize),
) -> Result<Perplexity> {
    let mut sums = Perplexity::default();
    let mut read = 0;
    for pass in passes(&examples.iter().collect::<Vec<_>>(), PASS_TOKENS) {
        let mut logprobs =
            reply_logprobs(executor, lora, pass, None, Activations::Drop)?.to_vec1::<f32>()?.into_iter().map(f64::from);
        for example in pass {
            let end = usize::from(example.is_ended);
            let words = example.tokens.len() - example.reply_start - end;
            sums.tokens += words;
            sums.logprob += logprobs.by_ref().take(words).sum::<f64>();
            sums.end_tokens += end;
            sums.end_logprob += logprobs.by_ref().take(end).sum::<f64>();
        }
        read += pass.len();
        progress(read);
    }
    Ok(sums)
}

/// At most so many of them, evenly from all over, for works stand one after the other: what is measured where all would
/// take too long.
pub fn spread<T: Clone>(items: &[T], count: usize) -> Vec<T> {
    let count = count.min(items.len());
    (0..count).map(|number| items[number * items.len() / count].clone()).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use elenchus_lm::{
        Adapter, Executor, Logits, LoraAdapter, Numerics, Row, Weights,
        testing::{TinyModel, write_random_adapter},
    };

    use super::*;

    #[test]
    fn some_are_taken_from_all_over() {
        let check = |count: usize, most: usize, expected: &[usize]| {
            assert_eq!(spread(&(0..count).collect::<Vec<_>>(), most), expected);
        };
        check(6, 6, &[0, 1, 2, 3, 4, 5]);
        check(6, 3, &[0, 2, 4]);
        check(5, 2, &[0, 2]);
        check(2, usize::MAX, &[0, 1]);
        check(3, 0, &[]);
        check(0, 9, &[]);
    }

    /// Against the game's own forward: logits of all positions, one example at a time.
    #[test]
    fn equals_what_the_games_forward_gives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let executor = CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap();
        write_random_adapter(folder.path(), weights.config(), 4, 7);
        let lora = LoraAdapter::open(folder.path()).unwrap();
        let trainable = TrainableLora::new(&lora, &executor).unwrap();
        let adapter = Adapter::new(std::sync::Arc::new(lora));

        let text = |from: u32, count: u32| (from..from + count).map(|at| 32 + at * 7 % 90).collect::<Vec<u32>>();
        let examples = [
            Example { tokens: text(3, 50), reply_start: 31, is_ended: true, weight: 1.0 },
            Example { tokens: text(9, 1100), reply_start: 1090, is_ended: false, weight: 1.0 },
            Example { tokens: text(1, 12), reply_start: 4, is_ended: true, weight: 1.0 },
        ];
        let mut heard = Vec::new();
        let ours = perplexity(&executor, Some(&trainable), &examples, |read| heard.push(read)).unwrap();
        assert_eq!(heard, [1, 2, 3]);

        let mut expected = Perplexity::default();
        let vocab_size = weights.config().vocab_size;
        for example in &examples {
            let mut cache = executor.new_cache();
            let row = Row { tokens: &example.tokens, adapter: Some(&adapter), cache: &mut cache, logits: Logits::All };
            let logits = executor.forward(&mut [row]).unwrap().remove(0);
            for at in example.reply_start..example.tokens.len() {
                let row = &logits[(at - 1) * vocab_size..at * vocab_size];
                let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
                let logprob = f64::from(row[example.tokens[at] as usize]) - total.ln();
                if example.is_ended && at + 1 == example.tokens.len() {
                    expected.end_tokens += 1;
                    expected.end_logprob += logprob;
                } else {
                    expected.tokens += 1;
                    expected.logprob += logprob;
                }
            }
        }
        assert_eq!((ours.tokens, ours.end_tokens), (expected.tokens, expected.end_tokens));
        assert!((ours.of_tokens() / expected.of_tokens() - 1.0).abs() < 1e-4, "{ours:?} instead of {expected:?}");
        assert!((ours.of_ends() / expected.of_ends() - 1.0).abs() < 1e-4);
    }
}
