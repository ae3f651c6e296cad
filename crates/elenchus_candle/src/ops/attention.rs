//! Attention of new tokens over a sequence's pages, with grouped heads and an optional sliding window.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{dot, exp, host, soft_cap, soft_capped};
use crate::cache::{self, HostPage};
use elenchus_lm::{BlockSpec, KvCache, ModelConfig, PAGE_TOKENS, window_start};

/// One sequence's part of a batch: its cache (new keys and values already written) and its new rows.
pub(crate) struct Sequence<'a> {
    pub cache: &'a KvCache,
    pub tokens: usize,
}

struct CachedAttention<'a> {
    config: &'a ModelConfig,
    layer: usize,
    sequences: &'a [Sequence<'a>],
}

/// Attends with `q` `(rows, num_heads * head_dim)`, rows sequence by sequence; each new token sees its own past and itself.
/// Returns `(rows, num_heads * head_dim)`.
pub(crate) fn cached_attention(
    q: &Tensor,
    config: &ModelConfig,
    layer: usize,
    sequences: &[Sequence<'_>],
) -> Result<Tensor> {
    if q.device().is_cpu() && sequences.iter().all(|sequence| !cache::is_on_device(sequence.cache)) {
        q.apply_op1_no_bwd(&CachedAttention { config, layer, sequences })
    } else {
        composed(q, config, layer, sequences)
    }
}

fn composed(q: &Tensor, config: &ModelConfig, layer: usize, sequences: &[Sequence<'_>]) -> Result<Tensor> {
    let ModelConfig { num_heads, num_kv_heads, head_dim, .. } = *config;
    let mut outputs = Vec::new();
    let mut row = 0;
    for Sequence { cache, tokens } in sequences {
        let (past, total) = (cache.len(), cache.len() + tokens);
        let (k, v) = cache::read_device(cache, layer, total)?;
        // (num_heads, total, head_dim): each kv head serves a group of query heads.
        let grouped = |x: Tensor| {
            let x = x.reshape((total, num_kv_heads, 1, head_dim))?;
            let x = x.broadcast_as((total, num_kv_heads, num_heads / num_kv_heads, head_dim))?;
            x.reshape((total, num_heads, head_dim))?.transpose(0, 1)?.contiguous()
        };
        let (k, v) = (grouped(k)?, grouped(v)?);
        let q = q.narrow(0, row, *tokens)?.reshape((*tokens, num_heads, head_dim))?.transpose(0, 1)?.contiguous()?;
        let scale = f64::from(config.attention_scale());
        let scores = (q.matmul(&k.t()?.contiguous()?)? * scale)?; // (heads, tokens, total)
        let scores = soft_cap(scores, config.layers[layer].attention_cap)?;
        let seen = |token: usize, key: usize| {
            key <= past + token && key >= window_start(config.layers[layer].sliding_window, past + token)
        };
        let mask = (0..*tokens)
            .flat_map(|token| (0..total).map(move |key| if seen(token, key) { 0.0 } else { f32::NEG_INFINITY }));
        let mask = Tensor::from_vec(mask.collect::<Vec<f32>>(), (1, *tokens, total), q.device())?;
        let scores = scores.broadcast_add(&mask)?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(2)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(2)?)?;
        outputs.push(weights.matmul(&v)?.transpose(0, 1)?.reshape((*tokens, num_heads * head_dim))?);
        row += tokens;
    }
    Tensor::cat(&outputs, 0)
}

impl CustomOp1 for CachedAttention<'_> {
    fn name(&self) -> &'static str {
        "cached-attention"
    }

    fn cpu_fwd(&self, q: &CpuStorage, q_l: &Layout) -> Result<(CpuStorage, Shape)> {
        let q = host(q, q_l)?;
        let width = self.config.q_dim();
        let mut y = vec![0f32; q.len()];
        // One task for each token: its sequence and its position there.
        let rows: Vec<(&KvCache, usize)> = self
            .sequences
            .iter()
            .flat_map(|sequence| (0..sequence.tokens).map(|token| (sequence.cache, sequence.cache.len() + token)))
            .collect();
        let keys: usize = rows.iter().map(|(_, position)| position + 1).sum();
        let attend = |((y, q), (cache, position)): ((&mut [f32], &[f32]), &(&KvCache, usize))| {
            let mut weights = Vec::new();
            let pages: Vec<&HostPage> = (0..=position / PAGE_TOKENS).map(|page| cache.page(page)).collect();
            vectorised!(attend_token(self.config, self.layer, &pages, *position, q, y, &mut weights));
        };
        // Below this, waking the pool costs more than the work.
        if keys * width < 1 << 16 {
            y.chunks_exact_mut(width).zip(q.chunks_exact(width)).zip(&rows).for_each(attend);
        } else {
            y.par_chunks_exact_mut(width).zip(q.par_chunks_exact(width)).zip(&rows).for_each(attend);
        }
        Ok((CpuStorage::F32(y), q_l.shape().clone()))
    }
}

/// All heads of one token at `position`, over the pages of one layer.
#[inline(always)]
fn attend_token(
    config: &ModelConfig,
    layer: usize,
    pages: &[&HostPage],
    position: usize,
    q: &[f32],
    y: &mut [f32],
    weights: &mut Vec<f32>,
) {
    let (head_dim, kv_dim) = (config.head_dim, config.kv_dim());
    let group = config.num_heads / config.num_kv_heads;
    let BlockSpec { sliding_window, attention_cap, .. } = config.layers[layer];
    let seen = window_start(sliding_window, position)..position + 1;
    for (head, (q, y)) in q.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim)).enumerate() {
        let column = head / group * head_dim;
        let at = |position: usize| position % PAGE_TOKENS * kv_dim + column;
        let page = |position: usize| pages[position / PAGE_TOKENS].layer(layer, kv_dim);
        let k = |position: usize| &page(position).0[at(position)..at(position) + head_dim];
        let v = |position: usize| &page(position).1[at(position)..at(position) + head_dim];
        weights.clear();
        weights.extend(seen.clone().map(|position| dot(q, k(position)) * config.attention_scale()));
        if let Some(cap) = attention_cap {
            weights.iter_mut().for_each(|score| *score = soft_capped(*score, cap));
        }
        softmax(weights);
        weigh(seen.clone(), v, weights, y);
    }
}

/// In place.
#[inline(always)]
fn softmax(weights: &mut [f32]) {
    let largest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for weight in weights.iter_mut() {
        *weight = exp(*weight - largest);
    }
    let normalise = 1.0 / weights.iter().sum::<f32>();
    for weight in weights.iter_mut() {
        *weight *= normalise;
    }
}

/// The weighted sum of the seen positions' values.
#[inline(always)]
pub(super) fn weigh<'a>(seen: Range<usize>, v: impl Fn(usize) -> &'a [f32], weights: &[f32], y: &mut [f32]) {
    y.fill(0.0);
    for (position, weight) in seen.zip(weights) {
        add_scaled(y, *weight, v(position));
    }
}

/// `y += scale * x`.
#[inline(always)]
pub(super) fn add_scaled(y: &mut [f32], scale: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use elenchus_lm::PagesHeld;

    use crate::cache;

    /// A host and a device cache with the same `past` tokens, and `tokens` new ones after them.
    fn caches(config: &ModelConfig, seed: u64, past: usize, tokens: usize) -> (KvCache, KvCache) {
        let (host, device) = cache::both_layouts(config);
        let (mut host, mut device) =
            (KvCache::new(host, &PagesHeld::default()), KvCache::new(device, &PagesHeld::default()));
        for (step, count) in [(0, past), (1, tokens)] {
            let (k, v) =
                (random(seed + step, &[count, config.kv_dim()]), random(seed + step + 7, &[count, config.kv_dim()]));
            for cache in [&mut host, &mut device] {
                cache::reserve(cache, count, &candle_core::Device::Cpu).unwrap();
            }
            if count > 0 {
                cache::write(&mut host, 1, &k, &v).unwrap();
                cache::write(&mut device, 1, &k, &v).unwrap();
            }
            if step == 0 {
                host.advance(count);
                device.advance(count);
            }
        }
        (host, device)
    }

    #[test]
    fn fused_equals_composed_over_ragged_lengths() {
        for (sliding_window, cap) in [(None, None), (Some(5), None), (Some(40), None), (Some(40), Some(1.5))] {
            let config = windowed(sliding_window, cap);
            let lengths = [(0, 1), (0, 3), (31, 1), (31, 2), (32, 33), (70, 1), (5, 40)];
            let (host, device): (Vec<_>, Vec<_>) =
                lengths.iter().zip(20..).map(|(&(past, tokens), seed)| caches(&config, seed, past, tokens)).unzip();
            let rows: usize = lengths.iter().map(|(_, tokens)| tokens).sum();
            let q = random(5, &[rows, config.q_dim()]);
            let sequences = |caches: &'static [KvCache]| -> Vec<Sequence<'static>> {
                caches.iter().zip(lengths).map(|(cache, (_, tokens))| Sequence { cache, tokens }).collect()
            };
            let fused = cached_attention(&q, &config, 1, &sequences(host.leak())).unwrap();
            let expected = cached_attention(&q, &config, 1, &sequences(device.leak())).unwrap();
            assert!(distance(&fused, &expected) < 2e-6, "window {sliding_window:?}, cap {cap:?}");
        }
    }
}
