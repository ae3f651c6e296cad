//! What the tests of this crate share.
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

/// The folder with references from other implementations. `None` when nobody asked for these tests; a folder that was
/// named but is not there fails.
pub fn shared() -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("ELENCHUS_SHARED").map(PathBuf::from) else {
        eprintln!("not asked for: set ELENCHUS_SHARED to the folder with references to run this test");
        return None;
    };
    assert!(folder.join("reference").is_dir(), "ELENCHUS_SHARED={} has no folder `reference`", folder.display());
    Some(folder)
}
