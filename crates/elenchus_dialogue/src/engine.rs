//! The handle to the thread that owns the model and turns requests into events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender};

use crate::{
    EngineEvent, EngineSettings, EngineStats, Error, ModelLoader, Priority, Request, RequestId, WarmUp,
    counters::Counters,
    outbox::Outbox,
    scheduler::Pending,
    worker::{self, Command},
};

/// Handle to the engine's thread; dropping it stops and joins the thread, within one step of the model. A loader that is
/// still at work is not waited for: its thread ends when it returns, and what it loaded is dropped.
pub struct Engine {
    events: Receiver<EngineEvent>,
    /// Unbounded, because one channel keeps a request and its cancellation in order and control must never wait or be lost.
    /// What is bounded is how many requests may be in it: `counters.queued`.
    commands: Option<Sender<Command>>,
    counters: Arc<Counters>,
    request_capacity: usize,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread; loading begins at once and is reported in events.
    pub fn start(settings: EngineSettings, loader: ModelLoader) -> Self {
        let (event_sender, events) = crossbeam_channel::bounded(settings.event_capacity.max(1));
        let (commands, receiver) = crossbeam_channel::unbounded();
        let counters = Arc::new(Counters::default());
        let request_capacity = settings.request_capacity.max(1);
        // Every place's reply fits, those of ambient replies that pause included, whatever the channel holds.
        let outbox = Outbox::new(event_sender.clone(), settings.event_capacity.max(6 * settings.max_sequences).max(6));
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
    pub fn try_send(&self, request: Request) -> Result<(), Request> {
        if !take_permit(&self.counters.queued, self.request_capacity) {
            return Err(request);
        }
        let is_players = request.priority == Priority::Player;
        self.command(Command::Say(Box::new(Pending { request, received: Instant::now() })));
        // Set after the command is sent, so that the command is there when the engine reads the flag.
        if is_players {
            self.counters.player_waits.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Ends a reply at the next token: it finishes as [`crate::StopReason::Cancelled`] with the text so far. Never waits and is
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
