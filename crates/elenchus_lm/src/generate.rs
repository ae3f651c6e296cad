//! The plainest loop: sequences decoded together, each until its end.
//!
//! Conversations are batched, cached and streamed by `elenchus_dialogue`, whose results must agree with this loop.

use crate::{Adapter, Executor, KvCache, Logits, Result, Row, Sampler};

/// Sequences decoded together.
const ROWS: usize = 8;

/// A prompt and how it is continued.
pub struct Continuation<'a> {
    /// The tokens to continue; at least one.
    pub prompt: &'a [u32],
    /// The adapter.
    pub adapter: Option<&'a Adapter>,
    /// Samples each token; the penalties see what was generated, never the prompt.
    pub sampler: Sampler,
    /// Most tokens to generate.
    pub max_tokens: usize,
}

/// Continues `prompt` by up to `max_tokens` tokens; stops before a token for which `is_end` holds.
///
/// # Errors
/// As [`generate_many`].
pub fn generate(
    executor: &dyn Executor,
    prompt: &[u32],
    adapter: Option<&Adapter>,
    sampler: Sampler,
    max_tokens: usize,
    is_end: impl Fn(u32) -> bool,
) -> Result<Vec<u32>> {
    let continuation = Continuation { prompt, adapter, sampler, max_tokens };
    Ok(generate_many(executor, vec![continuation], is_end)?.pop().unwrap_or_default())
}

/// Continues each prompt as [`generate`] does, several at a time; the tokens are those that each would get alone.
///
/// # Errors
/// Those of [`Executor::forward`], and logits of which none is finite.
pub fn generate_many<'a>(
    executor: &dyn Executor,
    continuations: Vec<Continuation<'a>>,
    is_end: impl Fn(u32) -> bool,
) -> Result<Vec<Vec<u32>>> {
    struct Sequence<'a> {
        place: usize,
        of: Continuation<'a>,
        cache: KvCache,
        history: Vec<u32>,
    }

    let mut done = vec![Vec::new(); continuations.len()];
    let mut waiting = continuations.into_iter().enumerate().filter(|(_, of)| of.max_tokens > 0);
    let mut active: Vec<Sequence<'_>> = Vec::new();
    loop {
        let begin = |(place, of): (usize, Continuation<'a>)| {
            let history = of.prompt.to_vec();
            Sequence { place, of, cache: executor.new_cache(), history }
        };
        active.extend(waiting.by_ref().take(ROWS - active.len()).map(begin));
        if active.is_empty() {
            return Ok(done);
        }
        let rows = active.iter_mut().map(|Sequence { of, cache, history, .. }| Row {
            // The whole prompt first, then the one token that was sampled last.
            tokens: &history[cache.len()..],
            adapter: of.adapter,
            cache,
            logits: Logits::Last,
        });
        let logits = executor.forward(&mut rows.collect::<Vec<_>>())?;
        let mut rest = Vec::new();
        for (mut sequence, mut logits) in active.into_iter().zip(logits) {
            let prompt = sequence.of.prompt.len();
            let next = sequence.of.sampler.sample(&mut logits, &sequence.history[prompt..])?;
            let ends = is_end(next);
            if !ends {
                sequence.history.push(next);
            }
            if ends || sequence.history.len() - prompt == sequence.of.max_tokens {
                done[sequence.place] = sequence.history.split_off(prompt);
            } else {
                rest.push(sequence);
            }
        }
        active = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        Architecture, BlockSpec, ModelConfig, NormKind, PageLayout, PagesHeld, Rng, RopeLayout, SamplerSettings, Scales,
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
            let sampler = Sampler { settings, rng: Rng::from_seed(0) };
            let reply = generate(&executor, prompt, None, sampler, max_tokens, |id| id == end).unwrap();
            assert_eq!(reply, expected, "after {prompt:?}");
            assert_eq!(*executor.read.lock().unwrap(), read, "after {prompt:?}");
        };
        check(&[7, 2], 3, 99, &[3, 4, 5], &[&[7, 2], &[3], &[4]]);
        check(&[7, 2], 9, 5, &[3, 4], &[&[7, 2], &[3], &[4]]);
        check(&[4], 9, 5, &[], &[&[4]]);
        check(&[4], 0, 5, &[], &[]);
    }

    #[test]
    fn many_are_continued_as_each_would_be_alone() {
        let executor = counting();
        let settings = SamplerSettings { temperature: 1.5, ..SamplerSettings::SOFTMAX };
        let prompts: Vec<Vec<u32>> = (0..2 * ROWS as u32 + 3).map(|at| vec![at % 7, at % 5]).collect();
        let limit = |at: usize| at % 4 * 3;
        let sampler = |at: usize| Sampler { settings: settings.clone(), rng: Rng::from_seed(at as u64) };
        let continuations = prompts.iter().enumerate().map(|(at, prompt)| Continuation {
            prompt,
            adapter: None,
            sampler: sampler(at),
            max_tokens: limit(at),
        });
        let together = generate_many(&executor, continuations.collect(), |id| id == 9).unwrap();
        for (at, (prompt, together)) in prompts.iter().zip(&together).enumerate() {
            let alone = generate(&executor, prompt, None, sampler(at), limit(at), |id| id == 9).unwrap();
            assert_eq!(*together, alone, "prompt {at}");
        }
        assert!(together.iter().any(|of| of.len() > 2), "{together:?}");
    }
}
