//! AVX2, and AVX-VNNI where a CPU has that without AVX-512: a tile's sixteen columns in two registers.
#![allow(unsafe_op_in_unsafe_fn, reason = "each function is a few intrinsics under the trait's own contract")]

use std::arch::x86_64::*;

use super::vector::Vector;

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2;

/// AVX2, FMA, F16C and AVX-VNNI.
#[derive(Clone, Copy)]
pub(super) struct AvxVnni;

/// Lane `i` takes `i + 4`, then `i + 2`, `i + 1`.
#[inline(always)]
pub(super) unsafe fn sum_of_eight(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
}

#[inline(always)]
unsafe fn largest_of_eight(x: __m256) -> f32 {
    let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
}

#[inline(always)]
unsafe fn eight_i8(from: *const i8) -> __m256 {
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())))
}

#[inline(always)]
unsafe fn eight_powers(n: __m256) -> __m256 {
    let biased = _mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127));
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
}

#[inline(always)]
unsafe fn broadcast(x: *const i8) -> __m256i {
    _mm256_set1_epi32(x.cast::<i32>().read_unaligned())
}

/// `a` unsigned times `b` signed, whose pairs must stay within 16 bits.
#[inline(always)]
unsafe fn dot_by_pairs(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
}

macro_rules! implement_vector {
    (
        $name:ty, offset_bytes: $offset_bytes:literal,
        $bytes:item
        $dot_nibbles:item
        $dot_bytes:item
    ) => {
        impl Vector for $name {
            type F = [__m256; 2];

            #[inline(always)]
            unsafe fn splat(x: f32) -> Self::F {
                [_mm256_set1_ps(x); 2]
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self::F {
                [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]
            }
            #[inline(always)]
            unsafe fn store(to: *mut f32, x: Self::F) {
                _mm256_storeu_ps(to, x[0]);
                _mm256_storeu_ps(to.add(8), x[1]);
            }
            #[inline(always)]
            unsafe fn load_f16(from: *const u16) -> Self::F {
                [Self::scales(from), Self::scales(from.add(8))]
            }
            #[inline(always)]
            unsafe fn store_f16(to: *mut u16, x: Self::F) {
                const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
                _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<NEAREST>(x[0]));
                _mm_storeu_si128(to.add(8).cast(), _mm256_cvtps_ph::<NEAREST>(x[1]));
            }
            #[inline(always)]
            unsafe fn load_i8(from: *const i8) -> Self::F {
                [eight_i8(from), eight_i8(from.add(8))]
            }
            #[inline(always)]
            unsafe fn store_i8(to: *mut i8, x: Self::F) {
                let words = _mm256_packs_epi32(_mm256_cvttps_epi32(x[0]), _mm256_cvttps_epi32(x[1]));
                // `packs` works within 128 bits: quarters arrive as 0, 2, 1, 3.
                let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
                let (low, high) = (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
                _mm_storeu_si128(to.cast(), _mm_packs_epi16(low, high));
            }
            #[inline(always)]
            unsafe fn add(x: Self::F, y: Self::F) -> Self::F {
                [_mm256_add_ps(x[0], y[0]), _mm256_add_ps(x[1], y[1])]
            }
            #[inline(always)]
            unsafe fn sub(x: Self::F, y: Self::F) -> Self::F {
                [_mm256_sub_ps(x[0], y[0]), _mm256_sub_ps(x[1], y[1])]
            }
            #[inline(always)]
            unsafe fn mul(x: Self::F, y: Self::F) -> Self::F {
                [_mm256_mul_ps(x[0], y[0]), _mm256_mul_ps(x[1], y[1])]
            }
            #[inline(always)]
            unsafe fn mul_add(x: Self::F, y: Self::F, z: Self::F) -> Self::F {
                [_mm256_fmadd_ps(x[0], y[0], z[0]), _mm256_fmadd_ps(x[1], y[1], z[1])]
            }
            #[inline(always)]
            unsafe fn div(x: Self::F, y: Self::F) -> Self::F {
                [_mm256_div_ps(x[0], y[0]), _mm256_div_ps(x[1], y[1])]
            }
            #[inline(always)]
            unsafe fn max(x: Self::F, y: Self::F) -> Self::F {
                [_mm256_max_ps(x[0], y[0]), _mm256_max_ps(x[1], y[1])]
            }
            #[inline(always)]
            unsafe fn min(x: Self::F, y: Self::F) -> Self::F {
                [_mm256_min_ps(x[0], y[0]), _mm256_min_ps(x[1], y[1])]
            }
            #[inline(always)]
            unsafe fn abs(x: Self::F) -> Self::F {
                let sign = _mm256_set1_ps(-0.0);
                [_mm256_andnot_ps(sign, x[0]), _mm256_andnot_ps(sign, x[1])]
            }
            #[inline(always)]
            unsafe fn round(x: Self::F) -> Self::F {
                const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
                [_mm256_round_ps::<NEAREST>(x[0]), _mm256_round_ps::<NEAREST>(x[1])]
            }
            #[inline(always)]
            unsafe fn pow2(n: Self::F) -> Self::F {
                [eight_powers(n[0]), eight_powers(n[1])]
            }
            #[inline(always)]
            unsafe fn sum(x: Self::F) -> f32 {
                sum_of_eight(_mm256_add_ps(x[0], x[1]))
            }
            #[inline(always)]
            unsafe fn largest(x: Self::F) -> f32 {
                largest_of_eight(_mm256_max_ps(x[0], x[1]))
            }

            const PARTS: usize = 2;
            const OFFSET_BYTES: bool = $offset_bytes;
            type Weights = __m256i;
            type Sums = __m256i;
            type Floats = __m256;

            #[inline(always)]
            unsafe fn nibbles(from: *const u8) -> (__m256i, __m256i) {
                let bytes = _mm256_loadu_si256(from.cast());
                let low = _mm256_set1_epi8(15);
                (_mm256_and_si256(bytes, low), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low))
            }
            #[inline(always)]
            unsafe fn add_fifth_bit(x: __m256i, bits: *const u8, part: usize) -> __m256i {
                // Byte `i` of the register tests bit `i % 8` of byte `i / 8`.
                let bits = _mm256_set1_epi32(bits.add(4 * part).cast::<i32>().read_unaligned());
                let spread = _mm256_setr_epi64x(
                    0,
                    0x0101_0101_0101_0101,
                    0x0202_0202_0202_0202,
                    0x0303_0303_0303_0303,
                );
                let one_each = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
                let bits = _mm256_and_si256(_mm256_shuffle_epi8(bits, spread), one_each);
                let set = _mm256_cmpeq_epi8(bits, one_each);
                _mm256_add_epi8(x, _mm256_and_si256(set, _mm256_set1_epi8(16)))
            }
            $bytes
            #[inline(always)]
            unsafe fn no_sums() -> __m256i {
                _mm256_setzero_si256()
            }
            $dot_nibbles
            $dot_bytes
            #[inline(always)]
            unsafe fn less<const BITS: u32>(x: i32) -> __m256i {
                _mm256_set1_epi32(-(x << BITS))
            }
            #[inline(always)]
            unsafe fn add_sums(x: __m256i, y: __m256i) -> __m256i {
                _mm256_add_epi32(x, y)
            }
            #[inline(always)]
            unsafe fn no_floats() -> __m256 {
                _mm256_setzero_ps()
            }
            #[inline(always)]
            unsafe fn scales(from: *const u16) -> __m256 {
                _mm256_cvtph_ps(_mm_loadu_si128(from.cast()))
            }
            #[inline(always)]
            unsafe fn accumulate(acc: __m256, sums: __m256i, scales: __m256, x: f32) -> __m256 {
                _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), scales), _mm256_set1_ps(x), acc)
            }
            #[inline(always)]
            unsafe fn accumulate_offset(acc: __m256, scales: __m256, x: f32) -> __m256 {
                _mm256_fmadd_ps(scales, _mm256_set1_ps(x), acc)
            }
            #[inline(always)]
            unsafe fn store_floats(to: *mut f32, x: __m256) {
                _mm256_storeu_ps(to, x);
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
    };
}

implement_vector! {
    Avx2, offset_bytes: false,
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> __m256i {
        _mm256_xor_si256(_mm256_loadu_si256(from.cast()), _mm256_set1_epi8(-128))
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sums: __m256i, weights: __m256i, x: *const i8) -> __m256i {
        dot_by_pairs(sums, weights, broadcast(x))
    }
    // Two products of a signed byte and one of at most 127 stay within 16 bits; the sign moves to the other factor.
    #[inline(always)]
    unsafe fn dot_bytes(sums: __m256i, weights: __m256i, x: *const i8) -> __m256i {
        dot_by_pairs(sums, _mm256_abs_epi8(weights), _mm256_sign_epi8(broadcast(x), weights))
    }
}

implement_vector! {
    AvxVnni, offset_bytes: true,
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> __m256i {
        _mm256_loadu_si256(from.cast())
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sums: __m256i, weights: __m256i, x: *const i8) -> __m256i {
        _mm256_dpbusd_avx_epi32(sums, weights, broadcast(x))
    }
    #[inline(always)]
    unsafe fn dot_bytes(sums: __m256i, weights: __m256i, x: *const i8) -> __m256i {
        _mm256_dpbusd_avx_epi32(sums, weights, broadcast(x))
    }
}
