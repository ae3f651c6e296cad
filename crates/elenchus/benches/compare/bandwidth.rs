//! This machine's memory bandwidth, as `elenchus bench` measures it.

#[path = "../../src/bench/bandwidth.rs"]
mod memory;

use anyhow::Result;

use self::memory::Memory;
use crate::turns::median;

const PASSES: usize = 7;

/// Bytes a second that so many threads read together: a few passes' median.
pub fn read_bandwidth(threads: usize) -> Result<f64> {
    let memory = Memory::new()?;
    let speeds: Vec<f64> = (0..PASSES).map(|_| memory.read(threads)).collect();
    Ok(median(&speeds))
}
