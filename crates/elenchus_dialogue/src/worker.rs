//! The engine's thread: receives commands, admits requests, runs the model step by step, sends events.
//!
//! It owns everything it changes. It never waits for the game: commands are taken between steps, events go through
//! an [`Outbox`]. When idle it sleeps on its channels.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use crossbeam_channel::{Receiver, Select, TryRecvError};
use elenchus_lm::{Adapter, Logits, Row};

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

/// Commands from the game.
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
        memory_full: None,
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
    /// The next request of this priority did not fit the KV budget beside the replies in progress; tried again once one of
    /// them has ended.
    memory_full: Option<Priority>,
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

/// News from the loader's thread.
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
        self.memory_full = None;
        if let ModelState::Loaded(loaded) = &mut self.model {
            loaded.remembered.clear();
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
        self.counters.player_waits.store(false, Ordering::Release);
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
            let _span = tracing::info_span!("elenchus_load").entered();
            let loaded = caught(|| {
                loader(&mut |share| {
                    // A percent at a time is all that anybody sees.
                    if share >= told + 0.01 {
                        told = share;
                        let _ = sender.send(LoaderNews::Share(share.min(1.0)));
                    }
                })
            });
            // There is no listener once the engine has stopped.
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

    /// Takes the loader's news.
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
                let remembered = PrefixCache::new(&model.executor.new_cache());
                let counts = TokenCounts::default();
                self.model = ModelState::Loaded(Box::new(Loaded { model, context, remembered, counts }));
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

    /// Admits waiting requests, and answers those that cannot be admitted.
    fn admit(&mut self) {
        self.resume();
        while self.outbox.has_room() {
            if let Some(pending) = self.waiting.pop_cancelled() {
                let id = pending.request.id;
                self.counters.queued.fetch_sub(1, Ordering::Relaxed);
                self.outbox.push(EngineEvent::Finished(id, cancelled_report(pending.request)));
                continue;
            }
            let next = if self.waiting.is_player_next() { Priority::Player } else { Priority::Ambient };
            let is_full = !self.has_place() || self.memory_full.is_some_and(|of| of >= next);
            if matches!(self.model, ModelState::Wanted | ModelState::Loading(_)) || is_full || self.paused_at.is_some()
            {
                break;
            }
            let Some(pending) = self.waiting.pop() else { break };
            let id = pending.request.id;
            self.beginning = Some(id);
            let begun = tracing::info_span!("elenchus_prompt").in_scope(|| self.begin(pending));
            self.beginning = None;
            match begun {
                Ok(Begun::Speech(speech)) => {
                    self.counters.cached_tokens.fetch_add(speech.cached_tokens() as u64, Ordering::Relaxed);
                    self.outbox.push(EngineEvent::Started(id));
                    self.speeches.push(*speech);
                }
                Ok(Begun::NoMemory(pending)) => {
                    self.memory_full = Some(pending.request.priority);
                    self.waiting.put_back(*pending);
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
        let taken = match self.waiting.is_player_next() {
            true => self.speeches.iter().filter(|speech| speech.is_players()).count(),
            // What was suspended resumes before others begin.
            false if self.speeches.iter().any(Speech::is_suspended) => return false,
            false => self.speeches.len(),
        };
        taken < self.settings.max_sequences.max(1)
    }

    /// Ambient replies that gave up their memory get it back, the first to begin first, once no line of the player's waits.
    fn resume(&mut self) {
        let ModelState::Loaded(loaded) = &mut self.model else { return };
        if self.waiting.is_player_next() {
            return;
        }
        let budget = loaded.token_budget(self.settings.kv_budget);
        let held = self.speeches.iter().filter(|speech| !speech.is_suspended()).map(|speech| speech.most_tokens);
        let mut held: usize = held.sum();
        for speech in self.speeches.iter_mut().filter(|speech| speech.is_suspended()) {
            if held > 0 && held + speech.most_tokens > budget {
                break;
            }
            held += speech.most_tokens;
            speech.resume(loaded.remembered.longest(speech.sequence.adapter_id(), speech.sequence.known()));
        }
    }

    fn begin(&mut self, pending: Pending) -> Result<Begun> {
        self.pause_warm_up();
        let loaded = match &mut self.model {
            ModelState::Loaded(loaded) => loaded,
            ModelState::Failed(reason) => return Err(Error::NoModel(reason.clone())),
            ModelState::Wanted | ModelState::Loading(_) => return Err(Error::Stopped),
        };
        let request = &pending.request;
        loaded.prepare(request.adapter())?;
        let prompt = loaded.fit(request)?;
        let most = prompt.len().saturating_add(max_tokens(request) + FINISH_TOKENS).min(loaded.context);
        // A single reply is spoken even where it alone needs more.
        let budget = loaded.token_budget(self.settings.kv_budget).max(most);
        let held = |speeches: &[Speech], of: &dyn Fn(&Speech) -> bool| -> usize {
            speeches.iter().filter(|speech| of(speech)).map(|speech| speech.most_tokens).sum()
        };
        // Ambient replies keep no memory from the player: those that began last give up theirs.
        if request.priority == Priority::Player && most + held(&self.speeches, &Speech::is_players) <= budget {
            let mut all = held(&self.speeches, &|speech| !speech.is_suspended());
            for speech in self.speeches.iter_mut().rev().filter(|speech| !speech.is_players() && !speech.is_suspended())
            {
                if most + all > budget {
                    all -= speech.most_tokens;
                    loaded.suspend(speech);
                }
            }
        }
        if most + held(&self.speeches, &|speech| !speech.is_suspended()) > budget {
            return Ok(Begun::NoMemory(Box::new(pending)));
        }
        // The last token is always read: the first word is sampled from its logits.
        let Some((_, known)) = prompt.split_last() else {
            return Err(Error::Model(
                "the chat template made an empty prompt (hint: the model file is damaged)".into(),
            ));
        };
        let cache = loaded.remembered.longest(request.adapter().map(Adapter::id), known);
        let cache = cache.unwrap_or_else(|| loaded.model.executor.new_cache());
        let speech = Speech::new(pending, prompt, cache, loaded.context, &loaded.model.tokenizer)?;
        Ok(Begun::Speech(Box::new(speech)))
    }

    /// Takes the next persona that is not remembered yet, while no reply is in progress.
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

    /// Makes way for a reply. What was read so far is remembered, and the rest follows when no reply is in progress.
    fn pause_warm_up(&mut self) {
        if let (Some(warming), ModelState::Loaded(loaded)) = (self.warming.take(), &mut self.model) {
            loaded.remember(warming.sequence);
            self.warm_ups.push_front(warming.warm_up);
        }
    }

    /// One forward pass over all sequences' next tokens; `false` when the handle is gone.
    fn step(&mut self) -> bool {
        let ModelState::Loaded(loaded) = &mut self.model else { return true };
        let began = Instant::now();
        let demands: Vec<_> = self.speeches.iter().map(Speech::demand).collect();
        let mut counts = plan(&demands, self.settings.prefill_chunk.max(1), self.settings.max_sequences.max(1));
        if let Some(warming) = &self.warming {
            counts.push(warming.sequence.unread().min(self.settings.prefill_chunk.max(1)));
        }
        let coming = counts.iter().sum::<usize>() * loaded.model.executor.cache_bytes_per_token();
        let budget = self.settings.kv_budget.saturating_sub(coming);
        loaded.remembered.evict(budget);

        // Nobody waits longer for ambient talk than for a layer of it: what is given up is done again after the player's reply.
        let mut reads = self.speeches.iter().zip(&counts).filter(|(_, count)| **count > 0);
        let may_give_up = !reads.any(|(speech, _)| speech.is_players());
        let speeches = self.speeches.iter_mut().map(|speech| (&mut speech.sequence, Logits::Last));
        let sequences = speeches.chain(self.warming.iter_mut().map(|warming| (&mut warming.sequence, Logits::None)));
        let mut rows: Vec<_> = (sequences.zip(&counts).filter(|(_, count)| **count > 0))
            .map(|((sequence, last), &count)| sequence.row(count, last))
            .collect();
        let span = tracing::info_span!("elenchus_forward", rows = rows.len(), tokens = counts.iter().sum::<usize>());
        let results = span.in_scope(|| loaded.forward(&mut rows, may_give_up, &self.counters));
        drop(rows);
        let Some(results) = results else { return self.hear() };

        // What paused for the player's reply, or reads its tokens again after it, has not used its time.
        for (speech, &count) in self.speeches.iter_mut().zip(&counts) {
            if speech.has_spoken() && (count == 0 || speech.sequence.unread() > 0) {
                speech.forget_pause(began.elapsed());
            }
        }

        // A reply cancelled meanwhile says nothing more.
        let running = self.hear();
        tracing::info_span!("elenchus_sample").in_scope(|| self.take(&counts, results, began));
        running
    }

    /// Samples each reply's next token from a step's logits.
    fn take(&mut self, counts: &[usize], results: Vec<Result<Vec<f32>>>, began: Instant) {
        let ModelState::Loaded(loaded) = &mut self.model else { return };
        let mut results = results.into_iter();
        let mut drawn = 0;
        for (speech, &count) in self.speeches.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
            let result = results.next().unwrap_or_else(|| Err(missing_row()));
            if !speech.has_spoken() && result.is_ok() {
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

    /// Retires finished replies, in the order they began.
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
                    // Sent first, so that a panic in the prefix cache costs no outcome.
                    self.outbox.push(EngineEvent::Finished(id, report));
                    loaded.remember(sequence);
                }
                Ending::Failed(error) => self.outbox.push(EngineEvent::Failed(id, error)),
            }
            self.memory_full = None;
        }
        let bytes = loaded.remembered.evict(self.settings.kv_budget);
        self.counters.kv_bytes.store(bytes, Ordering::Relaxed);
    }
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

    /// Tokens that so many bytes of memory hold.
    fn token_budget(&self, bytes: usize) -> usize {
        bytes / self.model.executor.cache_bytes_per_token().max(1)
    }

    /// Takes a reply's memory; what was read stays remembered until others need the room.
    fn suspend(&mut self, speech: &mut Speech) {
        let cache = speech.suspend(self.model.executor.new_cache());
        let tokens = speech.sequence.tokens[..cache.len()].to_vec();
        self.remembered.store(speech.sequence.adapter_id(), tokens, cache);
    }

    fn fit(&mut self, request: &crate::Request) -> Result<Vec<u32>> {
        caught(|| prompt::fit(&self.model, request, self.context, &mut self.counts))?
    }

    fn begin_warm_up(&mut self, warm_up: &WarmUp) -> Result<Sequence> {
        let adapter = warm_up.voice.as_ref().and_then(|voice| voice.adapter.clone());
        self.prepare(adapter.as_ref())?;
        let (character, facts) = (&warm_up.character, &warm_up.facts);
        let mut tokens = caught(|| prompt::persona_prefix(&self.model, character, facts))??;
        tokens.truncate(self.context);
        let cache = self.remembered.longest(adapter.as_ref().map(Adapter::id), &tokens);
        Ok(Sequence { adapter, tokens, cache: cache.unwrap_or_else(|| self.model.executor.new_cache()) })
    }

    fn remember(&mut self, mut sequence: Sequence) {
        let adapter = sequence.adapter_id();
        sequence.tokens.truncate(sequence.cache.len());
        self.remembered.store(adapter, sequence.tokens, sequence.cache);
    }

    /// Runs a batch. If it fails, its rows are tried one by one, so that only those fail that must.
    fn forward(&self, rows: &mut [Row<'_>], may_give_up: bool, counters: &Counters) -> Option<Vec<Result<Vec<f32>>>> {
        let before: Vec<_> = rows.iter().map(|row| row.cache.len()).collect();
        let is_unwanted = || may_give_up && counters.player_waits.load(Ordering::Acquire);
        Some(match self.forward_once(rows, &is_unwanted, counters) {
            Ok(None) => return None,
            Ok(Some(logits)) => logits.into_iter().map(Ok).collect(),
            // A panic may have left the caches half-written: none of them is used again.
            Err(Failure::Panic(error)) => rows.iter().map(|_| Err(error.clone())).collect(),
            Err(Failure::Refused(error)) if rows.len() == 1 => vec![Err(error)],
            Err(Failure::Refused(_)) => rows
                .chunks_mut(1)
                .zip(before)
                .map(|(row, before)| {
                    row[0].cache.truncate(before);
                    match self.forward_once(row, &|| false, counters) {
                        Ok(logits) => logits.and_then(|logits| logits.into_iter().next()).ok_or_else(missing_row),
                        Err(Failure::Panic(error) | Failure::Refused(error)) => Err(error),
                    }
                })
                .collect(),
        })
    }

    fn forward_once(
        &self,
        rows: &mut [Row<'_>],
        is_unwanted: &(dyn Fn() -> bool + Sync),
        counters: &Counters,
    ) -> Result<Option<Vec<Vec<f32>>>, Failure> {
        let result = caught(|| self.model.executor.forward_unless(rows, is_unwanted));
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
