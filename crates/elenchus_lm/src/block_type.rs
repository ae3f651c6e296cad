//! GGUF's block types: their sizes, and how their weights are read.
//!
//! Source of the layouts: `block_q*` and `dequantize_row_*` in llama.cpp's `ggml-common.h` and `ggml-quants.c`.

use std::fmt;

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
    IQ4NL,
    IQ4XS,
    TQ1_0,
    TQ2_0,
    MXFP4,
}

/// Weights of a k-quant's super-block.
const SUPER: usize = 256;
/// The offset of a type that has none: adding it changes no bit, not even the sign of a zero.
const NO_OFFSET: f32 = -0.0;

/// What the sixteen nibbles of `IQ4_NL` and `IQ4_XS` stand for. Source: `kvalues_iq4nl` in `ggml-common.h`.
const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// The same of `MXFP4`, doubled: four-bit floats. Source: `kvalues_mxfp4` in `ggml-common.h`.
const MXFP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

impl BlockType {
    /// All of them.
    pub const ALL: [Self; 18] = [
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
        Self::IQ4NL,
        Self::IQ4XS,
        Self::TQ1_0,
        Self::TQ2_0,
        Self::MXFP4,
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
            Self::IQ4NL => 20,
            Self::IQ4XS => 23,
            Self::BF16 => 30,
            Self::TQ1_0 => 34,
            Self::TQ2_0 => 35,
            Self::MXFP4 => 39,
        }
    }

    /// Its name in llama.cpp: `Q4_K`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::IQ4NL => "IQ4_NL",
            Self::IQ4XS => "IQ4_XS",
            Self::TQ1_0 => "TQ1_0",
            Self::TQ2_0 => "TQ2_0",
            Self::MXFP4 => "MXFP4",
        }
    }

    /// Weights in a block.
    pub const fn block_size(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::IQ4NL | Self::MXFP4 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K | Self::IQ4XS | Self::TQ1_0 | Self::TQ2_0 => {
                SUPER
            }
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
            Self::IQ4NL => 2 + 16,
            Self::IQ4XS => 2 + 2 + 4 + 128,
            Self::TQ1_0 => 48 + 4 + 2,
            Self::TQ2_0 => 64 + 2,
            Self::MXFP4 => 1 + 16,
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
            Self::Q4_0 | Self::TQ1_0 | Self::TQ2_0 => 8.0,
            Self::Q5_0 | Self::MXFP4 => 16.0,
            Self::Q8_0 | Self::Q6K | Self::IQ4NL | Self::IQ4XS => 128.0,
            _ => 0.0,
        }
    }

    /// Blocks of 32 of one row, in order. Dense types, `Q2_K` and `Q3_K` have none.
    pub(crate) fn read_row(self, bytes: &[u8]) -> Vec<Block> {
        let blocks = bytes.chunks_exact(self.type_size());
        match self {
            Self::Q4_0 => blocks.map(|b| plain(nibbles(&b[2..18], None), number(&b[0..2]), NO_OFFSET)).collect(),
            Self::Q4_1 => blocks.map(|b| plain(nibbles(&b[4..20], None), number(&b[0..2]), number(&b[2..4]))).collect(),
            Self::Q5_0 => {
                blocks.map(|b| plain(nibbles(&b[6..22], Some(&b[2..6])), number(&b[0..2]), NO_OFFSET)).collect()
            }
            Self::Q5_1 => {
                blocks.map(|b| plain(nibbles(&b[8..24], Some(&b[4..8])), number(&b[0..2]), number(&b[2..4]))).collect()
            }
            Self::Q8_0 => {
                blocks.map(|b| plain(std::array::from_fn(|at| b[2 + at] ^ 128), number(&b[0..2]), NO_OFFSET)).collect()
            }
            Self::Q4K => blocks.flat_map(|b| k_blocks(b, None, &b[16..144])).collect(),
            Self::Q5K => blocks.flat_map(|b| k_blocks(b, Some(&b[16..48]), &b[48..176])).collect(),
            Self::Q6K => blocks.flat_map(q6k_blocks).collect(),
            Self::IQ4NL => {
                blocks.map(|b| plain(coded(&b[2..18], &IQ4_VALUES, 128), number(&b[0..2]), NO_OFFSET)).collect()
            }
            Self::IQ4XS => blocks.flat_map(iq4xs_blocks).collect(),
            Self::TQ1_0 => blocks.flat_map(|b| ternary_blocks(number(&b[52..54]), |at| tq1_trit(b, at))).collect(),
            Self::TQ2_0 => blocks.flat_map(|b| ternary_blocks(number(&b[64..66]), |at| two_bits(b, at))).collect(),
            Self::MXFP4 => {
                blocks.map(|b| plain(coded(&b[1..17], &MXFP4_VALUES, 16), e8m0_half(b[0]), NO_OFFSET)).collect()
            }
            Self::F32 | Self::F16 | Self::BF16 | Self::Q2K | Self::Q3K => {
                unreachable!("{self:?} has no blocks of 32")
            }
        }
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

/// 32 nibbles, each an index into a table of values, which are kept plus `zero`.
fn coded(bytes: &[u8], table: &[i8; 16], zero: u8) -> [u8; 32] {
    nibbles(bytes, None).map(|nibble| zero.wrapping_add_signed(table[usize::from(nibble)]))
}

/// Half of a power of two, by its exponent plus 127: MXFP4's table is doubled. Source: `ggml_e8m0_to_fp32_half`.
fn e8m0_half(exponent: u8) -> f32 {
    f32::from_bits(match exponent {
        // Below the smallest normal number.
        0 | 1 => 0x0020_0000 << exponent,
        _ => u32::from(exponent - 1) << 23,
    })
}

/// The eight blocks of an `IQ4_XS` super-block: four bits of each block's scale, then the upper two of all.
fn iq4xs_blocks(bytes: &[u8]) -> impl Iterator<Item = Block> {
    let (scale, high, low) = (number(&bytes[0..2]), u16::from_le_bytes([bytes[2], bytes[3]]), &bytes[4..8]);
    (0..8).map(move |block| {
        let bits = low[block / 2] >> (4 * (block % 2)) & 15 | ((high >> (2 * block) & 3) as u8) << 4;
        let quants = coded(&bytes[8 + 16 * block..24 + 16 * block], &IQ4_VALUES, 128);
        plain(quants, scale * f32::from(bits as i8 - 32), NO_OFFSET)
    })
}

/// The eight blocks of a super-block with one scale, whose weights are -1, 0 or 1 (of `TQ2_0` also 2), stored plus 1.
fn ternary_blocks(scale: f32, trit: impl Fn(usize) -> u8) -> impl Iterator<Item = Block> {
    (0..8).map(move |block| plain(std::array::from_fn(|at| trit(32 * block + at) + 7), scale, NO_OFFSET))
}

/// One of three digits of weight `at` of a `TQ1_0` super-block. A byte is a fraction of 256 whose digits to the base of 3
/// are those of five weights, or of four in the last four bytes; multiplied by a power of 3, its integer part is gone.
/// Source: `dequantize_row_tq1_0` in llama.cpp's `ggml-quants.c`.
fn tq1_trit(bytes: &[u8], at: usize) -> u8 {
    // Weights 0 to 159 are in 32 bytes, five times 32 of them; 160 to 239 in 16 bytes; the rest in four.
    let (byte, digit) = match at {
        0..160 => (at % 32, at / 32),
        160..240 => (32 + (at - 160) % 16, (at - 160) / 16),
        _ => (48 + (at - 240) % 4, (at - 240) / 4),
    };
    let fraction = bytes[byte].wrapping_mul([1, 3, 9, 27, 81][digit]);
    ((u16::from(fraction) * 3) >> 8) as u8
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
        Block { quants, scales: [scale_of(0), scale_of(1)], offset: NO_OFFSET }
    })
}

/// Two bits of weight `at` of a `Q2_K`, `Q3_K` or `TQ2_0` super-block: each byte holds those of four weights that are 32 apart.
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

#[cfg(test)]
mod tests {
    use safetensors::{SafeTensors, tensor::TensorView};

    use super::*;

    /// What llama.cpp's `gguf` package reads and writes: `tests/fixtures/gguf_blocks.py`.
    const REFERENCE: &[u8] = include_bytes!("../tests/fixtures/gguf_blocks.safetensors");

    fn reference(name: &str) -> TensorView<'static> {
        SafeTensors::deserialize(REFERENCE).unwrap().tensor(name).unwrap()
    }

    fn floats(name: &str) -> Vec<f32> {
        BlockType::F32.dequantise(reference(name).data())
    }

    const WITH_REFERENCE: [(BlockType, &str); 5] = [
        (BlockType::IQ4NL, "IQ4_NL"),
        (BlockType::IQ4XS, "IQ4_XS"),
        (BlockType::TQ1_0, "TQ1_0"),
        (BlockType::TQ2_0, "TQ2_0"),
        (BlockType::MXFP4, "MXFP4"),
    ];

    #[test]
    fn blocks_are_read_to_the_bit_as_the_gguf_package_reads_them() {
        for (block_type, name) in WITH_REFERENCE {
            let blocks = reference(&format!("{name}.blocks"));
            assert_eq!(blocks.shape()[1], block_type.type_size(), "{name}");
            let (read, expected) = (block_type.dequantise(blocks.data()), floats(&format!("{name}.values")));
            assert_eq!(read.len(), expected.len(), "{name}");
            // A NaN has many patterns of bits, which neither side promises.
            let bits = |value: f32| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() };
            let differs = (0..read.len()).find(|&at| bits(read[at]) != bits(expected[at]));
            assert_eq!(differs, None, "{name}: {:?} {:?}", differs.map(|at| read[at]), differs.map(|at| expected[at]));
            assert!(expected.iter().any(|value| !value.is_finite()) && expected.contains(&0.0), "{name}");
        }
    }
}
