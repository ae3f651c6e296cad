//! Helpers shared by this crate's tests.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

#[path = "../../../elenchus_lm/tests/common/mod.rs"]
mod of_lm;

use elenchus_candle::CandleExecutor;
use elenchus_lm::{Executor, Logits, Numerics, Row, Weights};

pub use of_lm::{real_weights, shared};

pub fn executor(weights: &Weights, numerics: Numerics) -> CandleExecutor {
    CandleExecutor::new(weights, &candle_core::Device::Cpu, numerics).unwrap()
}

/// Logits of every position of one sequence read at once, `(tokens, vocab_size)`.
pub fn all_logits(executor: &dyn Executor, ids: &[u32], adapter: Option<&elenchus_lm::Adapter>) -> Vec<f32> {
    let mut cache = executor.new_cache();
    let row = Row { tokens: ids, adapter, cache: &mut cache, logits: Logits::All };
    executor.forward(&mut [row]).unwrap().remove(0)
}

pub fn largest_difference(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    let differences = x.iter().zip(y).map(|(x, y)| (x - y).abs());
    // `max` would ignore a NaN.
    differences.inspect(|difference| assert!(!difference.is_nan(), "NaN")).fold(0.0, f32::max)
}

/// The root of the mean square error, as a share of the expected numbers'.
pub fn relative_error(x: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(x.len(), expected.len());
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    (squares(&mut x.iter().zip(expected).map(|(x, y)| x - y)) / squares(&mut expected.iter().copied())).sqrt()
}
