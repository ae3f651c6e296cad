//! Plain Rust: runs where nothing better does, and is the reference for the others.
#![allow(unsafe_op_in_unsafe_fn, reason = "each function is a few operations under the trait's own contract")]

use half::f16;

use super::vector::{LANES, Vector};

/// No particular instruction set.
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

/// `x * y + z`, rounded once.
#[inline(always)]
fn fused(x: f32, y: f32, z: f32) -> f32 {
    // Elsewhere the standard library would call a function for each.
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { x.mul_add(y, z) } else { fused_by_hand(x, y, z) }
}

/// The product is exact in f64. If the sum was rounded, its last bit is made odd, so that rounding to f32 gives the
/// same result as rounding the exact sum (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
#[inline(always)]
fn fused_by_hand(x: f32, y: f32, z: f32) -> f32 {
    let (product, z) = (f64::from(x) * f64::from(y), f64::from(z));
    let sum = product + z;
    let of_z = sum - product;
    let lost = (product - (sum - of_z)) + (z - of_z);
    let bits = sum.to_bits();
    // Not where it is NaN, as with infinite ones.
    let inexact = lost.abs() > 0.0 && bits & 1 == 0;
    let outward = (lost > 0.0) == (sum > 0.0);
    let odd = if outward { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact { odd } else { bits }) as f32
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
    unsafe fn mul_add(x: Self::F, y: Self::F, z: Self::F) -> Self::F {
        std::array::from_fn(|lane| fused(x[lane], y[lane], z[lane]))
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
    unsafe fn less<const BITS: u32>(x: i32) -> Self::Sums {
        [-(x << BITS); LANES]
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
        std::array::from_fn(|lane| fused(sums[lane] as f32 * scales[lane], x, acc[lane]))
    }
    #[inline(always)]
    unsafe fn accumulate_offset(acc: Self::Floats, scales: Self::Floats, x: f32) -> Self::Floats {
        std::array::from_fn(|lane| fused(scales[lane], x, acc[lane]))
    }
    #[inline(always)]
    unsafe fn store_floats(to: *mut f32, x: Self::Floats) {
        Self::store(to, x);
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn prefetch_far(_: *const u8) {}
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_pcg::Pcg64Mcg;

    use super::*;

    #[test]
    fn by_hand_is_rounded_once_too() {
        let rng = &mut Pcg64Mcg::seed_from_u64(8);
        let check = |x: f32, y: f32, z: f32| {
            let (expected, found) = (x.mul_add(y, z), fused_by_hand(x, y, z));
            let same = expected.to_bits() == found.to_bits() || expected.is_nan() && found.is_nan();
            assert!(same, "{x:e} * {y:e} + {z:e}: {found:e} instead of {expected:e}");
        };
        let mut twice = 0;
        for _ in 0..300_000 {
            // Any bits; and products of 26 bits, which lie half-way between two f32 often enough for small differences
            // to decide.
            let [x, y, z] = [(); 3].map(|()| f32::from_bits(rng.random()));
            check(x, y, z);
            let [x, y, z] = [(); 3].map(|()| rng.random_range(-8192..8192) as f32 / 4096.0);
            check(x, y, z);
            let small = f32::from_bits(rng.random_range(0..1 << 26));
            check(x, y, small);
            check(small, y, z * f32::MIN_POSITIVE);
            let rounded_twice = (f64::from(x) * f64::from(y) + f64::from(small)) as f32;
            twice += usize::from(rounded_twice != x.mul_add(y, small));
        }
        assert!(twice > 0, "rounding twice was never seen to differ");
        for x in [0.0, -0.0, 1.0, f32::MAX, f32::MIN_POSITIVE, f32::INFINITY, f32::NAN] {
            for y in [0.0, -1.0, f32::MAX, f32::NEG_INFINITY] {
                for z in [0.0, -0.0, 1.0, -f32::MAX, f32::INFINITY] {
                    check(x, y, z);
                }
            }
        }
    }
}
