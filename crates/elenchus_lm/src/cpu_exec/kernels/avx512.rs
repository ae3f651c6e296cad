//! AVX-512 with VNNI: a tile's sixteen columns in one register.
#![allow(unsafe_op_in_unsafe_fn, reason = "each function is a few intrinsics under the trait's own contract")]

use std::arch::x86_64::*;

use super::vector::Vector;

/// AVX-512 F, BW, VL and VNNI.
#[derive(Clone, Copy)]
pub(super) struct Avx512;

impl Vector for Avx512 {
    type F = __m512;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        _mm512_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m512) {
        _mm512_storeu_ps(to, x);
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, x: __m512) {
        _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(x));
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, x: __m512) {
        _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(x)));
    }
    #[inline(always)]
    unsafe fn add(x: __m512, y: __m512) -> __m512 {
        _mm512_add_ps(x, y)
    }
    #[inline(always)]
    unsafe fn sub(x: __m512, y: __m512) -> __m512 {
        _mm512_sub_ps(x, y)
    }
    #[inline(always)]
    unsafe fn mul(x: __m512, y: __m512) -> __m512 {
        _mm512_mul_ps(x, y)
    }
    #[inline(always)]
    unsafe fn mul_add(x: __m512, y: __m512, z: __m512) -> __m512 {
        _mm512_fmadd_ps(x, y, z)
    }
    #[inline(always)]
    unsafe fn div(x: __m512, y: __m512) -> __m512 {
        _mm512_div_ps(x, y)
    }
    #[inline(always)]
    unsafe fn max(x: __m512, y: __m512) -> __m512 {
        _mm512_max_ps(x, y)
    }
    #[inline(always)]
    unsafe fn min(x: __m512, y: __m512) -> __m512 {
        _mm512_min_ps(x, y)
    }
    #[inline(always)]
    unsafe fn abs(x: __m512) -> __m512 {
        _mm512_abs_ps(x)
    }
    #[inline(always)]
    unsafe fn round(x: __m512) -> __m512 {
        _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
    }
    #[inline(always)]
    unsafe fn pow2(n: __m512) -> __m512 {
        let biased = _mm512_add_epi32(_mm512_cvttps_epi32(n), _mm512_set1_epi32(127));
        _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
    }
    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x)));
        super::avx2::sum_of_eight(_mm256_add_ps(_mm512_castps512_ps256(x), high))
    }
    #[inline(always)]
    unsafe fn largest(x: __m512) -> f32 {
        _mm512_reduce_max_ps(x)
    }

    const PARTS: usize = 1;
    const OFFSET_BYTES: bool = true;
    type Weights = __m512i;
    type Sums = __m512i;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn nibbles(from: *const u8) -> (__m512i, __m512i) {
        let bytes = _mm512_loadu_si512(from.cast());
        let low = _mm512_set1_epi8(15);
        (_mm512_and_si512(bytes, low), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low))
    }
    #[inline(always)]
    unsafe fn add_fifth_bit(x: __m512i, bits: *const u8, _: usize) -> __m512i {
        _mm512_mask_add_epi8(x, bits.cast::<u64>().read_unaligned(), x, _mm512_set1_epi8(16))
    }
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> __m512i {
        _mm512_loadu_si512(from.cast())
    }
    #[inline(always)]
    unsafe fn no_sums() -> __m512i {
        _mm512_setzero_si512()
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sums: __m512i, weights: __m512i, x: *const i8) -> __m512i {
        _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(x.cast::<i32>().read_unaligned()))
    }
    #[inline(always)]
    unsafe fn dot_bytes(sums: __m512i, weights: __m512i, x: *const i8) -> __m512i {
        Self::dot_nibbles(sums, weights, x)
    }
    #[inline(always)]
    unsafe fn less<const BITS: u32>(x: i32) -> __m512i {
        _mm512_set1_epi32(-(x << BITS))
    }
    #[inline(always)]
    unsafe fn add_sums(x: __m512i, y: __m512i) -> __m512i {
        _mm512_add_epi32(x, y)
    }
    #[inline(always)]
    unsafe fn no_floats() -> __m512 {
        _mm512_setzero_ps()
    }
    #[inline(always)]
    unsafe fn scales(from: *const u16) -> __m512 {
        Self::load_f16(from)
    }
    #[inline(always)]
    unsafe fn accumulate(acc: __m512, sums: __m512i, scales: __m512, x: f32) -> __m512 {
        _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales), _mm512_set1_ps(x), acc)
    }
    #[inline(always)]
    unsafe fn accumulate_offset(acc: __m512, scales: __m512, x: f32) -> __m512 {
        _mm512_fmadd_ps(scales, _mm512_set1_ps(x), acc)
    }
    #[inline(always)]
    unsafe fn store_floats(to: *mut f32, x: __m512) {
        Self::store(to, x);
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[inline(always)]
    unsafe fn prefetch_far(at: *const u8) {
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
}
