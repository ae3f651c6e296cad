//! `silu(gate) * up`, element by element.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use pulp::Arch;

use super::{exp, host};

struct SwiGlu;

/// `gate / (1 + e^-gate) * up`, both (rows, width).
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
        let (gate, up) = (host(g, g_l)?, host(u, u_l)?);
        let mut y = vec![0f32; gate.len()];
        Arch::new().dispatch(|| forward(gate, up, &mut y));
        Ok((CpuStorage::F32(y), g_l.shape().clone()))
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
}
