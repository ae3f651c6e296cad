//! What the tests of this crate share.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{path::PathBuf, sync::LazyLock};

use elenchus_candle::CandleExecutor;
use elenchus_lm::{Executor, Logits, Numerics, Row, Weights};

/// The default model, fetched by the same code as for a player; without it the test fails with that code's error.
pub fn real_weights() -> &'static Weights {
    static WEIGHTS: LazyLock<Weights> = LazyLock::new(|| {
        let path = elenchus_fetch::fetch_default(&mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
        Weights::open(&path, &mut |_| {}).unwrap()
    });
    &WEIGHTS
}

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
    // `max` would pass over a NaN.
    differences.inspect(|difference| assert!(!difference.is_nan(), "NaN")).fold(0.0, f32::max)
}

/// The folder with references from other implementations, beside the project.
pub fn shared() -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"));
    assert!(folder.is_dir(), "{} is not there", folder.display());
    folder
}
