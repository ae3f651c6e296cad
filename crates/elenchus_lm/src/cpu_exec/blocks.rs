//! GGUF's block types, read as blocks of 32 small integers with scales: what [`super::packed`] lays anew.
//!
//! Source of the layouts: `block_q*` and `dequantize_row_*` in llama.cpp's `ggml-common.h` and `ggml-quants.c`.

use candle_core::quantized::GgmlDType;
use half::f16;

use super::kernels::Format;

/// 32 neighbouring weights of a row: `scale * (quant - zero) + offset`, where `zero` is the format's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Block {
    pub quants: [u8; 32],
    /// Of the first and the second 16; the same number where the format has one.
    pub scales: [f32; 2],
    pub offset: f32,
}

/// The format that holds a block type, `None` for types that are dequantised and quantised anew to eight bits.
pub(super) fn format_of(dtype: GgmlDType) -> Option<Format> {
    Some(match dtype {
        GgmlDType::Q4_0 => Format::Q4,
        GgmlDType::Q4_1 | GgmlDType::Q4K => Format::Q4Offset,
        GgmlDType::Q5_0 => Format::Q5,
        GgmlDType::Q5_1 | GgmlDType::Q5K => Format::Q5Offset,
        GgmlDType::Q8_0 => Format::Q8,
        GgmlDType::Q6K => Format::Q8Halves,
        _ => return None,
    })
}

/// Blocks of 32 of one row, in order, of a type that [`format_of`] knows.
pub(super) fn read_row(dtype: GgmlDType, bytes: &[u8]) -> Vec<Block> {
    let blocks = bytes.chunks_exact(dtype.type_size());
    match dtype {
        GgmlDType::Q4_0 => blocks.map(|b| plain(nibbles(&b[2..18], None), number(&b[0..2]), 0.0)).collect(),
        GgmlDType::Q4_1 => {
            blocks.map(|b| plain(nibbles(&b[4..20], None), number(&b[0..2]), number(&b[2..4]))).collect()
        }
        GgmlDType::Q5_0 => blocks.map(|b| plain(nibbles(&b[6..22], Some(&b[2..6])), number(&b[0..2]), 0.0)).collect(),
        GgmlDType::Q5_1 => {
            blocks.map(|b| plain(nibbles(&b[8..24], Some(&b[4..8])), number(&b[0..2]), number(&b[2..4]))).collect()
        }
        GgmlDType::Q8_0 => {
            blocks.map(|b| plain(std::array::from_fn(|at| b[2 + at] ^ 128), number(&b[0..2]), 0.0)).collect()
        }
        GgmlDType::Q4K => blocks.flat_map(|b| k_blocks(b, None, &b[16..144])).collect(),
        GgmlDType::Q5K => blocks.flat_map(|b| k_blocks(b, Some(&b[16..48]), &b[48..176])).collect(),
        GgmlDType::Q6K => blocks.flat_map(q6k_blocks).collect(),
        other => unreachable!("{other:?} has no packed format"),
    }
}

/// Quantises 32 numbers to eight bits as Q8_0 does.
pub(super) fn quantise(values: &[f32; 32]) -> Block {
    let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let scale = f16::from_f32(largest / 127.0).to_f32();
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    plain(values.map(|value| ((value * inverse).round() as i8 as u8) ^ 128), scale, 0.0)
}

fn plain(quants: [u8; 32], scale: f32, offset: f32) -> Block {
    Block { quants, scales: [scale; 2], offset }
}

fn number(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// 32 nibbles, the lower ones first, and a fifth bit each.
fn nibbles(bytes: &[u8], fifth: Option<&[u8]>) -> [u8; 32] {
    let fifth = fifth.map_or(0, |bits| u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]));
    std::array::from_fn(|at| {
        let nibble = if at < 16 { bytes[at] & 15 } else { bytes[at - 16] >> 4 };
        nibble | ((fifth >> at & 1) as u8) << 4
    })
}

/// The eight blocks of a Q4_K or Q5_K super-block.
fn k_blocks<'a>(bytes: &'a [u8], fifth: Option<&'a [u8]>, nibbles: &'a [u8]) -> impl Iterator<Item = Block> + use<'a> {
    let (scale, offset, packed) = (number(&bytes[0..2]), number(&bytes[2..4]), &bytes[4..16]);
    (0..8).map(move |block| {
        let (s, m) = if block < 4 {
            (packed[block] & 63, packed[block + 4] & 63)
        } else {
            (
                (packed[block + 4] & 15) | (packed[block - 4] >> 6) << 4,
                (packed[block + 4] >> 4) | (packed[block] >> 6) << 4,
            )
        };
        let quants = std::array::from_fn(|at| {
            let byte = nibbles[block / 2 * 32 + at];
            let nibble = if block % 2 == 0 { byte & 15 } else { byte >> 4 };
            nibble | fifth.map_or(0, |fifth| (fifth[at] >> block & 1) << 4)
        });
        plain(quants, scale * f32::from(s), -(offset * f32::from(m)))
    })
}

/// The eight blocks of a Q6_K super-block, whose halves have scales of their own.
fn q6k_blocks(bytes: &[u8]) -> impl Iterator<Item = Block> {
    let (low, high, scales, scale) = (&bytes[..128], &bytes[128..192], &bytes[192..208], number(&bytes[208..210]));
    (0..8).map(move |block| {
        let (half, quarter) = (block / 4, block % 4);
        let quants = std::array::from_fn(|at| {
            let byte = low[half * 64 + quarter % 2 * 32 + at];
            let nibble = if quarter < 2 { byte & 15 } else { byte >> 4 };
            // Six bits minus 32, kept plus 128.
            (nibble | (high[half * 32 + at] >> (2 * quarter) & 3) << 4) + 96
        });
        let scale_of = |which: usize| scale * f32::from(scales[2 * block + which] as i8);
        Block { quants, scales: [scale_of(0), scale_of(1)], offset: 0.0 }
    })
}
