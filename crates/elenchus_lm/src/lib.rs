//! One language model shared by many voices.
//!
//! Token ids go in, logits come out. Weights are immutable and shared; what a voice adds (a LoRA adapter) and what it
//! remembers (a KV cache) are passed in with every call, so one batch can serve eight characters at once. This crate
//! knows no characters, no conversations and no Bevy: those are `elenchus_dialogue` and `bevy_elenchus`.
//!
//! The way through it: [`Weights::open`] maps a GGUF file or a Hugging Face folder, an [`Executor`] packs them for a
//! device, [`Tokenizer`] and [`ChatTemplate`] turn messages into ids, [`Executor::forward`] turns ids into logits, and a
//! [`Sampler`] turns logits into the next id.

mod adapter_store;
pub mod base_model;
pub mod candle_exec;
mod chat_template;
mod config;
mod cpu_exec;
mod device;
mod error;
mod executor;
mod generate;
pub mod gguf;
mod hex;
mod kv_cache;
mod lora;
mod mapped_file;
mod safetensors;
mod sampler;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tokenizer;
mod weights;
mod whole_file;

pub use candle_exec::{
    Activations, CandleExecutor, LoraDropout, Numerics, PackedSequences, Segment, TrainableLora, TrainablePair,
};
pub use chat_template::{ChatTemplate, Message, Role};
pub use config::{Architecture, Linear, ModelConfig, RopeLayout};
pub use cpu_exec::{CpuExecutor, CpuSettings, KvPrecision};
pub use device::ComputeDevice;
pub use error::{Error, Result};
pub use executor::{Executor, Logits, Row};
pub use generate::generate;
pub use hex::hex;
pub use kv_cache::KvCache;
pub use lora::{Adapter, AdapterId, LoraAdapter, LoraDiff, LoraPair, Overlap, Precision};
pub use sampler::{REPLY_BREAK, Rng, Sampler, SamplerSettings, sample_softmax};
pub use tokenizer::{Markup, Tokenizer};
pub use weights::{RawTensor, TensorName, Weights};
pub use whole_file::write_whole;
