//! Characters, conversations, and the thread that generates replies.
//!
//! A [`Character`] is a persona, its sampler and its adapter; a [`Conversation`] is what was said. The [`Engine`] owns the
//! model on a thread of its own: a [`Request`] goes in over a bounded channel, [`EngineEvent`]s come out, and the caller
//! never waits. This crate knows no Bevy and renders nothing.

mod backend;
pub mod base_model;
mod character;
mod compute;
mod conversation;
mod counters;
mod engine;
mod error;
mod event;
mod filter;
mod fitting_facts;
mod model;
mod names;
mod outbox;
mod prefix_cache;
mod prompt;
mod reply;
mod request;
mod scheduler;
mod sentences;
mod settings;
mod speak;
mod speech;
pub mod testing;
mod visible;
mod words;
mod worker;

pub use backend::{Backend, BackendStarter};
pub use character::{BaseRef, BigFive, Character, StopRules};
pub use conversation::{Conversation, Turn, Turns};
pub use counters::EngineStats;
pub use engine::Engine;
pub use error::{Error, Result};
pub use event::{BaseInfo, EngineEvent, ReplyReport};
pub use filter::{Refusal, ReplyFilter, repeats};
pub use fitting_facts::fitting_facts;
pub use model::{Model, ModelLoader, load_model};
pub use prompt::messages;
pub use reply::StopReason;
pub use request::{Priority, Request, RequestId, Voice, WarmUp};
pub use sentences::sentences;
pub use settings::EngineSettings;
pub use speak::{PromptMemory, Spoken, speak_many, speak_many_remembering};
pub use visible::{has_words, visible};
pub use words::{common_subsequence, folded_words};
