//! Numbers to blocks: Q8_0, Q5_0 and Q4_0 to the bit as llama.cpp's reference quantisers, Q4_K by a search of our own.

use half::{bf16, f16};

use crate::BlockType;

impl BlockType {
    /// The types that a model can be quantised to.
    pub const QUANTISABLE: [Self; 3] = [Self::Q8_0, Self::Q4K, Self::Q4_0];

    /// The type of a matrix of so many columns in a model that is quantised to this one. A row is whole blocks: a matrix that
    /// is too narrow for Q4_K takes Q5_0, as in llama.cpp. `None` where none of them fits.
    pub(crate) fn for_columns(self, columns: usize) -> Option<Self> {
        let narrower: &[Self] = if self == Self::Q4K { &[Self::Q5_0] } else { &[] };
        [self].iter().chain(narrower).copied().find(|dtype| columns.is_multiple_of(dtype.block_size()))
    }

    /// Numbers as blocks of a dense type, of one of [`Self::QUANTISABLE`] or of Q5_0; `None` for another type. An
    /// incomplete block at the end is left out.
    pub fn quantise(self, values: &[f32]) -> Option<Vec<u8>> {
        let blocks = values.as_chunks::<32>().0.iter();
        Some(match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
            Self::BF16 => values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
            Self::Q8_0 => blocks.flat_map(q8_0).collect(),
            Self::Q5_0 => blocks.flat_map(q5_0).collect(),
            Self::Q4_0 => blocks.flat_map(q4_0).collect(),
            Self::Q4K => values.as_chunks::<256>().0.iter().flat_map(q4k).collect(),
            _ => return None,
        })
    }
}

/// `1 / scale`, or 0 for a block of zeros.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Source: `quantize_row_q8_0_ref` in llama.cpp's `ggml-quants.c`.
fn q8_0(values: &[f32; 32]) -> [u8; 34] {
    let scale = values.iter().fold(0f32, |largest, value| largest.max(value.abs())) / 127.0;
    let inverse = inverse(scale);
    let mut block = [0; 34];
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    block[2..].iter_mut().zip(values).for_each(|(byte, value)| *byte = (value * inverse).round() as i8 as u8);
    block
}

/// The scale of the two types below: the value of largest magnitude becomes the lowest quant, whatever its sign.
fn signed_scale(values: &[f32; 32], lowest: f32) -> f32 {
    values.iter().fold(0f32, |largest, &value| if value.abs() > largest.abs() { value } else { largest }) / lowest
}

/// Source: `quantize_row_q4_0_ref`.
fn q4_0(values: &[f32; 32]) -> [u8; 18] {
    let scale = signed_scale(values, -8.0);
    let inverse = inverse(scale);
    let quant = |value: f32| ((value * inverse + 8.5) as u8).min(15);
    let mut block = [0; 18];
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for at in 0..16 {
        block[2 + at] = quant(values[at]) | quant(values[at + 16]) << 4;
    }
    block
}

/// The fifth bits stand before the nibbles. Source: `quantize_row_q5_0_ref`.
fn q5_0(values: &[f32; 32]) -> [u8; 22] {
    let scale = signed_scale(values, -16.0);
    let inverse = inverse(scale);
    let quants = values.map(|value| ((value * inverse + 16.5) as u8).min(31));
    let fifth = quants.iter().enumerate().fold(0u32, |bits, (at, quant)| bits | u32::from(quant >> 4) << at);
    let mut block = [0; 22];
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    block[2..6].copy_from_slice(&fifth.to_le_bytes());
    for at in 0..16 {
        block[6 + at] = quants[at] & 15 | quants[at + 16] << 4;
    }
    block
}

/// `value = scale * quant - minimum` of 32 weights, neither of them negative.
#[derive(Clone, Copy, Default)]
struct Line {
    scale: f32,
    minimum: f32,
}

/// A super-block of eight lines, whose scales and minima have six bits each: the better of the lines through smallest and
/// largest value and of lines fitted by least squares.
fn q4k(values: &[f32; 256]) -> [u8; 144] {
    let blocks = values.as_chunks::<32>().0;
    let by_range = pack_q4k(blocks, std::array::from_fn(|block| Line::through_extremes(&blocks[block])));
    let fitted = pack_q4k(blocks, std::array::from_fn(|block| Line::fitted(&blocks[block])));
    if fitted.1 < by_range.1 { fitted.0 } else { by_range.0 }
}

impl Line {
    fn through_extremes(values: &[f32; 32]) -> Self {
        let (least, most) = extremes(values);
        Self { scale: (most - least) / 15.0, minimum: -least }
    }

    /// The best of several lines: quants by a range that is stretched or shrunk, then scale and minimum by least squares
    /// for these quants. Outliers get a larger error, all others a smaller one.
    fn fitted(values: &[f32; 32]) -> Self {
        let (least, most) = extremes(values);
        let mut best = (Self::through_extremes(values), f32::INFINITY);
        for step in 0..=20u8 {
            let steps = 14.0 + 0.1 * f32::from(step);
            let inverse = inverse((most - least) / steps);
            let quants = values.map(|value| ((value - least) * inverse).round().clamp(0.0, 15.0));
            let line = Self::least_squares(values, &quants);
            let error = values.iter().zip(quants).map(|(value, quant)| {
                let difference = line.scale * quant - line.minimum - value;
                difference * difference
            });
            let error: f32 = error.sum();
            if error < best.1 {
                best = (line, error);
            }
        }
        best.0
    }

    fn least_squares(values: &[f32; 32], quants: &[f32; 32]) -> Self {
        let sum = |of: &dyn Fn(usize) -> f32| (0..32).map(of).sum::<f32>();
        let (q, x) = (sum(&|at| quants[at]), sum(&|at| values[at]));
        let (qq, qx) = (sum(&|at| quants[at] * quants[at]), sum(&|at| quants[at] * values[at]));
        let determinant = 32.0 * qq - q * q;
        if determinant > 0.0 {
            let scale = (32.0 * qx - q * x) / determinant;
            let minimum = (scale * q - x) / 32.0;
            if scale >= 0.0 && minimum >= 0.0 {
                return Self { scale, minimum };
            }
        }
        Self { scale: if qq > 0.0 { (qx / qq).max(0.0) } else { 0.0 }, minimum: 0.0 }
    }
}

/// The smallest value, at most 0, and the largest, at least 0.
fn extremes(values: &[f32; 32]) -> (f32, f32) {
    values.iter().fold((0.0, 0.0), |(least, most), &value| (value.min(least), value.max(most)))
}

/// The super-block of eight lines, and its squared error.
fn pack_q4k(blocks: &[[f32; 32]], lines: [Line; 8]) -> ([u8; 144], f32) {
    let largest = |of: fn(&Line) -> f32| f16::from_f32(lines.iter().map(of).fold(0.0, f32::max) / 63.0);
    let (d, m) = (largest(|line| line.scale), largest(|line| line.minimum));
    let [inverse_d, inverse_m] = [d, m].map(|number| inverse(number.to_f32()));
    let six_bits = |number: f32, inverse: f32| (number * inverse).round().clamp(0.0, 63.0) as u8;
    let mut bytes = [0; 144];
    bytes[..2].copy_from_slice(&d.to_le_bytes());
    bytes[2..4].copy_from_slice(&m.to_le_bytes());
    let mut error = 0.0;
    for (block, (values, line)) in blocks.iter().zip(lines).enumerate() {
        let (scale, minimum) = (six_bits(line.scale, inverse_d), six_bits(line.minimum, inverse_m));
        // Four lower bits of the last four blocks' numbers stand together, their upper two after the first four's six.
        if block < 4 {
            bytes[4 + block] |= scale;
            bytes[8 + block] |= minimum;
        } else {
            bytes[8 + block] = (scale & 15) | (minimum & 15) << 4;
            bytes[block] |= (scale >> 4) << 6;
            bytes[4 + block] |= (minimum >> 4) << 6;
        }
        let (scale, minimum) = (d.to_f32() * f32::from(scale), m.to_f32() * f32::from(minimum));
        let inverse = inverse(scale);
        for (at, value) in values.iter().enumerate() {
            let quant = ((value + minimum) * inverse).round().clamp(0.0, 15.0) as u8;
            bytes[16 + block / 2 * 32 + at] |= quant << (4 * (block % 2));
            let difference = scale * f32::from(quant) - minimum - value;
            error += difference * difference;
        }
    }
    (bytes, error)
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use safetensors::SafeTensors;

    use super::*;

    #[test]
    fn q8_0_q5_0_and_q4_0_are_to_the_bit_those_of_the_gguf_package() {
        // `tests/fixtures/gguf_blocks.py`.
        let reference = SafeTensors::deserialize(include_bytes!("../tests/fixtures/gguf_blocks.safetensors")).unwrap();
        let numbers = BlockType::F32.dequantise(reference.tensor("numbers").unwrap().data());
        for (block_type, name) in [(BlockType::Q8_0, "Q8_0"), (BlockType::Q5_0, "Q5_0"), (BlockType::Q4_0, "Q4_0")] {
            let expected = reference.tensor(&format!("{name}.quantised")).unwrap();
            assert!(block_type.quantise(&numbers).unwrap() == expected.data(), "{name}");
        }
    }

    fn error(values: &[f32], read: &[f32]) -> f32 {
        assert_eq!(values.len(), read.len());
        values.iter().zip(read).map(|(a, b)| (a - b) * (a - b)).sum()
    }

    /// Sums of uniform numbers, so that there are outliers, with a mean that is not zero.
    fn numbers(count: usize) -> Vec<f32> {
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(3);
        (0..count)
            .map(|at| {
                let sum: f32 = (0..4).map(|_| rng.random::<f32>() - 0.5).sum();
                sum * sum * sum + if at % 512 < 256 { 0.02 } else { -0.1 }
            })
            .collect()
    }

    #[test]
    fn q4_k_is_nearer_than_lines_through_the_extremes() {
        let values = numbers(1 << 14);
        let by_range: Vec<u8> = values
            .as_chunks::<256>()
            .0
            .iter()
            .flat_map(|values| {
                let blocks = values.as_chunks::<32>().0;
                pack_q4k(blocks, std::array::from_fn(|block| Line::through_extremes(&blocks[block]))).0
            })
            .collect();
        let of = |bytes: &[u8]| error(&values, &BlockType::Q4K.dequantise(bytes));
        let (ours, range) = (of(&BlockType::Q4K.quantise(&values).unwrap()), of(&by_range));
        let q4_0 = error(&values, &BlockType::Q4_0.dequantise(&BlockType::Q4_0.quantise(&values).unwrap()));
        println!("squared error: Q4_K {ours}, through the extremes {range}, Q4_0 {q4_0}");
        assert!(ours < 0.9 * range && range < q4_0, "{ours} {range} {q4_0}");
    }

    /// What the packer thinks it wrote is what is read: its error is the error.
    #[test]
    fn the_error_of_a_super_block_is_that_of_its_bytes() {
        for values in numbers(1 << 12).as_chunks::<256>().0 {
            let blocks = values.as_chunks::<32>().0;
            let (bytes, expected) = pack_q4k(blocks, std::array::from_fn(|block| Line::fitted(&blocks[block])));
            let read = error(values, &BlockType::Q4K.dequantise(&bytes));
            assert!((read - expected).abs() <= 1e-4 * expected, "{read} {expected}");
        }
    }

    #[test]
    fn extreme_numbers_are_no_panic() {
        for value in [0.0, -0.0, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NAN] {
            for block_type in BlockType::QUANTISABLE {
                let mut values = vec![value; 256];
                values[7] = -value;
                let bytes = block_type.quantise(&values).unwrap();
                assert_eq!(block_type.dequantise(&bytes).len(), 256);
            }
        }
        let zeros = BlockType::Q4K.quantise(&[0.0; 256]).unwrap();
        assert!(BlockType::Q4K.dequantise(&zeros).iter().all(|&value| value == 0.0));
        assert_eq!(BlockType::Q6K.quantise(&[0.0; 256]), None);
        assert_eq!(BlockType::Q4K.for_columns(512), Some(BlockType::Q4K));
        assert_eq!(BlockType::Q4K.for_columns(576), Some(BlockType::Q5_0));
        assert_eq!(BlockType::Q4_0.for_columns(48), None);
    }
}
