//! Helpers shared by this crate's tests.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{path::PathBuf, sync::LazyLock};

use elenchus_lm::Weights;

/// The default model, fetched by the same code as for a player; without it the test fails with that code's error.
pub fn real_weights() -> &'static Weights {
    static WEIGHTS: LazyLock<Weights> = LazyLock::new(|| {
        let path = elenchus_fetch::fetch_default(&mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
        Weights::open(&path, &mut |_| {}).unwrap()
    });
    &WEIGHTS
}

/// The folder with references from other implementations, beside the project.
pub fn shared() -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"));
    assert!(folder.is_dir(), "{} is not there", folder.display());
    folder
}
