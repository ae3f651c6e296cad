//! How fast this machine reads memory: the wall that decoding one sequence runs into.

use std::{thread, time::Instant};

use anyhow::Result;
use memmap2::{Advice, MmapMut};

use crate::turns::median;

/// Several times any cache.
const BYTES: usize = 512 << 20;
const PASSES: usize = 7;

/// Bytes a second that so many threads read together, from huge pages where there are any: a few passes' median.
pub fn read_bandwidth(threads: usize) -> Result<f64> {
    let mut buffer = MmapMut::map_anon(BYTES)?;
    // A system without huge pages says so here, and is measured as it is.
    if let Err(error) = buffer.advise(Advice::HugePage) {
        println!("  no huge pages: {error}");
    }
    buffer.fill(1);
    let part = BYTES.div_ceil(threads).next_multiple_of(64);
    let speeds = (0..PASSES).map(|_| {
        let started = Instant::now();
        let sum: u64 = thread::scope(|scope| {
            let readers: Vec<_> = buffer.chunks(part).map(|part| scope.spawn(|| sum(part))).collect();
            readers.into_iter().map(|reader| reader.join().unwrap_or_default()).fold(0, u64::wrapping_add)
        });
        std::hint::black_box(sum);
        BYTES as f64 / started.elapsed().as_secs_f64()
    });
    Ok(median(&speeds.collect::<Vec<_>>()))
}

/// Wide enough to be vectorised, and more than one sum to hide an addition's latency.
fn sum(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in bytes.as_chunks::<256>().0 {
        for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}
