//! NEON with `sdot`: a tile's sixteen columns in four registers.
#![allow(unsafe_op_in_unsafe_fn, reason = "each function is a few intrinsics under the trait's own contract")]

use std::{
    arch::{aarch64::*, asm},
    array::from_fn,
};

use super::vector::Vector;

/// NEON and the dot product of bytes (`dotprod`, ARMv8.2).
#[derive(Clone, Copy)]
pub(super) struct Neon;

/// `x` where it is larger, else `y`: like the other instruction sets, the second of 0 and -0 (`fmax` returns 0).
#[inline(always)]
unsafe fn larger(x: float32x4_t, y: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(x, y), x, y)
}

/// Adds the products of four bytes each, signed. The intrinsic for it, `vdotq_s32`, is not stable yet.
#[inline(always)]
unsafe fn dot(mut sums: int32x4_t, weights: int8x16_t, x: *const i8) -> int32x4_t {
    let x = vdupq_n_s32(x.cast::<i32>().read_unaligned());
    asm!(
        ".arch_extension dotprod",
        "sdot {sums:v}.4s, {weights:v}.16b, {x:v}.16b",
        sums = inout(vreg) sums,
        weights = in(vreg) weights,
        x = in(vreg) x,
        options(pure, nomem, nostack, preserves_flags),
    );
    sums
}

impl Vector for Neon {
    type F = [float32x4_t; 4];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        [vdupq_n_f32(x); 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        from_fn(|at| vld1q_f32(from.add(4 * at)))
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::F) {
        for (at, x) in x.into_iter().enumerate() {
            vst1q_f32(to.add(4 * at), x);
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        from_fn(|at| Self::scales(from.add(4 * at)))
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, x: Self::F) {
        for (at, x) in x.into_iter().enumerate() {
            vst1_u16(to.add(4 * at), vreinterpret_u16_f16(vcvt_f16_f32(x)));
        }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self::F {
        let bytes = vld1q_s8(from);
        let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
        [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
            .map(|x| vcvtq_f32_s32(x))
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, x: Self::F) {
        let [a, b, c, d] = x.map(|x| vcvtq_s32_f32(x));
        let low = vqmovn_high_s32(vqmovn_s32(a), b);
        let high = vqmovn_high_s32(vqmovn_s32(c), d);
        vst1q_s8(to, vqmovn_high_s16(vqmovn_s16(low), high));
    }
    #[inline(always)]
    unsafe fn add(x: Self::F, y: Self::F) -> Self::F {
        from_fn(|at| vaddq_f32(x[at], y[at]))
    }
    #[inline(always)]
    unsafe fn sub(x: Self::F, y: Self::F) -> Self::F {
        from_fn(|at| vsubq_f32(x[at], y[at]))
    }
    #[inline(always)]
    unsafe fn mul(x: Self::F, y: Self::F) -> Self::F {
        from_fn(|at| vmulq_f32(x[at], y[at]))
    }
    #[inline(always)]
    unsafe fn mul_add(x: Self::F, y: Self::F, z: Self::F) -> Self::F {
        from_fn(|at| vfmaq_f32(z[at], x[at], y[at]))
    }
    #[inline(always)]
    unsafe fn div(x: Self::F, y: Self::F) -> Self::F {
        from_fn(|at| vdivq_f32(x[at], y[at]))
    }
    #[inline(always)]
    unsafe fn max(x: Self::F, y: Self::F) -> Self::F {
        from_fn(|at| larger(x[at], y[at]))
    }
    #[inline(always)]
    unsafe fn min(x: Self::F, y: Self::F) -> Self::F {
        from_fn(|at| vbslq_f32(vcltq_f32(x[at], y[at]), x[at], y[at]))
    }
    #[inline(always)]
    unsafe fn abs(x: Self::F) -> Self::F {
        x.map(|x| vabsq_f32(x))
    }
    #[inline(always)]
    unsafe fn round(x: Self::F) -> Self::F {
        x.map(|x| vrndnq_f32(x))
    }
    #[inline(always)]
    unsafe fn pow2(n: Self::F) -> Self::F {
        n.map(|n| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)))))
    }
    #[inline(always)]
    unsafe fn sum(x: Self::F) -> f32 {
        let x = vaddq_f32(vaddq_f32(x[0], x[2]), vaddq_f32(x[1], x[3]));
        vpadds_f32(vadd_f32(vget_low_f32(x), vget_high_f32(x)))
    }
    #[inline(always)]
    unsafe fn largest(x: Self::F) -> f32 {
        let x = larger(larger(x[0], x[2]), larger(x[1], x[3]));
        let x = larger(x, vextq_f32::<2>(x, x));
        vgetq_lane_f32::<0>(larger(x, vextq_f32::<1>(x, x)))
    }

    const PARTS: usize = 4;
    const OFFSET_BYTES: bool = false;
    type Weights = int8x16_t;
    type Sums = int32x4_t;
    type Floats = float32x4_t;

    #[inline(always)]
    unsafe fn nibbles(from: *const u8) -> (int8x16_t, int8x16_t) {
        let bytes = vld1q_u8(from);
        let (low, high) = (vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes));
        (vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high))
    }
    #[inline(always)]
    unsafe fn add_fifth_bit(x: int8x16_t, bits: *const u8, part: usize) -> int8x16_t {
        // Byte `i` of the register tests bit `i % 8` of byte `i / 8`.
        let bits = bits.add(2 * part);
        let bits = vcombine_u8(vdup_n_u8(*bits), vdup_n_u8(*bits.add(1)));
        let one_each = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
        let set = vtstq_u8(bits, one_each);
        vaddq_s8(x, vreinterpretq_s8_u8(vandq_u8(set, vdupq_n_u8(16))))
    }
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> int8x16_t {
        vreinterpretq_s8_u8(veorq_u8(vld1q_u8(from), vdupq_n_u8(128)))
    }
    #[inline(always)]
    unsafe fn no_sums() -> int32x4_t {
        vdupq_n_s32(0)
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sums: int32x4_t, weights: int8x16_t, x: *const i8) -> int32x4_t {
        dot(sums, weights, x)
    }
    #[inline(always)]
    unsafe fn dot_bytes(sums: int32x4_t, weights: int8x16_t, x: *const i8) -> int32x4_t {
        dot(sums, weights, x)
    }
    #[inline(always)]
    unsafe fn less<const BITS: u32>(x: i32) -> int32x4_t {
        vdupq_n_s32(-(x << BITS))
    }
    #[inline(always)]
    unsafe fn add_sums(x: int32x4_t, y: int32x4_t) -> int32x4_t {
        vaddq_s32(x, y)
    }
    #[inline(always)]
    unsafe fn no_floats() -> float32x4_t {
        vdupq_n_f32(0.0)
    }
    #[inline(always)]
    unsafe fn scales(from: *const u16) -> float32x4_t {
        vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)))
    }
    #[inline(always)]
    unsafe fn accumulate(acc: float32x4_t, sums: int32x4_t, scales: float32x4_t, x: f32) -> float32x4_t {
        vfmaq_n_f32(acc, vmulq_f32(vcvtq_f32_s32(sums), scales), x)
    }
    #[inline(always)]
    unsafe fn accumulate_offset(acc: float32x4_t, scales: float32x4_t, x: f32) -> float32x4_t {
        vfmaq_n_f32(acc, scales, x)
    }
    #[inline(always)]
    unsafe fn store_floats(to: *mut f32, x: float32x4_t) {
        vst1q_f32(to, x);
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[inline(always)]
    unsafe fn prefetch_far(at: *const u8) {
        asm!("prfm pldl2keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly));
    }
}
