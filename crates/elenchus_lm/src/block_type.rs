//! GGUF's block types: their sizes, and how their weights are read.
//!
//! Source of the layouts: `block_q*` and `dequantize_row_*` in llama.cpp's `ggml-common.h` and `ggml-quants.c`.

use half::{bf16, f16};

/// How a file stores a tensor's numbers, by ggml's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum BlockType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// Weights of a k-quant's super-block.
const SUPER: usize = 256;

impl BlockType {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Its number in GGUF files, `enum ggml_type` in ggml.h.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::BF16 => 30,
        }
    }

    /// Weights in a block.
    pub const fn block_size(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => SUPER,
        }
    }

    /// Bytes of a block.
    pub const fn type_size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 4 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 4 + 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q2K => 16 + 64 + 4,
            Self::Q3K => 32 + 64 + 12 + 2,
            Self::Q4K => 4 + 12 + 128,
            Self::Q5K => 4 + 12 + 32 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// Whether each number is stored by itself.
    pub const fn is_dense(self) -> bool {
        self.block_size() == 1
    }

    /// The numbers of whole blocks.
    pub fn dequantise(self, bytes: &[u8]) -> Vec<f32> {
        let blocks = bytes.chunks_exact(self.type_size());
        match self {
            // Dense bytes may be unaligned in the map, so they are read number by number.
            Self::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Self::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Self::BF16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            Self::Q2K => blocks.flat_map(q2k).collect(),
            Self::Q3K => blocks.flat_map(q3k).collect(),
            _ => self.read_row(bytes).iter().flat_map(|block| block.values(self.zero())).collect(),
        }
    }

    /// What is subtracted from a [`Block`]'s quants before scaling.
    const fn zero(self) -> f32 {
        match self {
            Self::Q4_0 => 8.0,
            Self::Q5_0 => 16.0,
            Self::Q8_0 | Self::Q6K => 128.0,
            _ => 0.0,
        }
    }

    /// Blocks of 32 of one row, in order. Dense types, `Q2_K` and `Q3_K` have none.
    pub(crate) fn read_row(self, bytes: &[u8]) -> Vec<Block> {
        let blocks = bytes.chunks_exact(self.type_size());
        match self {
            Self::Q4_0 => blocks.map(|b| plain(nibbles(&b[2..18], None), number(&b[0..2]), 0.0)).collect(),
            Self::Q4_1 => blocks.map(|b| plain(nibbles(&b[4..20], None), number(&b[0..2]), number(&b[2..4]))).collect(),
            Self::Q5_0 => blocks.map(|b| plain(nibbles(&b[6..22], Some(&b[2..6])), number(&b[0..2]), 0.0)).collect(),
            Self::Q5_1 => {
                blocks.map(|b| plain(nibbles(&b[8..24], Some(&b[4..8])), number(&b[0..2]), number(&b[2..4]))).collect()
            }
            Self::Q8_0 => {
                blocks.map(|b| plain(std::array::from_fn(|at| b[2 + at] ^ 128), number(&b[0..2]), 0.0)).collect()
            }
            Self::Q4K => blocks.flat_map(|b| k_blocks(b, None, &b[16..144])).collect(),
            Self::Q5K => blocks.flat_map(|b| k_blocks(b, Some(&b[16..48]), &b[48..176])).collect(),
            Self::Q6K => blocks.flat_map(q6k_blocks).collect(),
            Self::F32 | Self::F16 | Self::BF16 | Self::Q2K | Self::Q3K => {
                unreachable!("{self:?} has no blocks of 32")
            }
        }
    }
}

/// 32 neighbouring weights of a row: `scale * (quant - zero) + offset`, where `zero` is the type's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Block {
    pub quants: [u8; 32],
    /// For the first and the second 16; the same number if the type has one.
    pub scales: [f32; 2],
    pub offset: f32,
}

impl Block {
    /// 32 numbers quantised to eight bits, as Q8_0 does.
    pub fn quantise(values: &[f32; 32]) -> Self {
        let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let scale = f16::from_f32(largest / 127.0).to_f32();
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        plain(values.map(|value| ((value * inverse).round() as i8 as u8) ^ 128), scale, 0.0)
    }

    /// The weights.
    pub fn values(&self, zero: f32) -> [f32; 32] {
        std::array::from_fn(|at| self.scales[at / 16] * (f32::from(self.quants[at]) - zero) + self.offset)
    }
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

/// The eight blocks of a Q6_K super-block, whose halves have separate scales.
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

/// Two bits of weight `at` of a `Q2_K` or `Q3_K` super-block: each byte holds those of four weights that are 32 apart.
fn two_bits(bytes: &[u8], at: usize) -> u8 {
    bytes[at / 128 * 32 + at % 32] >> (at % 128 / 32 * 2) & 3
}

/// A `Q2_K` super-block: sixteen weights share a scale and a minimum of four bits each.
fn q2k(bytes: &[u8]) -> [f32; SUPER] {
    let (scales, quants, scale, minimum) =
        (&bytes[..16], &bytes[16..80], number(&bytes[80..82]), number(&bytes[82..84]));
    std::array::from_fn(|at| {
        let packed = scales[at / 16];
        scale * f32::from(packed & 15) * f32::from(two_bits(quants, at)) - minimum * f32::from(packed >> 4)
    })
}

/// A `Q3_K` super-block: sixteen weights share a scale of six bits.
fn q3k(bytes: &[u8]) -> [f32; SUPER] {
    let (high, quants, packed, scale) = (&bytes[..32], &bytes[32..96], &bytes[96..108], number(&bytes[108..110]));
    std::array::from_fn(|at| {
        let group = at / 16;
        let low = if group < 8 { packed[group] & 15 } else { packed[group - 8] >> 4 };
        let scale_bits = low | (packed[8 + group % 4] >> (group / 4 * 2) & 3) << 4;
        // The third bit is stored inverted: where it is clear, four is subtracted.
        let third = if high[at % 32] >> (at / 32) & 1 == 1 { 0 } else { 4 };
        let quant = two_bits(quants, at) as i8 - third;
        scale * f32::from(scale_bits as i8 - 32) * f32::from(quant)
    })
}
