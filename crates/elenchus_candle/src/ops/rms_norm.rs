//! `y = x / sqrt(mean(x^2) + eps) * weight`, row by row. The weight belongs to the frozen base and gets no gradient.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{dot, host, refuse_variable, row_chunks};

struct RmsNorm {
    eps: f32,
}

/// Normalises the rows of `x` `(rows, width)` by `weight` (width).
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    if x.device().is_cpu() { x.apply_op2(weight, RmsNorm { eps }) } else { composed(x, weight, eps) }
}

/// The same of each head of `x` `(rows, heads * head_dim)`, by `weight` `(head_dim)`.
pub(crate) fn head_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let heads = x.elem_count() / weight.elem_count();
    rms_norm(&x.reshape((heads, weight.elem_count()))?, weight, eps)?.reshape(x.shape())
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
        Ok((CpuStorage::F32(normalised(host(x, x_l)?, host(w, w_l)?, self.eps)), x_l.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        refuse_variable(weight, "rms-norm's weight")?;
        let backward = RmsNormBackward { eps: self.eps };
        Ok((Some(x.apply_op3_no_bwd(weight, &grad.contiguous()?, &backward)?), None))
    }
}

struct RmsNormBackward {
    eps: f32,
}

impl CustomOp3 for RmsNormBackward {
    fn name(&self) -> &'static str {
        "rms-norm-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_l: &Layout,
        w: &CpuStorage,
        w_l: &Layout,
        grad: &CpuStorage,
        grad_l: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut dx = vec![0f32; x_l.shape().elem_count()];
        add_gradient(host(x, x_l)?, host(w, w_l)?, host(grad, grad_l)?, self.eps, &mut dx);
        Ok((CpuStorage::F32(dx), x_l.shape().clone()))
    }
}

/// [`rms_norm`] of rows in memory.
pub(super) fn normalised(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut y = vec![0f32; x.len()];
    let chunk = weight.len() * row_chunks(x.len() / weight.len(), weight.len());
    let run = |(x, y): (&[f32], &mut [f32])| vectorised!(forward(x, weight, eps, y));
    x.par_chunks(chunk).zip(y.par_chunks_mut(chunk)).for_each(run);
    y
}

/// Adds its gradient for `x` to `dx`.
pub(super) fn add_gradient(x: &[f32], weight: &[f32], grad: &[f32], eps: f32, dx: &mut [f32]) {
    let chunk = weight.len() * row_chunks(x.len() / weight.len(), weight.len());
    let parts = x.par_chunks(chunk).zip(grad.par_chunks(chunk)).zip(dx.par_chunks_mut(chunk));
    parts.for_each(|((x, grad), dx)| vectorised!(backward(x, weight, grad, eps, dx)));
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

/// With `s = 1 / sqrt(mean(x^2) + eps)` and `h = grad * weight`: `dx += s h - s^3 x mean(h x)`.
#[inline(always)]
fn backward(x: &[f32], weight: &[f32], grad: &[f32], eps: f32, dx: &mut [f32]) {
    let width = weight.len();
    let mut h = vec![0f32; width];
    for ((x, grad), dx) in x.chunks_exact(width).zip(grad.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
        let scale = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
        for ((h, grad), weight) in h.iter_mut().zip(grad).zip(weight) {
            *h = grad * weight;
        }
        let along = scale * scale * scale * dot(&h, x) / width as f32;
        for ((dx, h), x) in dx.iter_mut().zip(&h).zip(x) {
            *dx += scale * h - along * x;
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

    #[test]
    fn gradient_equals_finite_differences() {
        let weight = random(2, &[17]);
        check_gradient(&[random(1, &[3, 17])], |inputs| rms_norm(&inputs[0], &weight, 1e-5).unwrap());
    }

    #[test]
    fn a_trainable_weight_is_an_error_and_not_a_lost_gradient() {
        let weight = candle_core::Var::from_tensor(&random(2, &[17])).unwrap();
        let loss = rms_norm(&random(1, &[3, 17]), weight.as_tensor(), 1e-5).unwrap().sum_all().unwrap();
        assert!(loss.backward().unwrap_err().to_string().contains("frozen"));
    }
}
