//! Measures this machine's memory bandwidth, which limits the decoding of one sequence. The bench `compare` uses the
//! same code.

use std::{
    hint::black_box,
    io, iter,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use memmap2::MmapMut;

/// Several times any cache.
const BYTES: usize = 512 << 20;
/// What a thread takes at once.
const PART: usize = 1 << 20;

/// Memory to read, in huge pages where the system gives them, as the engine's weights are.
pub struct Memory(MmapMut);

impl Memory {
    /// Takes the memory and touches all of it.
    pub fn new() -> io::Result<Self> {
        let mut memory = MmapMut::map_anon(BYTES)?;
        // A system without huge pages is measured as it is: the engine has none there either.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        memory.fill(1);
        Ok(Self(memory))
    }

    /// Bytes a second that so many threads read together, in one pass. They take parts one by one, as the engine's
    /// threads do: a thread that loses its core delays one part and not its whole share.
    pub fn read(&self, threads: usize) -> f64 {
        let taken = AtomicUsize::new(0);
        let read = || {
            let parts = iter::from_fn(|| self.0.chunks(PART).nth(taken.fetch_add(1, Ordering::Relaxed)));
            parts.map(sum).fold(0, u64::wrapping_add)
        };
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| black_box(read()));
            }
            black_box(read());
        });
        BYTES as f64 / started.elapsed().as_secs_f64()
    }
}

/// Wide enough to be vectorised, and with several sums to hide an addition's latency.
fn sum(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in bytes.as_chunks::<256>().0 {
        for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}
