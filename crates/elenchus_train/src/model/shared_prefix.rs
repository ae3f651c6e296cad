//! What all of some prompts begin with, a character's persona above all: read once.

use elenchus_lm::{Adapter, Executor, KvCache, Logits, Row};

use crate::Result;

/// A memory of the tokens that all prompts begin with, and how many they are. The last token of each prompt is left to be
/// read for itself: its logits are wanted.
pub(crate) fn shared_prefix<'p>(
    executor: &dyn Executor,
    adapter: Option<&Adapter>,
    mut prompts: impl Iterator<Item = &'p [u32]>,
) -> Result<(KvCache, usize)> {
    let first = prompts.next().unwrap_or_default();
    let shared = prompts.fold(first.len().saturating_sub(1), |shared, prompt| {
        let most = shared.min(prompt.len().saturating_sub(1));
        first[..most].iter().zip(prompt).take_while(|(one, other)| one == other).count()
    });
    let mut cache = executor.new_cache();
    if shared > 0 {
        let tokens = &first[..shared];
        executor.forward(&mut [Row { tokens, adapter, cache: &mut cache, logits: Logits::None }])?;
    }
    Ok((cache, shared))
}
