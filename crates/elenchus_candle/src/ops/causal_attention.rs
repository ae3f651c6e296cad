//! Attention of whole sequences over themselves and their shared prefixes, with a gradient, for training.
//!
//! Sequences are cut into segments, each after the one that it continues, and see nothing else. The backward pass
//! recomputes the weights, so nothing of size tokens x tokens outlives one head of one segment.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    exp, host, largest, soft_cap, soft_cap_slope, soft_capped, sum_lanes,
    tile::{Panels, ROWS, product},
};
use crate::Segment;
use elenchus_lm::{BlockSpec, ModelConfig, window_start};

/// Which rows see which, and in how many heads.
#[derive(Clone)]
pub(crate) struct CausalAttention {
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    /// Of the products of queries and keys.
    scale: f32,
    sliding_window: Option<usize>,
    /// Of the scaled products.
    cap: Option<f32>,
    spans: Vec<Span>,
}

/// A segment's own rows, and those of the segments before it, from the first on.
#[derive(Clone)]
struct Span {
    before: Vec<Range<usize>>,
    /// How many rows are before it.
    prefix: usize,
    rows: Range<usize>,
}

/// `q` `(rows, num_heads * head_dim)`, `k` and `v` `(rows, num_kv_heads * head_dim)` to `(rows, num_heads * head_dim)`.
pub(super) fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor, op: &CausalAttention) -> Result<Tensor> {
    op.check(q.dim(0)?)?;
    if q.device().is_cpu() { q.apply_op3(k, v, op.clone()) } else { composed(q, k, v, op) }
}

fn composed(q: &Tensor, k: &Tensor, v: &Tensor, op: &CausalAttention) -> Result<Tensor> {
    let CausalAttention { num_heads, num_kv_heads, head_dim, .. } = *op;
    let outputs = op.spans.iter().map(|span| {
        let (length, keys) = (span.rows.len(), span.keys());
        // Each kv head serves a group of query heads: (num_heads, keys, head_dim).
        let grouped = |x: &Tensor| {
            let parts = span.before.iter().chain([&span.rows]).map(|rows| x.narrow(0, rows.start, rows.len()));
            let x = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?;
            let x = x.reshape((keys, num_kv_heads, 1, head_dim))?;
            let x = x.broadcast_as((keys, num_kv_heads, num_heads / num_kv_heads, head_dim))?;
            x.reshape((keys, num_heads, head_dim))?.transpose(0, 1)?.contiguous()
        };
        let (k, v) = (grouped(k)?, grouped(v)?);
        let q = q.narrow(0, span.rows.start, length)?.reshape((length, num_heads, head_dim))?;
        let q = q.transpose(0, 1)?.contiguous()?;
        let scores = soft_cap((q.matmul(&k.t()?.contiguous()?)? * f64::from(op.scale))?, op.cap)?;
        let seen = |row: usize, key: usize| op.seen(span, row).contains(&key);
        let mask = (0..length).flat_map(|row| (0..keys).map(move |key| if seen(row, key) { 0.0 } else { f32::MIN }));
        let scores = scores.broadcast_add(&Tensor::from_iter(mask, q.device())?.reshape((1, length, keys))?)?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(2)?.detach())?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(2)?)?;
        weights.matmul(&v)?.transpose(0, 1)?.reshape((length, num_heads * head_dim))
    });
    Tensor::cat(&outputs.collect::<Result<Vec<_>>>()?, 0)
}

impl Span {
    /// Positions that its last row sees, without a window.
    fn keys(&self) -> usize {
        self.prefix + self.rows.len()
    }

    /// One head's numbers of everything it sees, row by row; `x` is `width` wide.
    fn all<'a>(&self, x: &'a [f32], width: usize, column: Range<usize>) -> Vec<&'a [f32]> {
        self.rows_seen().map(|row| &x[row * width..][column.clone()]).collect()
    }

    /// Every row that its last row sees, without a window.
    fn rows_seen(&self) -> impl Iterator<Item = usize> {
        self.before.iter().chain([&self.rows]).flat_map(Clone::clone)
    }

    /// The same for its own rows only.
    fn own<'a>(&self, x: &'a [f32], width: usize, column: Range<usize>) -> Vec<&'a [f32]> {
        self.rows.clone().map(|row| &x[row * width..][column.clone()]).collect()
    }
}

impl CausalAttention {
    /// For concatenated segments; each names an earlier one that it continues, if any.
    pub fn new(config: &ModelConfig, segments: &[Segment]) -> Self {
        let mut spans: Vec<Span> = Vec::with_capacity(segments.len());
        let mut end = 0;
        for &Segment { behind, length } in segments {
            let (before, prefix) = match behind.map(|parent| &spans[parent]) {
                Some(parent) => (parent.before.iter().cloned().chain([parent.rows.clone()]).collect(), parent.keys()),
                None => (Vec::new(), 0),
            };
            spans.push(Span { before, prefix, rows: end..end + length });
            end += length;
        }
        Self {
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            scale: config.attention_scale(),
            sliding_window: None,
            cap: None,
            spans: spans.into_iter().filter(|span| !span.rows.is_empty()).collect(),
        }
    }

    /// The same for a layer: its sliding window and its cap.
    pub fn of_layer(self, layer: &BlockSpec) -> Self {
        Self { sliding_window: layer.sliding_window, cap: layer.attention_cap, ..self }
    }

    fn check(&self, rows: usize) -> Result<()> {
        let end = self.spans.last().map_or(0, |span| span.rows.end);
        if end != rows {
            bail!("causal attention: segments sum to {end}, but there are {rows} rows")
        }
        Ok(())
    }

    /// [`causal_attention`] of rows in memory.
    pub fn attend(&self, q: &[f32], k: &[f32], v: &[f32]) -> Result<Vec<f32>> {
        self.check(q.len() / self.q_width())?;
        let tasks = self.tasks();
        let run =
            |&(span, kv_head): &(&Span, usize)| Arch::new().dispatch(HeadForward { op: self, span, kv_head, q, k, v });
        let parts: Vec<Vec<f32>> = tasks.par_iter().map(run).collect();
        let mut y = vec![0f32; q.len()];
        for ((span, kv_head), part) in tasks.into_iter().zip(&parts) {
            let heads = part.chunks_exact(span.rows.len() * self.head_dim);
            for (head, part) in self.group(kv_head).zip(heads) {
                add(part, &mut y, span.rows.clone(), self.q_width(), self.column(head));
            }
        }
        Ok(y)
    }

    /// Its gradients for `q`, `k` and `v`, concatenated.
    pub fn gradients(&self, q: &[f32], k: &[f32], v: &[f32], grad: &[f32]) -> Vec<f32> {
        let tasks = self.tasks();
        let run = |&(span, kv_head): &(&Span, usize)| {
            let forward = HeadForward { op: self, span, kv_head, q, k, v };
            Arch::new().dispatch(HeadBackward { forward, grad })
        };
        let parts: Vec<Gradients> = tasks.par_iter().map(run).collect();
        let mut all = vec![0f32; q.len() + k.len() + v.len()];
        let (d_q, rest) = all.split_at_mut(q.len());
        let (d_k, d_v) = rest.split_at_mut(k.len());
        // Span by span, so that shared rows sum their gradients in the same order every time.
        for ((span, kv_head), part) in tasks.into_iter().zip(&parts) {
            let heads = part.q.chunks_exact(span.rows.len() * self.head_dim);
            for (head, part) in self.group(kv_head).zip(heads) {
                add(part, d_q, span.rows.clone(), self.q_width(), self.column(head));
            }
            add(&part.k, d_k, span.rows_seen(), self.kv_width(), self.column(kv_head));
            add(&part.v, d_v, span.rows_seen(), self.kv_width(), self.column(kv_head));
        }
        all
    }

    /// The positions that a span's row sees, counted from its own.
    #[inline(always)]
    fn seen(&self, span: &Span, row: usize) -> Range<usize> {
        let position = span.prefix + row;
        window_start(self.sliding_window, position)..position + 1
    }

    fn column(&self, head: usize) -> Range<usize> {
        head * self.head_dim..(head + 1) * self.head_dim
    }

    fn q_width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    fn kv_width(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// The query heads that a kv head serves.
    fn group(&self, kv_head: usize) -> Range<usize> {
        let group = self.num_heads / self.num_kv_heads;
        kv_head * group..(kv_head + 1) * group
    }

    /// Every kv head of every span is a separate task.
    fn tasks(&self) -> Vec<(&Span, usize)> {
        self.spans.iter().flat_map(|span| (0..self.num_kv_heads).map(move |kv_head| (span, kv_head))).collect()
    }

    /// Attention weights of [`ROWS`] rows from `row` on, and the end of what the last of them sees; zeros elsewhere.
    /// `q` has the head's rows. Where scores are capped, `slopes` gets the cap's slope at each that is seen.
    #[inline(always)]
    fn weights<S: Simd>(
        &self,
        simd: S,
        span: &Span,
        row: usize,
        q: &[&[f32]],
        keys: &Panels<S>,
        tile: &mut Vec<[f32; ROWS]>,
        into: &mut [f32],
        mut slopes: Option<&mut [f32]>,
    ) -> usize {
        let rows = ROWS.min(span.rows.len() - row);
        let limit = self.seen(span, row + rows - 1).end;
        pack_rows(&q[row..row + rows], tile);
        product(simd, tile, keys, 0..self.head_dim, limit, into, false);
        for (at, scores) in into.chunks_exact_mut(keys.padded_width()).enumerate() {
            // Rows after the sequence's end get weight zero.
            let seen = if at < rows { self.seen(span, row + at) } else { 0..0 };
            scores[..seen.start].fill(0.0);
            scores[seen.end..].fill(0.0);
            match self.cap {
                None => softmax(&mut scores[seen], self.scale),
                Some(cap) => {
                    let scores = &mut scores[seen.clone()];
                    scores.iter_mut().for_each(|score| *score = soft_capped(*score * self.scale, cap));
                    if let Some(slopes) = &mut slopes {
                        let slopes = &mut slopes[at * keys.padded_width()..][seen];
                        slopes.iter_mut().zip(&*scores).for_each(|(slope, y)| *slope = soft_cap_slope(*y, cap));
                    }
                    softmax(scores, 1.0);
                }
            }
        }
        limit
    }
}

/// Columns of a left side from its rows: `tile[at][row] = rows[row][at]`, zeros after the last row.
#[inline(always)]
fn pack_rows(rows: &[&[f32]], tile: &mut Vec<[f32; ROWS]>) {
    tile.clear();
    tile.resize(rows.first().map_or(0, |row| row.len()), [0.0; ROWS]);
    for (at, row) in rows.iter().enumerate() {
        for (tile, value) in tile.iter_mut().zip(*row) {
            tile[at] = *value;
        }
    }
}

/// `softmax(scale * scores)` in place.
#[inline(always)]
fn softmax(scores: &mut [f32], scale: f32) {
    let largest = largest(scores);
    let mut lanes = [0f32; 16];
    let (chunks, tail) = scores.as_chunks_mut::<16>();
    for chunk in chunks {
        for (lane, score) in lanes.iter_mut().zip(chunk) {
            *score = exp((*score - largest) * scale);
            *lane += *score;
        }
    }
    for (lane, score) in lanes.iter_mut().zip(tail) {
        *score = exp((*score - largest) * scale);
        *lane += *score;
    }
    let normalise = 1.0 / sum_lanes(lanes);
    for score in scores {
        *score *= normalise;
    }
}

impl CustomOp3 for CausalAttention {
    fn name(&self) -> &'static str {
        "causal-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_l: &Layout,
        k: &CpuStorage,
        k_l: &Layout,
        v: &CpuStorage,
        v_l: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = self.attend(host(q, q_l)?, host(k, k_l)?, host(v, v_l)?)?;
        Ok((CpuStorage::F32(y), q_l.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let op = CausalAttentionBackward { forward: self, grad: &grad };
        let all = q.apply_op3_no_bwd(k, v, &op)?;
        let (q_len, kv_len) = (q.elem_count(), k.elem_count());
        let part = |start, like: &Tensor| all.narrow(0, start, like.elem_count())?.reshape(like.shape());
        Ok((Some(part(0, q)?), Some(part(q_len, k)?), Some(part(q_len + kv_len, v)?)))
    }
}

/// Adds the rows of one head to a wider matrix.
fn add(part: &[f32], into: &mut [f32], rows: impl Iterator<Item = usize>, width: usize, column: Range<usize>) {
    for (row, part) in rows.zip(part.chunks_exact(column.len())) {
        for (into, value) in into[row * width..][column.clone()].iter_mut().zip(part) {
            *into += value;
        }
    }
}

/// The outputs of one kv head's query heads for one span, head by head.
struct HeadForward<'a> {
    op: &'a CausalAttention,
    span: &'a Span,
    kv_head: usize,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

impl WithSimd for HeadForward<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        self.run(simd)
    }
}

impl HeadForward<'_> {
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S) -> Vec<f32> {
        let Self { op, span, kv_head, q, k, v } = *self;
        let (head_dim, length) = (op.head_dim, span.rows.len());
        let keys = Panels::of_columns(simd, head_dim, span.all(k, op.kv_width(), op.column(kv_head)).into_iter());
        let values = Panels::of_rows(simd, head_dim, span.all(v, op.kv_width(), op.column(kv_head)).into_iter());
        let mut weights = vec![0f32; ROWS * keys.padded_width()];
        let mut outputs = vec![0f32; ROWS * values.padded_width()];
        let mut tile = Vec::new();
        let mut y = Vec::with_capacity(op.group(kv_head).len() * length * head_dim);
        for head in op.group(kv_head) {
            let q = span.own(q, op.q_width(), op.column(head));
            for row in (0..length).step_by(ROWS) {
                let limit = op.weights(simd, span, row, &q, &keys, &mut tile, &mut weights, None);
                pack_rows(&rows_of::<ROWS>(&weights, keys.padded_width(), limit), &mut tile);
                product(simd, &tile, &values, 0..limit, head_dim, &mut outputs, false);
                let rows = outputs.chunks_exact(values.padded_width()).take(length - row);
                rows.for_each(|output| y.extend_from_slice(&output[..head_dim]));
            }
        }
        y
    }
}

/// The first `limit` numbers of the first rows.
#[inline(always)]
fn rows_of<const N: usize>(matrix: &[f32], width: usize, limit: usize) -> [&[f32]; N] {
    std::array::from_fn(|row| &matrix[row * width..][..limit])
}

/// The three gradients, concatenated.
struct CausalAttentionBackward<'a> {
    forward: &'a CausalAttention,
    grad: &'a Tensor,
}

impl CustomOp3 for CausalAttentionBackward<'_> {
    fn name(&self) -> &'static str {
        "causal-attention-backward"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_l: &Layout,
        k: &CpuStorage,
        k_l: &Layout,
        v: &CpuStorage,
        v_l: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (host(q, q_l)?, host(k, k_l)?, host(v, v_l)?);
        let all = super::with_host(self.grad, |grad| self.forward.gradients(q, k, v, grad))?;
        let shape = Shape::from(all.len());
        Ok((CpuStorage::F32(all), shape))
    }
}

/// What one kv head of one span contributes: the gradients of its queries (head by head), and of all keys and values seen.
struct Gradients {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// With weights `p`, `dp = grad v` and `D = p dp`: `dv = p^T grad`, `ds = p (dp - D)`, `dq = ds k`, `dk = ds^T q`, the last
/// two times the scale. With a cap, `ds` is also multiplied by its slope.
struct HeadBackward<'a> {
    forward: HeadForward<'a>,
    grad: &'a [f32],
}

impl WithSimd for HeadBackward<'_> {
    type Output = Gradients;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Gradients {
        self.run(simd)
    }
}

impl HeadBackward<'_> {
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S) -> Gradients {
        let HeadForward { op, span, kv_head, q, k, v } = self.forward;
        let (head_dim, length, seen) = (op.head_dim, span.rows.len(), span.keys());
        let k_rows = span.all(k, op.kv_width(), op.column(kv_head));
        let v_rows = span.all(v, op.kv_width(), op.column(kv_head));
        let keys = Panels::of_columns(simd, head_dim, k_rows.iter().copied());
        let values = Panels::of_columns(simd, head_dim, v_rows.into_iter());
        let key_rows = Panels::of_rows(simd, head_dim, k_rows.into_iter());
        let (width, narrow) = (keys.padded_width(), key_rows.padded_width());
        // Padding rows of zeros to a multiple of ROWS, and columns likewise, so that every tile is whole.
        let padded = length.next_multiple_of(ROWS);
        let (mut p, mut d_s) = (vec![0f32; padded * width + ROWS], vec![0f32; padded * width + ROWS]);
        let mut outputs = vec![0f32; ROWS * narrow];
        let mut slopes = op.cap.map(|_| vec![0f32; ROWS * width]);
        let mut tile = Vec::new();
        let mut d_q = Vec::with_capacity(op.group(kv_head).len() * length * head_dim);
        let padded_keys = seen.next_multiple_of(ROWS);
        let (mut d_k, mut d_v) = (vec![0f32; padded_keys * narrow], vec![0f32; padded_keys * narrow]);
        for head in op.group(kv_head) {
            let q = span.own(q, op.q_width(), op.column(head));
            let grad = span.own(self.grad, op.q_width(), op.column(head));
            for row in (0..length).step_by(ROWS) {
                let part = row * width..(row + ROWS) * width;
                let (p, d_s) = (&mut p[part.clone()], &mut d_s[part]);
                let limit = op.weights(simd, span, row, &q, &keys, &mut tile, p, slopes.as_deref_mut());
                pack_rows(&grad[row..length.min(row + ROWS)], &mut tile);
                product(simd, &tile, &values, 0..head_dim, limit, d_s, false);
                for (p, d_s) in p.chunks_exact(width).zip(d_s.chunks_exact_mut(width)) {
                    let along = super::dot(&p[..limit], &d_s[..limit]);
                    for (d_s, p) in d_s[..limit].iter_mut().zip(p) {
                        *d_s = p * (*d_s - along) * op.scale;
                    }
                    d_s[limit..].fill(0.0);
                }
                if let Some(slopes) = &slopes {
                    // Where nothing is seen, `d_s` is 0, whatever an earlier row's slope is.
                    d_s.iter_mut().zip(slopes).for_each(|(d_s, slope)| *d_s *= slope);
                }
                pack_rows(&rows_of::<ROWS>(d_s, width, limit), &mut tile);
                product(simd, &tile, &key_rows, 0..limit, head_dim, &mut outputs, false);
                let rows = outputs.chunks_exact(narrow).take(length - row);
                rows.for_each(|output| d_q.extend_from_slice(&output[..head_dim]));
            }
            let queries = Panels::of_rows(simd, head_dim, q.into_iter());
            let grads = Panels::of_rows(simd, head_dim, grad.into_iter());
            for key in (0..seen).step_by(ROWS) {
                // The first row that sees a key of this tile, and all after it.
                let rows = key.saturating_sub(span.prefix)..length;
                let into = key * narrow..(key + ROWS) * narrow;
                for (weights, by, into) in [(&p, &grads, &mut d_v[into.clone()]), (&d_s, &queries, &mut d_k[into])] {
                    tile.clear();
                    tile.extend(rows.clone().map(|row| {
                        let column: &[f32; ROWS] = weights[row * width + key..].first_chunk().expect("padded");
                        *column
                    }));
                    product(simd, &tile, by, rows.clone(), head_dim, into, true);
                }
            }
        }
        let cut = |matrix: &[f32]| {
            let rows = matrix.chunks_exact(narrow).take(seen);
            rows.flat_map(|row| &row[..head_dim]).copied().collect::<Vec<f32>>()
        };
        Gradients { q: d_q, k: cut(&d_k), v: cut(&d_v) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use crate::ops::tests::tiny;

    #[test]
    fn gradient_equals_finite_differences_and_packed_sequences_do_not_mix() {
        for (sliding_window, attention_cap) in [(None, None), (Some(3), None), (None, Some(1.5)), (Some(3), Some(0.7))]
        {
            let layer = BlockSpec { sliding_window, attention_cap, ..BlockSpec::default() };
            let config = ModelConfig { head_dim: 5, ..tiny() };
            let (q, kv) = ([9, config.q_dim()], [9, config.kv_dim()]);
            let inputs = [random(1, &q), random(2, &kv), random(3, &kv)];
            let attend = |inputs: &[Tensor], segments: &[Segment]| {
                let op = CausalAttention::new(&config, segments).of_layer(&layer);
                causal_attention(&inputs[0], &inputs[1], &inputs[2], &op).unwrap()
            };
            // Two sequences; two after a prefix; one after one; two of three after a prefix after a prefix.
            let tree =
                [segment(None, 2), segment(Some(0), 2), segment(Some(1), 2), segment(Some(1), 1), segment(Some(0), 2)];
            for segments in [
                [segment(None, 7), segment(None, 2)].as_slice(),
                &[segment(None, 3), segment(Some(0), 4), segment(Some(0), 2)],
                &[segment(None, 8), segment(Some(0), 1)],
                &tree,
            ] {
                check_gradient(&inputs, |inputs| attend(inputs, segments));
            }
            // Each sequence alone, with everything it sees.
            let rows = |x: &Tensor, parts: &[(usize, usize)]| {
                let parts = parts.iter().map(|&(start, length)| x.narrow(0, start, length).unwrap());
                Tensor::cat(&parts.collect::<Vec<_>>(), 0).unwrap()
            };
            let alone = |parts: &[(usize, usize)]| {
                let inputs = inputs.each_ref().map(|input| rows(input, parts));
                attend(&inputs, &[segment(None, inputs[0].dim(0).unwrap())])
            };
            let packed = attend(&inputs, &tree);
            let check = |parts: &[(usize, usize)]| {
                let difference = distance(&rows(&packed, parts), &alone(parts));
                assert!(difference < 1e-6, "{parts:?}, {layer:?}: {difference}");
            };
            check(&[(0, 2)]);
            check(&[(0, 2), (2, 2), (4, 2)]);
            check(&[(0, 2), (2, 2), (6, 1)]);
            check(&[(0, 2), (7, 2)]);
        }
    }

    fn segment(behind: Option<usize>, length: usize) -> Segment {
        Segment { behind, length }
    }

    #[test]
    fn fused_equals_composed() {
        for (sliding_window, attention_cap) in [(None, None), (Some(9), None), (Some(9), Some(1.5))] {
            let layer = BlockSpec { sliding_window, attention_cap, ..BlockSpec::default() };
            let config = tiny();
            let (q, kv) = ([150, config.q_dim()], [150, config.kv_dim()]);
            let (q, k, v) = (random(1, &q), random(2, &kv), random(3, &kv));
            let lengths = [(None, 33), (Some(0), 1), (Some(0), 66), (Some(2), 40), (Some(2), 10)];
            let segments = lengths.map(|(behind, length)| segment(behind, length));
            let op = CausalAttention::new(&config, &segments).of_layer(&layer);
            let fused = causal_attention(&q, &k, &v, &op).unwrap();
            assert!(distance(&fused, &composed(&q, &k, &v, &op).unwrap()) < 2e-6);
            assert!(causal_attention(&q, &k, &v, &CausalAttention::new(&config, &[segment(None, 34)])).is_err());
        }
    }

    /// Scores in the thousands, as a trained model may have them, neither overflow nor lose the weights' sum.
    #[test]
    fn large_scores_stay_finite() {
        let config = tiny();
        let large = |seed, width| (random(seed, &[20, width]) * 100.0).unwrap();
        let (q, k) = (large(1, config.q_dim()), large(2, config.kv_dim()));
        let ones = Tensor::ones((20, config.kv_dim()), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let y =
            causal_attention(&q, &k, &ones, &CausalAttention::new(&config, &[segment(None, 5), segment(Some(0), 15)]))
                .unwrap();
        assert!(distance(&y, &y.ones_like().unwrap()) < 1e-5);
    }
}
