//! Attention of whole sequences over themselves, with a gradient: what training runs.
//!
//! Sequences are packed end to end and never see each other. The weights are computed again in the backward pass, so
//! nothing of size tokens x tokens is kept.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use pulp::Arch;
use rayon::prelude::*;

use super::{
    attention::{add_scaled, softmax_weights, weigh, window_start},
    dot, host,
};
use crate::ModelConfig;

#[derive(Clone)]
struct CausalAttention {
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    sliding_window: Option<usize>,
    /// Rows of each sequence.
    sequences: Vec<Range<usize>>,
}

/// `q` `(rows, num_heads * head_dim)`, `k` and `v` `(rows, num_kv_heads * head_dim)`, rows sequence by sequence with the given
/// lengths; returns `(rows, num_heads * head_dim)`.
pub(crate) fn causal_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    config: &ModelConfig,
    lengths: &[usize],
) -> Result<Tensor> {
    let mut end = 0;
    let sequences = lengths.iter().map(|length| {
        end += length;
        end - length..end
    });
    let op = CausalAttention {
        num_heads: config.num_heads,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        sliding_window: config.sliding_window,
        sequences: sequences.collect(),
    };
    if end != q.dim(0)? {
        bail!("causal attention: lengths sum to {end}, but there are {} rows", q.dim(0)?)
    }
    if q.device().is_cpu() { q.apply_op3(k, v, op) } else { composed(q, k, v, &op) }
}

fn composed(q: &Tensor, k: &Tensor, v: &Tensor, op: &CausalAttention) -> Result<Tensor> {
    let CausalAttention { num_heads, num_kv_heads, head_dim, sliding_window, .. } = *op;
    let outputs = op.sequences.iter().map(|rows| {
        let length = rows.len();
        let heads = |x: &Tensor, heads: usize| x.narrow(0, rows.start, length)?.reshape((length, heads, head_dim));
        // Each kv head serves a group of query heads: (num_heads, length, head_dim).
        let grouped = |x: &Tensor| {
            let x = heads(x, num_kv_heads)?.unsqueeze(2)?;
            let x = x.broadcast_as((length, num_kv_heads, num_heads / num_kv_heads, head_dim))?;
            x.reshape((length, num_heads, head_dim))?.transpose(0, 1)?.contiguous()
        };
        let (k, v) = (grouped(k)?, grouped(v)?);
        let q = heads(q, num_heads)?.transpose(0, 1)?.contiguous()?;
        let scores = (q.matmul(&k.t()?.contiguous()?)? * (1.0 / (head_dim as f64).sqrt()))?;
        let seen = |row: usize, key: usize| (window_start(sliding_window, row)..=row).contains(&key);
        let mask = (0..length).flat_map(|row| (0..length).map(move |key| if seen(row, key) { 0.0 } else { f32::MIN }));
        let scores = scores.broadcast_add(&Tensor::from_iter(mask, q.device())?.reshape((1, length, length))?)?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(2)?.detach())?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(2)?)?;
        weights.matmul(&v)?.transpose(0, 1)?.reshape((length, num_heads * head_dim))
    });
    Tensor::cat(&outputs.collect::<Result<Vec<_>>>()?, 0)
}

/// The rows of one head, cut out of a `(rows, heads * head_dim)` matrix.
#[derive(Clone, Copy)]
struct Columns<'a> {
    data: &'a [f32],
    width: usize,
    column: usize,
    head_dim: usize,
}

impl<'a> Columns<'a> {
    #[inline(always)]
    fn row(self, row: usize) -> &'a [f32] {
        &self.data[row * self.width + self.column..][..self.head_dim]
    }
}

impl CausalAttention {
    fn query_columns<'a>(&self, data: &'a [f32], head: usize) -> Columns<'a> {
        let (width, head_dim) = (self.num_heads * self.head_dim, self.head_dim);
        Columns { data, width, column: head * head_dim, head_dim }
    }

    fn kv_columns<'a>(&self, data: &'a [f32], kv_head: usize) -> Columns<'a> {
        let (width, head_dim) = (self.num_kv_heads * self.head_dim, self.head_dim);
        Columns { data, width, column: kv_head * head_dim, head_dim }
    }

    /// The positions that a row sees.
    #[inline(always)]
    fn seen(&self, sequence: &Range<usize>, row: usize) -> Range<usize> {
        sequence.start + window_start(self.sliding_window, row - sequence.start)..row + 1
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
        let (q, k, v) = (host(q, q_l)?, host(k, k_l)?, host(v, v_l)?);
        let (width, group) = (self.num_heads * self.head_dim, self.num_heads / self.num_kv_heads);
        let mut y = vec![0f32; q.len()];
        let sequence_of =
            |row: usize| self.sequences.iter().find(|rows| rows.contains(&row)).expect("rows were counted");
        y.par_chunks_exact_mut(width).enumerate().for_each(|(row, y)| {
            let seen = self.seen(sequence_of(row), row);
            let mut weights = Vec::with_capacity(seen.len());
            Arch::new().dispatch(|| {
                for (head, y) in y.chunks_exact_mut(self.head_dim).enumerate() {
                    let (k, v) = (self.kv_columns(k, head / group), self.kv_columns(v, head / group));
                    softmax_weights(self.query_columns(q, head).row(row), seen.clone(), |at| k.row(at), &mut weights);
                    weigh(seen.clone(), |at| v.row(at), &weights, y);
                }
            });
        });
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

/// The three gradients end to end.
struct CausalAttentionBackward<'a> {
    forward: &'a CausalAttention,
    grad: &'a Tensor,
}

/// What one kv head of one sequence contributes: the gradients of its queries (head by head), keys and values.
struct Gradients {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
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
        let op = self.forward;
        let (q, k, v) = (host(q, q_l)?, host(k, k_l)?, host(v, v_l)?);
        let (q_width, kv_width) = (op.num_heads * op.head_dim, op.num_kv_heads * op.head_dim);
        let group = op.num_heads / op.num_kv_heads;
        let tasks: Vec<(&Range<usize>, usize)> =
            op.sequences.iter().flat_map(|rows| (0..op.num_kv_heads).map(move |kv_head| (rows, kv_head))).collect();
        let parts = super::with_host(self.grad, |grad| {
            let run = |&(rows, kv_head): &(&Range<usize>, usize)| {
                Arch::new().dispatch(|| head_gradients(op, rows, kv_head, q, k, v, grad))
            };
            tasks.par_iter().map(run).collect::<Vec<Gradients>>()
        })?;
        let mut all = vec![0f32; q.len() + k.len() + v.len()];
        let (d_q, rest) = all.split_at_mut(q.len());
        let (d_k, d_v) = rest.split_at_mut(k.len());
        for ((rows, kv_head), part) in tasks.into_iter().zip(&parts) {
            for head in 0..group {
                let column = (kv_head * group + head) * op.head_dim;
                scatter(&part.q[head * rows.len() * op.head_dim..], d_q, rows, q_width, column, op.head_dim);
            }
            scatter(&part.k, d_k, rows, kv_width, kv_head * op.head_dim, op.head_dim);
            scatter(&part.v, d_v, rows, kv_width, kv_head * op.head_dim, op.head_dim);
        }
        let shape = Shape::from(all.len());
        Ok((CpuStorage::F32(all), shape))
    }
}

/// Writes the rows of one head into a wider matrix.
fn scatter(part: &[f32], into: &mut [f32], rows: &Range<usize>, width: usize, column: usize, head_dim: usize) {
    for (row, part) in rows.clone().zip(part.chunks_exact(head_dim)) {
        into[row * width + column..][..head_dim].copy_from_slice(part);
    }
}

/// With weights `p`, `dp = grad v` and `D = grad y`: `dv += p grad`, `ds = p (dp - D)`, `dq = ds k`, `dk += ds q`, the
/// last two times `1 / sqrt(head_dim)`.
#[inline(always)]
fn head_gradients(
    op: &CausalAttention,
    rows: &Range<usize>,
    kv_head: usize,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    grad: &[f32],
) -> Gradients {
    let (head_dim, group, length) = (op.head_dim, op.num_heads / op.num_kv_heads, rows.len());
    let scale = 1.0 / (head_dim as f32).sqrt();
    let (k, v) = (op.kv_columns(k, kv_head), op.kv_columns(v, kv_head));
    let mut d_q = vec![0f32; group * length * head_dim];
    let (mut d_k, mut d_v) = (vec![0f32; length * head_dim], vec![0f32; length * head_dim]);
    let (mut p, mut d_p) = (Vec::with_capacity(length), Vec::with_capacity(length));
    for head in 0..group {
        let q = op.query_columns(q, kv_head * group + head);
        let grad = op.query_columns(grad, kv_head * group + head);
        for row in rows.clone() {
            let (q, grad, seen) = (q.row(row), grad.row(row), op.seen(rows, row));
            softmax_weights(q, seen.clone(), |at| k.row(at), &mut p);
            d_p.clear();
            d_p.extend(seen.clone().map(|at| dot(grad, v.row(at))));
            let along: f32 = p.iter().zip(&d_p).map(|(p, d_p)| p * d_p).sum();
            let d_q = &mut d_q[(head * length + row - rows.start) * head_dim..][..head_dim];
            for ((at, p), d_p) in seen.zip(&p).zip(&d_p) {
                let own = (at - rows.start) * head_dim;
                add_scaled(&mut d_v[own..own + head_dim], *p, grad);
                let d_s = p * (d_p - along) * scale;
                add_scaled(d_q, d_s, k.row(at));
                add_scaled(&mut d_k[own..own + head_dim], d_s, q);
            }
        }
    }
    Gradients { q: d_q, k: d_k, v: d_v }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use crate::config::tests::tiny;

    #[test]
    fn gradient_equals_finite_differences_and_packed_sequences_do_not_mix() {
        for sliding_window in [None, Some(3)] {
            let config = ModelConfig { sliding_window, head_dim: 5, ..tiny() };
            let (q, kv) = ([7, config.q_dim()], [7, config.kv_dim()]);
            let inputs = [random(1, &q), random(2, &kv), random(3, &kv)];
            let attend = |inputs: &[Tensor]| causal_attention(&inputs[0], &inputs[1], &inputs[2], &config, &[5, 2]);
            check_gradient(&inputs, |inputs| attend(inputs).unwrap());
            let packed = attend(&inputs).unwrap();
            let part = |start, length| {
                let [q, k, v] =
                    [0, 1, 2].map(|at: usize| inputs[at].narrow(0, start, length).unwrap().contiguous().unwrap());
                causal_attention(&q, &k, &v, &config, &[length]).unwrap()
            };
            assert_eq!(distance(&packed, &Tensor::cat(&[part(0, 5), part(5, 2)], 0).unwrap()), 0.0);
        }
    }

    #[test]
    fn fused_equals_composed() {
        let config = ModelConfig { sliding_window: Some(9), ..tiny() };
        let (q, kv) = ([40, config.q_dim()], [40, config.kv_dim()]);
        let (q, k, v) = (random(1, &q), random(2, &kv), random(3, &kv));
        let op = CausalAttention {
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            sliding_window: config.sliding_window,
            sequences: vec![0..33, 33..34, 34..40],
        };
        let fused = causal_attention(&q, &k, &v, &config, &[33, 1, 6]).unwrap();
        assert!(distance(&fused, &composed(&q, &k, &v, &op).unwrap()) < 2e-6);
        assert!(causal_attention(&q, &k, &v, &config, &[33]).is_err());
    }
}
