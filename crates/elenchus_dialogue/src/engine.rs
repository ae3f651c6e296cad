//! The worker: one thread that owns the model and turns requests into events.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use elenchus_lm::{Adapter, AdapterId, ComputeDevice, KvPrecision, Numerics, Rng, Weights, base_model};

use crate::{
    Character, Error, Model, Refusal, ReplyFilter, Result, StopReason, Turn, compute,
    counters::Counters,
    outbox::Outbox,
    scheduler::Pending,
    worker::{self, Command},
};

/// Chosen by the caller; comes back with every event of the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Who is answered first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Talk nobody waits for.
    Ambient,
    /// The player waits.
    #[default]
    Player,
}

/// Asks for a character's next words. The newest turn is what it answers.
#[derive(Debug, Clone)]
pub struct Request {
    /// Comes back with every event; no other request that is not answered yet may have the same.
    pub id: RequestId,
    /// Who speaks.
    pub character: Arc<Character>,
    /// The voice it wears.
    pub adapter: Option<Adapter>,
    /// Facts of the game that enter the prompt.
    pub facts: Vec<String>,
    /// What belongs to the newest line alone, a sentence each: it stands beside that line, after everything that is cached.
    pub notes: Vec<String>,
    /// What was said, the line to answer last.
    pub turns: Vec<Turn>,
    /// Draws the words.
    pub rng: Rng,
    /// Who goes first.
    pub priority: Priority,
    /// Caps [`crate::StopRules::max_tokens`] for this reply alone.
    pub max_tokens: Option<usize>,
    /// Judges its sentences before they are told; with one, deltas are whole sentences.
    pub filter: Option<Arc<ReplyFilter>>,
}

impl Request {
    /// The player's request for an answer to the last of `turns`: no adapter, no facts, no notes, seed 0, no filter.
    pub fn new(character: Arc<Character>, turns: Vec<Turn>) -> Self {
        Self {
            id: RequestId(0),
            character,
            adapter: None,
            facts: Vec::new(),
            notes: Vec::new(),
            turns,
            rng: Rng::from_seed(0),
            priority: Priority::Player,
            max_tokens: None,
            filter: None,
        }
    }
}

/// Asks that a character's persona be read ahead of its first line.
#[derive(Debug, Clone)]
pub struct WarmUp {
    /// Who.
    pub character: Arc<Character>,
    /// The voice.
    pub adapter: Option<Adapter>,
    /// Facts known already.
    pub facts: Vec<String>,
}

/// What the engine tells. For each accepted request: `Started`, any number of `Delta`, then exactly one of `Finished` and
/// `Failed`. `Started` is absent where a request failed or was cancelled before it got a place.
#[derive(Debug, Clone)]
pub enum EngineEvent {
    /// The model is being read; the share done, 0 to 1.
    Loading(f32),
    /// The model speaks from now on.
    Ready(BaseInfo),
    /// The model could not be loaded; [`Engine::reload`] tries again. Requests fail until then.
    LoadFailed(Error),
    /// The first token of a reply is being thought of.
    Started(RequestId),
    /// More text, whole graphemes.
    Delta(RequestId, String),
    /// The reply is complete.
    Finished(RequestId, ReplyReport),
    /// There will be no reply.
    Failed(RequestId, Error),
}

/// A finished reply and what it cost.
#[derive(Debug, Clone)]
pub struct ReplyReport {
    /// All of it: the deltas joined.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// The generator's next state, for the conversation.
    pub rng: Rng,
    /// Identity of the adapter worn.
    pub adapter: Option<AdapterId>,
    /// Tokens sampled, the end token included where one was drawn.
    pub reply_ids: Vec<u32>,
    /// Sentences that the filter refused; the reply was sampled again for each, or ends before the last.
    pub refused: Vec<Refusal>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, how many were remembered and not read again.
    pub cached_tokens: usize,
    /// From the engine's receipt of the request to its first token.
    pub first_token: Duration,
    /// Decoding speed after the first token, tokens a second; 0 for a single token.
    pub tokens_per_second: f32,
}

/// The model that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseInfo {
    /// File name.
    pub name: String,
    /// SHA-256 in hex.
    pub sha256: String,
    /// Longest context used, in tokens.
    pub context: usize,
}

/// Loads the model on the engine's thread, and again on [`Engine::reload`]; hears the share done, 0 to 1.
pub type ModelLoader = Arc<dyn Fn(&mut dyn FnMut(f32)) -> Result<Model> + Send + Sync>;

/// How the engine runs.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSettings {
    /// GGUF file or Hugging Face folder; `None` looks where a shipped game or `elenchus model fetch` puts the default.
    pub base: Option<PathBuf>,
    /// Where the model runs.
    pub device: ComputeDevice,
    /// How base weights take part in products.
    pub numerics: Numerics,
    /// Compute threads; 0 takes half of the machine's cores, at least one. On a CPU with quantised numerics these are all
    /// there are; what candle computes on a pool of its own (see [`elenchus_lm::CandleExecutor`]) is not counted here.
    pub threads: usize,
    /// How the CPU engine keeps what was read: f16, or i8 at half the memory. Other executors keep f32.
    pub kv_precision: KvPrecision,
    /// Longest context in tokens; the model's own limit caps it.
    pub context: usize,
    /// Conversations decoded together.
    pub max_sequences: usize,
    /// Prompt tokens read in one step, so that others go on speaking meanwhile.
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
            context: 2048,
            max_sequences: 8,
            prefill_chunk: 64,
            kv_budget: 96 << 20,
            request_capacity: 64,
            event_capacity: 1024,
        }
    }
}

/// Counters since the engine started, read without waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EngineStats {
    /// Forward passes.
    pub steps: u64,
    /// Prompt tokens read.
    pub prompt_tokens: u64,
    /// Prompt tokens found in memory instead.
    pub cached_tokens: u64,
    /// Tokens sampled.
    pub reply_tokens: u64,
    /// Replies being spoken.
    pub active: usize,
    /// Requests waiting for a place.
    pub queued: usize,
    /// Bytes of KV memory held.
    pub kv_bytes: usize,
    /// Decoding speed over the last second of work, all replies together.
    pub tokens_per_second: f32,
}

/// Handle to the engine's thread; dropping it stops and joins the thread, within one step of the model (or, while a model
/// is being loaded, once the loader returns).
pub struct Engine {
    events: Receiver<EngineEvent>,
    /// Unbounded, because one channel keeps a request and its cancellation in order and control must never wait or be lost.
    /// What is bounded is how many requests may be in it: `counters.queued`.
    commands: Option<Sender<Command>>,
    counters: Arc<Counters>,
    request_capacity: usize,
    thread: Option<JoinHandle<()>>,
}

/// The loader for [`EngineSettings::base`]: the CPU engine for quantised numerics on a CPU, otherwise candle.
pub fn load_model(settings: &EngineSettings) -> ModelLoader {
    let settings = settings.clone();
    Arc::new(move |progress| {
        let path = settings.base.clone().or_else(base_model::find_default).ok_or_else(|| {
            Error::NoModel(format!(
                "{} is neither beside the program nor in the user's cache (hint: run `elenchus model fetch`, or name a \
                 model with `--base FILE` or `EngineSettings::base`)",
                base_model::DEFAULT_FILE
            ))
        })?;
        let weights = Weights::open(&path, progress)?;
        base_model::check_opened(&weights)?;
        Model::new(compute::executor(&settings, &weights)?, &weights)
    })
}

impl Engine {
    /// Starts the thread; loading begins at once and is told in events.
    pub fn start(settings: EngineSettings, loader: ModelLoader) -> Self {
        let (event_sender, events) = crossbeam_channel::bounded(settings.event_capacity.max(1));
        let (commands, receiver) = crossbeam_channel::unbounded();
        let counters = Arc::new(Counters::default());
        let request_capacity = settings.request_capacity.max(1);
        // Every place's reply fits, whatever the channel holds.
        let outbox = Outbox::new(event_sender.clone(), settings.event_capacity.max(3 * settings.max_sequences).max(3));
        let for_thread = counters.clone();
        let thread = std::thread::Builder::new()
            .name("elenchus-engine".to_owned())
            .spawn(move || worker::run(settings, loader, receiver, outbox, for_thread));
        let thread = thread.map_err(|error| {
            let reason = format!("the system gave no thread for the engine: {error} (hint: too many threads?)");
            // The channel is new and holds at least one event.
            let _ = event_sender.try_send(EngineEvent::LoadFailed(Error::NoModel(reason)));
        });
        Self { events, commands: Some(commands), counters, request_capacity, thread: thread.ok() }
    }

    /// Hands a request over without waiting; gives it back if the channel is full. A stopped engine takes it and answers
    /// nothing: see [`Self::is_running`].
    pub fn try_send(&self, request: Request) -> std::result::Result<(), Request> {
        if !take_permit(&self.counters.queued, self.request_capacity) {
            return Err(request);
        }
        self.command(Command::Say(Box::new(Pending { request, received: Instant::now() })));
        Ok(())
    }

    /// Ends a reply at the next token: it finishes as [`StopReason::Cancelled`] with the text so far. Never waits and is
    /// never lost, also for a request still waiting in the channel; ids unknown to the engine are ignored.
    pub fn cancel(&self, id: RequestId) {
        self.command(Command::Cancel(id));
    }

    /// Reads a persona ahead; dropped in silence when the channel is full.
    pub fn warm_up(&self, warm_up: WarmUp) {
        if take_permit(&self.counters.warm_ups, self.request_capacity) {
            self.command(Command::WarmUp(Box::new(warm_up)));
        }
    }

    /// Tries to load the model again after a failure; with a model loaded or being loaded it changes nothing.
    pub fn reload(&self) {
        self.command(Command::Reload);
    }

    /// Reads and samples nothing until it is called again with `false`; a step that has begun still ends. Requests are
    /// accepted and cancelled meanwhile, a model is loaded, and the pause counts for no limit of time.
    pub fn pause(&self, paused: bool) {
        self.command(Command::Pause(paused));
    }

    /// What happened since the last look; `try_iter` never waits.
    pub fn events(&self) -> &Receiver<EngineEvent> {
        &self.events
    }

    /// Counters.
    pub fn stats(&self) -> EngineStats {
        self.counters.snapshot()
    }

    /// Whether the thread still answers.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn command(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // A thread that has ended hears nothing; `is_running` says so.
            let _ = commands.send(command);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the engine's thread had panicked");
        }
    }
}

fn take_permit(count: &AtomicUsize, capacity: usize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < capacity).then_some(count + 1)).is_ok()
}
