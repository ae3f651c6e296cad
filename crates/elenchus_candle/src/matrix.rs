//! A weight matrix: blocks as in the file, dense f32, or dense bf16.

use std::borrow::Cow;

use candle_core::{
    CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Storage, Tensor,
    backend::BackendStorage,
    bail,
    quantized::{GgmlDType, QStorage, QTensor},
};

use elenchus_lm::{BlockType, Numerics, RawTensor};

/// `(out_features, in_features)`.
pub(crate) enum Matrix {
    Blocks(QTensor),
    /// f32.
    Dense(Tensor),
    /// bf16, widened to f32 for each product.
    Half(Tensor),
}

impl Matrix {
    /// Copies a tensor from the map. With [`Numerics::Quantised`] a dense one, and one of a block type that candle does not
    /// have, becomes Q8_0 if its width allows.
    pub fn load(raw: &RawTensor<'_>, device: &Device, numerics: Numerics) -> Result<Self> {
        let width = raw.shape[raw.shape.len() - 1];
        match (numerics, raw.dtype.is_dense() || ggml_type(raw.dtype).is_none()) {
            (Numerics::Quantised, false) => Ok(Self::Blocks(blocks(raw, device)?)),
            (Numerics::Quantised, true) if width.is_multiple_of(GgmlDType::Q8_0.block_size()) => {
                Ok(Self::Blocks(QTensor::quantize_onto(&dense(raw, &Device::Cpu)?, GgmlDType::Q8_0, device)?))
            }
            (Numerics::Bf16, _) => Ok(Self::Half(dense(raw, device)?.to_dtype(DType::BF16)?)),
            _ => Ok(Self::Dense(dense(raw, device)?)),
        }
    }

    /// `x` `(rows, in_features)` to `(rows, out_features)`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Blocks(blocks) => x.apply_op1_no_bwd(blocks),
            _ => x.matmul(&self.dense()?.t()?),
        }
    }

    /// [`Self::forward`] on plain CPU storage, for custom ops.
    pub fn forward_host(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        if let Self::Blocks(blocks) = self {
            return blocks.cpu_fwd(x, layout);
        }
        let (rows, in_features) = layout.shape().dims2()?;
        let transposed = self.dense()?.t()?;
        let (weight, weight_layout) = transposed.storage_and_layout();
        let Storage::Cpu(weight) = &*weight else { bail!("the weight is not on the CPU") };
        let out_features = transposed.dim(1)?;
        let y = x.matmul(weight, (1, rows, out_features, in_features), layout, weight_layout)?;
        Ok((y, Shape::from((rows, out_features))))
    }

    /// [`Self::backward`] on plain CPU storage.
    pub fn backward_host(&self, grad: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
        let (rows, out_features) = layout.shape().dims2()?;
        let dense = self.dense()?;
        let (weight, weight_layout) = dense.storage_and_layout();
        let Storage::Cpu(weight) = &*weight else { bail!("the weight is not on the CPU") };
        grad.matmul(weight, (1, rows, dense.dim(1)?, out_features), layout, weight_layout)
    }

    /// The gradient for `x` of [`Self::forward`]: `grad` `(rows, out_features)` to `(rows, in_features)`.
    pub fn backward(&self, grad: &Tensor) -> Result<Tensor> {
        grad.matmul(&self.dense()?)
    }

    /// In f32; the matrix itself if it is f32 already.
    pub fn dense(&self) -> Result<Tensor> {
        match self {
            Self::Blocks(blocks) => blocks.dequantize(&blocks.device()),
            Self::Dense(dense) => Ok(dense.clone()),
            Self::Half(half) => half.to_dtype(DType::F32),
        }
    }

    /// The rows of some ids, `(ids, in_features)`.
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        match self {
            Self::Blocks(blocks) => blocks.embedding(ids),
            Self::Dense(dense) => dense.index_select(ids, 0),
            Self::Half(half) => half.index_select(ids, 0)?.to_dtype(DType::F32),
        }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Blocks(blocks) => blocks.storage_size_in_bytes(),
            Self::Dense(dense) | Self::Half(dense) => dense.elem_count() * dense.dtype().size_in_bytes(),
        }
    }
}

/// candle's name of a block type; `None` for one that it does not have.
pub(crate) fn ggml_type(block_type: BlockType) -> Option<GgmlDType> {
    Some(match block_type {
        BlockType::F32 => GgmlDType::F32,
        BlockType::F16 => GgmlDType::F16,
        BlockType::BF16 => GgmlDType::BF16,
        BlockType::Q4_0 => GgmlDType::Q4_0,
        BlockType::Q4_1 => GgmlDType::Q4_1,
        BlockType::Q5_0 => GgmlDType::Q5_0,
        BlockType::Q5_1 => GgmlDType::Q5_1,
        BlockType::Q8_0 => GgmlDType::Q8_0,
        BlockType::Q2K => GgmlDType::Q2K,
        BlockType::Q3K => GgmlDType::Q3K,
        BlockType::Q4K => GgmlDType::Q4K,
        BlockType::Q5K => GgmlDType::Q5K,
        BlockType::Q6K => GgmlDType::Q6K,
        _ => return None,
    })
}

fn blocks(raw: &RawTensor<'_>, device: &Device) -> Result<QTensor> {
    let Some(ggml) = ggml_type(raw.dtype) else { bail!("candle has no block type {:?}", raw.dtype) };
    QTensor::new(QStorage::from_data(Cow::Borrowed(&raw.bytes), device, ggml)?, raw.shape.clone())
}

/// A tensor as f32, dequantised if it holds blocks.
pub(super) fn dense(raw: &RawTensor<'_>, device: &Device) -> Result<Tensor> {
    if raw.dtype.is_dense() || ggml_type(raw.dtype).is_none() {
        return Tensor::from_vec(raw.dequantise(), raw.shape.clone(), device);
    }
    // candle's own dequantisation: it is the reference for the CPU engine's.
    blocks(raw, &Device::Cpu)?.dequantize(&Device::Cpu)?.to_device(device)
}
