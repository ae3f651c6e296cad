//! A linear of the frozen base with all that follows it in a block: the adapter's update, the rotation of q and k, the
//! residual sum. One op for all, so that training keeps a linear's input and its final output and nothing between.

use std::sync::Arc;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp2, Layout, Result, Shape, Tensor, backend::BackendStorage,
    bail,
};
use pulp::Arch;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;

use super::{
    super::matrix::Matrix,
    host,
    rope::{Rotation, rope, rotate, unrotate},
    row_chunks,
};

/// `rotate(x W^T + scaling dropout(x) A^T B^T) + residual`, each part but the first where it is given.
#[derive(Clone)]
pub(crate) struct Projection {
    pub weight: Arc<Matrix>,
    pub rotation: Option<Arc<Rotation>>,
    pub scaling: f32,
    pub dropout: Option<DropoutMask>,
}

impl Projection {
    /// `x` `(rows, in_features)` to `(rows, out_features)`, differentiable by `x`, by A `(rank, in_features)` and B
    /// `(out_features, rank)`, and by the residual `(rows, out_features)`.
    pub fn apply(self, x: &Tensor, lora: Option<(&Tensor, &Tensor)>, residual: Option<&Tensor>) -> Result<Tensor> {
        if !x.device().is_cpu() {
            return self.composed(x, lora, residual);
        }
        match (lora, residual) {
            (None, None) => x.apply_op1(Plain(self)),
            (None, Some(residual)) => x.apply_op2(residual, WithResidual(self)),
            (Some((a, b)), None) => x.apply_op3(a, b, WithLora(self)),
            // Four inputs are more than an op can have.
            (Some((a, b)), Some(residual)) => residual + x.apply_op3(a, b, WithLora(self))?,
        }
    }

    fn composed(self, x: &Tensor, lora: Option<(&Tensor, &Tensor)>, residual: Option<&Tensor>) -> Result<Tensor> {
        let y = match &*self.weight {
            Matrix::Blocks(_) => x.apply_op1(Plain(Self { rotation: None, ..self.clone() }))?,
            _ => x.matmul(&self.weight.dense()?.t()?)?,
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
        let y = match &self.rotation {
            Some(rotation) => rope(&y, rotation)?,
            None => y,
        };
        residual.map_or(Ok(y.clone()), |residual| residual + &y)
    }

    /// The base's part.
    fn base(&self, x: &CpuStorage, x_l: &Layout) -> Result<Vec<f32>> {
        match self.weight.forward_host(x, x_l)?.0 {
            CpuStorage::F32(y) => Ok(y),
            other => bail!("projection: expected f32, got {:?}", other.dtype()),
        }
    }

    fn finish(&self, mut y: Vec<f32>, x_l: &Layout) -> Result<(CpuStorage, Shape)> {
        let rows = x_l.dims()[0];
        if let Some(rotation) = &self.rotation {
            rotate(&mut y, rows, rotation)?;
        }
        let shape = Shape::from((rows, y.len() / rows));
        Ok((CpuStorage::F32(y), shape))
    }

    /// The gradient before the rotation.
    fn unrotated(&self, grad: &Tensor) -> Result<Tensor> {
        let grad = grad.contiguous()?;
        self.rotation.as_ref().map_or(Ok(grad.clone()), |rotation| unrotate(&grad, rotation))
    }

    /// The gradient by `x` through the base, where somebody asks for it.
    fn base_gradient(&self, x: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        x.track_op().then(|| self.weight.backward(grad)).transpose()
    }
}

struct Plain(Projection);

impl CustomOp1 for Plain {
    fn name(&self) -> &'static str {
        "projection"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_l: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.finish(self.0.base(x, x_l)?, x_l)
    }

    fn cuda_fwd(&self, x: &candle_core::CudaStorage, x_l: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        match &*self.0.weight {
            Matrix::Blocks(blocks) => blocks.cuda_fwd(x, x_l),
            _ => bail!("a dense product on a GPU is candle's own"),
        }
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.0.base_gradient(x, &self.0.unrotated(grad)?)
    }
}

struct WithResidual(Projection);

impl CustomOp2 for WithResidual {
    fn name(&self) -> &'static str {
        "projection-residual"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_l: &Layout, r: &CpuStorage, r_l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (mut y, shape) = self.0.finish(self.0.base(x, x_l)?, x_l)?;
        let CpuStorage::F32(sums) = &mut y else { bail!("projection: expected f32") };
        add_scaled(sums, 1.0, host(r, r_l)?);
        Ok((y, shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.0.base_gradient(x, &self.0.unrotated(grad)?)?, Some(grad.clone())))
    }
}

struct WithLora(Projection);

impl CustomOp3 for WithLora {
    fn name(&self) -> &'static str {
        "projection-lora"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_l: &Layout,
        a: &CpuStorage,
        a_l: &Layout,
        b: &CpuStorage,
        b_l: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, in_features) = x_l.shape().dims2()?;
        let (out_features, rank) = b_l.shape().dims2()?;
        let mut y = self.0.base(x, x_l)?;
        let a_t = a_l.transpose(0, 1)?;
        let hidden = match &self.0.dropout {
            Some(mask) => {
                let mut dropped = host(x, x_l)?.to_vec();
                mask.apply(&mut dropped, rows);
                let layout = Layout::contiguous((rows, in_features));
                CpuStorage::F32(dropped).matmul(a, (1, rows, rank, in_features), &layout, &a_t)?
            }
            None => x.matmul(a, (1, rows, rank, in_features), x_l, &a_t)?,
        };
        let layout = Layout::contiguous((rows, rank));
        let update = hidden.matmul(b, (1, rows, out_features, rank), &layout, &b_l.transpose(0, 1)?)?;
        add_scaled(&mut y, self.0.scaling, update.as_slice()?);
        self.0.finish(y, x_l)
    }

    /// With `g` the gradient before the rotation, `d` what dropout left of `x`, `u = d A^T`, `du = scaling g B`:
    /// `dA = du^T d`, `dB = scaling g^T u`, `dx = g W + dropout(du A)`.
    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let d_x = |grad: &Tensor| self.0.base_gradient(x, grad);
        let (scaling, grad) = (f64::from(self.0.scaling), self.0.unrotated(grad)?);
        let (d_x, x, a, b) = (d_x(&grad)?, x.detach(), a.detach(), b.detach());
        let dropped = match &self.0.dropout {
            Some(mask) => {
                let dropped = x.copy()?;
                dropped.inplace_op1(mask)?;
                dropped
            }
            None => x,
        };
        let d_hidden = (grad.matmul(&b)? * scaling)?;
        let d_a = d_hidden.t()?.matmul(&dropped)?;
        let d_b = (grad.t()?.matmul(&dropped.matmul(&a.t()?)?)? * scaling)?;
        if let Some(d_x) = &d_x {
            let update = d_hidden.matmul(&a)?;
            if let Some(mask) = &self.0.dropout {
                update.inplace_op1(mask)?;
            }
            d_x.inplace_op2(&update, &Add)?;
        }
        Ok((d_x, Some(d_a), Some(d_b)))
    }
}

/// `y += x` in place.
struct Add;

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, y_l: &Layout, x: &CpuStorage, x_l: &Layout) -> Result<()> {
        let (CpuStorage::F32(y), Some((start, end))) = (y, y_l.contiguous_offsets()) else {
            bail!("add: expected contiguous f32, got {y_l:?}")
        };
        add_scaled(&mut y[start..end], 1.0, host(x, x_l)?);
        Ok(())
    }
}

/// `y += scale x`.
fn add_scaled(y: &mut [f32], scale: f32, x: &[f32]) {
    let run = |(y, x): (&mut [f32], &[f32])| Arch::new().dispatch(|| super::attention::add_scaled(y, scale, x));
    let chunk = row_chunks(y.len(), 1);
    y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(run);
}

/// Which inputs of a linear are left out: a function of a seed and of row and column, so that nothing of it is kept
/// between forward and backward.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DropoutMask {
    probability: f32,
    seed: u64,
}

impl DropoutMask {
    /// A mask that leaves out this share, in steps of 2^-16; what stays is scaled up.
    pub fn new(probability: f32, seed: u64) -> Self {
        Self { probability, seed }
    }

    /// Masks `values`, `rows` of them end to end.
    fn apply(&self, values: &mut [f32], rows: usize) {
        let width = values.len() / rows;
        let limit = (self.probability * 65_536.0).round() as u16;
        let scale = 1.0 / (1.0 - self.probability);
        values.par_chunks_exact_mut(width).enumerate().for_each(|(row, values)| {
            let mut rng =
                Pcg64Mcg::seed_from_u64(self.seed.wrapping_add((row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            for values in values.chunks_mut(4) {
                let draw = rng.random::<u64>();
                for (at, value) in values.iter_mut().enumerate() {
                    *value *= if (draw >> (16 * at)) as u16 >= limit { scale } else { 0.0 };
                }
            }
        });
    }

    /// The factors for a tensor like `x`.
    fn tensor(&self, x: &Tensor) -> Result<Tensor> {
        let mut factors = vec![1.0; x.elem_count()];
        self.apply(&mut factors, x.dim(0)?);
        Tensor::from_vec(factors, x.shape(), x.device())
    }
}

impl candle_core::InplaceOp1 for DropoutMask {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, values: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (values, layout.contiguous_offsets()) else {
            bail!("dropout: expected contiguous f32, got {layout:?}")
        };
        self.apply(&mut values[start..end], layout.dims()[0]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{
        Device,
        quantized::{GgmlDType, QTensor},
    };

    use super::{super::tests::*, *};
    use crate::{ModelConfig, config::tests::tiny};

    fn projection(weight: Matrix) -> Projection {
        Projection { weight: Arc::new(weight), rotation: None, scaling: 0.7, dropout: None }
    }

    /// Every combination of parts, against finite differences and against plain tensor operations.
    #[test]
    fn every_gradient_equals_finite_differences_and_fused_equals_composed() {
        let config = ModelConfig { head_dim: 6, ..tiny() };
        let rotation = Arc::new(Rotation::new(&config, &[0, 3, 50], &Device::Cpu).unwrap());
        let (x, a, b) = (random(1, &[3, 10]), random(2, &[4, 10]), random(3, &[12, 4]));
        let residual = random(4, &[3, 12]);
        for parts in 0..16 {
            let given = |bit: usize| parts & bit > 0;
            let projection = Projection {
                rotation: given(1).then(|| rotation.clone()),
                dropout: given(2).then(|| DropoutMask::new(0.3, 5)),
                ..projection(Matrix::Dense(random(5, &[12, 10])))
            };
            let mut inputs = vec![x.clone()];
            inputs.extend(given(4).then(|| [a.clone(), b.clone()]).into_iter().flatten());
            inputs.extend(given(8).then(|| residual.clone()));
            let run = |inputs: &[Tensor]| {
                let lora = given(4).then(|| (&inputs[1], &inputs[2]));
                let residual = given(8).then(|| &inputs[inputs.len() - 1]);
                let fused = projection.clone().apply(&inputs[0], lora, residual).unwrap();
                let composed = projection.clone().composed(&inputs[0], lora, residual).unwrap();
                assert!(distance(&fused, &composed) < 1e-4, "parts {parts:04b}");
                fused
            };
            check_gradient(&inputs, run);
        }
    }

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
        let y = projection(weight).apply(x.as_tensor(), None, None).unwrap();
        assert!(distance(&y, &x.matmul(&dense.t().unwrap()).unwrap()) < tolerance, "{name} forward");
        let weighing = random(3, &[3, 6]);
        let grads = (y * &weighing).unwrap().sum_all().unwrap().backward().unwrap();
        let expected = weighing.matmul(dense).unwrap();
        assert!(distance(grads.get(&x).unwrap(), &expected) < 1e-4, "{name} backward");
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
