//! Packed weights times quantised rows: integers within a block of 32, floats across blocks in the order of the blocks.
//!
//! A column's result is its own sum, never one across lanes, so a row's numbers do not depend on the rows beside it.

use super::{
    RawPanel, Tiles,
    rows::BlockNumbers,
    vector::{LANES, Vector},
};

/// Prefetch distance of weights into the first-level cache, in bytes.
const NEAR: usize = 4096;

/// And into the second-level cache, which has more requests in flight: memory stays busy while eight rows are
/// multiplied.
const FAR: usize = 65536;

/// The same pointer with its origin hidden from the compiler: it then adds constants to it instead of counting it and
/// others by one index, and an Intel core executes a product with a broadcast from `base + index` as two
/// operations (a sixth of the time of eight rows).
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written")]
fn based<T>(pointer: *const T) -> *const T {
    #[cfg(target_arch = "x86_64")]
    {
        let mut pointer = pointer;
        // SAFETY: no instructions.
        unsafe {
            std::arch::asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags));
        }
        pointer
    }
    #[cfg(not(target_arch = "x86_64"))]
    pointer
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
        let [low, high] = n.half_sums;
        if B::HALVES {
            let (mut first, mut last) = (B::start::<V>(low), B::start::<V>(high));
            for g in 0..4 {
                first = B::dot::<V>(first, w[g], x.add(4 * g));
                last = B::dot::<V>(last, w[g + 4], x.add(4 * g + 16));
            }
            return V::accumulate(V::accumulate(acc, first, scale, n.scale), last, second, n.scale);
        }
        let mut sum = B::start::<V>(low + high);
        // Two chains where few rows would leave the multiplier idle; integers add up the same.
        if M <= 4 {
            let mut last = V::no_sums();
            for g in 0..4 {
                sum = B::dot::<V>(sum, w[g], x.add(4 * g));
                last = B::dot::<V>(last, w[g + 4], x.add(4 * g + 16));
            }
            sum = V::add_sums(sum, last);
        } else {
            for g in 0..8 {
                sum = B::dot::<V>(sum, w[g], x.add(4 * g));
            }
        }
        let acc = V::accumulate(acc, sum, scale, n.scale);
        if B::OFFSET { V::accumulate_offset(acc, second, n.weighted_sum) } else { acc }
    }
}

/// A kernel for panels of as many rows as there are arguments: unrolled, so that every row's sum stays in a register.
macro_rules! rows_kernel {
    ($name:ident, $height:literal: $($m:literal)*) => {
        /// Some tiles times one panel.
        ///
        /// # Safety
        /// The machine has the instruction set of `V`. `tiles.weights` points to `tiles.count` tiles of
        /// `panel.blocks * B::BYTES` bytes that are `tiles.stride` apart; the panel has this kernel's rows; `tiles.out` points
        /// to as many times 16 numbers for each tile, `tiles.out_stride` apart, that nobody else uses.
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
                                for line in (0..B::BYTES).step_by(64) {
                                    V::prefetch(from.wrapping_add(NEAR + line));
                                    V::prefetch_far(from.wrapping_add(FAR + line));
                                }
                            }
                            let w = B::weights::<V>(from, part);
                            let scales = from.add(B::WEIGHT_BYTES).cast::<u16>().add(columns);
                            let scale = V::scales(scales);
                            let second = if B::SCALES == 2 { V::scales(scales.add(LANES)) } else { scale };
                            let x = based(panel.quants.add(block * M * 32));
                            let numbers = based(panel.numbers.add(block * M));
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
rows_kernel!(sixteen_rows, 16: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);

/// A format's block of 32 weights of each of a tile's 16 columns: weight `k` of column `c` in byte `(k / 4, c, k % 4)`,
/// nibbles with two fours of `k` in one byte, lower first.
pub(super) trait Block {
    const WEIGHT_BYTES: usize;
    /// Rows of 16 f16 after the weights: the scale; and the second half's scale or the offset.
    const SCALES: usize;
    /// Weights and scales.
    const BYTES: usize = Self::WEIGHT_BYTES + Self::SCALES * LANES * 2;
    /// Whether each half of the 32 has its own scale.
    const HALVES: bool;
    /// Whether an offset is added to each weight.
    const OFFSET: bool;

    /// # Safety
    /// The machine has the instruction set of `V` (here and below), and `from` points to [`Self::WEIGHT_BYTES`] bytes.
    unsafe fn weights<V: Vector>(from: *const u8, part: usize) -> [V::Weights; 8];
    /// # Safety
    /// `x` points to the four numbers of these weights.
    unsafe fn dot<V: Vector>(sums: V::Sums, weights: V::Weights, x: *const i8) -> V::Sums;
    /// The start value of products: minus the bias of the stored weights, times the sum of the other factor.
    ///
    /// # Safety
    /// As above.
    unsafe fn start<V: Vector>(sum: i32) -> V::Sums;
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
     $weights:expr, $dot:ident, $start:expr) => {
        impl Block for $name {
            const WEIGHT_BYTES: usize = $bytes;
            const SCALES: usize = $scales;
            const HALVES: bool = $halves;
            const OFFSET: bool = $offset;

            #[inline(always)]
            unsafe fn weights<V: Vector>(from: *const u8, part: usize) -> [V::Weights; 8] {
                // SAFETY: the caller upholds this contract.
                unsafe { $weights(from, part) }
            }
            #[inline(always)]
            unsafe fn dot<V: Vector>(sums: V::Sums, weights: V::Weights, x: *const i8) -> V::Sums {
                // SAFETY: the caller upholds this contract.
                unsafe { V::$dot(sums, weights, x) }
            }
            #[inline(always)]
            unsafe fn start<V: Vector>(sum: i32) -> V::Sums {
                // SAFETY: the caller upholds this contract.
                unsafe { $start(sum) }
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
unsafe fn nothing<V: Vector>(_: i32) -> V::Sums {
    // SAFETY: the caller upholds this contract.
    unsafe { V::no_sums() }
}

#[inline(always)]
unsafe fn offset_bytes<V: Vector>(sum: i32) -> V::Sums {
    // SAFETY: the caller upholds this contract.
    unsafe { if V::OFFSET_BYTES { V::less::<7>(sum) } else { V::no_sums() } }
}

block!(Q4: 256 bytes, 1 scales, halves false, offset false, nibbles::<V>, dot_nibbles, V::less::<3>);
block!(Q4Offset: 256 bytes, 2 scales, halves false, offset true, nibbles::<V>, dot_nibbles, nothing::<V>);
block!(Q5: 320 bytes, 1 scales, halves false, offset false, five_bits::<V>, dot_nibbles, V::less::<4>);
block!(Q5Offset: 320 bytes, 2 scales, halves false, offset true, five_bits::<V>, dot_nibbles, nothing::<V>);
block!(Q8: 512 bytes, 1 scales, halves false, offset false, bytes::<V>, dot_bytes, offset_bytes::<V>);
block!(Q8Halves: 512 bytes, 2 scales, halves true, offset false, bytes::<V>, dot_bytes, offset_bytes::<V>);
