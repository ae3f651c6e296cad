//! One language model shared by many voices.
//!
//! Token ids go in, logits come out. Weights are immutable and shared; a voice's LoRA adapter and a sequence's KV cache
//! are passed in with every call, so one batch can serve eight characters at once. This crate
//! knows no characters, no conversations and no Bevy: those are `elenchus_dialogue` and `bevy_elenchus`.
//!
//! In order of use: [`Weights::open`] maps a GGUF file or a Hugging Face folder, an [`Executor`] packs them for a
//! device, [`Tokenizer`] and [`ChatTemplate`] turn messages into ids, [`Executor::forward`] turns ids into logits, and
//! a [`Sampler`] turns logits into the next id.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test's expected numbers need no bit to agree"))]

mod adapter_store;
mod architectures;
mod block_type;
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
mod memory;
mod quantise;
mod rng;
mod safetensors;
mod sampler;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tokenizer;
mod weights;
mod whole_file;

pub use adapter_store::AdapterStore;
pub use architectures::Architecture;
pub use block_type::BlockType;
pub use chat_template::{ChatTemplate, Message, Role, ThinkMarks};
pub use config::{
    Activation, BlockSpec, Linear, ModelConfig, NormKind, NormPlacement, QkNorm, RopeLayout, Scales, window_start,
};
pub use cpu_exec::{CpuExecutor, CpuSettings, KvPrecision};
pub use device::{ComputeDevice, Numerics};
pub use error::{Error, Result};
pub use executor::{Executor, Logits, Row, check_batch};
pub use generate::{Continued, generate, generate_many};
pub use hex::hex;
pub use kv_cache::{KvCache, PAGE_TOKENS, PageLayout, PagesHeld};
pub use lora::{Adapter, AdapterId, Half, LoraAdapter, LoraDiff, LoraPair, Overlap, Precision, peft_tensor_name};
pub use memory::{MachineMemory, machine_memory, peak_resident_bytes, resident_bytes};
pub use rng::Rng;
pub use sampler::{REPLY_BREAK, Sampler, SamplerSettings, sample_softmax};
pub use tokenizer::{Markup, Tokenizer};
pub use weights::{ModelSummary, RawTensor, TensorName, Weights};
pub use whole_file::write_whole;
