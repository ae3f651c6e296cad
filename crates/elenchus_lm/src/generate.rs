//! The plainest loop: one sequence, until its end.

use crate::{Adapter, Executor, Result, Sampler};

/// Continues `prompt` by up to `max_tokens` tokens; stops before a token for which `is_end` holds.
pub fn generate(
    executor: &dyn Executor,
    prompt: &[u32],
    adapter: Option<&Adapter>,
    sampler: &mut Sampler,
    max_tokens: usize,
    is_end: impl Fn(u32) -> bool,
) -> Result<Vec<u32>> {
    let _ = (executor, prompt, adapter, sampler, max_tokens, is_end(0));
    todo!()
}
