//! How the engine runs.

use std::path::PathBuf;

use elenchus_lm::{BlockType, ComputeDevice, KvPrecision, Numerics};

/// How the engine runs.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSettings {
    /// GGUF file or Hugging Face folder; `None` looks where a shipped game or `elenchus model fetch` puts the default.
    pub base: Option<PathBuf>,
    /// Where the model runs. A GPU needs the feature `cuda`.
    pub device: ComputeDevice,
    /// How base weights take part in products. All but the default need the feature `candle`.
    pub numerics: Numerics,
    /// Compute threads; 0 takes half of the machine's cores, at least one. On a CPU with quantised numerics these are all
    /// there are; what candle computes on a pool of its own is not counted here.
    pub threads: usize,
    /// How the CPU engine keeps what was read: f16, or i8 at half the memory. Other executors keep f32.
    pub kv_precision: KvPrecision,
    /// What the CPU engine quantises a dense model to (a Hugging Face folder, a file in f16): Q8_0, or Q4_K or Q4_0 at half
    /// the memory.
    pub dense: BlockType,
    /// Longest context in tokens; the model's own limit caps it.
    pub context: usize,
    /// Conversations decoded together. Ambient ones beyond it, which the player's took the place of, pause.
    pub max_sequences: usize,
    /// Prompt tokens read in one step, so that others can speak meanwhile.
    pub prefill_chunk: usize,
    /// Bytes for all KV memory, remembered prompts included. A single reply is spoken even where it alone needs more.
    ///
    /// A token takes layers x key-value heads x head size x 2 (keys and values) values of 2 bytes each, or half of that with
    /// [`KvPrecision::Int8`]: 23,040 bytes in the default model. So the default of 96 MiB holds 4,300 of its tokens: a dozen
    /// conversations of a page, or one that fills the context and a few short ones. What does not fit is read again.
    pub kv_budget: usize,
    /// Requests that may wait for a place.
    pub request_capacity: usize,
    /// Events that may wait in the channel; the engine keeps what does not fit, deltas joined.
    pub event_capacity: usize,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            base: None,
            device: ComputeDevice::Cpu,
            numerics: Numerics::Quantised,
            threads: 0,
            kv_precision: KvPrecision::F16,
            dense: BlockType::Q8_0,
            context: 2048,
            max_sequences: 8,
            prefill_chunk: 64,
            kv_budget: 96 << 20,
            request_capacity: 64,
            event_capacity: 1024,
        }
    }
}
