//! The plainest loop: one sequence, until its end.
//!
//! Conversations are batched, cached and streamed by `elenchus_dialogue`, whose results must agree with this loop.

use crate::{Adapter, Executor, Logits, Result, Row, Sampler};

/// Continues `prompt` by up to `max_tokens` tokens; stops before a token for which `is_end` holds.
pub fn generate(
    executor: &dyn Executor,
    prompt: &[u32],
    adapter: Option<&Adapter>,
    sampler: &mut Sampler,
    max_tokens: usize,
    is_end: impl Fn(u32) -> bool,
) -> Result<Vec<u32>> {
    let mut cache = executor.new_cache();
    let mut history = prompt.to_vec();
    while history.len() < prompt.len() + max_tokens {
        // The whole prompt first, then the one token that was sampled last.
        let tokens = &history[cache.len()..];
        let mut logits = executor.forward(&mut [Row { tokens, adapter, cache: &mut cache, logits: Logits::Last }])?;
        let next = sampler.sample(&mut logits[0], &history[prompt.len()..])?;
        if is_end(next) {
            break;
        }
        history.push(next);
    }
    Ok(history.split_off(prompt.len()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        Architecture, BlockSpec, KvCache, ModelConfig, NormKind, PageLayout, Rng, RopeLayout, SamplerSettings, Scales,
    };

    /// A model of ten words that counts: after 3 comes 4. Records the tokens it reads.
    struct Counting {
        config: ModelConfig,
        read: Mutex<Vec<Vec<u32>>>,
    }

    fn counting() -> Counting {
        let config = ModelConfig {
            architecture: Architecture::llama(),
            vocab_size: 10,
            hidden_size: 1,
            intermediate_size: 1,
            layers: vec![BlockSpec::default()],
            num_heads: 1,
            num_kv_heads: 1,
            head_dim: 1,
            rotary_dim: 1,
            norm: NormKind::RmsNorm,
            norm_eps: 1e-5,
            rope_layout: RopeLayout::Halves,
            rope_factors: Vec::new(),
            rope_magnitude: 1.0,
            scales: Scales::default(),
            logit_cap: None,
            has_position_embedding: false,
            max_positions: 64,
        };
        Counting { config, read: Mutex::default() }
    }

    impl Executor for Counting {
        fn config(&self) -> &ModelConfig {
            &self.config
        }

        fn new_cache(&self) -> KvCache {
            KvCache::new(PageLayout { form: "none", layers: 1, kv_heads: 1, head_dim: 1, page_bytes: 0 })
        }

        fn cache_bytes_per_token(&self) -> usize {
            8
        }

        fn prepare(&self, _: &Adapter) -> Result<()> {
            Ok(())
        }

        fn forward(&self, batch: &mut [Row<'_>]) -> Result<Vec<Vec<f32>>> {
            let answer = |row: &mut Row<'_>| {
                self.read.lock().unwrap().push(row.tokens.to_vec());
                row.cache.advance(row.tokens.len());
                let next = (row.tokens[row.tokens.len() - 1] + 1) % 10;
                Ok((0..10).map(|id| if id == next { 1.0 } else { 0.0 }).collect())
            };
            batch.iter_mut().map(answer).collect()
        }
    }

    #[test]
    fn reads_the_prompt_once_then_token_by_token_up_to_the_end_or_the_limit() {
        let check = |prompt: &[u32], max_tokens: usize, end: u32, expected: &[u32], read: &[&[u32]]| {
            let executor = counting();
            let settings = SamplerSettings { temperature: 0.0, repetition_penalty: 1.0, ..SamplerSettings::default() };
            let mut sampler = Sampler { settings, rng: Rng::from_seed(0) };
            let reply = generate(&executor, prompt, None, &mut sampler, max_tokens, |id| id == end).unwrap();
            assert_eq!(reply, expected, "after {prompt:?}");
            assert_eq!(*executor.read.lock().unwrap(), read, "after {prompt:?}");
        };
        check(&[7, 2], 3, 99, &[3, 4, 5], &[&[7, 2], &[3], &[4]]);
        check(&[7, 2], 9, 5, &[3, 4], &[&[7, 2], &[3], &[4]]);
        check(&[4], 9, 5, &[], &[&[4]]);
        check(&[4], 0, 5, &[], &[]);
    }
}
