//! Which executor a game's settings mean, and the threads it may take: few, and behind the game's.

use std::sync::Arc;

use elenchus_lm::{
    Adapter, CandleExecutor, ComputeDevice, CpuExecutor, CpuSettings, Executor, KvCache, ModelConfig, Numerics, Row,
    Weights,
};
use rayon::ThreadPool;
use thread_priority::ThreadPriority;

use crate::{EngineSettings, Error, Result};

/// The CPU engine for quantised numerics on a CPU, candle for everything else.
pub(crate) fn executor(settings: &EngineSettings, weights: &Weights) -> Result<Arc<dyn Executor>> {
    let threads = match settings.threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
        threads => threads,
    };
    if settings.device == ComputeDevice::Cpu && settings.numerics == Numerics::Quantised {
        let kv_precision = settings.kv_precision;
        let settings = CpuSettings { threads, at_thread_start: lower_priority, kv_precision };
        return Ok(Arc::new(CpuExecutor::new(weights, settings)?));
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("elenchus-{index}"))
        .start_handler(|_| lower_priority())
        .build()
        .map_err(|error| Error::NoModel(format!("the system gave no compute threads: {error}")))?;
    let device = settings.device.open()?;
    let executor = pool.install(|| CandleExecutor::new(weights, &device, settings.numerics))?;
    Ok(Arc::new(OnPool { executor, pool }))
}

/// Tensor libraries use the pool they are called from: this one is small and polite.
struct OnPool {
    executor: CandleExecutor,
    pool: ThreadPool,
}

impl Executor for OnPool {
    fn config(&self) -> &ModelConfig {
        self.executor.config()
    }

    fn new_cache(&self) -> KvCache {
        self.executor.new_cache()
    }

    fn cache_bytes_per_token(&self) -> usize {
        self.executor.cache_bytes_per_token()
    }

    fn prepare(&self, adapter: &Adapter) -> elenchus_lm::Result<()> {
        self.pool.install(|| self.executor.prepare(adapter))
    }

    fn forward(&self, batch: &mut [Row<'_>]) -> elenchus_lm::Result<Vec<Vec<f32>>> {
        self.pool.install(|| self.executor.forward(batch))
    }
}

/// The game's frames go first. Threads that a tensor library starts from here inherit this on Linux.
pub(crate) fn lower_priority() {
    if let Err(error) = thread_priority::set_current_thread_priority(ThreadPriority::Min) {
        tracing::debug!("the engine runs at normal priority: {error:?}");
    }
}
