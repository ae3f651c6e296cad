//! The plainest loop: sequences decoded together, each until its end.
//!
//! Conversations are batched, cached and streamed by `elenchus_dialogue`, whose results must agree with this loop.

use crate::{Adapter, Executor, KvCache, Logits, Result, Row, Sampler};

/// Sequences decoded together.
const ROWS: usize = 8;

/// A sequence to continue.
pub struct Continued<'a> {
    /// What it begins with.
    pub prompt: &'a [u32],
    /// Holds a beginning of `prompt` that was read before, or nothing.
    pub cache: KvCache,
    /// Whose words it continues in; the base's without.
    pub adapter: Option<&'a Adapter>,
    /// Samples its tokens, and no other sequence's.
    pub sampler: &'a mut Sampler,
    /// Tokens at most.
    pub max_tokens: usize,
}

/// Continues `prompt` by up to `max_tokens` tokens; stops before a token for which `is_end` holds.
pub fn generate(
    executor: &dyn Executor,
    prompt: &[u32],
    adapter: Option<&Adapter>,
    sampler: &mut Sampler,
    max_tokens: usize,
    is_end: impl Fn(u32) -> bool,
) -> Result<Vec<u32>> {
    let cache = executor.new_cache();
    let one = Continued { prompt, cache, adapter, sampler, max_tokens };
    Ok(generate_many(executor, vec![one], is_end)?.concat())
}

/// The same for many sequences, in batches; each is what it would be alone, as far as a row's logits do not depend on its
/// batch.
pub fn generate_many(
    executor: &dyn Executor,
    sequences: Vec<Continued<'_>>,
    is_end: impl Fn(u32) -> bool,
) -> Result<Vec<Vec<u32>>> {
    let mut generated = vec![Vec::new(); sequences.len()];
    let mut waiting = sequences.into_iter().enumerate().filter(|(_, of)| of.max_tokens > 0);
    // Each with its place, and with its prompt and what follows it so far.
    let mut active: Vec<(usize, Vec<u32>, Continued<'_>)> = Vec::new();
    loop {
        // One more at a time, so that a step reads one whole prompt at most.
        if active.len() < ROWS {
            active.extend(waiting.next().map(|(place, of)| (place, of.prompt.to_vec(), of)));
        }
        if active.is_empty() {
            return Ok(generated);
        }
        let mut rows = Vec::with_capacity(active.len());
        for (_, history, of) in &mut active {
            // The whole prompt first, then the one token that was sampled last.
            let tokens = &history[of.cache.len()..];
            rows.push(Row { tokens, adapter: of.adapter, cache: &mut of.cache, logits: Logits::Last });
        }
        let logits = executor.forward(&mut rows)?;
        let mut still_active = Vec::with_capacity(active.len());
        for ((place, mut history, of), mut logits) in active.into_iter().zip(logits) {
            let begin = of.prompt.len();
            let next = of.sampler.sample(&mut logits, &history[begin..])?;
            let is_over = is_end(next);
            if !is_over {
                history.push(next);
            }
            if is_over || history.len() == begin + of.max_tokens {
                generated[place] = history.split_off(begin);
            } else {
                still_active.push((place, history, of));
            }
        }
        active = still_active;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{
        Architecture, BlockSpec, CpuExecutor, CpuSettings, LoraAdapter, ModelConfig, NormKind, PageLayout, PagesHeld,
        Rng, RopeLayout, SamplerSettings, Scales, Weights, testing::TinyModel,
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
            let layout = PageLayout { form: "none", layers: 1, kv_heads: 1, head_dim: 1, page_bytes: 0 };
            KvCache::new(layout, &PagesHeld::default())
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

    /// Prompts of other lengths, other adapters, samplers and limits in one batch, and more of them than rows.
    #[test]
    fn each_of_many_is_what_it_would_be_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        TinyModel::default().write_adapter(&folder.path().join("voice"), 1);
        let executor = CpuExecutor::new(&Weights::open(&path, &mut |_| {}).unwrap(), CpuSettings::default()).unwrap();
        let voice = Adapter::new(Arc::new(LoraAdapter::open(&folder.path().join("voice")).unwrap()));
        let is_end = |id: u32| id.is_multiple_of(11);
        let count = 2 * ROWS + 3;
        let prompts: Vec<Vec<u32>> = (0..count as u32).map(|at| (40..45 + at % 7).collect()).collect();
        let sampler = |at: usize| Sampler {
            settings: SamplerSettings { temperature: 0.3 * (at % 4) as f32, ..SamplerSettings::default() },
            rng: Rng::from_seed(at as u64),
        };
        let adapter = |at: usize| at.is_multiple_of(3).then_some(&voice);
        let mut read = executor.new_cache();
        let first = &mut [Row { tokens: &[40, 41, 42], adapter: None, cache: &mut read, logits: Logits::None }];
        executor.forward(first).unwrap();
        let mut samplers: Vec<Sampler> = (0..count).map(sampler).collect();
        let sequences = (prompts.iter().zip(&mut samplers).enumerate()).map(|(at, (prompt, sampler))| Continued {
            prompt,
            // What a bare base has read before changes nothing.
            cache: if at % 3 == 1 { read.clone() } else { executor.new_cache() },
            adapter: adapter(at),
            sampler,
            max_tokens: at % 13,
        });
        let together = generate_many(&executor, sequences.collect(), is_end).unwrap();
        for (at, together) in together.iter().enumerate() {
            let alone = generate(&executor, &prompts[at], adapter(at), &mut sampler(at), at % 13, is_end).unwrap();
            assert_eq!(*together, alone, "sequence {at}");
        }
        let lengths: Vec<usize> = together.iter().map(Vec::len).collect();
        let is_whole = |at: usize| lengths[at] == at % 13;
        assert!((4..count).any(is_whole), "none reaches its limit: {lengths:?}");
        assert!(!(4..count).all(is_whole), "none ends by itself: {lengths:?}");
    }
}
