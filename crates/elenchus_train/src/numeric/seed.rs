//! Seeds derived from a seed: one for each use.

/// A seed for each use, far from its neighbours'.
pub fn mixed(seed: u64, number: u64) -> u64 {
    (seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}
