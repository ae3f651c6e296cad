//! The engine's thread: hears commands, gives requests a place, runs one step of the model after the other, tells events.
//!
//! It owns everything it changes. Nothing it does waits for the game: commands are taken between steps, events go through
//! an [`Outbox`]. Where there is nothing to do it sleeps on its channels.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use crossbeam_channel::{Receiver, Select, TryRecvError};
use elenchus_lm::{Adapter, KvCache, Logits, Row};

use crate::{
    BaseInfo, EngineEvent, EngineSettings, Error, Model, ModelLoader, Priority, RequestId, Result, StopReason, WarmUp,
    compute::lower_priority,
    counters::{Counters, Speed},
    outbox::Outbox,
    prefix_cache::PrefixCache,
    prompt::{self, FINISH_TOKENS, TokenCounts},
    scheduler::{Pending, Waiting, plan},
    speech::{Ending, Sequence, Speech, cancelled_report, max_tokens},
};

/// What the game asks of the thread.
pub(crate) enum Command {
    Say(Box<Pending>),
    Cancel(RequestId),
    WarmUp(Box<WarmUp>),
    Reload,
    Pause(bool),
}

/// The thread's main function; returns when the game has dropped its handle.
pub(crate) fn run(
    settings: EngineSettings,
    loader: ModelLoader,
    commands: Receiver<Command>,
    outbox: Outbox,
    counters: Arc<Counters>,
) {
    lower_priority();
    let mut worker = Worker {
        settings,
        loader,
        commands,
        outbox,
        counters,
        model: ModelState::Wanted,
        waiting: Waiting::default(),
        speeches: Vec::new(),
        memory_full: false,
        warm_ups: VecDeque::new(),
        warming: None,
        beginning: None,
        paused_at: None,
        speed: Speed::default(),
    };
    loop {
        match caught(|| worker.turn()) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => worker.recover(&error),
        }
    }
}

struct Worker {
    settings: EngineSettings,
    loader: ModelLoader,
    commands: Receiver<Command>,
    outbox: Outbox,
    counters: Arc<Counters>,
    model: ModelState,
    waiting: Waiting,
    speeches: Vec<Speech>,
    /// The next request did not fit the KV budget beside those who speak; asked again once one of them is done.
    memory_full: bool,
    warm_ups: VecDeque<WarmUp>,
    warming: Option<Warming>,
    /// The request that is given a place at this moment.
    beginning: Option<RequestId>,
    /// Since when nothing is read or sampled.
    paused_at: Option<Instant>,
    speed: Speed,
}

enum ModelState {
    Wanted,
    Loading(Receiver<LoaderNews>),
    Loaded(Box<Loaded>),
    /// Why there is none.
    Failed(String),
}

/// What the loader's thread tells.
enum LoaderNews {
    Share(f32),
    Done(Result<Model>),
}

struct Loaded {
    model: Model,
    context: usize,
    remembered: PrefixCache,
    counts: TokenCounts,
}

/// A persona that is being read ahead.
struct Warming {
    sequence: Sequence,
    warm_up: WarmUp,
}

impl Worker {
    /// One round: commands, places, and a step or a wait. `false` ends the thread.
    fn turn(&mut self) -> bool {
        if matches!(self.model, ModelState::Wanted) {
            self.begin_loading();
        }
        if !self.hear() {
            return false;
        }
        self.hear_loader();
        self.retire();
        self.admit();
        self.begin_warm_up();
        self.outbox.flush();
        if matches!(self.model, ModelState::Wanted) {
            true
        } else if self.paused_at.is_some() {
            self.wait()
        } else if !self.speeches.is_empty() || self.warming.is_some() {
            self.step() && !self.outbox.is_closed()
        } else {
            self.wait()
        }
    }

    /// After a panic anywhere in a turn: the replies in progress fail, and nothing that was read is trusted any more.
    fn recover(&mut self, error: &Error) {
        let failed = self.speeches.drain(..).map(|speech| speech.id);
        // A request that was about to begin has left its queue.
        let beginning = self.beginning.take().inspect(|_| _ = self.counters.queued.fetch_sub(1, Ordering::Relaxed));
        for id in failed.chain(beginning) {
            self.outbox.push(EngineEvent::Failed(id, error.clone()));
        }
        if self.warming.take().is_some() {
            self.counters.warm_ups.fetch_sub(1, Ordering::Relaxed);
        }
        self.memory_full = false;
        if let ModelState::Loaded(loaded) = &mut self.model {
            loaded.remembered = PrefixCache::default();
        }
        self.counters.active.store(0, Ordering::Relaxed);
        self.counters.kv_bytes.store(0, Ordering::Relaxed);
    }

    /// Sleeps until a command comes or the listener has made room for what it has not heard yet.
    fn wait(&self) -> bool {
        let mut select = Select::new();
        select.recv(&self.commands);
        if let ModelState::Loading(news) = &self.model {
            select.recv(news);
        }
        self.outbox.wake_on_room(&mut select);
        select.ready();
        !self.outbox.is_closed()
    }

    /// Takes all commands there are; `false` when the handle is gone.
    fn hear(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Say(pending)) => self.waiting.push(*pending),
                Ok(Command::Cancel(id)) => {
                    self.waiting.cancel(id);
                    for speech in self.speeches.iter_mut().filter(|speech| speech.id == id) {
                        speech.ending.get_or_insert(Ending::Stopped(StopReason::Cancelled));
                    }
                }
                Ok(Command::WarmUp(warm_up)) => self.warm_ups.push_back(*warm_up),
                Ok(Command::Reload) => {
                    if matches!(self.model, ModelState::Failed(_)) {
                        self.model = ModelState::Wanted;
                    }
                }
                Ok(Command::Pause(true)) => _ = self.paused_at.get_or_insert_with(Instant::now),
                Ok(Command::Pause(false)) => {
                    if let Some(since) = self.paused_at.take() {
                        self.speeches.iter_mut().for_each(|speech| speech.forget_pause(since.elapsed()));
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Starts the loader on a thread of its own, so that commands are heard and the game can quit meanwhile.
    fn begin_loading(&mut self) {
        let (sender, news) = crossbeam_channel::unbounded();
        let loader = self.loader.clone();
        let thread = std::thread::Builder::new().name("elenchus-loader".to_owned()).spawn(move || {
            lower_priority();
            let mut told = 0.0;
            let loaded = caught(|| {
                loader(&mut |share| {
                    // A percent at a time is all that anybody sees.
                    if share >= told + 0.01 {
                        told = share;
                        let _ = sender.send(LoaderNews::Share(share.min(1.0)));
                    }
                })
            });
            // Nobody listens any more once the engine has stopped.
            let _ = sender.send(LoaderNews::Done(loaded.and_then(|loaded| loaded)));
        });
        self.outbox.push(EngineEvent::Loading(0.0));
        match thread {
            Ok(_) => self.model = ModelState::Loading(news),
            Err(error) => {
                let reason = format!("the system gave no thread for the loader: {error} (hint: too many threads?)");
                self.loaded(Err(Error::NoModel(reason)));
            }
        }
    }

    /// Takes what the loader tells.
    fn hear_loader(&mut self) {
        while let ModelState::Loading(news) = &self.model {
            match news.try_recv() {
                Ok(LoaderNews::Share(share)) => self.outbox.push(EngineEvent::Loading(share)),
                Ok(LoaderNews::Done(result)) => self.loaded(result),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.loaded(Err(Error::Stopped)),
            }
        }
    }

    fn loaded(&mut self, result: Result<Model>) {
        match result {
            Ok(model) => {
                let context = self.settings.context.min(model.max_tokens());
                let info = BaseInfo { name: model.name.clone(), sha256: model.sha256.clone(), context };
                self.outbox.push(EngineEvent::Ready(info));
                self.model = ModelState::Loaded(Box::new(Loaded {
                    model,
                    context,
                    remembered: PrefixCache::default(),
                    counts: TokenCounts::default(),
                }));
            }
            Err(error) => {
                self.model = ModelState::Failed(match &error {
                    Error::NoModel(reason) => reason.clone(),
                    other => other.to_string(),
                });
                self.outbox.push(EngineEvent::LoadFailed(error));
            }
        }
    }

    /// Gives places to those who wait, and answers those who can have none.
    fn admit(&mut self) {
        while self.outbox.has_room() {
            if let Some(pending) = self.waiting.pop_cancelled() {
                let id = pending.request.id;
                self.counters.queued.fetch_sub(1, Ordering::Relaxed);
                self.outbox.push(EngineEvent::Finished(id, cancelled_report(pending.request)));
                continue;
            }
            let is_full = !self.has_place() || self.memory_full;
            if matches!(self.model, ModelState::Wanted | ModelState::Loading(_)) || is_full || self.paused_at.is_some()
            {
                break;
            }
            let Some(pending) = self.waiting.pop() else { break };
            let id = pending.request.id;
            self.beginning = Some(id);
            let begun = self.begin(pending);
            self.beginning = None;
            match begun {
                Ok(Begun::Speech(speech)) => {
                    self.counters.cached_tokens.fetch_add(speech.cached_tokens() as u64, Ordering::Relaxed);
                    self.outbox.push(EngineEvent::Started(id));
                    self.speeches.push(*speech);
                }
                Ok(Begun::NoMemory(pending)) => {
                    self.waiting.put_back(*pending);
                    self.memory_full = true;
                    break;
                }
                Err(error) => self.outbox.push(EngineEvent::Failed(id, error)),
            }
            self.counters.queued.fetch_sub(1, Ordering::Relaxed);
        }
        self.counters.active.store(self.speeches.len(), Ordering::Relaxed);
    }

    /// Whether the next request finds a place. Ambient replies take none from the player: some of them pause for its reply
    /// (see [`plan`]).
    fn has_place(&self) -> bool {
        let of_player = |speech: &&Speech| speech.wish().priority == Priority::Player;
        let taken = match self.waiting.is_player_next() {
            true => self.speeches.iter().filter(of_player).count(),
            false => self.speeches.len(),
        };
        taken < self.settings.max_sequences.max(1)
    }

    fn begin(&mut self, pending: Pending) -> Result<Begun> {
        self.pause_warm_up();
        let loaded = match &mut self.model {
            ModelState::Loaded(loaded) => loaded,
            ModelState::Failed(reason) => return Err(Error::NoModel(reason.clone())),
            ModelState::Wanted | ModelState::Loading(_) => return Err(Error::Stopped),
        };
        let request = &pending.request;
        loaded.prepare(request.adapter.as_ref())?;
        let prompt = loaded.fit(request)?;
        let most = prompt.len().saturating_add(max_tokens(request) + FINISH_TOKENS).min(loaded.context);
        let spoken: usize = self.speeches.iter().map(|speech| speech.most_tokens).sum();
        let bytes = (spoken + most) * loaded.model.executor.cache_bytes_per_token();
        if !self.speeches.is_empty() && bytes > self.settings.kv_budget {
            return Ok(Begun::NoMemory(Box::new(pending)));
        }
        // The last token is always read, for its logits are what the first word is drawn from.
        let Some((_, known)) = prompt.split_last() else {
            return Err(Error::Model(
                "the chat template made an empty prompt (hint: the model file is damaged)".into(),
            ));
        };
        let cache = loaded.remembered.longest(request.adapter.as_ref().map(Adapter::id), known);
        let cache = cache.unwrap_or_else(|| loaded.model.executor.new_cache());
        let speech = Speech::new(pending, prompt, cache, loaded.context, &loaded.model.tokenizer)?;
        Ok(Begun::Speech(Box::new(speech)))
    }

    /// Takes the next persona that is not remembered yet, where nobody speaks.
    fn begin_warm_up(&mut self) {
        while self.speeches.is_empty() && self.warming.is_none() {
            let loaded = match &mut self.model {
                ModelState::Loaded(loaded) => loaded,
                ModelState::Wanted | ModelState::Loading(_) => return,
                ModelState::Failed(_) => {
                    self.counters.warm_ups.fetch_sub(self.warm_ups.len(), Ordering::Relaxed);
                    return self.warm_ups.clear();
                }
            };
            let Some(warm_up) = self.warm_ups.pop_front() else { return };
            match loaded.begin_warm_up(&warm_up) {
                Ok(sequence) if sequence.unread() > 0 => self.warming = Some(Warming { sequence, warm_up }),
                done => {
                    if let Err(error) = done {
                        tracing::warn!("{} could not be read ahead: {error}", warm_up.character.name);
                    }
                    self.counters.warm_ups.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Makes way for a reply. What was read so far is remembered, and the rest goes on when nobody speaks.
    fn pause_warm_up(&mut self) {
        if let (Some(warming), ModelState::Loaded(loaded)) = (self.warming.take(), &mut self.model) {
            loaded.remember(warming.sequence);
            self.warm_ups.push_front(warming.warm_up);
        }
    }

    /// One forward pass over everybody's next tokens; `false` when the handle is gone.
    fn step(&mut self) -> bool {
        let ModelState::Loaded(loaded) = &mut self.model else { return true };
        let began = Instant::now();
        let wishes: Vec<_> = self.speeches.iter().map(Speech::wish).collect();
        let mut counts = plan(&wishes, self.settings.prefill_chunk.max(1), self.settings.max_sequences.max(1));
        if let Some(warming) = &self.warming {
            counts.push(warming.sequence.unread().min(self.settings.prefill_chunk.max(1)));
        }
        let coming = counts.iter().sum::<usize>() * loaded.model.executor.cache_bytes_per_token();
        let budget = self.settings.kv_budget.saturating_sub(coming);
        loaded.remembered.evict(budget, &active_caches(&self.speeches, self.warming.as_ref()));

        let speeches = self.speeches.iter_mut().map(|speech| (&mut speech.sequence, Logits::Last));
        let sequences = speeches.chain(self.warming.iter_mut().map(|warming| (&mut warming.sequence, Logits::None)));
        let mut rows: Vec<_> = (sequences.zip(&counts).filter(|(_, count)| **count > 0))
            .map(|((sequence, last), &count)| sequence.row(count, last))
            .collect();
        let results = loaded.forward(&mut rows, &self.counters);
        drop(rows);

        // What paused for the player's reply has not used its time.
        let paused =
            self.speeches.iter_mut().zip(&counts).filter(|(speech, count)| **count == 0 && speech.wish().speaking);
        paused.for_each(|(speech, _)| speech.forget_pause(began.elapsed()));

        // A reply cancelled meanwhile says nothing more.
        let running = self.hear();
        self.take(&counts, results, began);
        running
    }

    /// Draws each speaker's next token from a step's logits.
    fn take(&mut self, counts: &[usize], results: Vec<Result<Vec<f32>>>, began: Instant) {
        let ModelState::Loaded(loaded) = &mut self.model else { return };
        let mut results = results.into_iter();
        let mut drawn = 0;
        for (speech, &count) in self.speeches.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
            let result = results.next().unwrap_or_else(|| Err(missing_row()));
            if !speech.wish().speaking && result.is_ok() {
                self.counters.prompt_tokens.fetch_add(count as u64, Ordering::Relaxed);
            }
            match result {
                Err(error) => {
                    // Whatever the failure left in its memory is not to be heard again.
                    speech.sequence.cache.truncate(0);
                    speech.ending.get_or_insert(Ending::Failed(error));
                }
                Ok(_) if speech.ending.is_some() => {}
                Ok(_) if speech.sequence.unread() > 0 => {}
                Ok(mut logits) => {
                    drawn += 1;
                    // A filter may be the game's own code.
                    match caught(|| speech.advance(&mut logits, &loaded.model.tokenizer)) {
                        Ok(Some(text)) => self.outbox.push(EngineEvent::Delta(speech.id, text)),
                        Ok(None) => {}
                        Err(error) => speech.ending = Some(Ending::Failed(error)),
                    }
                }
            }
        }
        self.counters.reply_tokens.fetch_add(drawn as u64, Ordering::Relaxed);
        self.counters.set_speed(self.speed.add(began.elapsed(), drawn));

        if let (Some(warming), Some(count)) = (self.warming.take(), counts.get(self.speeches.len())) {
            self.counters.prompt_tokens.fetch_add(*count as u64, Ordering::Relaxed);
            match results.next() {
                Some(Ok(_)) if warming.sequence.unread() > 0 => return self.warming = Some(warming),
                Some(Ok(_)) => loaded.remember(warming.sequence),
                Some(Err(error)) => {
                    tracing::warn!("{} could not be read ahead: {error}", warming.warm_up.character.name);
                }
                None => {}
            }
            self.counters.warm_ups.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes leave of replies that have ended, in the order they began.
    fn retire(&mut self) {
        let ModelState::Loaded(loaded) = &mut self.model else { return };
        let mut index = 0;
        while index < self.speeches.len() {
            let Some(ending) = self.speeches[index].ending.take() else {
                index += 1;
                continue;
            };
            let speech = self.speeches.remove(index);
            let id = speech.id;
            match ending {
                Ending::Stopped(reason) => {
                    let (report, sequence) = speech.into_report(reason);
                    // Told first, so that a panic in what remembers costs no outcome.
                    self.outbox.push(EngineEvent::Finished(id, report));
                    loaded.remember(sequence);
                }
                Ending::Failed(error) => self.outbox.push(EngineEvent::Failed(id, error)),
            }
            self.memory_full = false;
        }
        let active = active_caches(&self.speeches, self.warming.as_ref());
        let bytes = loaded.remembered.evict(self.settings.kv_budget, &active);
        self.counters.kv_bytes.store(bytes, Ordering::Relaxed);
    }
}

fn active_caches<'a>(speeches: &'a [Speech], warming: Option<&'a Warming>) -> Vec<&'a KvCache> {
    let spoken = speeches.iter().map(|speech| &speech.sequence.cache);
    spoken.chain(warming.map(|warming| &warming.sequence.cache)).collect()
}

/// What became of a request that reached the head of its queue.
enum Begun {
    Speech(Box<Speech>),
    /// It waits until others have ended.
    NoMemory(Box<Pending>),
}

impl Loaded {
    /// Refuses an adapter that does not fit, before anything is read in its voice.
    fn prepare(&self, adapter: Option<&Adapter>) -> Result<()> {
        let Some(adapter) = adapter else { return Ok(()) };
        caught(|| self.model.executor.prepare(adapter))?.map_err(|error| Error::Adapter(error.to_string()))
    }

    fn fit(&mut self, request: &crate::Request) -> Result<Vec<u32>> {
        caught(|| prompt::fit(&self.model, request, self.context, &mut self.counts))?
    }

    fn begin_warm_up(&mut self, warm_up: &WarmUp) -> Result<Sequence> {
        self.prepare(warm_up.adapter.as_ref())?;
        let (character, facts) = (&warm_up.character, &warm_up.facts);
        let mut tokens = caught(|| prompt::persona_prefix(&self.model, character, facts))??;
        tokens.truncate(self.context);
        let adapter = warm_up.adapter.clone();
        let cache = self.remembered.longest(adapter.as_ref().map(Adapter::id), &tokens);
        Ok(Sequence { adapter, tokens, cache: cache.unwrap_or_else(|| self.model.executor.new_cache()) })
    }

    fn remember(&mut self, mut sequence: Sequence) {
        let adapter = sequence.adapter_id();
        sequence.tokens.truncate(sequence.cache.len());
        self.remembered.store(adapter, sequence.tokens, sequence.cache);
    }

    /// Runs a batch. If it fails, its rows are tried one by one, so that only those fail that must.
    fn forward(&self, rows: &mut [Row<'_>], counters: &Counters) -> Vec<Result<Vec<f32>>> {
        let before: Vec<_> = rows.iter().map(|row| row.cache.len()).collect();
        match self.forward_once(rows, counters) {
            Ok(logits) => logits.into_iter().map(Ok).collect(),
            // A panic may have left the caches half-written: nobody goes on with them.
            Err(Failure::Panic(error)) => rows.iter().map(|_| Err(error.clone())).collect(),
            Err(Failure::Refused(error)) if rows.len() == 1 => vec![Err(error)],
            Err(Failure::Refused(_)) => rows
                .chunks_mut(1)
                .zip(before)
                .map(|(row, before)| {
                    row[0].cache.truncate(before);
                    match self.forward_once(row, counters) {
                        Ok(logits) => logits.into_iter().next().ok_or_else(missing_row),
                        Err(Failure::Panic(error) | Failure::Refused(error)) => Err(error),
                    }
                })
                .collect(),
        }
    }

    fn forward_once(&self, rows: &mut [Row<'_>], counters: &Counters) -> Result<Vec<Vec<f32>>, Failure> {
        let result = caught(|| self.model.executor.forward(rows));
        counters.steps.fetch_add(1, Ordering::Relaxed);
        result.map_err(Failure::Panic)?.map_err(|error| Failure::Refused(error.into()))
    }
}

enum Failure {
    Refused(Error),
    Panic(Error),
}

fn missing_row() -> Error {
    Error::Model("the executor returned fewer rows than it was given".to_owned())
}

/// A panic becomes an error.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Error::Model(format!("internal error: {} (hint: please report it)", text.unwrap_or("panicked")))
    })
}
