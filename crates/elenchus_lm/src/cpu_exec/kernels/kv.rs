//! Writes a token's key and value into its slot of a page.

use super::{
    attention::KvNumbers,
    attention::MAX_HEAD,
    vector::{LANES, Vector},
};
use crate::kv_cache::PAGE_TOKENS;

/// Writes `padded` numbers each: the key down its column, the value along its row.
///
/// # Safety
/// The machine has the instruction set of `V`. `k` and `v` point to `padded` numbers, a multiple of 16 and at
/// least `head_dim`; `page` to [`KvPrecision::page_bytes`](super::KvPrecision::page_bytes) bytes of the precision `N`
/// that nobody else uses; `slot` is less than [`PAGE_TOKENS`].
#[inline(always)]
pub(super) unsafe fn write<V: Vector, N: KvNumbers>(
    k: *const f32,
    v: *const f32,
    page: *mut u8,
    slot: usize,
    head_dim: usize,
    padded: usize,
) {
    // SAFETY: a page holds `padded` rows of keys, PAGE_TOKENS rows of values, and two rows of scales where there are any.
    unsafe {
        let mut numbers = [0u16; MAX_HEAD];
        let bytes = numbers.as_mut_ptr().cast::<u8>();
        let scale = convert::<V, N>(k, bytes, padded);
        for d in 0..head_dim {
            let to = page.add((d * PAGE_TOKENS + slot) * N::BYTES);
            to.copy_from_nonoverlapping(bytes.add(d * N::BYTES), N::BYTES);
        }
        let values = page.add(PAGE_TOKENS * padded * N::BYTES);
        let value_scale = convert::<V, N>(v, values.add(slot * padded * N::BYTES), padded);
        if N::SCALED {
            let scales = page.add(2 * PAGE_TOKENS * padded).cast::<u16>();
            scales.add(slot).write_unaligned(scale);
            scales.add(PAGE_TOKENS + slot).write_unaligned(value_scale);
        }
    }
}

/// The largest f16: larger values are clamped to it, because an infinity would spoil every weighted sum.
const LARGEST_F16: f32 = 65_504.0;

/// Rounds numbers; returns the f16 scale, if there is one.
#[inline(always)]
unsafe fn convert<V: Vector, N: KvNumbers>(from: *const f32, to: *mut u8, padded: usize) -> u16 {
    // SAFETY: `padded` numbers on both sides, a multiple of 16.
    unsafe {
        if !N::SCALED {
            for at in (0..padded).step_by(LANES) {
                let x = V::min(V::max(V::load(from.add(at)), V::splat(-LARGEST_F16)), V::splat(LARGEST_F16));
                V::store_f16(to.cast::<u16>().add(at), x);
            }
            return 0;
        }
        let mut largest = V::splat(0.0);
        for at in (0..padded).step_by(LANES) {
            largest = V::max(largest, V::abs(V::load(from.add(at))));
        }
        // Rounded up, so that the largest number is at most 127 steps of the rounded scale.
        let mut scale = [0u16; LANES];
        let exact = V::largest(largest) / 127.0;
        V::store_f16(scale.as_mut_ptr(), V::min(V::splat(exact * 1.0005), V::splat(LARGEST_F16)));
        let rounded = V::sum(V::load_f16(scale.as_ptr())) / LANES as f32;
        let inverse = V::splat(if rounded > 0.0 { 1.0 / rounded } else { 0.0 });
        for at in (0..padded).step_by(LANES) {
            let x = V::round(V::mul(V::load(from.add(at)), inverse));
            V::store_i8(to.cast::<i8>().add(at), V::max(V::min(x, V::splat(127.0)), V::splat(-127.0)));
        }
        scale[0]
    }
}
