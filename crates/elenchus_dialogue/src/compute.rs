//! Which executor a game's settings select, and its threads: few, and of lower priority than the game's.

use std::sync::Arc;

use elenchus_lm::{ComputeDevice, CpuExecutor, CpuSettings, Executor, Numerics, Weights};
use thread_priority::ThreadPriority;

use crate::{EngineSettings, Result};

/// The CPU engine for quantised numerics on a CPU, candle for everything else.
pub(crate) fn executor(settings: &EngineSettings, weights: &Weights) -> Result<Arc<dyn Executor>> {
    let threads = match settings.threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
        threads => threads,
    };
    if settings.device == ComputeDevice::Cpu && settings.numerics == Numerics::Quantised {
        let EngineSettings { kv_precision, dense, .. } = *settings;
        let settings = CpuSettings { threads, at_thread_start: lower_priority, kv_precision, dense };
        return Ok(Arc::new(CpuExecutor::new(weights, settings)?));
    }
    on_candle(settings, weights, threads)
}

#[cfg(not(feature = "candle"))]
fn on_candle(settings: &EngineSettings, _: &Weights, _: usize) -> Result<Arc<dyn Executor>> {
    Err(elenchus_lm::Error::Unsupported {
        what: format!("{:?} numerics on the device `{}`", settings.numerics, settings.device),
        hint:
            "this program was built for quantised numerics on a CPU alone; build it with the feature `candle`, or with \
               `cuda` for a GPU"
                .to_owned(),
    }
    .into())
}

#[cfg(feature = "candle")]
fn on_candle(settings: &EngineSettings, weights: &Weights, threads: usize) -> Result<Arc<dyn Executor>> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("elenchus-{index}"))
        .start_handler(|_| lower_priority())
        .build()
        .map_err(|error| crate::Error::NoModel(format!("the system gave no compute threads: {error}")))?;
    let device = elenchus_candle::open_device(settings.device)?;
    let executor = pool.install(|| elenchus_candle::CandleExecutor::new(weights, &device, settings.numerics))?;
    Ok(Arc::new(on_pool::OnPool { executor, pool }))
}

#[cfg(feature = "candle")]
mod on_pool {
    use elenchus_candle::CandleExecutor;
    use elenchus_lm::{Adapter, Executor, KvCache, ModelConfig, Result, Row};
    use rayon::ThreadPool;

    /// Tensor libraries use the pool they are called from: this one is small and polite.
    pub struct OnPool {
        pub executor: CandleExecutor,
        pub pool: ThreadPool,
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

        fn prepare(&self, adapter: &Adapter) -> Result<()> {
            self.pool.install(|| self.executor.prepare(adapter))
        }

        fn forward(&self, batch: &mut [Row<'_>]) -> Result<Vec<Vec<f32>>> {
            self.pool.install(|| self.executor.forward(batch))
        }
    }
}

/// The game's frames go first. Threads that a tensor library starts from here inherit this on Linux.
pub(crate) fn lower_priority() {
    if let Err(error) = thread_priority::set_current_thread_priority(ThreadPriority::Min) {
        tracing::debug!("the engine runs at normal priority: {error:?}");
    }
}
