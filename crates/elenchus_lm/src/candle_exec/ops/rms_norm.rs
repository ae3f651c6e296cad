//! `y = x / sqrt(mean(x^2) + eps) * weight`, row by row.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use pulp::Arch;

use super::{dot, host};

struct RmsNorm {
    eps: f32,
}

/// Normalises the rows of `x` (rows, width) by `weight` (width).
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    if x.device().is_cpu() { x.apply_op2(weight, RmsNorm { eps }) } else { composed(x, weight, eps) }
}

fn composed(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(1)?;
    x.broadcast_div(&(mean_square + f64::from(eps))?.sqrt()?)?.broadcast_mul(weight)
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_l: &Layout, w: &CpuStorage, w_l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (host(x, x_l)?, host(w, w_l)?);
        let mut y = vec![0f32; x.len()];
        Arch::new().dispatch(|| forward(x, weight, self.eps, &mut y));
        Ok((CpuStorage::F32(y), x_l.shape().clone()))
    }
}

#[inline(always)]
fn forward(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let width = weight.len();
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let scale = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * scale * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};

    #[test]
    fn fused_equals_composed() {
        for (rows, width) in [(1, 1), (3, 17), (5, 576), (2, 64)] {
            let (x, weight) = (random(1, &[rows, width]), random(2, &[width]));
            let difference = distance(&rms_norm(&x, &weight, 1e-5).unwrap(), &composed(&x, &weight, 1e-5).unwrap());
            assert!(difference < 2e-6, "{rows} x {width}: {difference}");
        }
    }
}
