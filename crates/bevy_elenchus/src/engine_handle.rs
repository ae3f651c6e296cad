//! The engine and what it takes to start it again.
//!
//! Nothing here waits. A stopped engine ends on a thread of its own, and the next one waits for it there before it loads,
//! so that two models are never in memory together.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use bevy::prelude::*;
use elenchus_dialogue::{Backend, BackendStarter, Engine, EngineEvent, EngineSettings, ModelLoader, load_model};

/// The engine and what it takes to start it again.
#[derive(Resource)]
pub(crate) struct EngineHandle {
    /// `None` while it is stopped.
    pub engine: Option<Box<dyn Backend>>,
    pub settings: EngineSettings,
    /// In place of the one for `settings`.
    loader: Option<ModelLoader>,
    /// In place of the engine on this machine.
    backend: Option<BackendStarter>,
    /// Ends when the engine before has.
    stopping: Option<JoinHandle<()>>,
    pub paused: bool,
    /// What the engine said of replies before it heard of the pause.
    pub held: VecDeque<EngineEvent>,
}

impl EngineHandle {
    pub fn new(settings: EngineSettings, loader: Option<ModelLoader>, backend: Option<BackendStarter>) -> Self {
        Self { engine: None, settings, loader, backend, stopping: None, paused: false, held: VecDeque::new() }
    }

    /// Starts an engine in place of the one there is.
    pub fn start(&mut self) {
        self.stop();
        let engine = match &self.backend {
            Some(start) => start(&self.settings),
            None => self.start_local(),
        };
        if self.paused {
            engine.pause(true);
        }
        self.engine = Some(engine);
    }

    fn start_local(&mut self) -> Box<dyn Backend> {
        let load = self.loader.clone().unwrap_or_else(|| load_model(&self.settings));
        let before = Mutex::new(self.stopping.take());
        let loader: ModelLoader = Arc::new(move |progress| {
            let before = before.lock().unwrap_or_else(PoisonError::into_inner).take();
            // What it panicked of, it has said itself.
            let _ = before.map(JoinHandle::join);
            load(progress)
        });
        Box::new(Engine::start(self.settings.clone(), loader))
    }

    /// The engine ends on another thread, for it ends with its step.
    pub fn stop(&mut self) {
        self.held.clear();
        if let Some(engine) = self.engine.take() {
            let end = move || drop(engine);
            match std::thread::Builder::new().name("elenchus-stop".into()).spawn(end) {
                Ok(stopping) => self.stopping = Some(stopping),
                Err(error) => warn!("the system gave no thread to stop the engine on, so this frame waited: {error}"),
            }
        }
    }
}
