//! How far two distributions over the next token are apart, read off an executor's logits.

use elenchus_lm::{Adapter, Executor, KvCache, Logits, Row};

use crate::{Result, model::shared_prefix::shared_prefix};

/// Reads replies under one adapter; what all prompts begin with is read once.
pub struct Reader<'a> {
    executor: &'a dyn Executor,
    adapter: Option<Adapter>,
    shared: usize,
    beginning: KvCache,
}

impl<'a> Reader<'a> {
    /// A reader of replies to these prompts.
    pub fn new<'t>(
        executor: &'a dyn Executor,
        adapter: Option<Adapter>,
        prompts: impl Iterator<Item = &'t [u32]>,
    ) -> Result<Self> {
        let (beginning, shared) = shared_prefix(executor, adapter.as_ref(), prompts)?;
        Ok(Self { executor, adapter, shared, beginning })
    }

    /// Logits of a row.
    pub fn vocab_size(&self) -> usize {
        self.executor.config().vocab_size
    }

    /// Logits of each of a reply's tokens and of what follows the last, `(tokens + 1, vocab_size)`.
    pub fn logits(&self, prompt: &[u32], tokens: &[u32]) -> Result<Vec<f32>> {
        let mut cache = self.beginning.clone();
        let adapter = self.adapter.as_ref();
        let (before, last) = prompt.split_at(prompt.len() - 1);
        if before.len() > self.shared {
            let tokens = &before[self.shared..];
            self.executor.forward(&mut [Row { tokens, adapter, cache: &mut cache, logits: Logits::None }])?;
        }
        let tokens = &[last, tokens].concat();
        let logits = self.executor.forward(&mut [Row { tokens, adapter, cache: &mut cache, logits: Logits::All }])?;
        Ok(logits.into_iter().next().unwrap_or_default())
    }
}

/// `KL(one || other)` in nats, over the whole vocabulary, mean over the rows.
pub fn kl_per_token(one: &[f32], other: &[f32], vocab_size: usize) -> f64 {
    let rows = one.chunks(vocab_size).zip(other.chunks(vocab_size));
    let of_row = |(one, other): (&[f32], &[f32])| {
        let (one_total, other_total) = (log_sum_exp(one), log_sum_exp(other));
        let terms = one.iter().zip(other).map(|(&one, &other)| {
            let (one, other) = (f64::from(one) - one_total, f64::from(other) - other_total);
            one.exp() * (one - other)
        });
        terms.sum::<f64>()
    };
    rows.map(of_row).sum::<f64>() / (one.len() / vocab_size) as f64
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    f64::from(most) + sum.ln()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use elenchus_candle::CandleExecutor;
    use elenchus_lm::{
        LoraAdapter, Numerics, Weights,
        testing::{TinyModel, write_random_adapter},
    };

    use super::*;

    // import numpy as np; p, q = (np.exp(x) / np.exp(x).sum() for x in (np.array([1, 2, 3.]), np.array([0, 2, 1.])))
    // (p * np.log(p / q)).sum()
    #[test]
    fn divergence_of_two_rows() {
        let (one, other) = ([1.0, 2.0, 3.0], [0.0, 2.0, 1.0]);
        let of = |one: &[f32], other: &[f32]| kl_per_token(one, other, 3);
        assert!((of(&one, &other) - 0.420_512_48).abs() < 1e-6, "{}", of(&one, &other));
        assert_eq!(of(&one, &[4.0, 5.0, 6.0]), 0.0);
        let two = of(&[one, one].concat(), &[other, one].concat());
        assert!((two - 0.420_512_48 / 2.0).abs() < 1e-6, "the mean of the rows");
        assert!(of(&[100.0, 0.0, -1000.0], &[0.0, 100.0, -1000.0]).is_finite());
    }

    /// Whatever prompts share, the logits are those of a whole read.
    #[test]
    fn a_shared_prefix_changes_no_logit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let executor = CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap();
        write_random_adapter(folder.path(), weights.config(), 4, 7);
        let adapter = Adapter::new(std::sync::Arc::new(LoraAdapter::open(folder.path()).unwrap()));
        let prompts: [&[u32]; 3] = [&[40, 41, 42, 43], &[40, 41, 50], &[40, 41, 42]];
        let reply = [60, 61, 62];
        for prompts in [&prompts[..], &prompts[..1], &prompts[2..]] {
            let reader = Reader::new(&executor, Some(adapter.clone()), prompts.iter().copied()).unwrap();
            for prompt in prompts {
                let logits = reader.logits(prompt, &reply).unwrap();
                let (tokens, mut cache) = ([prompt, &reply[..]].concat(), executor.new_cache());
                let row = Row { tokens: &tokens, adapter: Some(&adapter), cache: &mut cache, logits: Logits::All };
                let whole = executor.forward(&mut [row]).unwrap().remove(0);
                let expected = &whole[(prompt.len() - 1) * reader.vocab_size()..];
                assert_eq!(logits.len(), expected.len());
                let distance = logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(distance < 1e-4, "{distance}");
            }
        }
    }
}
