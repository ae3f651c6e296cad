//! Responses by the engine a game runs, all of an iteration in one batch.
//!
//! What all prompts begin with is read once, and each prompt once for its whole group. A response ends at the model's end
//! token or at the cap and nowhere else; it is drawn from the softmax itself, without penalties and without truncation,
//! because a policy's gradient is an expectation under its own distribution.
//!
//! The loop is its own, not `elenchus_lm::generate_many`: it starts from caches, keeps the token that ends a response, and keeps
//! each token's log-probability.

use elenchus_lm::{Adapter, Executor, KvCache, Logits, Rng, Row, sample_softmax};
use rayon::prelude::*;

use crate::{Result, model::shared_prefix::shared_prefix, numeric::mixed};

/// One response as the engine gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// Its tokens, the one that ends it included.
    pub tokens: Vec<u32>,
    /// Whether the last token ends it; a response that was cut off has none that does.
    pub is_ended: bool,
    /// Log-probability of each token in the engine's numerics.
    pub logprobs: Vec<f32>,
}

/// A response in the making.
struct Sequence {
    response: Response,
    cache: KvCache,
    rng: Rng,
}

impl Sequence {
    fn new(cache: KvCache, seed: u64) -> Self {
        let response = Response { tokens: Vec::new(), is_ended: false, logprobs: Vec::new() };
        Self { response, cache, rng: Rng::from_seed(seed) }
    }

    fn is_over(&self, max_tokens: usize) -> bool {
        self.response.is_ended || self.response.tokens.len() >= max_tokens
    }

    fn draw(&mut self, logits: &[f32], is_end: impl Fn(u32) -> bool) -> Result<()> {
        let (token, logprob) = sample_softmax(logits, &mut self.rng)?;
        self.response.tokens.push(token);
        self.response.logprobs.push(logprob);
        self.response.is_ended = is_end(token);
        Ok(())
    }
}

/// How responses are sampled.
#[derive(Clone, Copy)]
pub struct Sampling<'a> {
    /// The engine.
    pub executor: &'a dyn Executor,
    /// The policy.
    pub adapter: Option<&'a Adapter>,
    /// Most tokens of a response.
    pub max_tokens: usize,
    /// Seed and place determine a response, whatever else is in the batch.
    pub seed: u64,
    /// Whether a token ends a response.
    pub is_end: &'a (dyn Fn(u32) -> bool + Sync),
}

/// `group` responses to each prompt, those of a prompt beside each other.
///
/// # Errors
/// An empty prompt, or one that leaves no room for `max_tokens` in the model's context.
pub fn respond(sampling: Sampling<'_>, prompts: &[&[u32]], group: usize) -> Result<Vec<Response>> {
    let Sampling { executor, adapter, seed, is_end, .. } = sampling;
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    let (beginning, shared) = shared_prefix(executor, adapter, prompts.iter().copied())?;
    let mut caches = vec![beginning; prompts.len()];
    let rows = caches.iter_mut().zip(prompts).map(|(cache, prompt)| Row {
        tokens: &prompt[shared..],
        adapter,
        cache,
        logits: Logits::Last,
    });
    let logits = executor.forward(&mut rows.collect::<Vec<_>>())?;

    let begun = caches.into_iter().flat_map(|cache| std::iter::repeat_n(cache, group));
    let mut sequences: Vec<Sequence> =
        begun.enumerate().map(|(place, cache)| Sequence::new(cache, mixed(seed, place as u64))).collect();
    sequences.iter_mut().enumerate().try_for_each(|(place, of)| of.draw(&logits[place / group], is_end))?;
    finish(sampling, sequences)
}

/// `count` responses after what `cache` holds and `last`, the one token it does not.
pub(super) fn resume(sampling: Sampling<'_>, mut cache: KvCache, last: u32, count: usize) -> Result<Vec<Response>> {
    let Sampling { executor, adapter, seed, is_end, .. } = sampling;
    let logits = executor.forward(&mut [Row { tokens: &[last], adapter, cache: &mut cache, logits: Logits::Last }])?;
    let begun = std::iter::repeat_n(cache, count).enumerate();
    let mut sequences: Vec<Sequence> =
        begun.map(|(place, cache)| Sequence::new(cache, mixed(seed, place as u64))).collect();
    sequences.iter_mut().try_for_each(|of| of.draw(&logits[0], is_end))?;
    finish(sampling, sequences)
}

/// Token by token to the end of all.
fn finish(sampling: Sampling<'_>, mut sequences: Vec<Sequence>) -> Result<Vec<Response>> {
    let Sampling { executor, adapter, max_tokens, is_end, .. } = sampling;
    loop {
        let mut active: Vec<&mut Sequence> = sequences.iter_mut().filter(|of| !of.is_over(max_tokens)).collect();
        if active.is_empty() {
            break;
        }
        let rows = active.iter_mut().map(|of| Row {
            tokens: &of.response.tokens[of.response.tokens.len() - 1..],
            adapter,
            cache: &mut of.cache,
            logits: Logits::Last,
        });
        let logits = executor.forward(&mut rows.collect::<Vec<_>>())?;
        active.par_iter_mut().zip(&logits).try_for_each(|(of, logits)| of.draw(logits, is_end))?;
    }
    Ok(sequences.into_iter().map(|of| of.response).collect())
}

#[cfg(test)]
mod tests {
    use elenchus_lm::{CpuExecutor, CpuSettings, Sampler, SamplerSettings, Weights, generate, testing::TinyModel};

    use super::*;

    fn tiny() -> CpuExecutor {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        CpuExecutor::new(&Weights::open(&path, &mut |_| {}).unwrap(), CpuSettings::default()).unwrap()
    }

    /// Alone and token by token, with the sampler of the game.
    #[test]
    fn each_response_is_what_it_would_be_alone() {
        let executor = tiny();
        let prompts: [&[u32]; 3] = [&[40, 41, 42, 43], &[40, 41, 50], &[40, 41, 42, 60, 61, 62]];
        let is_end = |id: u32| id.is_multiple_of(7);
        let sampling =
            |max_tokens| Sampling { executor: &executor, adapter: None, max_tokens, seed: 5, is_end: &is_end };
        let responses = respond(sampling(12), &prompts, 2).unwrap();
        assert_eq!(responses.len(), 6);
        let settings = SamplerSettings::SOFTMAX;
        for (place, response) in responses.iter().enumerate() {
            let mut sampler = Sampler { settings: settings.clone(), rng: Rng::from_seed(mixed(5, place as u64)) };
            let alone = generate(&executor, prompts[place / 2], None, &mut sampler, 12, is_end).unwrap();
            let (words, end) = response.tokens.split_at(alone.len());
            assert_eq!((words, end.len()), (&alone[..], usize::from(response.is_ended)), "response {place}");
            assert_eq!(response.logprobs.len(), response.tokens.len());
            assert!(end.iter().all(|&id| is_end(id)) && response.logprobs.iter().all(|logprob| *logprob <= 0.0));
        }
        assert_ne!(responses[0].tokens, responses[1].tokens, "a group's responses are drawn apart");
        assert_eq!(respond(sampling(12), &prompts[..1], 2).unwrap(), responses[..2]);
        assert!(responses.iter().any(|response| response.is_ended), "{responses:?}");
        assert!(respond(sampling(4), &[&[], &[40]], 1).is_err());
        assert_eq!(respond(sampling(4), &[], 1).unwrap(), []);
    }
}
