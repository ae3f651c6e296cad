//! Operations on a row of numbers between two products: norm, rotation, SwiGLU, and quantisation to blocks of 32.

use super::vector::{LANES, Vector, exp, soft_capped};

/// What a product needs to know about 32 quantised numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C)]
pub(crate) struct BlockNumbers {
    /// The scale of a step.
    pub scale: f32,
    /// Scale times sum: the factor for an offset of the weights.
    pub weighted_sum: f32,
    /// The integers' sum, of the first and the second 16.
    pub half_sums: [i32; 2],
}

/// `y = x / rms(x) * weight`; lengths are `vectors` times 16, `count` of the numbers are not padding.
///
/// # Safety
/// The machine has the instruction set of `V`. `x`, `weight` and `y` point to that many numbers.
#[inline(always)]
pub(super) unsafe fn rms_norm<V: Vector>(
    x: *const f32,
    weight: *const f32,
    y: *mut f32,
    vectors: usize,
    count: usize,
    eps: f32,
) {
    // SAFETY: 16 numbers at a time within the caller's lengths.
    unsafe {
        let mut squares = V::splat(0.0);
        for at in 0..vectors {
            let x = V::load(x.add(at * LANES));
            squares = V::mul_add(x, x, squares);
        }
        let scale = V::splat(1.0 / (V::sum(squares) / count as f32 + eps).sqrt());
        for at in 0..vectors {
            let normed = V::mul(V::load(x.add(at * LANES)), scale);
            V::store(y.add(at * LANES), V::mul(normed, V::load(weight.add(at * LANES))));
        }
    }
}

/// `y = (x - mean(x)) / deviation(x) * weight + bias`; lengths are `vectors` times 16, of which the first `count` are not
/// padding, and `x` is zero in the rest.
///
/// # Safety
/// The machine has the instruction set of `V`. `x`, `weight`, `bias` and `y` point to that many numbers.
#[inline(always)]
pub(super) unsafe fn layer_norm<V: Vector>(
    x: *const f32,
    (weight, bias): (*const f32, *const f32),
    y: *mut f32,
    vectors: usize,
    count: usize,
    eps: f32,
) {
    // SAFETY: 16 numbers at a time within the caller's lengths.
    unsafe {
        let mut sum = V::splat(0.0);
        for at in 0..vectors {
            sum = V::add(sum, V::load(x.add(at * LANES)));
        }
        let mean = V::sum(sum) / count as f32;
        let mut squares = V::splat(0.0);
        for at in 0..vectors {
            let centred = V::sub(V::load(x.add(at * LANES)), V::splat(mean));
            squares = V::mul_add(centred, centred, squares);
        }
        // Padding is as far from the mean as zero is.
        let padding = (vectors * LANES - count) as f32 * mean * mean;
        let scale = 1.0 / ((V::sum(squares) - padding) / count as f32 + eps).sqrt();
        for at in 0..vectors {
            let centred = V::sub(V::load(x.add(at * LANES)), V::splat(mean));
            let normed = V::mul(centred, V::splat(scale));
            let scaled = V::mul_add(normed, V::load(weight.add(at * LANES)), V::load(bias.add(at * LANES)));
            V::store(y.add(at * LANES), scaled);
        }
    }
}

/// Quantises `blocks` blocks: block `b` to 32 bytes at `b * quant_stride`, its numbers to `b * number_stride`.
///
/// # Safety
/// The machine has the instruction set of `V`. `x` points to `32 * blocks` numbers; `quants` and `numbers` to room
/// for the last block at these strides.
#[inline(always)]
pub(super) unsafe fn quantise<V: Vector>(
    x: *const f32,
    blocks: usize,
    quants: *mut i8,
    quant_stride: usize,
    numbers: *mut BlockNumbers,
    number_stride: usize,
) {
    // SAFETY: 32 numbers at a time within the caller's lengths.
    unsafe {
        for block in 0..blocks {
            let (low, high) = (V::load(x.add(block * 32)), V::load(x.add(block * 32 + 16)));
            let largest = V::largest(V::max(V::abs(low), V::abs(high)));
            // A value without a finite inverse is treated as zero.
            let (scale, inverse) = if largest < 1e-36 { (0.0, 0.0) } else { (largest / 127.0, 127.0 / largest) };
            let inverse = V::splat(inverse);
            let (low, high) = (V::round(V::mul(low, inverse)), V::round(V::mul(high, inverse)));
            let quants = quants.add(block * quant_stride);
            V::store_i8(quants, low);
            V::store_i8(quants.add(16), high);
            // Whole numbers this small add up exactly.
            let half_sums = [V::sum(low) as i32, V::sum(high) as i32];
            let weighted_sum = scale * (half_sums[0] + half_sums[1]) as f32;
            *numbers.add(block * number_stride) = BlockNumbers { scale, weighted_sum, half_sums };
        }
    }
}

/// `y += x`, where `x` is in pieces of 16 that are `x_stride` apart.
///
/// # Safety
/// The machine has the instruction set of `V`. `y` points to `16 * vectors` numbers, `x` to as many pieces.
#[inline(always)]
pub(super) unsafe fn add<V: Vector>(y: *mut f32, x: *const f32, x_stride: usize, vectors: usize) {
    // SAFETY: 16 numbers at a time within the caller's lengths.
    unsafe {
        for at in 0..vectors {
            let sum = V::add(V::load(y.add(at * LANES)), V::load(x.add(at * x_stride)));
            V::store(y.add(at * LANES), sum);
        }
    }
}

/// Rotates numbers with their partners: `x * cos + partner * sin`, the sine negative for the first of each pair.
///
/// # Safety
/// The machine has the instruction set of `V`. All point to `16 * vectors` numbers.
#[inline(always)]
pub(super) unsafe fn rotate<V: Vector>(
    x: *mut f32,
    partners: *const f32,
    cos: *const f32,
    sin: *const f32,
    vectors: usize,
) {
    // SAFETY: 16 numbers at a time within the caller's lengths.
    unsafe {
        for at in (0..vectors * LANES).step_by(LANES) {
            let turned = V::mul(V::load(partners.add(at)), V::load(sin.add(at)));
            V::store(x.add(at), V::mul_add(V::load(x.add(at)), V::load(cos.add(at)), turned));
        }
    }
}

/// `gate = silu(gate) * up`, 16 numbers at a time.
///
/// # Safety
/// The machine has the instruction set of `V`. Both point to `16 * vectors` numbers.
#[inline(always)]
pub(super) unsafe fn swiglu<V: Vector>(gate: *mut f32, up: *const f32, vectors: usize) {
    // SAFETY: 16 numbers at a time within the caller's lengths.
    unsafe {
        for at in 0..vectors {
            let g = V::load(gate.add(at * LANES));
            let one = V::splat(1.0);
            let negative = V::sub(V::splat(0.0), g);
            let silu = V::div(g, V::add(one, exp::<V>(negative)));
            V::store(gate.add(at * LANES), V::mul(silu, V::load(up.add(at * LANES))));
        }
    }
}

/// `gate = gelu(gate) * up`, 16 numbers at a time, in tanh's approximation: `x / 2 * (1 + tanh(u))` is `x / (1 + e^-2u)`.
///
/// # Safety
/// The machine has the instruction set of `V`. Both point to `16 * vectors` numbers.
#[inline(always)]
pub(super) unsafe fn geglu<V: Vector>(gate: *mut f32, up: *const f32, vectors: usize) {
    // SAFETY: 16 numbers at a time within the caller's lengths.
    unsafe {
        for at in 0..vectors {
            let g = V::load(gate.add(at * LANES));
            let one = V::splat(1.0);
            let cubic = V::mul_add(V::mul(g, g), V::splat(GELU_CUBIC), one);
            let negative = V::mul(V::mul(g, cubic), V::splat(-GELU_LINEAR));
            let gelu = V::div(g, V::add(one, exp::<V>(negative)));
            V::store(gate.add(at * LANES), V::mul(gelu, V::load(up.add(at * LANES))));
        }
    }
}

/// `x = cap * tanh(x / cap)`, 16 numbers at a time.
///
/// # Safety
/// The machine has the instruction set of `V`. `x` points to `16 * vectors` numbers.
#[inline(always)]
pub(super) unsafe fn soft_cap<V: Vector>(x: *mut f32, vectors: usize, cap: f32) {
    // SAFETY: 16 numbers at a time within the caller's length.
    unsafe {
        for at in (0..vectors * LANES).step_by(LANES) {
            V::store(x.add(at), soft_capped::<V>(V::load(x.add(at)), cap));
        }
    }
}

/// `2 * sqrt(2 / pi)`.
const GELU_LINEAR: f32 = 1.595_769_2;
const GELU_CUBIC: f32 = 0.044_715;

/// Independent sums of one row that are added at the end, so that one row does not wait for its own additions.
const CHAINS: usize = 4;

/// Prefetch distance of an adapter, in f16: it is read once a step, in pieces too short for the hardware prefetcher.
const AHEAD: usize = 2048;

/// LoRA's first half for `M` rows: `out[m][r] = scale * sum_k x[m][k] * a[k][r]`; `a` is `(width, rank)`, ranks by 16.
///
/// # Safety
/// The machine has the instruction set of `V`. `x` points to `M` rows of `width`, a multiple of 4, that are
/// `x_stride` apart; `a` to `width * rank` numbers, `rank` a multiple of 16; `out` to `M` rows of `rank`, `out_stride` apart.
#[inline(always)]
pub(super) unsafe fn lora_down<V: Vector, const M: usize>(
    x: *const f32,
    x_stride: usize,
    width: usize,
    a: *const u16,
    rank: usize,
    scale: f32,
    out: *mut f32,
    out_stride: usize,
) {
    // SAFETY: `width` is a multiple of CHAINS, `rank` of 16; all within the caller's lengths.
    unsafe {
        for r in (0..rank).step_by(LANES) {
            let mut acc = [[V::splat(0.0); CHAINS]; M];
            for k in (0..width).step_by(CHAINS) {
                let ahead = a.wrapping_add(k * rank + r + AHEAD);
                V::prefetch(ahead.cast());
                V::prefetch(ahead.wrapping_add(2 * LANES).cast());
                for c in 0..CHAINS {
                    let a = V::load_f16(a.add((k + c) * rank + r));
                    for m in 0..M {
                        acc[m][c] = V::mul_add(a, V::splat(*x.add(m * x_stride + k + c)), acc[m][c]);
                    }
                }
            }
            for m in 0..M {
                let sum = V::add(V::add(acc[m][0], acc[m][1]), V::add(acc[m][2], acc[m][3]));
                V::store(out.add(m * out_stride + r), V::mul(sum, V::splat(scale)));
            }
        }
    }
}

/// LoRA's second half for `M` rows of a tile: `y[m][c] += sum_r b[r][c] * h[m][r]`; `b` is `(rank, 16)`.
///
/// # Safety
/// The machine has the instruction set of `V`. `h` points to `M` rows of `rank` numbers that are `h_stride` apart,
/// `b` to `16 * rank`, `y` to `16 * M`.
#[inline(always)]
pub(super) unsafe fn lora_up<V: Vector, const M: usize>(
    h: *const f32,
    h_stride: usize,
    b: *const u16,
    rank: usize,
    y: *mut f32,
) {
    // SAFETY: within the caller's lengths.
    unsafe {
        let mut acc = [V::splat(0.0); M];
        for r in 0..rank {
            V::prefetch(b.wrapping_add(r * LANES + AHEAD).cast());
            let b = V::load_f16(b.add(r * LANES));
            for m in 0..M {
                acc[m] = V::mul_add(b, V::splat(*h.add(m * h_stride + r)), acc[m]);
            }
        }
        for m in 0..M {
            let y = y.add(m * LANES);
            V::store(y, V::add(V::load(y), acc[m]));
        }
    }
}
