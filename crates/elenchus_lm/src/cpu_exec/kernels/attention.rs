//! Attention of a few queries over one key/value head's pages, streamed once: the scores of a stretch of pages, their
//! exponentials, the weighted values, and a running maximum that rescales the sum so far.
//!
//! Pages and stretches begin at multiples of their lengths however the prompt was read, and a query's arithmetic is the
//! same alone and beside others: so a token's numbers do not depend on how its prompt was cut.

use super::vector::{LANES, Vector, exp, soft_capped};
use crate::kv_cache::PAGE_TOKENS;

/// How a page stores keys and values.
pub(crate) trait KvNumbers {
    /// Bytes of one number.
    const BYTES: usize;
    /// Whether each key and each value has a scale (f16, after the numbers).
    const SCALED: bool;
    /// # Safety
    /// The machine has the instruction set of `V`, and `from` points to as many numbers as it has lanes.
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
        // SAFETY: the caller upholds this contract.
        unsafe { V::load_f16(from.cast()) }
    }
}

impl KvNumbers for Int8 {
    const BYTES: usize = 1;
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const u8) -> V::F {
        // SAFETY: the caller upholds this contract.
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
    /// `(queries, padded)`, scaled by `1 / sqrt(head_dim)`; overwritten with the attention output.
    pub queries: *mut f32,
    /// For each query the positions it sees: first and last.
    pub seen: &'a [(usize, usize)],
    /// Of the scores, if there is one.
    pub cap: Option<f32>,
}

// A page's keys are two vectors.
const _: () = assert!(PAGE_TOKENS == 2 * LANES);

/// Pages whose scores are kept before the values are weighted: sums across lanes are done once for all of them.
const STRETCH: usize = 8;

/// Queries that share each load from a page.
const TOGETHER: usize = 6;

/// Attends with all queries of a task.
///
/// # Safety
/// The machine has the instruction set of `V`. Each page has [`KvPrecision::page_bytes`](super::KvPrecision::page_bytes)
/// bytes of the precision `N` for heads of `head_dim`; `queries` points to `seen.len() * padded` numbers that nobody else
/// uses; `padded` is `head_dim` up to a multiple of 16 and at most [`MAX_HEAD`].
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
        // The attention output so far, before division by `total`.
        let mut attended = [[0f32; MAX_HEAD]; M];
        let mut largest = [f32::NEG_INFINITY; M];
        let mut total = [0f32; M];
        let mut weights = [[0f32; STRETCH * PAGE_TOKENS]; M];
        for stretch in from / STRETCH..=last / PAGE_TOKENS / STRETCH {
            let pages = from.max(stretch * STRETCH)..(last / PAGE_TOKENS + 1).min((stretch + 1) * STRETCH);
            let start = pages.start * PAGE_TOKENS;
            let bytes = &task.pages[pages.start - task.first_page..pages.end - task.first_page];
            for (page, &bytes) in bytes.iter().enumerate() {
                let next = task.pages.get(pages.start + page + 1 - task.first_page).map_or(bytes, |next| *next);
                scores::<V, N, M>(bytes, next, queries, padded, task.head_dim, &mut weights, page * PAGE_TOKENS);
            }
            let mut rescale = [1f32; M];
            for m in 0..M {
                let weights = &mut weights[m][..bytes.len() * PAGE_TOKENS];
                let begin = seen[m].0.saturating_sub(start).min(weights.len());
                let end = (seen[m].1 + 1).saturating_sub(start).min(weights.len());
                if begin >= end {
                    weights.fill(0.0);
                    continue;
                }
                let pages = begin / PAGE_TOKENS..end.div_ceil(PAGE_TOKENS);
                let weigh = Softmax { weights, begin, end, bytes, pages, padded, cap: task.cap };
                rescale[m] = weigh.run::<V, N>(&mut largest[m], &mut total[m]);
            }
            let keys = (last + 1 - start).min(bytes.len() * PAGE_TOKENS);
            for at in (0..padded).step_by(4 * LANES) {
                match (padded - at) / LANES {
                    0 => {}
                    1 => weigh::<V, N, M, 1>(bytes, keys, padded, at, &weights, &rescale, &mut attended),
                    2 => weigh::<V, N, M, 2>(bytes, keys, padded, at, &weights, &rescale, &mut attended),
                    3 => weigh::<V, N, M, 3>(bytes, keys, padded, at, &weights, &rescale, &mut attended),
                    _ => weigh::<V, N, M, 4>(bytes, keys, padded, at, &weights, &rescale, &mut attended),
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

/// One query's scores of a stretch, while they become weights.
struct Softmax<'a> {
    /// Of all pages of the stretch.
    weights: &'a mut [f32],
    /// What the query sees of them.
    begin: usize,
    end: usize,
    /// The pages, and those that the query sees something of.
    bytes: &'a [*const u8],
    pages: std::ops::Range<usize>,
    padded: usize,
    cap: Option<f32>,
}

impl Softmax<'_> {
    /// Turns the scores into weights relative to the largest score so far; returns the factor for the earlier sum.
    #[inline(always)]
    unsafe fn run<V: Vector, N: KvNumbers>(self, largest: &mut f32, total: &mut f32) -> f32 {
        // SAFETY: `weights` holds a page's numbers for each of `bytes`, and `pages` lie within them.
        unsafe {
            let Self { weights, begin, end, bytes, pages, padded, cap } = self;
            let seen = pages.start * PAGE_TOKENS..pages.end * PAGE_TOKENS;
            if N::SCALED {
                for page in pages.clone() {
                    scale_by::<V>(&mut weights[page * PAGE_TOKENS..], bytes[page].add(2 * PAGE_TOKENS * padded));
                }
            }
            if let Some(cap) = cap {
                for at in seen.clone().step_by(LANES) {
                    let weights = weights[at..].as_mut_ptr();
                    V::store(weights, soft_capped::<V>(V::load(weights), cap));
                }
            }
            weights[seen.start..begin].fill(f32::NEG_INFINITY);
            weights[end..seen.end].fill(f32::NEG_INFINITY);
            let mut most = V::load(weights[seen.clone()].as_ptr());
            for at in seen.clone().step_by(LANES) {
                most = V::max(most, V::load(weights[at..].as_ptr()));
            }
            let most = V::largest(most).max(*largest);
            let rescale = first_lane_exp::<V>(*largest - most);
            *largest = most;
            let most = V::splat(most);
            for at in seen.clone().step_by(LANES) {
                let weights = weights[at..].as_mut_ptr();
                V::store(weights, exp::<V>(V::sub(V::load(weights), most)));
            }
            // Positions that are not seen get weight zero.
            weights[..begin].fill(0.0);
            weights[end..].fill(0.0);
            let mut sum = V::splat(0.0);
            for at in seen.step_by(LANES) {
                sum = V::add(sum, V::load(weights[at..].as_ptr()));
            }
            *total = *total * rescale + V::sum(sum);
            if N::SCALED {
                for page in pages {
                    let scales = bytes[page].add(2 * PAGE_TOKENS * padded + 2 * PAGE_TOKENS);
                    scale_by::<V>(&mut weights[page * PAGE_TOKENS..], scales);
                }
            }
            rescale
        }
    }
}

/// The widest supported head.
pub(crate) const MAX_HEAD: usize = 256;

/// Scores of a page's 32 keys, stored dimension by dimension: lanes are keys, and no sum crosses lanes.
#[inline(always)]
unsafe fn scores<V: Vector, N: KvNumbers, const M: usize>(
    keys: *const u8,
    next: *const u8,
    queries: *const f32,
    padded: usize,
    head_dim: usize,
    scores: &mut [[f32; STRETCH * PAGE_TOKENS]; M],
    at: usize,
) {
    // SAFETY: `head_dim` rows of 32 numbers.
    unsafe {
        let mut acc = [[V::splat(0.0); 2]; M];
        for d in 0..head_dim {
            let row = d * PAGE_TOKENS * N::BYTES;
            V::prefetch(next.wrapping_add(row));
            let row = keys.add(row);
            let (low, high) = (N::load::<V>(row), N::load::<V>(row.add(LANES * N::BYTES)));
            for m in 0..M {
                let q = V::splat(*queries.add(m * padded + d));
                acc[m][0] = V::mul_add(low, q, acc[m][0]);
                acc[m][1] = V::mul_add(high, q, acc[m][1]);
            }
        }
        for m in 0..M {
            let scores = scores[m][at..at + PAGE_TOKENS].as_mut_ptr();
            V::store(scores, acc[m][0]);
            V::store(scores.add(LANES), acc[m][1]);
        }
    }
}

/// `attended = attended * rescale + weights * values` for `D` times 16 dimensions from `at` on.
#[inline(always)]
unsafe fn weigh<V: Vector, N: KvNumbers, const M: usize, const D: usize>(
    pages: &[*const u8],
    keys: usize,
    padded: usize,
    at: usize,
    weights: &[[f32; STRETCH * PAGE_TOKENS]; M],
    rescale: &[f32; M],
    attended: &mut [[f32; MAX_HEAD]; M],
) {
    // SAFETY: the pages hold `keys` rows of `padded` values, after their keys.
    unsafe {
        let mut acc = [[V::splat(0.0); D]; M];
        for m in 0..M {
            for d in 0..D {
                acc[m][d] = V::mul(V::load(attended[m].as_ptr().add(at + d * LANES)), V::splat(rescale[m]));
            }
        }
        for (page, bytes) in pages.iter().enumerate() {
            let values = bytes.add((PAGE_TOKENS * padded + at) * N::BYTES);
            let next =
                pages.get(page + 1).map_or(values, |next| next.wrapping_add((PAGE_TOKENS * padded + at) * N::BYTES));
            let first = page * PAGE_TOKENS;
            for key in 0..(keys - first).min(PAGE_TOKENS) {
                let row = key * padded * N::BYTES;
                for line in (0..D * LANES * N::BYTES).step_by(64) {
                    V::prefetch(next.wrapping_add(row + line));
                }
                let row = values.add(row);
                let mut value = [V::splat(0.0); D];
                for d in 0..D {
                    value[d] = N::load::<V>(row.add(d * LANES * N::BYTES));
                }
                for m in 0..M {
                    let weight = V::splat(weights[m][first + key]);
                    for d in 0..D {
                        acc[m][d] = V::mul_add(value[d], weight, acc[m][d]);
                    }
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

/// A page's weights times their scales.
#[inline(always)]
unsafe fn scale_by<V: Vector>(weights: &mut [f32], scales: *const u8) {
    // SAFETY: 32 f16, and as many weights.
    unsafe {
        for at in [0, LANES] {
            let weights = weights[at..at + LANES].as_mut_ptr();
            V::store(weights, V::mul(V::load(weights), V::load_f16(scales.cast::<u16>().add(at))));
        }
    }
}

/// `e^x` of one number, with the same instructions as everywhere else.
#[inline(always)]
unsafe fn first_lane_exp<V: Vector>(x: f32) -> f32 {
    // SAFETY: sixteen numbers of a local array.
    unsafe {
        let mut lanes = [0f32; LANES];
        V::store(lanes.as_mut_ptr(), exp::<V>(V::splat(x)));
        lanes[0]
    }
}
