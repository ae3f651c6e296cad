//! The fused steps of a block, as custom ops on the CPU and composed of tensor operations on other devices.
//!
//! Each CPU kernel sums in an order that depends only on the row itself, so a row's numbers are the same alone and
//! in any batch. They are compiled for every instruction set and picked at run time (`pulp`), without unsafe code here.
#![allow(clippy::too_many_arguments, reason = "candle gives an op each storage with its layout")]

/// Runs a kernel compiled for the best instruction set of this machine. Code that is not inlined all the way would be
/// compiled for the oldest: hence the attribute, and no closure for `pulp` itself, which calls one through a shim.
macro_rules! vectorised {
    ($kernel:expr) => {
        $crate::ops::run_vectorised(
            #[inline(always)]
            || $kernel,
        )
    };
}

mod attention;
mod block;
mod causal_attention;
mod gated_unit;
mod layer_norm;
mod lora;
mod projection;
mod rms_norm;
mod rope;
mod rows;
mod tile;
mod token_logprobs;

pub(crate) use attention::{Sequence, cached_attention};
pub use block::Activations;
pub(crate) use block::{Block, Variables};
pub(crate) use causal_attention::CausalAttention;
pub(crate) use gated_unit::{activated, gated_unit};
pub(crate) use layer_norm::layer_norm;
pub(crate) use lora::{LoraSegment, PreparedPair, add_lora};
pub(crate) use projection::{DropoutMask, Projection};
pub(crate) use rms_norm::{head_norm, rms_norm};
pub(crate) use rope::{Rotation, rope};
pub(crate) use token_logprobs::{Head, token_logprobs};

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};
use pulp::{Arch, Simd, WithSimd};

/// Runs a closure from [`vectorised!`].
fn run_vectorised<R>(kernel: impl FnMut() -> R) -> R {
    struct Kernel<F>(F);

    impl<R, F: FnMut() -> R> WithSimd for Kernel<F> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, _: S) -> R {
            (self.0)()
        }
    }

    Arch::new().dispatch(Kernel(kernel))
}

/// A contiguous f32 storage as a slice.
fn host<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a fused op needs a contiguous tensor, got {layout:?}"),
    }
}

/// Rows of `width` numbers per task: all of them where waking the pool costs more than the work.
fn row_chunks(rows: usize, width: usize) -> usize {
    const NUMBERS: usize = 1 << 15;
    if rows * width <= 2 * NUMBERS { rows.max(1) } else { (NUMBERS / width).max(1) }
}

/// The base is frozen: a trainable weight here would get no gradient, so that is an error.
fn refuse_variable(weight: &Tensor, what: &str) -> Result<()> {
    if weight.is_variable() {
        bail!("{what} is part of the frozen base, but a variable was given: it would get no gradient")
    }
    Ok(())
}

/// Borrows a contiguous CPU tensor's numbers.
pub(crate) fn with_host<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(read(host(storage, layout)?)),
        _ => bail!("a host op was given a tensor on {:?}", tensor.device()),
    }
}

/// Sum of products in sixteen lanes and a tree, whatever the instruction set: the same bits everywhere.
#[inline(always)]
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (x_chunks, x_tail) = x.as_chunks::<16>();
    let (y_chunks, y_tail) = y.as_chunks::<16>();
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        for lane in 0..16 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    for (lane, (x, y)) in x_tail.iter().zip(y_tail).enumerate() {
        lanes[lane] += x * y;
    }
    sum_lanes(lanes)
}

/// Sum in the same lanes.
#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (chunks, tail) = x.as_chunks::<16>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane += x;
    }
    sum_lanes(lanes)
}

/// The largest number, in lanes; negative infinity for an empty slice.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, tail) = x.as_chunks::<16>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    lanes.iter().chain(tail).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[inline(always)]
fn sum_lanes(mut lanes: [f32; 16]) -> f32 {
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// `cap * tanh(x / cap)`, as `cap - 2 cap / (1 + e^(2x / cap))`.
#[inline(always)]
fn soft_capped(x: f32, cap: f32) -> f32 {
    cap - 2.0 * cap / (1.0 + exp(x * (2.0 / cap)))
}

/// Its slope where it is `y`: `1 - tanh^2`.
#[inline(always)]
fn soft_cap_slope(y: f32, cap: f32) -> f32 {
    let tanh = y / cap;
    1.0 - tanh * tanh
}

/// The same of a tensor, differentiable.
pub(crate) fn soft_cap(x: Tensor, cap: Option<f32>) -> Result<Tensor> {
    match cap {
        Some(cap) => (x / f64::from(cap))?.tanh()? * f64::from(cap),
        None => Ok(x),
    }
}

/// `e^x` within 2 units in the last place, in straight-line code that vectorises; 0 below -87.3, infinity above 88.7.
///
/// Cephes' `expf`: reduce by multiples of ln 2 in two parts, then a polynomial of degree five.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer without a function call.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.7);
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    // 2^n in two factors, since n = 128 has no exponent of its own.
    let half = (n as i32) >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    let y = (p * r * r + r + 1.0) * power(half) * power(n as i32 - half);
    // Selects, so that NaN stays NaN and the ends are exact.
    if x < -87.3 {
        0.0
    } else if x > 88.7 {
        f32::INFINITY
    } else if x.is_nan() {
        x
    } else {
        y
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use elenchus_lm::ModelConfig;

    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for step in -8_700_000..=8_800_000i32 {
            let x = step as f32 * 1e-5;
            let exact = f64::from(x).exp();
            let unit = f64::from((exact as f32).next_up() - exact as f32);
            worst = worst.max((f64::from(exp(x)) - exact).abs() / unit);
        }
        assert!(worst <= 2.0, "{worst} units");
        assert_eq!((exp(-200.0), exp(f32::NEG_INFINITY), exp(200.0)), (0.0, 0.0, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    proptest! {
        #[test]
        fn dot_is_the_sum_of_products(pairs in prop::collection::vec((-2f32..2.0, -2f32..2.0), 0..200)) {
            let (x, y): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let exact: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            prop_assert!((f64::from(dot(&x, &y)) - exact).abs() < 1e-4);
        }
    }

    /// A model with grouped heads.
    pub(crate) fn tiny() -> ModelConfig {
        ModelConfig {
            vocab_size: 300,
            intermediate_size: 96,
            max_positions: 128,
            ..elenchus_lm::testing::TinyModel::default().config()
        }
    }

    /// The same, whose layers see a window and have a cap.
    pub(crate) fn windowed(sliding_window: Option<usize>, attention_cap: Option<f32>) -> ModelConfig {
        let mut config = tiny();
        config.layers.iter_mut().for_each(|layer| {
            (layer.sliding_window, layer.attention_cap) = (sliding_window, attention_cap);
        });
        config
    }

    /// Random numbers of a shape, for the tests of ops.
    pub(super) fn random(seed: u64, shape: &[usize]) -> Tensor {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.5f32..1.5)).collect();
        Tensor::from_vec(values, shape, &candle_core::Device::Cpu).unwrap()
    }

    /// Largest absolute difference.
    pub(super) fn distance(x: &Tensor, y: &Tensor) -> f32 {
        let difference = (x - y).unwrap().abs().unwrap().flatten_all().unwrap();
        difference.max(0).unwrap().to_scalar::<f32>().unwrap()
    }

    /// Compares the gradient of a random weighting of `f`'s output with central differences of the fourth order, input by
    /// input and element by element.
    pub(super) fn check_gradient(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
        const STEP: f32 = 1e-2;
        let weighing = random(99, f(inputs).dims());
        let loss = |inputs: &[Tensor]| (f(inputs) * &weighing).unwrap().sum_all().unwrap();
        let vars: Vec<_> = inputs.iter().map(|input| candle_core::Var::from_tensor(input).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let grads = loss(&tensors).backward().unwrap();
        for (number, (var, input)) in vars.iter().zip(inputs).enumerate() {
            let grad = grads.get(var).unwrap_or_else(|| panic!("input {number} has no gradient"));
            let grad: Vec<f32> = grad.flatten_all().unwrap().to_vec1().unwrap();
            let values: Vec<f32> = input.flatten_all().unwrap().to_vec1().unwrap();
            let at = |element: usize, step: f32| {
                let mut moved = values.clone();
                moved[element] += step;
                let mut inputs = inputs.to_vec();
                inputs[number] = Tensor::from_vec(moved, input.shape(), input.device()).unwrap();
                f64::from(loss(&inputs).to_scalar::<f32>().unwrap())
            };
            let scale = grad.iter().fold(1e-3f32, |largest, g| largest.max(g.abs()));
            for (element, grad) in grad.iter().enumerate() {
                let change = |step: f32| at(element, step) - at(element, -step);
                let difference = (8.0 * change(STEP) - change(2.0 * STEP)) / f64::from(12.0 * STEP);
                let error = (difference as f32 - grad).abs() / scale;
                assert!(error < 5e-3, "input {number}, element {element}: {grad} instead of {difference}");
            }
        }
    }
}
