//! `y += B (A x)` for the rows with an adapter; each row may have a different one.

use std::{ops::Range, sync::Arc};

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

use super::{dot, host};

/// One linear's update, prepared for a base: B's rows in the base's order, both scalings multiplied into it.
pub(crate) struct PreparedPair {
    /// `(rank, in_features)` and `(out_features, rank)`, row-major.
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    pub rank: usize,
    /// The same on the device, if that is not the CPU.
    pub device: Option<(Tensor, Tensor)>,
}

/// Neighbouring rows of a batch with the same adapter.
pub(crate) struct LoraSegment {
    pub rows: Range<usize>,
    pub pair: Arc<PreparedPair>,
}

struct LoraRows<'a>(&'a [LoraSegment]);

/// Adds each segment's update of `x` `(rows, in_features)` to `y` `(rows, out_features)`, which must not be shared.
pub(crate) fn add_lora(y: Tensor, x: &Tensor, segments: &[LoraSegment]) -> Result<Tensor> {
    if segments.is_empty() {
        return Ok(y);
    }
    if y.device().is_cpu() {
        y.inplace_op2(x, &LoraRows(segments))?;
        Ok(y)
    } else {
        composed(&y, x, segments)
    }
}

fn composed(y: &Tensor, x: &Tensor, segments: &[LoraSegment]) -> Result<Tensor> {
    let mut parts = Vec::new();
    let mut next = 0;
    for LoraSegment { rows, pair } in segments {
        let (a, b) = pair.device.as_ref().expect("prepared for this device");
        parts.push(y.narrow(0, next, rows.start - next)?);
        let update = x.narrow(0, rows.start, rows.len())?.matmul(&a.t()?)?.matmul(&b.t()?)?;
        parts.push((y.narrow(0, rows.start, rows.len())? + update)?);
        next = rows.end;
    }
    parts.push(y.narrow(0, next, y.dim(0)? - next)?);
    parts.retain(|part| part.elem_count() > 0);
    Tensor::cat(&parts, 0)
}

impl InplaceOp2 for LoraRows<'_> {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, y_l: &Layout, x: &CpuStorage, x_l: &Layout) -> Result<()> {
        let x = host(x, x_l)?;
        let (in_features, out_features) = (x_l.dims()[1], y_l.dims()[1]);
        let CpuStorage::F32(y) = y else { candle_core::bail!("lora: expected f32, got {:?}", y_l) };
        let Some((start, end)) = y_l.contiguous_offsets() else {
            candle_core::bail!("lora: {y_l:?} is not contiguous")
        };
        let y = &mut y[start..end];
        for LoraSegment { rows, pair } in self.0 {
            let x = &x[rows.start * in_features..rows.end * in_features];
            let y = &mut y[rows.start * out_features..rows.end * out_features];
            let row = |(y, x): (&mut [f32], &[f32])| vectorised!(add_row(y, x, pair));
            // A decode step has one row a segment; only a prefill is worth waking the pool.
            if rows.len() < 8 {
                y.chunks_exact_mut(out_features).zip(x.chunks_exact(in_features)).for_each(row);
            } else {
                y.par_chunks_exact_mut(out_features).zip(x.par_chunks_exact(in_features)).for_each(row);
            }
        }
        Ok(())
    }
}

#[inline(always)]
fn add_row(y: &mut [f32], x: &[f32], pair: &PreparedPair) {
    let mut small = [0f32; 256];
    let mut large = Vec::new();
    let hidden = if pair.rank <= small.len() {
        &mut small[..pair.rank]
    } else {
        large.resize(pair.rank, 0.0);
        &mut large[..]
    };
    for (hidden, a) in hidden.iter_mut().zip(pair.a.chunks_exact(x.len())) {
        *hidden = dot(a, x);
    }
    for (y, b) in y.iter_mut().zip(pair.b.chunks_exact(pair.rank)) {
        *y += dot(b, hidden);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};

    fn pair(seed: u64, rank: usize, in_features: usize, out_features: usize) -> Arc<PreparedPair> {
        let (a, b) = (random(seed, &[rank, in_features]), random(seed + 1, &[out_features, rank]));
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
        Arc::new(PreparedPair { a: flat(&a), b: flat(&b), rank, device: Some((a, b)) })
    }

    #[test]
    fn fused_equals_composed_over_ragged_segments() {
        let check = |rows: usize, cuts: &[(usize, usize)]| {
            let segments: Vec<LoraSegment> = cuts
                .iter()
                .enumerate()
                .map(|(at, &(from, to))| LoraSegment {
                    rows: from..to,
                    pair: pair(at as u64, [1, 16, 300][at], 33, 21),
                })
                .collect();
            let (x, y) = (random(9, &[rows, 33]), random(10, &[rows, 21]));
            let expected = composed(&y, &x, &segments).unwrap();
            let fused = add_lora(y.copy().unwrap(), &x, &segments).unwrap();
            // Rank 300 gives sums in the hundreds.
            assert!(distance(&fused, &expected) < 1e-6 * distance(&expected, &expected.neg().unwrap()).max(10.0));
        };
        check(1, &[(0, 1)]);
        check(6, &[(1, 2), (3, 6)]);
        check(40, &[(0, 20), (20, 21), (25, 40)]);
        check(3, &[]);
    }
}
