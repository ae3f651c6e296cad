//! Model files for tests, in block types that only candle quantises to.

use candle_core::{Device, Tensor, quantized::QTensor};
use elenchus_lm::BlockType;

use crate::matrix::ggml_type;

/// Numbers as blocks of a type: for [`elenchus_lm::testing::TinyModel::gguf_by`].
///
/// Panics if their count is no multiple of the block size.
pub fn quantised(block_type: BlockType, values: &[f32]) -> Vec<u8> {
    let tensor = Tensor::from_slice(values, (1, values.len()), &Device::Cpu).expect("as many as they are");
    let blocks = ggml_type(block_type).and_then(|ggml| QTensor::quantize(&tensor, ggml)).expect("whole blocks");
    blocks.data().expect("on the CPU").into_owned()
}
