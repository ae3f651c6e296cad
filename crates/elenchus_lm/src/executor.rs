//! The interface between a model's description and the code that runs it.
//!
//! It is narrow so that hand-written kernels ([`crate::CpuExecutor`]) and stock tensors (`elenchus_candle`) can both
//! implement it.

use crate::{Adapter, Error, KvCache, ModelConfig, Result, kv_cache::PageLayout};

/// Which positions of a row need logits. The head is a fifth of a small model's work: request only what is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: a prefill chunk with more to come.
    None,
    /// The last position's, for sampling.
    Last,
    /// Every position's, for scoring and evaluation.
    All,
}

/// One sequence's part of a batch: new tokens, the adapter, and the cache they continue.
pub struct Row<'a> {
    /// The tokens to append to `cache`; at least one.
    pub tokens: &'a [u32],
    /// The row's adapter; rows of one batch may differ.
    pub adapter: Option<&'a Adapter>,
    /// The cache of the tokens before; grows by `tokens.len()`.
    pub cache: &'a mut KvCache,
    /// Which logits to return.
    pub logits: Logits,
}

/// Runs one model on one device.
pub trait Executor: Send + Sync {
    /// The model's description.
    fn config(&self) -> &ModelConfig;

    /// An empty cache in this executor's form.
    fn new_cache(&self) -> KvCache;

    /// Bytes one token takes in a cache.
    fn cache_bytes_per_token(&self) -> usize;

    /// Checks that an adapter fits this model and prepares it, so that the first reply does not wait for it.
    fn prepare(&self, adapter: &Adapter) -> Result<()>;

    /// Appends every row's tokens to its cache and returns each row's logits, `(positions, vocab_size)` row-major:
    /// empty, one position or `tokens.len()` positions by [`Row::logits`]. On an error no cache has changed its length.
    fn forward(&self, batch: &mut [Row<'_>]) -> Result<Vec<Vec<f32>>>;

    /// The same, given up in the middle once `is_unwanted` holds: then `None`, and no cache has changed its length. An
    /// executor that cannot stop runs to the end.
    fn forward_unless(
        &self,
        batch: &mut [Row<'_>],
        is_unwanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Vec<Vec<f32>>>> {
        let _ = is_unwanted;
        self.forward(batch).map(Some)
    }
}

/// The checks of every executor, before anything is changed.
///
/// # Errors
/// A row without tokens, a token outside the vocabulary, more tokens than the model has positions, another executor's cache.
pub fn check_batch(batch: &[Row<'_>], config: &ModelConfig, layout: &PageLayout) -> Result<()> {
    let fail = |reason: String| Err(Error::Batch(reason));
    for (number, row) in batch.iter().enumerate() {
        let (tokens, past) = (row.tokens.len(), row.cache.len());
        if tokens == 0 {
            return fail(format!("row {number} has no tokens"));
        }
        if let Some(id) = row.tokens.iter().find(|&&id| id as usize >= config.vocab_size) {
            return fail(format!("row {number}: token {id} is outside the vocabulary of {}", config.vocab_size));
        }
        if past + tokens > config.max_positions {
            let limit = config.max_positions;
            return fail(format!("row {number}: {past} + {tokens} tokens are more than the model's {limit}"));
        }
        if row.cache.layout() != layout {
            return fail(format!("row {number}: its cache was made by another executor"));
        }
    }
    Ok(())
}
