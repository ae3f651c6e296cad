//! Packed weights times quantised rows: integers within a block of 32, floats across blocks in the order of the blocks.
//!
//! A column's result is a sum of its own, never one across lanes, so a row's numbers do not depend on the rows beside it.

use super::{
    RawPanel, Tiles,
    rows::BlockNumbers,
    vector::{LANES, Vector},
};

/// How far ahead of the reading weights are asked for.
const AHEAD: usize = 16384;

/// What is left of a block's products once its integers are summed.
#[inline(always)]
unsafe fn finish<V: Vector, B: Block>(
    acc: V::Floats,
    sum: V::Sums,
    scale: V::Floats,
    second: V::Floats,
    n: &BlockNumbers,
) -> V::Floats {
    // SAFETY: lane arithmetic under the caller's contract.
    unsafe {
        let sum = B::centre::<V>(sum, n.half_sums[0] + n.half_sums[1]);
        let acc = V::accumulate(acc, sum, scale, n.scale);
        if B::OFFSET { V::accumulate_offset(acc, second, n.weighted_sum) } else { acc }
    }
}

/// One row's part of one block.
#[inline(always)]
unsafe fn row_of_block<V: Vector, B: Block, const M: usize>(
    acc: V::Floats,
    w: &[V::Weights; 8],
    scale: V::Floats,
    second: V::Floats,
    x: *const i8,
    n: *const BlockNumbers,
) -> V::Floats {
    // SAFETY: 32 numbers at `x`.
    unsafe {
        let n = &*n;
        // Two chains where few rows would leave the multiplier waiting; integers add up the same.
        if B::HALVES || M <= 4 {
            let (mut first, mut last) = (V::no_sums(), V::no_sums());
            for g in 0..4 {
                first = B::dot::<V>(first, w[g], x.add(4 * g));
                last = B::dot::<V>(last, w[g + 4], x.add(4 * g + 16));
            }
            if B::HALVES {
                let first = B::centre::<V>(first, n.half_sums[0]);
                let last = B::centre::<V>(last, n.half_sums[1]);
                V::accumulate(V::accumulate(acc, first, scale, n.scale), last, second, n.scale)
            } else {
                finish::<V, B>(acc, V::add_sums(first, last), scale, second, n)
            }
        } else {
            let mut sum = V::no_sums();
            for g in 0..8 {
                sum = B::dot::<V>(sum, w[g], x.add(4 * g));
            }
            finish::<V, B>(acc, sum, scale, second, n)
        }
    }
}

/// A kernel for panels of as many rows as numbers are given: written out, so that every row's sum stays in a register.
macro_rules! rows_kernel {
    ($name:ident, $height:literal: $($m:literal)*) => {
        /// Some tiles times one panel.
        #[inline(always)]
        pub(super) unsafe fn $name<V: Vector, B: Block>(tiles: &Tiles, panel: &RawPanel) {
            const M: usize = $height;
            // SAFETY: a tile is `blocks` times the format's bytes; the panel likewise.
            unsafe {
                for tile in 0..tiles.count {
                    let weights = tiles.weights.add(tile * tiles.stride);
                    let out = tiles.out.add(tile * tiles.out_stride);
                    for part in 0..V::PARTS {
                        let columns = part * (LANES / V::PARTS);
                        let mut acc = [V::no_floats(); M];
                        for block in 0..panel.blocks {
                            let from = weights.add(block * B::BYTES);
                            if tiles.ahead && part == 0 {
                                let ahead = from.wrapping_add(AHEAD);
                                for line in 0..B::BYTES.div_ceil(64) {
                                    V::prefetch(ahead.wrapping_add(64 * line));
                                }
                            }
                            let w = B::weights::<V>(from, part);
                            let scales = from.add(B::WEIGHT_BYTES).cast::<u16>().add(columns);
                            let scale = V::scales(scales);
                            let second = if B::SCALES == 2 { V::scales(scales.add(LANES)) } else { scale };
                            let x = panel.quants.add(block * M * 32);
                            let numbers = panel.numbers.add(block * M);
                            $(
                                acc[$m] = row_of_block::<V, B, M>(
                                    acc[$m], &w, scale, second, x.add($m * 32), numbers.add($m),
                                );
                            )*
                        }
                        $( V::store_floats(out.add($m * LANES + columns), acc[$m]); )*
                    }
                }
            }
        }
    };
}

rows_kernel!(one_row, 1: 0);
rows_kernel!(two_rows, 2: 0 1);
rows_kernel!(four_rows, 4: 0 1 2 3);
rows_kernel!(eight_rows, 8: 0 1 2 3 4 5 6 7);

/// A format's block of 32 weights of each of a tile's 16 columns: weight `k` of column `c` in byte `(k / 4, c, k % 4)`,
/// nibbles with two fours of `k` in one byte, lower first.
pub(super) trait Block {
    const WEIGHT_BYTES: usize;
    /// Rows of 16 f16 behind the weights: the scale; and the second half's scale or the offset.
    const SCALES: usize;
    /// Weights and scales.
    const BYTES: usize = Self::WEIGHT_BYTES + Self::SCALES * LANES * 2;
    /// Whether each half of the 32 has a scale of its own.
    const HALVES: bool;
    /// Whether an offset is added to each weight.
    const OFFSET: bool;

    unsafe fn weights<V: Vector>(from: *const u8, part: usize) -> [V::Weights; 8];
    unsafe fn dot<V: Vector>(sums: V::Sums, weights: V::Weights, x: *const i8) -> V::Sums;
    /// Takes away what a weight is stored too large by, times the sum of what it was multiplied with.
    unsafe fn centre<V: Vector>(sums: V::Sums, sum: i32) -> V::Sums;
}

pub(super) struct Q4;
pub(super) struct Q4Offset;
pub(super) struct Q5;
pub(super) struct Q5Offset;
pub(super) struct Q8;
pub(super) struct Q8Halves;

#[inline(always)]
unsafe fn nibbles<V: Vector>(from: *const u8, part: usize) -> [V::Weights; 8] {
    // SAFETY: 256 bytes, of which each of four rows of 64 is read in parts.
    unsafe {
        let from = from.add(part * 64 / V::PARTS);
        let (a, b) = V::nibbles(from);
        let (c, d) = V::nibbles(from.add(64));
        let (e, f) = V::nibbles(from.add(128));
        let (g, h) = V::nibbles(from.add(192));
        [a, b, c, d, e, f, g, h]
    }
}

#[inline(always)]
unsafe fn five_bits<V: Vector>(from: *const u8, part: usize) -> [V::Weights; 8] {
    // SAFETY: 256 bytes of nibbles, then eight times 64 bits.
    unsafe {
        let mut w = nibbles::<V>(from, part);
        for (g, w) in w.iter_mut().enumerate() {
            *w = V::add_fifth_bit(*w, from.add(256 + 8 * g), part);
        }
        w
    }
}

macro_rules! block {
    ($name:ty: $bytes:literal bytes, $scales:literal scales, halves $halves:literal, offset $offset:literal,
     $weights:expr, $dot:ident, $centre:expr) => {
        impl Block for $name {
            const WEIGHT_BYTES: usize = $bytes;
            const SCALES: usize = $scales;
            const HALVES: bool = $halves;
            const OFFSET: bool = $offset;

            #[inline(always)]
            unsafe fn weights<V: Vector>(from: *const u8, part: usize) -> [V::Weights; 8] {
                // SAFETY: handed on.
                unsafe { $weights(from, part) }
            }
            #[inline(always)]
            unsafe fn dot<V: Vector>(sums: V::Sums, weights: V::Weights, x: *const i8) -> V::Sums {
                // SAFETY: handed on.
                unsafe { V::$dot(sums, weights, x) }
            }
            #[inline(always)]
            unsafe fn centre<V: Vector>(sums: V::Sums, sum: i32) -> V::Sums {
                // SAFETY: handed on.
                unsafe { $centre(sums, sum) }
            }
        }
    };
}

#[inline(always)]
unsafe fn bytes<V: Vector>(from: *const u8, part: usize) -> [V::Weights; 8] {
    // SAFETY: 512 bytes, of which each of eight rows of 64 is read in parts.
    unsafe {
        let from = from.add(part * 64 / V::PARTS);
        let mut w = [V::bytes(from); 8];
        for (g, w) in w.iter_mut().enumerate() {
            *w = V::bytes(from.add(64 * g));
        }
        w
    }
}

#[inline(always)]
unsafe fn keep<V: Vector>(sums: V::Sums, _: i32) -> V::Sums {
    sums
}

#[inline(always)]
unsafe fn centre_bytes<V: Vector>(sums: V::Sums, sum: i32) -> V::Sums {
    // SAFETY: handed on.
    unsafe { if V::OFFSET_BYTES { V::sub_shifted::<7>(sums, sum) } else { sums } }
}

block!(Q4: 256 bytes, 1 scales, halves false, offset false, nibbles::<V>, dot_nibbles, V::sub_shifted::<3>);
block!(Q4Offset: 256 bytes, 2 scales, halves false, offset true, nibbles::<V>, dot_nibbles, keep::<V>);
block!(Q5: 320 bytes, 1 scales, halves false, offset false, five_bits::<V>, dot_nibbles, V::sub_shifted::<4>);
block!(Q5Offset: 320 bytes, 2 scales, halves false, offset true, five_bits::<V>, dot_nibbles, keep::<V>);
block!(Q8: 512 bytes, 1 scales, halves false, offset false, bytes::<V>, dot_bytes, centre_bytes::<V>);
block!(Q8Halves: 512 bytes, 2 scales, halves true, offset false, bytes::<V>, dot_bytes, centre_bytes::<V>);
