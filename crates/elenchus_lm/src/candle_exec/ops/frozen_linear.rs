//! A product with a weight that does not learn: its backward is one product, with the weight as the base holds it.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::super::matrix::Matrix;

struct FrozenLinear(Arc<Matrix>);

/// `x W^T` `(rows, out_features)` of `x` `(rows, in_features)`, differentiable by `x` alone.
pub(crate) fn frozen_linear(x: &Tensor, weight: &Arc<Matrix>) -> Result<Tensor> {
    match &**weight {
        Matrix::Dense(dense) if !x.device().is_cpu() => x.matmul(&dense.t()?),
        _ => x.apply_op1(FrozenLinear(weight.clone())),
    }
}

impl CustomOp1 for FrozenLinear {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_l: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.forward_host(x, x_l)
    }

    fn cuda_fwd(&self, x: &candle_core::CudaStorage, x_l: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        match &*self.0 {
            Matrix::Blocks(blocks) => blocks.cuda_fwd(x, x_l),
            Matrix::Dense(_) => candle_core::bail!("a dense product on a GPU is candle's own"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.backward(&grad.contiguous()?)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QTensor};

    use super::{super::tests::*, *};

    #[test]
    fn dense_gradient_equals_finite_differences() {
        let weight = Arc::new(Matrix::Dense(random(1, &[7, 12])));
        check_gradient(&[random(2, &[3, 12])], |inputs| frozen_linear(&inputs[0], &weight).unwrap());
    }

    /// The forward rounds activations to eight bits, so differences are coarse; the backward multiplies by the exact
    /// dequantised weight, whatever the block type.
    #[test]
    fn quantised_gradient_is_the_dequantised_product() {
        use GgmlDType::*;
        for dtype in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K, F16, BF16, F32] {
            let blocks = QTensor::quantize(&random(1, &[6, 256]), dtype).unwrap();
            let dense = blocks.dequantize(&candle_core::Device::Cpu).unwrap();
            let weight = Arc::new(Matrix::Blocks(blocks));
            let x = candle_core::Var::from_tensor(&random(2, &[3, 256])).unwrap();
            let y = frozen_linear(x.as_tensor(), &weight).unwrap();
            assert!(distance(&y, &x.matmul(&dense.t().unwrap()).unwrap()) < 0.3, "{dtype:?} forward");
            let weighing = random(3, &[3, 6]);
            let grads = (y * &weighing).unwrap().sum_all().unwrap().backward().unwrap();
            let expected = weighing.matmul(&dense).unwrap();
            assert!(distance(grads.get(&x).unwrap(), &expected) < 1e-5, "{dtype:?} backward");
        }
    }
}
