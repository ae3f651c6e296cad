//! Plain Rust: what runs where nothing better does, and what the others are held to.
#![allow(unsafe_op_in_unsafe_fn, reason = "each function is a few operations under the trait's own contract")]

use half::f16;

use super::vector::{LANES, Vector};

/// No instruction set in particular.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

type Lanes<T> = [T; LANES];

#[inline(always)]
fn each<T: Copy>(x: Lanes<T>, y: Lanes<T>, f: impl Fn(T, T) -> T) -> Lanes<T> {
    std::array::from_fn(|lane| f(x[lane], y[lane]))
}

#[inline(always)]
fn tree(mut x: Lanes<f32>, f: impl Fn(f32, f32) -> f32) -> f32 {
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            x[lane] = f(x[lane], x[lane + width]);
        }
    }
    x[0]
}

impl Vector for Scalar {
    type F = Lanes<f32>;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        from.cast::<Self::F>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::F) {
        to.cast::<Self::F>().write_unaligned(x);
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        from.cast::<Lanes<u16>>().read_unaligned().map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, x: Self::F) {
        to.cast::<Lanes<u16>>().write_unaligned(x.map(|x| f16::from_f32(x).to_bits()));
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self::F {
        from.cast::<Lanes<i8>>().read_unaligned().map(f32::from)
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, x: Self::F) {
        to.cast::<Lanes<i8>>().write_unaligned(x.map(|x| x as i8));
    }
    #[inline(always)]
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F {
        each(x, y, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F {
        each(x, y, |x, y| x - y)
    }
    #[inline(always)]
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F {
        each(x, y, |x, y| x * y)
    }
    #[inline(always)]
    unsafe fn div(x: Self::F, y: Self::F) -> Self::F {
        each(x, y, |x, y| x / y)
    }
    #[inline(always)]
    unsafe fn max(x: Self::F, y: Self::F) -> Self::F {
        each(x, y, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    unsafe fn min(x: Self::F, y: Self::F) -> Self::F {
        each(x, y, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    unsafe fn abs(x: Self::F) -> Self::F {
        x.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn round(x: Self::F) -> Self::F {
        x.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn pow2(n: Self::F) -> Self::F {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn swap_pairs(x: Self::F) -> Self::F {
        std::array::from_fn(|lane| x[lane ^ 1])
    }
    #[inline(always)]
    unsafe fn sum(x: Self::F) -> f32 {
        tree(x, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn largest(x: Self::F) -> f32 {
        tree(x, |x, y| if x > y { x } else { y })
    }

    const PARTS: usize = 1;
    const OFFSET_BYTES: bool = false;
    type Weights = [i8; 64];
    type Sums = Lanes<i32>;
    type Floats = Lanes<f32>;

    #[inline(always)]
    unsafe fn nibbles(from: *const u8) -> (Self::Weights, Self::Weights) {
        let bytes = from.cast::<[u8; 64]>().read_unaligned();
        (bytes.map(|byte| (byte & 15) as i8), bytes.map(|byte| (byte >> 4) as i8))
    }
    #[inline(always)]
    unsafe fn add_fifth_bit(x: Self::Weights, bits: *const u8, _: usize) -> Self::Weights {
        let bits = u64::from_le_bytes(bits.cast::<[u8; 8]>().read_unaligned());
        std::array::from_fn(|at| x[at] + if bits >> at & 1 == 1 { 16 } else { 0 })
    }
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> Self::Weights {
        from.cast::<[u8; 64]>().read_unaligned().map(|byte| (byte ^ 128) as i8)
    }
    #[inline(always)]
    unsafe fn no_sums() -> Self::Sums {
        [0; LANES]
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sums: Self::Sums, weights: Self::Weights, x: *const i8) -> Self::Sums {
        let x = x.cast::<[i8; 4]>().read_unaligned();
        let product = |lane: usize| (0..4).map(|at| i32::from(weights[4 * lane + at]) * i32::from(x[at])).sum::<i32>();
        std::array::from_fn(|lane| sums[lane] + product(lane))
    }
    #[inline(always)]
    unsafe fn dot_bytes(sums: Self::Sums, weights: Self::Weights, x: *const i8) -> Self::Sums {
        Self::dot_nibbles(sums, weights, x)
    }
    #[inline(always)]
    unsafe fn sub_shifted<const BITS: u32>(sums: Self::Sums, x: i32) -> Self::Sums {
        sums.map(|sum| sum - (x << BITS))
    }
    #[inline(always)]
    unsafe fn add_sums(x: Self::Sums, y: Self::Sums) -> Self::Sums {
        each(x, y, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn no_floats() -> Self::Floats {
        [0.0; LANES]
    }
    #[inline(always)]
    unsafe fn scales(from: *const u16) -> Self::Floats {
        Self::load_f16(from)
    }
    #[inline(always)]
    unsafe fn accumulate(acc: Self::Floats, sums: Self::Sums, scales: Self::Floats, x: f32) -> Self::Floats {
        std::array::from_fn(|lane| acc[lane] + (sums[lane] as f32 * scales[lane]) * x)
    }
    #[inline(always)]
    unsafe fn accumulate_offset(acc: Self::Floats, scales: Self::Floats, x: f32) -> Self::Floats {
        std::array::from_fn(|lane| acc[lane] + scales[lane] * x)
    }
    #[inline(always)]
    unsafe fn store_floats(to: *mut f32, x: Self::Floats) {
        Self::store(to, x);
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
