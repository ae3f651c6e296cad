//! The seam between a model's description and the code that runs it.
//!
//! It is this narrow so that hand-written kernels ([`crate::CpuExecutor`]) and stock tensors (`elenchus_candle`) can stand
//! behind it alike.

use crate::{Adapter, Error, KvCache, ModelConfig, Result, kv_cache::PageLayout};

/// Which positions of a row need logits. The head is a fifth of a small model's work: ask for what is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: a prefill chunk with more to come.
    None,
    /// The last position's: what sampling needs.
    Last,
    /// Every position's: scoring and evaluation.
    All,
}

/// One sequence's part in a batch: new tokens, the voice they are read in, and the memory they continue.
pub struct Row<'a> {
    /// The tokens to append to `cache`; at least one.
    pub tokens: &'a [u32],
    /// The adapter worn by this row; rows of one batch may differ.
    pub adapter: Option<&'a Adapter>,
    /// Memory of the tokens before; grows by `tokens.len()`.
    pub cache: &'a mut KvCache,
    /// Which logits to return.
    pub logits: Logits,
}

/// Runs one model on one device.
pub trait Executor: Send + Sync {
    /// The model's description.
    fn config(&self) -> &ModelConfig;

    /// An empty memory in the form this executor reads.
    fn new_cache(&self) -> KvCache;

    /// Bytes one token takes in a cache.
    fn cache_bytes_per_token(&self) -> usize;

    /// Checks that an adapter fits this model and makes it ready, so that the first reply does not pay for it.
    fn prepare(&self, adapter: &Adapter) -> Result<()>;

    /// Appends every row's tokens to its cache and returns each row's logits, `(positions, vocab_size)` row-major:
    /// empty, one position or `tokens.len()` positions by [`Row::logits`]. On an error no cache has changed its length.
    fn forward(&self, batch: &mut [Row<'_>]) -> Result<Vec<Vec<f32>>>;
}

/// What every executor refuses, before anything is changed.
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
