//! Model files for tests, in block types that only candle quantises to.

use candle_core::{Device, Tensor, quantized::QTensor};
use elenchus_lm::BlockType;

use crate::matrix::ggml_type;

/// Whether candle has a block type.
pub fn has(block_type: BlockType) -> bool {
    ggml_type(block_type).is_some()
}

/// Numbers as blocks of a type that candle [`has`]: for [`elenchus_lm::testing::TinyModel::gguf_by`].
///
/// Panics if their count is no multiple of the block size.
pub fn quantised(block_type: BlockType, values: &[f32]) -> Vec<u8> {
    let ggml = ggml_type(block_type).expect("a type of candle's");
    let tensor = Tensor::from_slice(values, (1, values.len()), &Device::Cpu).expect("as many as they are");
    let blocks = QTensor::quantize(&tensor, ggml).expect("whole blocks");
    blocks.data().expect("on the CPU").into_owned()
}
