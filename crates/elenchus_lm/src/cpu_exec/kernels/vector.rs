//! The operations that an instruction set must provide. Each kernel is written once over this trait and compiled once
//! for each implementation, so there is one order of sums, and one result to the bit, on every machine. Every
//! multiply-add is rounded once on all machines ([`Vector::mul_add`]); it is emulated where the CPU has no such
//! instruction.

/// Numbers in a vector, and output features in a tile of packed weights.
pub(crate) const LANES: usize = 16;

/// An instruction set.
///
/// # Safety of every function here
/// The machine must have the instruction set, and pointers must be valid for the number of elements the function names,
/// at any alignment. Functions are inlined into entry points compiled for the instruction set; see `entry_points!`.
pub(super) trait Vector: Copy {
    /// Sixteen f32.
    type F: Copy;

    unsafe fn splat(x: f32) -> Self::F;
    /// 16 f32.
    unsafe fn load(from: *const f32) -> Self::F;
    /// 16 f32.
    unsafe fn store(to: *mut f32, x: Self::F);
    /// 16 f16.
    unsafe fn load_f16(from: *const u16) -> Self::F;
    /// 16 f16, rounded to nearest even.
    unsafe fn store_f16(to: *mut u16, x: Self::F);
    /// 16 i8.
    unsafe fn load_i8(from: *const i8) -> Self::F;
    /// 16 i8 from whole numbers between -128 and 127.
    unsafe fn store_i8(to: *mut i8, x: Self::F);
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F;
    /// `x * y + z`, rounded once.
    unsafe fn mul_add(x: Self::F, y: Self::F, z: Self::F) -> Self::F;
    unsafe fn div(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn max(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn min(x: Self::F, y: Self::F) -> Self::F;
    unsafe fn abs(x: Self::F) -> Self::F;
    /// To the nearest whole number, ties to even.
    unsafe fn round(x: Self::F) -> Self::F;
    /// `2^n` of whole numbers from -126 to 127.
    unsafe fn pow2(n: Self::F) -> Self::F;
    /// In a tree: lane `i` takes `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
    unsafe fn sum(x: Self::F) -> f32;
    unsafe fn largest(x: Self::F) -> f32;

    /// The number of parts that a tile's columns are split into, each as wide as a register.
    const PARTS: usize;
    /// Whether [`Self::bytes`] stay unsigned, 128 too large. Otherwise they are signed.
    const OFFSET_BYTES: bool;
    /// Four weights of each of a part's columns.
    type Weights: Copy;
    /// An integer for each of a part's columns.
    type Sums: Copy;
    /// A float for each of a part's columns.
    type Floats: Copy;

    /// `64 / PARTS` bytes into their lower and upper halves.
    unsafe fn nibbles(from: *const u8) -> (Self::Weights, Self::Weights);
    /// Adds 16 where a bit is set: the bits of the tile's 64 weights, of which `part` is used.
    unsafe fn add_fifth_bit(x: Self::Weights, bits: *const u8, part: usize) -> Self::Weights;
    /// `64 / PARTS` bytes that hold weights plus 128.
    unsafe fn bytes(from: *const u8) -> Self::Weights;
    unsafe fn no_sums() -> Self::Sums;
    /// Adds the products of each column's four weights, 0 to 31, with the four numbers at `x`.
    unsafe fn dot_nibbles(sums: Self::Sums, weights: Self::Weights, x: *const i8) -> Self::Sums;
    /// The same with the result of [`Self::bytes`].
    unsafe fn dot_bytes(sums: Self::Sums, weights: Self::Weights, x: *const i8) -> Self::Sums;
    /// `-(x << BITS)` for each column.
    unsafe fn less<const BITS: u32>(x: i32) -> Self::Sums;
    unsafe fn add_sums(x: Self::Sums, y: Self::Sums) -> Self::Sums;
    unsafe fn no_floats() -> Self::Floats;
    /// `16 / PARTS` f16.
    unsafe fn scales(from: *const u16) -> Self::Floats;
    /// `acc + (sums * scales) * x`, the first product rounded.
    unsafe fn accumulate(acc: Self::Floats, sums: Self::Sums, scales: Self::Floats, x: f32) -> Self::Floats;
    /// `acc + scales * x`.
    unsafe fn accumulate_offset(acc: Self::Floats, scales: Self::Floats, x: f32) -> Self::Floats;
    /// `16 / PARTS` f32.
    unsafe fn store_floats(to: *mut f32, x: Self::Floats);
    /// Prefetches the cache line at an address, which need not be valid.
    unsafe fn prefetch(at: *const u8);
    /// The same, into the larger second-level cache.
    unsafe fn prefetch_far(at: *const u8);
}

/// `cap * tanh(x / cap)`, as `cap - 2 cap / (1 + e^(2x / cap))`: within some 1e-7 of the cap.
#[inline(always)]
pub(super) unsafe fn soft_capped<V: Vector>(x: V::F, cap: f32) -> V::F {
    // SAFETY: lane arithmetic under this function's own contract.
    unsafe {
        let rest = V::add(exp::<V>(V::mul(x, V::splat(2.0 / cap))), V::splat(1.0));
        V::sub(V::splat(cap), V::div(V::splat(2.0 * cap), rest))
    }
}

/// `e^x` within 2 units in the last place for x from -87 to 88, and clamped to the ends beyond.
///
/// Cephes' `expf`: reduce by multiples of ln 2 in two parts, then a polynomial of degree five.
#[inline(always)]
pub(super) unsafe fn exp<V: Vector>(x: V::F) -> V::F {
    // SAFETY: lane arithmetic under this function's own contract.
    unsafe {
        let x = V::max(V::min(x, V::splat(88.0)), V::splat(-87.0));
        let n = V::round(V::mul(x, V::splat(std::f32::consts::LOG2_E)));
        let r = V::mul_add(n, V::splat(2.121_944_4e-4), V::mul_add(n, V::splat(-0.693_359_4), x));
        let mut p = V::splat(1.987_569_1e-4);
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
            p = V::mul_add(p, r, V::splat(coefficient));
        }
        let y = V::add(V::mul_add(V::mul(p, r), r, r), V::splat(1.0));
        V::mul(y, V::pow2(n))
    }
}
