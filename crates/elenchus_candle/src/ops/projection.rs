//! A linear of the frozen base with the adapter's update and its dropout.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;

use super::{super::matrix::Matrix, row_chunks, rows::Rows, with_host};

/// `x W^T + bias + scaling dropout(x) A^T B^T`, each part but the first if it is given.
#[derive(Clone)]
pub(crate) struct Projection {
    pub weight: Arc<Matrix>,
    /// `(out_features)`.
    pub bias: Option<Tensor>,
    pub scaling: f32,
    pub dropout: Option<DropoutMask>,
}

impl Projection {
    /// `x` `(rows, in_features)` to `(rows, out_features)`, composed of tensor operations: differentiable by `x`, by A
    /// `(rank, in_features)` and B `(out_features, rank)`, and by the residual `(rows, out_features)`.
    pub fn composed(&self, x: &Tensor, lora: Option<(&Tensor, &Tensor)>, residual: Option<&Tensor>) -> Result<Tensor> {
        let y = match &*self.weight {
            Matrix::Blocks(_) => x.apply_op1(Frozen(self.weight.clone()))?,
            _ => x.matmul(&self.weight.dense()?.t()?)?,
        };
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        let y = match lora {
            Some((a, b)) => {
                let x = match &self.dropout {
                    Some(mask) => (x * mask.tensor(x)?)?,
                    None => x.clone(),
                };
                (y + (x.matmul(&a.t()?)?.matmul(&b.t()?)? * f64::from(self.scaling))?)?
            }
            None => y,
        };
        residual.map_or(Ok(y.clone()), |residual| residual + &y)
    }

    /// The same of rows in memory, without the residual; and `dropout(x) A^T`, which the gradients need.
    pub fn forward(&self, x: &Rows, lora: Option<&LoraPart<'_>>) -> Result<(Rows, Option<Rows>)> {
        let rows = x.rows();
        let mut y = Rows::from_storage(self.weight.forward_host(x.storage(), x.layout())?.0, rows)?;
        if let Some(bias) = &self.bias {
            let y = y.values_mut()?;
            with_host(bias, |bias| y.chunks_exact_mut(bias.len()).for_each(|row| add_scaled(row, 1.0, bias)))?;
        }
        let inner = match lora {
            Some(lora) => {
                let inner = match &self.dropout {
                    Some(mask) => mask.applied(x)?.times(lora.values, &lora.a.transpose(0, 1)?)?,
                    None => x.times(lora.values, &lora.a.transpose(0, 1)?)?,
                };
                let update = inner.times(lora.values, &lora.b.transpose(0, 1)?)?;
                add_scaled(y.values_mut()?, self.scaling, update.values()?);
                Some(inner)
            }
            None => None,
        };
        Ok((y, inner))
    }

    /// The gradients, given that of the output: for `x`, if `is_wanted`, and
    /// for A and B, which go to their places in `d_values`. `x` and `inner` are the input and output of
    /// [`Self::forward`]; both are present if the linear is adapted.
    ///
    /// With `g` that gradient, `d` the output of dropout on `x`, `u = d A^T`, `du = scaling g B`:
    /// `dA = du^T d`, `dB = scaling g^T u`, `dx = g W + dropout(du A)`.
    pub fn backward(
        &self,
        adapted: Option<Adapted<'_>>,
        grad: &Rows,
        d_values: &mut [f32],
        is_wanted: bool,
    ) -> Result<Option<Rows>> {
        let rows = grad.rows();
        let mut d_x = match is_wanted {
            true => Some(Rows::from_storage(self.weight.backward_host(grad.storage(), grad.layout())?, rows)?),
            false => None,
        };
        let Some(Adapted { lora, x, inner }) = adapted else { return Ok(d_x) };
        let mut d_inner = grad.times(lora.values, &lora.b)?;
        scale(d_inner.values_mut()?, self.scaling);
        let mut d_b = grad.transposed_times(inner)?;
        scale(d_b.values_mut()?, self.scaling);
        let d_a = match &self.dropout {
            Some(mask) => d_inner.transposed_times(&mask.applied(x)?)?,
            None => d_inner.transposed_times(x)?,
        };
        for (layout, gradient) in [(&lora.a, d_a), (&lora.b, d_b)] {
            d_values[layout.start_offset()..][..layout.shape().elem_count()].copy_from_slice(gradient.values()?);
        }
        if let Some(d_x) = &mut d_x {
            let mut update = d_inner.times(lora.values, &lora.a)?;
            if let Some(mask) = &self.dropout {
                mask.apply(update.values_mut()?, rows);
            }
            add_scaled(d_x.values_mut()?, 1.0, update.values()?);
        }
        Ok(d_x)
    }
}

/// A linear's A `(rank, in_features)` and B `(out_features, rank)` within all variables of a block.
pub(crate) struct LoraPart<'a> {
    pub values: &'a CpuStorage,
    pub a: Layout,
    pub b: Layout,
}

/// A linear's A and B, its input, and [`Projection::forward`]'s second result.
pub(crate) struct Adapted<'a> {
    pub lora: &'a LoraPart<'a>,
    pub x: &'a Rows,
    pub inner: &'a Rows,
}

/// A product with blocks as in the file, differentiable by its input.
struct Frozen(Arc<Matrix>);

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_l: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.forward_host(x, x_l)
    }

    fn cuda_fwd(&self, x: &candle_core::CudaStorage, x_l: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        match &*self.0 {
            Matrix::Blocks(blocks) => blocks.cuda_fwd(x, x_l),
            _ => bail!("a dense product on a GPU is candle's own"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.backward(&grad.contiguous()?)?))
    }
}

/// `y += scale x`.
pub(super) fn add_scaled(y: &mut [f32], scale: f32, x: &[f32]) {
    let run = |(y, x): (&mut [f32], &[f32])| vectorised!(super::attention::add_scaled(y, scale, x));
    let chunk = row_chunks(y.len(), 1);
    y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(run);
}

/// `y *= scale`: few numbers, as a LoRA's rank is small.
fn scale(y: &mut [f32], scale: f32) {
    y.iter_mut().for_each(|y| *y *= scale);
}

/// Dropout of a linear's inputs: a function of a seed and of row and column, so that nothing of it is kept
/// between forward and backward.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DropoutMask {
    probability: f32,
    seed: u64,
}

impl DropoutMask {
    /// A mask that drops this share, in steps of 2^-16; the rest is scaled up.
    pub fn new(probability: f32, seed: u64) -> Self {
        Self { probability, seed }
    }

    /// Masks `values`, `rows` of them concatenated.
    fn apply(&self, values: &mut [f32], rows: usize) {
        let width = values.len() / rows;
        let limit = (self.probability * 65_536.0).round() as u32;
        let scale = 1.0 / (1.0 - self.probability);
        let chunk = row_chunks(rows, width);
        values.par_chunks_mut(chunk * width).enumerate().for_each(|(number, values)| {
            for (at, values) in values.chunks_exact_mut(width).enumerate() {
                let row = (number * chunk + at) as u64;
                let seed = self.seed.wrapping_add(row.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let key = Pcg64Mcg::seed_from_u64(seed).random();
                vectorised!(mask_row(values, key, limit, scale));
            }
        });
    }

    /// The masked copy of some rows.
    fn applied(&self, x: &Rows) -> Result<Rows> {
        let mut values = x.values()?.to_vec();
        self.apply(&mut values, x.rows());
        Rows::new(values, x.rows())
    }

    /// The factors for a tensor like `x`.
    fn tensor(&self, x: &Tensor) -> Result<Tensor> {
        let mut factors = vec![1.0; x.elem_count()];
        self.apply(&mut factors, x.dim(0)?);
        Tensor::from_vec(factors, x.shape(), x.device())
    }
}

/// Each column's random number is a hash of its index and the row's key, so that a vector of them is computed at once:
/// Ellis' `lowbias32`, with the key in two parts.
#[inline(always)]
fn mask_row(values: &mut [f32], key: u64, limit: u32, scale: f32) {
    let (low, high) = (key as u32, (key >> 32) as u32);
    for (column, value) in values.iter_mut().enumerate() {
        let mut draw = (column as u32).wrapping_mul(0x9e37_79b9) ^ low;
        draw = (draw ^ (draw >> 16)).wrapping_mul(0x7feb_352d) ^ high;
        draw = (draw ^ (draw >> 15)).wrapping_mul(0x846c_a68b);
        *value *= if draw >> 16 >= limit { scale } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{
        Device,
        quantized::{GgmlDType, QTensor},
    };

    use super::{super::tests::*, *};

    /// The forward rounds activations to eight bits, so differences are coarse; the backward multiplies by the exact
    /// dequantised weight, whatever the block type.
    #[test]
    fn quantised_gradient_is_the_dequantised_product() {
        use GgmlDType::*;
        for dtype in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K, F16, BF16, F32] {
            let blocks = QTensor::quantize(&random(1, &[6, 256]), dtype).unwrap();
            let dense = blocks.dequantize(&Device::Cpu).unwrap();
            check_base(Matrix::Blocks(blocks), &dense, 0.3, &format!("{dtype:?}"));
        }
        let half = random(1, &[6, 256]).to_dtype(candle_core::DType::BF16).unwrap();
        let dense = half.to_dtype(candle_core::DType::F32).unwrap();
        check_base(Matrix::Half(half), &dense, 1e-4, "half");
    }

    fn check_base(weight: Matrix, dense: &Tensor, tolerance: f32, name: &str) {
        let x = candle_core::Var::from_tensor(&random(2, &[3, 256])).unwrap();
        let projection = Projection { weight: Arc::new(weight), bias: None, scaling: 0.0, dropout: None };
        let y = projection.composed(x.as_tensor(), None, None).unwrap();
        assert!(distance(&y, &x.matmul(&dense.t().unwrap()).unwrap()) < tolerance, "{name} forward");
        let weighing = random(3, &[3, 6]);
        let grads = (&y * &weighing).unwrap().sum_all().unwrap().backward().unwrap();
        let expected = weighing.matmul(dense).unwrap();
        assert!(distance(grads.get(&x).unwrap(), &expected) < 1e-4, "{name} backward");
        // Of rows in memory exactly the same.
        let rows = |x: &Tensor| Rows::new(x.flatten_all().unwrap().to_vec1().unwrap(), 3).unwrap();
        let (in_memory, _) = projection.forward(&rows(&x), None).unwrap();
        assert_eq!(in_memory.values().unwrap(), y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), "{name}");
        let back = projection.backward(None, &rows(&weighing), &mut [], true).unwrap().unwrap();
        let back = Tensor::from_vec(back.into_values().unwrap(), (3, 256), &Device::Cpu).unwrap();
        assert!(distance(&back, &expected) < 1e-4, "{name} backward in memory");
    }

    #[test]
    fn dropout_leaves_out_its_share_and_keeps_the_mean() {
        let mask = DropoutMask::new(0.05, 3);
        let mut values = vec![1.0; 200 * 577];
        mask.apply(&mut values, 200);
        let dropped = values.iter().filter(|value| **value == 0.0).count() as f64 / values.len() as f64;
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
        assert!((dropped - 0.05).abs() < 0.003 && (mean - 1.0).abs() < 0.003, "{dropped} {mean}");
        let mut again = vec![1.0; 200 * 577];
        mask.apply(&mut again, 200);
        assert_eq!(values, again);
        DropoutMask::new(0.05, 4).apply(&mut again, 200);
        assert_ne!(values, again);
        assert_ne!(values[..577], values[577..1154]);
    }
}
