//! Attention of a few queries over one key/value head's pages, streamed once: a page's scores, their exponentials, the
//! values they weigh, and a running maximum that rescales what was added before.
//!
//! Pages begin at multiples of their length whatever was read when, and a query's arithmetic is the same alone and beside
//! others: so a token's numbers do not depend on how its prompt was cut.

use super::vector::{LANES, Vector, exp};
use crate::kv_cache::PAGE_TOKENS;

/// How keys and values lie in a page.
pub(crate) trait KvNumbers {
    /// Bytes of one number.
    const BYTES: usize;
    /// Whether each key and each value has a scale (f16, after the numbers).
    const SCALED: bool;
    unsafe fn load<V: Vector>(from: *const u8) -> V::F;
}

/// f16.
pub(super) struct F16;
/// i8 with a scale for each token and head.
pub(super) struct Int8;

impl KvNumbers for F16 {
    const BYTES: usize = 2;
    const SCALED: bool = false;

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u8) -> V::F {
        // SAFETY: handed on.
        unsafe { V::load_f16(from.cast()) }
    }
}

impl KvNumbers for Int8 {
    const BYTES: usize = 1;
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u8) -> V::F {
        // SAFETY: handed on.
        unsafe { V::load_i8(from.cast()) }
    }
}

/// Queries of one key/value head.
pub(super) struct Task<'a> {
    /// For each page from `first_page` on, its bytes of this layer and head.
    pub pages: &'a [*const u8],
    pub first_page: usize,
    /// Width of a head, and the same padded to 16.
    pub head_dim: usize,
    pub padded: usize,
    /// `(queries, padded)`, scaled by `1 / sqrt(head_dim)`; becomes what they attended to.
    pub queries: *mut f32,
    /// For each query the positions it sees: first and last.
    pub seen: &'a [(usize, usize)],
}

// A page's keys are two vectors.
const _: () = assert!(PAGE_TOKENS == 2 * LANES);

/// Queries that share what is loaded of a page.
const TOGETHER: usize = 6;

/// Attends with all queries of a task.
#[inline(always)]
pub(super) unsafe fn attend<V: Vector, N: KvNumbers>(task: &Task<'_>) {
    // SAFETY: the caller's contract, for each group of queries.
    unsafe {
        let mut query = 0;
        while query < task.seen.len() {
            let left = task.seen.len() - query;
            if left >= TOGETHER {
                attend_together::<V, N, TOGETHER>(task, query);
                query += TOGETHER;
            } else if left >= 3 {
                attend_together::<V, N, 3>(task, query);
                query += 3;
            } else {
                attend_together::<V, N, 1>(task, query);
                query += 1;
            }
        }
    }
}

#[inline(always)]
unsafe fn attend_together<V: Vector, N: KvNumbers, const M: usize>(task: &Task<'_>, first: usize) {
    // SAFETY: pages hold PAGE_TOKENS keys and values of this head; queries are `padded` wide.
    unsafe {
        let padded = task.padded;
        let queries = task.queries.add(first * padded);
        let seen: [(usize, usize); M] = std::array::from_fn(|m| task.seen[first + m]);
        let from = seen.iter().map(|seen| seen.0).min().unwrap_or(0) / PAGE_TOKENS;
        let last = seen.iter().map(|seen| seen.1).max().unwrap_or(0);
        // What was attended to so far, before division by `total`.
        let mut attended = [[0f32; MAX_HEAD]; M];
        let mut largest = [f32::NEG_INFINITY; M];
        let mut total = [0f32; M];
        for page in from..=last / PAGE_TOKENS {
            let start = page * PAGE_TOKENS;
            let bytes = task.pages[page - task.first_page];
            let mut weights = [[0f32; PAGE_TOKENS]; M];
            scores::<V, N, M>(bytes, queries, padded, task.head_dim, &mut weights);
            let mut rescale = [1f32; M];
            for m in 0..M {
                let weights = &mut weights[m];
                let (begin, end) =
                    (seen[m].0.max(start) - start, (seen[m].1 + 1).saturating_sub(start).min(PAGE_TOKENS));
                if begin >= end || seen[m].0 >= start + PAGE_TOKENS {
                    weights.fill(0.0);
                    continue;
                }
                if N::SCALED {
                    scale_by::<V>(weights, bytes.add(2 * PAGE_TOKENS * padded));
                }
                weights[..begin].fill(f32::NEG_INFINITY);
                weights[end..].fill(f32::NEG_INFINITY);
                let (low, high) = (V::load(weights.as_ptr()), V::load(weights.as_ptr().add(16)));
                let most = V::largest(V::max(low, high)).max(largest[m]);
                rescale[m] = first_lane_exp::<V>(largest[m] - most);
                largest[m] = most;
                let most = V::splat(most);
                V::store(weights.as_mut_ptr(), exp::<V>(V::sub(low, most)));
                V::store(weights.as_mut_ptr().add(16), exp::<V>(V::sub(high, most)));
                // What is not seen weighs nothing at all.
                weights[..begin].fill(0.0);
                weights[end..].fill(0.0);
                let sum = V::sum(V::add(V::load(weights.as_ptr()), V::load(weights.as_ptr().add(16))));
                total[m] = total[m] * rescale[m] + sum;
                if N::SCALED {
                    scale_by::<V>(weights, bytes.add(2 * PAGE_TOKENS * padded + 2 * PAGE_TOKENS));
                }
            }
            let keys = (last + 1 - start).min(PAGE_TOKENS);
            let values = bytes.add(N::BYTES * PAGE_TOKENS * padded);
            for at in (0..padded).step_by(4 * LANES) {
                match (padded - at) / LANES {
                    0 => {}
                    1 => weigh::<V, N, M, 1>(values, keys, padded, at, &weights, &rescale, &mut attended),
                    2 => weigh::<V, N, M, 2>(values, keys, padded, at, &weights, &rescale, &mut attended),
                    3 => weigh::<V, N, M, 3>(values, keys, padded, at, &weights, &rescale, &mut attended),
                    _ => weigh::<V, N, M, 4>(values, keys, padded, at, &weights, &rescale, &mut attended),
                }
            }
        }
        for m in 0..M {
            let share = V::splat(1.0 / total[m]);
            for at in (0..padded).step_by(LANES) {
                let y = V::mul(V::load(attended[m].as_ptr().add(at)), share);
                V::store(queries.add(m * padded + at), y);
            }
        }
    }
}

/// The widest head there is room for.
pub(crate) const MAX_HEAD: usize = 256;

/// Scores of a page's 32 keys, which lie dimension by dimension: lanes are keys, and no sum goes across lanes.
#[inline(always)]
unsafe fn scores<V: Vector, N: KvNumbers, const M: usize>(
    keys: *const u8,
    queries: *const f32,
    padded: usize,
    head_dim: usize,
    scores: &mut [[f32; PAGE_TOKENS]; M],
) {
    // SAFETY: `head_dim` rows of 32 numbers.
    unsafe {
        let mut acc = [[V::splat(0.0); 2]; M];
        for d in 0..head_dim {
            let row = keys.add(d * PAGE_TOKENS * N::BYTES);
            let (low, high) = (N::load::<V>(row), N::load::<V>(row.add(LANES * N::BYTES)));
            for m in 0..M {
                let q = V::splat(*queries.add(m * padded + d));
                acc[m][0] = V::add(acc[m][0], V::mul(low, q));
                acc[m][1] = V::add(acc[m][1], V::mul(high, q));
            }
        }
        for m in 0..M {
            V::store(scores[m].as_mut_ptr(), acc[m][0]);
            V::store(scores[m].as_mut_ptr().add(LANES), acc[m][1]);
        }
    }
}

/// `attended = attended * rescale + weights * values` for `D` times 16 dimensions from `at` on.
#[inline(always)]
unsafe fn weigh<V: Vector, N: KvNumbers, const M: usize, const D: usize>(
    values: *const u8,
    keys: usize,
    padded: usize,
    at: usize,
    weights: &[[f32; PAGE_TOKENS]; M],
    rescale: &[f32; M],
    attended: &mut [[f32; MAX_HEAD]; M],
) {
    // SAFETY: `keys` rows of `padded` numbers.
    unsafe {
        let mut acc = [[V::splat(0.0); D]; M];
        for m in 0..M {
            for d in 0..D {
                acc[m][d] = V::mul(V::load(attended[m].as_ptr().add(at + d * LANES)), V::splat(rescale[m]));
            }
        }
        for key in 0..keys {
            let row = values.add((key * padded + at) * N::BYTES);
            let mut value = [V::splat(0.0); D];
            for d in 0..D {
                value[d] = N::load::<V>(row.add(d * LANES * N::BYTES));
            }
            for m in 0..M {
                let weight = V::splat(weights[m][key]);
                for d in 0..D {
                    acc[m][d] = V::add(acc[m][d], V::mul(value[d], weight));
                }
            }
        }
        for m in 0..M {
            for d in 0..D {
                V::store(attended[m].as_mut_ptr().add(at + d * LANES), acc[m][d]);
            }
        }
    }
}

#[inline(always)]
unsafe fn scale_by<V: Vector>(weights: &mut [f32; PAGE_TOKENS], scales: *const u8) {
    // SAFETY: 32 f16.
    unsafe {
        for at in [0, LANES] {
            let weights = weights.as_mut_ptr().add(at);
            V::store(weights, V::mul(V::load(weights), V::load_f16(scales.cast::<u16>().add(at))));
        }
    }
}

/// `e^x` by the same instructions as everywhere, for one number.
#[inline(always)]
unsafe fn first_lane_exp<V: Vector>(x: f32) -> f32 {
    // SAFETY: sixteen numbers of a local array.
    unsafe {
        let mut lanes = [0f32; LANES];
        V::store(lanes.as_mut_ptr(), exp::<V>(V::splat(x)));
        lanes[0]
    }
}
