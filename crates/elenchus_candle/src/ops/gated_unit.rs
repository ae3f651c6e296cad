//! `activation(gate) * up`, element by element: SwiGLU and GeGLU; and the activation alone.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use elenchus_lm::Activation;
use rayon::prelude::*;

use super::{exp, host, row_chunks};

struct GatedUnit(Activation);

/// `activation(gate) * up`, both `(rows, width)`.
pub(crate) fn gated_unit(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    if gate.device().is_cpu() { gate.apply_op2(up, GatedUnit(activation)) } else { composed(gate, up, activation) }
}

/// `activation(x)`, where there is no gate: what a unit gives whose other branch is 1.
pub(crate) fn activated(x: &Tensor, activation: Activation) -> Result<Tensor> {
    gated_unit(x, &x.ones_like()?, activation)
}

fn composed(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    let activated = match activation {
        Activation::Silu => gate.silu()?,
        // candle's `gelu` is tanh's approximation.
        Activation::GeluTanh => gate.gelu()?,
    };
    activated * up
}

impl CustomOp2 for GatedUnit {
    fn name(&self) -> &'static str {
        "gated-unit"
    }

    fn cpu_fwd(&self, g: &CpuStorage, g_l: &Layout, u: &CpuStorage, u_l: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(gated(host(g, g_l)?, host(u, u_l)?, self.0)), g_l.shape().clone()))
    }

    fn bwd(&self, gate: &Tensor, up: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let both = gate.apply_op3_no_bwd(up, &grad.contiguous()?, &GatedUnitBackward(self.0))?;
        Ok((Some(both.get(0)?), Some(both.get(1)?)))
    }
}

/// Both gradients, `(2, rows, width)`: the gate's before that of the other branch.
struct GatedUnitBackward(Activation);

impl CustomOp3 for GatedUnitBackward {
    fn name(&self) -> &'static str {
        "gated-unit-backward"
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
        let gradients = GateGradients { gate: host(g, g_l)?, up: host(u, u_l)?, grad: host(grad, grad_l)? };
        let (d_gate, d_up) = both.split_at_mut(g_l.shape().elem_count());
        gradients.write(self.0, d_gate, d_up);
        Ok((CpuStorage::F32(both), Shape::from([&[2], g_l.dims()].concat())))
    }
}

/// [`gated_unit`] of numbers in memory.
pub(super) fn gated(gate: &[f32], up: &[f32], activation: Activation) -> Vec<f32> {
    let mut y = vec![0f32; gate.len()];
    let chunk = row_chunks(gate.len(), 1);
    let parts = gate.par_chunks(chunk).zip(up.par_chunks(chunk)).zip(y.par_chunks_mut(chunk));
    parts.for_each(|((gate, up), y)| match activation {
        Activation::Silu => vectorised!(forward(silu, gate, up, y)),
        Activation::GeluTanh => vectorised!(forward(gelu, gate, up, y)),
    });
    y
}

/// What the unit's gradients follow from; all are of one length.
#[derive(Clone, Copy)]
pub(super) struct GateGradients<'a> {
    pub gate: &'a [f32],
    pub up: &'a [f32],
    /// Of the unit's output.
    pub grad: &'a [f32],
}

impl GateGradients<'_> {
    /// Writes both gradients.
    pub fn write(self, activation: Activation, d_gate: &mut [f32], d_up: &mut [f32]) {
        let Self { gate, up, grad } = self;
        let chunk = row_chunks(gate.len(), 1);
        let inputs = gate.par_chunks(chunk).zip(up.par_chunks(chunk)).zip(grad.par_chunks(chunk));
        let parts = inputs.zip(d_gate.par_chunks_mut(chunk)).zip(d_up.par_chunks_mut(chunk));
        parts.for_each(|((((gate, up), grad), d_gate), d_up)| {
            let of = GateGradients { gate, up, grad };
            match activation {
                Activation::Silu => vectorised!(backward(silu, of, d_gate, d_up)),
                Activation::GeluTanh => vectorised!(backward(gelu, of, d_gate, d_up)),
            }
        });
    }
}

/// Both activations are `x / (1 + e^-z)`: this is z and its derivative.
#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    (x, 1.0)
}

/// `x / 2 * (1 + tanh(u))` is `x / (1 + e^-2u)`.
#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    /// `2 * sqrt(2 / pi)`.
    const LINEAR: f32 = 1.595_769_2;
    const CUBIC: f32 = 0.044_715;
    (LINEAR * x * (1.0 + CUBIC * x * x), LINEAR * (1.0 + 3.0 * CUBIC * x * x))
}

/// With `s = 1 / (1 + e^-z)`: the derivative of `x s` is `s (1 + x (1 - s) z')`.
#[inline(always)]
fn backward(exponent: impl Fn(f32) -> (f32, f32), of: GateGradients<'_>, d_gate: &mut [f32], d_up: &mut [f32]) {
    let GateGradients { gate, up, grad } = of;
    for ((((d_gate, d_up), gate), up), grad) in d_gate.iter_mut().zip(d_up).zip(gate).zip(up).zip(grad) {
        let (z, slope) = exponent(*gate);
        let s = 1.0 / (1.0 + exp(-z));
        *d_gate = grad * up * s * (1.0 + gate * (1.0 - s) * slope);
        *d_up = grad * gate * s;
    }
}

#[inline(always)]
fn forward(exponent: impl Fn(f32) -> (f32, f32), gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
        *y = gate / (1.0 + exp(-exponent(*gate).0)) * up;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};

    const ALL: [Activation; 2] = [Activation::Silu, Activation::GeluTanh];

    #[test]
    fn fused_equals_composed() {
        for (rows, width) in [(1, 1), (3, 17), (5, 1536)] {
            for activation in ALL {
                let (gate, up) = ((random(1, &[rows, width]) * 20.0).unwrap(), random(2, &[rows, width]));
                let fused = gated_unit(&gate, &up, activation).unwrap();
                let difference = distance(&fused, &composed(&gate, &up, activation).unwrap());
                assert!(difference < 1e-5, "{activation:?}, {rows} x {width}: {difference}");
            }
        }
    }

    #[test]
    fn gradient_equals_finite_differences() {
        let inputs = [random(1, &[3, 19]), random(2, &[3, 19])];
        for activation in ALL {
            check_gradient(&inputs, |inputs| gated_unit(&inputs[0], &inputs[1], activation).unwrap());
            check_gradient(&inputs[..1], |inputs| activated(&inputs[0], activation).unwrap());
        }
    }
}
