//! `y = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias`, row by row. Weight and bias belong to the frozen base and
//! get no gradient.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{dot, host, refuse_variable, row_chunks, sum, with_host};

struct LayerNorm {
    eps: f32,
}

/// Normalises the rows of `x` `(rows, width)` by `weight` and `bias` (width).
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    match x.device().is_cpu() {
        true => x.apply_op3(weight, bias, LayerNorm { eps }),
        false => composed(x, weight, bias, eps),
    }
}

fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
    let variance = centred.sqr()?.mean_keepdim(1)?;
    let normed = centred.broadcast_div(&(variance + f64::from(eps))?.sqrt()?)?;
    normed.broadcast_mul(weight)?.broadcast_add(bias)
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_l: &Layout,
        w: &CpuStorage,
        w_l: &Layout,
        b: &CpuStorage,
        b_l: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = layer_normalised(host(x, x_l)?, host(w, w_l)?, host(b, b_l)?, self.eps);
        Ok((CpuStorage::F32(y), x_l.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        refuse_variable(weight, "layer-norm's weight")?;
        refuse_variable(bias, "layer-norm's bias")?;
        let mut d_x = vec![0f32; x.elem_count()];
        let grad = grad.contiguous()?;
        with_host(x, |x| {
            with_host(weight, |weight| {
                with_host(&grad, |grad| add_layer_norm_gradient(x, weight, grad, self.eps, &mut d_x))
            })
        })???;
        Ok((Some(Tensor::from_vec(d_x, x.shape(), x.device())?), None, None))
    }
}

/// [`layer_norm`] of rows in memory.
pub(super) fn layer_normalised(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let mut y = vec![0f32; x.len()];
    let chunk = weight.len() * row_chunks(x.len() / weight.len(), weight.len());
    let run = |(x, y): (&[f32], &mut [f32])| vectorised!(forward(x, (weight, bias), eps, y));
    x.par_chunks(chunk).zip(y.par_chunks_mut(chunk)).for_each(run);
    y
}

/// Adds its gradient for `x` to `dx`.
pub(super) fn add_layer_norm_gradient(x: &[f32], weight: &[f32], grad: &[f32], eps: f32, dx: &mut [f32]) {
    let chunk = weight.len() * row_chunks(x.len() / weight.len(), weight.len());
    let parts = x.par_chunks(chunk).zip(grad.par_chunks(chunk)).zip(dx.par_chunks_mut(chunk));
    parts.for_each(|((x, grad), dx)| vectorised!(backward(x, weight, grad, eps, dx)));
}

/// Writes `x - mean(x)`, and returns `1 / sqrt(variance(x) + eps)`.
#[inline(always)]
fn centre(x: &[f32], eps: f32, centred: &mut [f32]) -> f32 {
    let mean = sum(x) / x.len() as f32;
    for (centred, x) in centred.iter_mut().zip(x) {
        *centred = x - mean;
    }
    1.0 / (dot(centred, centred) / x.len() as f32 + eps).sqrt()
}

#[inline(always)]
fn forward(x: &[f32], (weight, bias): (&[f32], &[f32]), eps: f32, y: &mut [f32]) {
    let width = weight.len();
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let scale = centre(x, eps, y);
        for ((y, weight), bias) in y.iter_mut().zip(weight).zip(bias) {
            *y = *y * scale * weight + bias;
        }
    }
}

/// With `c = x - mean(x)`, `s = 1 / sqrt(variance(x) + eps)` and `h = grad * weight`:
/// `dx += s (h - mean(h)) - s^3 c mean(h c)`.
#[inline(always)]
fn backward(x: &[f32], weight: &[f32], grad: &[f32], eps: f32, dx: &mut [f32]) {
    let width = weight.len();
    let (mut h, mut centred) = (vec![0f32; width], vec![0f32; width]);
    for ((x, grad), dx) in x.chunks_exact(width).zip(grad.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
        let scale = centre(x, eps, &mut centred);
        for ((h, grad), weight) in h.iter_mut().zip(grad).zip(weight) {
            *h = grad * weight;
        }
        let mean = sum(&h) / width as f32;
        let along = scale * scale * scale * dot(&h, &centred) / width as f32;
        for ((dx, h), centred) in dx.iter_mut().zip(&h).zip(&centred) {
            *dx += scale * (h - mean) - along * centred;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};

    #[test]
    fn fused_equals_composed() {
        for (rows, width) in [(1, 2), (3, 17), (5, 576), (2, 64)] {
            let x = (random(1, &[rows, width]) + 3.0).unwrap();
            let (weight, bias) = (random(2, &[width]), random(3, &[width]));
            let fused = layer_norm(&x, &weight, &bias, 1e-5).unwrap();
            let difference = distance(&fused, &composed(&x, &weight, &bias, 1e-5).unwrap());
            assert!(difference < 5e-6, "{rows} x {width}: {difference}");
        }
    }

    #[test]
    fn gradient_equals_finite_differences() {
        let (weight, bias) = (random(2, &[17]), random(3, &[17]));
        check_gradient(&[random(1, &[3, 17])], |inputs| layer_norm(&inputs[0], &weight, &bias, 1e-5).unwrap());
    }

    #[test]
    fn a_trainable_weight_is_an_error_and_not_a_lost_gradient() {
        let weight = candle_core::Var::from_tensor(&random(2, &[17])).unwrap();
        let y = layer_norm(&random(1, &[3, 17]), weight.as_tensor(), &random(3, &[17]), 1e-5).unwrap();
        assert!(y.sum_all().unwrap().backward().unwrap_err().to_string().contains("frozen"));
    }
}
