//! The engine for a player's CPU: packed weights, fused steps, a separate adapter for every row of a batch.
//!
//! A row's logits are the same bits alone, in any batch, however its prompt was cut and from any cached prefix, because
//! the order of every sum depends only on the row: integers within a block of 32 weights, floats across
//! blocks in the order of the blocks, attention page by page. Threads share outputs, never a sum.

mod adapter;
mod kernels;
mod packed;
mod pass;
mod step;

use std::sync::{Arc, Mutex, PoisonError};

pub use self::kernels::KvPrecision;
use self::{
    adapter::{ReadyAdapter, Scaled},
    kernels::{Kernels, MAX_HEAD, Team},
    packed::PackedModel,
    step::{Line, Lines, Scratch, Wanted},
};
use crate::{
    Adapter, BlockType, Error, Executor, KvCache, Logits, ModelConfig, RawTensor, Result, Row, Weights,
    adapter_store::AdapterStore,
    executor::check_batch,
    kv_cache::{PageLayout, PagesHeld},
};

/// Settings of the engine.
#[derive(Debug, Clone, Copy)]
pub struct CpuSettings {
    /// Compute threads, the caller's included.
    pub threads: usize,
    /// Called first on each of the other threads: a game lowers their priority.
    pub at_thread_start: fn(),
    /// How keys and values are stored.
    pub kv_precision: KvPrecision,
    /// What dense matrices are quantised to, one of [`BlockType::QUANTISABLE`]. Q8_0, the default, loses least; Q4_K and
    /// Q4_0 take half of its memory. The head keeps eight bits; what is too narrow for Q4_K's blocks of 256 becomes Q5_0.
    pub dense: BlockType,
}

impl KvPrecision {
    /// Bytes one token of a model takes in this form.
    pub fn bytes_per_token(self, config: &ModelConfig) -> usize {
        self.layout(config).token_bytes()
    }

    fn layout(self, config: &ModelConfig) -> PageLayout {
        PageLayout {
            form: match self {
                Self::F16 => "f16 of the CPU engine",
                Self::Int8 => "i8 of the CPU engine",
            },
            layers: config.num_layers(),
            kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            page_bytes: config.num_layers() * config.num_kv_heads * self.page_bytes(config.head_dim),
        }
    }
}

impl Default for CpuSettings {
    /// One thread.
    fn default() -> Self {
        Self { threads: 1, at_thread_start: || {}, kv_precision: KvPrecision::default(), dense: BlockType::Q8_0 }
    }
}

/// Runs a model with kernels chosen for this machine's instruction set.
pub struct CpuExecutor {
    config: ModelConfig,
    layout: PageLayout,
    held: PagesHeld,
    kv_precision: KvPrecision,
    /// [`ModelConfig::rope_frequencies`].
    rope_frequencies: (Vec<Vec<f32>>, Vec<usize>),
    model: PackedModel,
    kernels: &'static Kernels,
    team: Team,
    adapters: AdapterStore<ReadyAdapter>,
    scratch: Mutex<Scratch>,
}

/// Lines of a batch that run through the model together; larger batches run in several such parts.
const MOST_LINES: usize = 256;

impl CpuExecutor {
    /// Packs weights; the file is not needed afterwards.
    pub fn new(weights: &Weights, settings: CpuSettings) -> Result<Self> {
        Self::with_kernels(weights, settings, Kernels::detect())
    }

    fn with_kernels(weights: &Weights, settings: CpuSettings, kernels: &'static Kernels) -> Result<Self> {
        let config = weights.config().clone();
        if config.head_dim > MAX_HEAD {
            return Err(Error::Unsupported {
                what: format!("{}: heads of {} dimensions", weights.path().display(), config.head_dim),
                hint: format!("the CPU engine runs heads of at most {MAX_HEAD}; use exact numerics for this model"),
            });
        }
        if !BlockType::QUANTISABLE.contains(&settings.dense) {
            return Err(Error::Unsupported {
                what: format!("quantising dense weights to {}", settings.dense),
                hint: format!("{} are possible", BlockType::QUANTISABLE.map(BlockType::name).join(", ")),
            });
        }
        let team = Team::new(settings.threads, settings.at_thread_start)
            .map_err(|source| Error::io("the compute threads", source))?;
        let model = PackedModel::new(weights, settings.dense, &team)?;
        let kv_precision = settings.kv_precision;
        let layout = kv_precision.layout(&config);
        let scratch = Mutex::new(Scratch::new(kernels));
        Ok(Self {
            rope_frequencies: config.rope_frequencies(),
            config,
            layout,
            held: PagesHeld::default(),
            kv_precision,
            model,
            kernels,
            team,
            adapters: AdapterStore::default(),
            scratch,
        })
    }

    /// Bytes that a matrix takes in this engine.
    pub(crate) fn packed_bytes(raw: RawTensor<'_>) -> usize {
        packed::bytes_of(raw)
    }

    /// The instruction set in use.
    pub fn instruction_set(&self) -> &'static str {
        self.kernels.name()
    }

    /// Compute threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Bytes the packed weights take.
    pub fn weight_bytes(&self) -> usize {
        self.model.bytes()
    }

    /// Bytes of weights that must be read for one token.
    pub fn bytes_per_token(&self) -> usize {
        self.model.bytes_per_token()
    }

    fn prepared(&self, adapter: &Adapter) -> Result<Arc<ReadyAdapter>> {
        self.adapters.get(adapter, &self.config, |adapter| ReadyAdapter::new(&adapter.lora, &self.config))
    }
}

impl Executor for CpuExecutor {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn new_cache(&self) -> KvCache {
        KvCache::new(self.layout.clone(), &self.held)
    }

    fn cache_bytes_per_token(&self) -> usize {
        self.layout.token_bytes()
    }

    fn prepare(&self, adapter: &Adapter) -> Result<()> {
        self.prepared(adapter).map(drop)
    }

    fn forward(&self, batch: &mut [Row<'_>]) -> Result<Vec<Vec<f32>>> {
        Ok(self.forward_unless(batch, &|| false)?.unwrap_or_default())
    }

    fn forward_unless(
        &self,
        batch: &mut [Row<'_>],
        is_unwanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Vec<Vec<f32>>>> {
        check_batch(batch, &self.config, &self.layout)?;
        let adapters: Vec<Option<&Adapter>> =
            batch.iter().map(|row| row.adapter.filter(|adapter| adapter.scale != 0.0)).collect();
        let ready = adapters
            .iter()
            .map(|adapter| adapter.map(|adapter| self.prepared(adapter)).transpose())
            .collect::<Result<Vec<_>>>()?;
        let pairs = adapters.iter().zip(&ready);
        let scaled: Vec<Option<Scaled<'_>>> =
            pairs.map(|(adapter, ready)| Some(Scaled::new((*adapter)?, ready.as_ref()?))).collect();
        for row in batch.iter_mut() {
            let new_page = || Ok(vec![0u8; self.layout.page_bytes]);
            row.cache.reserve(row.tokens.len(), new_page, |page: &Vec<u8>| Result::Ok(page.clone()))?;
        }
        let mut logits: Vec<Vec<f32>> = batch.iter().map(|_| Vec::new()).collect();
        let mut lines = Vec::new();
        for (sequence, row) in batch.iter().enumerate() {
            let past = row.cache.len();
            lines.extend(row.tokens.iter().enumerate().map(|(at, &token)| Line {
                sequence,
                position: past + at,
                token,
                wants_logits: match row.logits {
                    Logits::None => false,
                    Logits::Last => at + 1 == row.tokens.len(),
                    Logits::All => true,
                },
            }));
        }
        // Anything that a panic left half-written is overwritten before it is read.
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        for lines in lines.chunks(MOST_LINES) {
            let lines_of = Lines { lines, adapters: &scaled, is_unwanted };
            let Some(wanted) = self.step(&mut scratch, lines_of, batch) else { return Ok(None) };
            for Wanted { line, logits: row } in wanted {
                let all = &mut logits[lines[line].sequence];
                if all.is_empty() { *all = row } else { all.extend_from_slice(&row) }
            }
        }
        for row in batch {
            row.cache.advance(row.tokens.len());
        }
        Ok(Some(logits))
    }
}

#[cfg(test)]
mod tests;
