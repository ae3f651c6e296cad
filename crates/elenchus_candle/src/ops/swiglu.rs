//! `silu(gate) * up`, element by element.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{exp, host, row_chunks};

struct SwiGlu;

/// `gate / (1 + e^-gate) * up`, both `(rows, width)`.
pub(crate) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.device().is_cpu() { gate.apply_op2(up, SwiGlu) } else { composed(gate, up) }
}

fn composed(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, g: &CpuStorage, g_l: &Layout, u: &CpuStorage, u_l: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(gated(host(g, g_l)?, host(u, u_l)?)), g_l.shape().clone()))
    }

    fn bwd(&self, gate: &Tensor, up: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let both = gate.apply_op3_no_bwd(up, &grad.contiguous()?, &SwiGluBackward)?;
        Ok((Some(both.get(0)?), Some(both.get(1)?)))
    }
}

/// Both gradients, `(2, rows, width)`: the gate's before that of the other branch.
struct SwiGluBackward;

impl CustomOp3 for SwiGluBackward {
    fn name(&self) -> &'static str {
        "swiglu-backward"
    }

    fn cpu_fwd(
        &self,
        g: &CpuStorage,
        g_l: &Layout,
        u: &CpuStorage,
        u_l: &Layout,
        grad: &CpuStorage,
        grad_l: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut both = vec![0f32; 2 * g_l.shape().elem_count()];
        let (d_gate, d_up) = both.split_at_mut(g_l.shape().elem_count());
        gradients(host(g, g_l)?, host(u, u_l)?, host(grad, grad_l)?, d_gate, d_up);
        Ok((CpuStorage::F32(both), Shape::from([&[2], g_l.dims()].concat())))
    }
}

/// [`swiglu`] of numbers in memory.
pub(super) fn gated(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut y = vec![0f32; gate.len()];
    let chunk = row_chunks(gate.len(), 1);
    let parts = gate.par_chunks(chunk).zip(up.par_chunks(chunk)).zip(y.par_chunks_mut(chunk));
    parts.for_each(|((gate, up), y)| vectorised!(forward(gate, up, y)));
    y
}

/// Both of its gradients.
pub(super) fn gradients(gate: &[f32], up: &[f32], grad: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
    let chunk = row_chunks(gate.len(), 1);
    let inputs = gate.par_chunks(chunk).zip(up.par_chunks(chunk)).zip(grad.par_chunks(chunk));
    let parts = inputs.zip(d_gate.par_chunks_mut(chunk)).zip(d_up.par_chunks_mut(chunk));
    parts.for_each(|((((gate, up), grad), d_gate), d_up)| {
        vectorised!(backward(gate, up, grad, d_gate, d_up));
    });
}

/// With `s = 1 / (1 + e^-gate)`: `silu' = s (1 + gate (1 - s))`.
#[inline(always)]
fn backward(gate: &[f32], up: &[f32], grad: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
    for ((((d_gate, d_up), gate), up), grad) in d_gate.iter_mut().zip(d_up).zip(gate).zip(up).zip(grad) {
        let s = 1.0 / (1.0 + exp(-gate));
        *d_gate = grad * up * s * (1.0 + gate * (1.0 - s));
        *d_up = grad * gate * s;
    }
}

#[inline(always)]
fn forward(gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
        *y = gate / (1.0 + exp(-gate)) * up;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};

    #[test]
    fn fused_equals_composed() {
        for (rows, width) in [(1, 1), (3, 17), (5, 1536)] {
            let (gate, up) = ((random(1, &[rows, width]) * 20.0).unwrap(), random(2, &[rows, width]));
            let difference = distance(&swiglu(&gate, &up).unwrap(), &composed(&gate, &up).unwrap());
            assert!(difference < 1e-5, "{rows} x {width}: {difference}");
        }
    }

    #[test]
    fn gradient_equals_finite_differences() {
        let inputs = [random(1, &[3, 19]), random(2, &[3, 19])];
        check_gradient(&inputs, |inputs| swiglu(&inputs[0], &inputs[1]).unwrap());
    }
}
