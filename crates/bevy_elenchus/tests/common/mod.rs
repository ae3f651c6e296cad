//! A game in a folder of its own: characters, a tiny model, an app, and a valve that can hold the engine's breath.

// Each test file uses its own part of this.
#![allow(dead_code, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use bevy::prelude::*;
use bevy_elenchus::{load_model, prelude::*};
use elenchus_lm::{
    Adapter, Executor, KvCache, ModelConfig, Row,
    testing::{IM_END, TinyModel},
};
use tempfile::TempDir;

/// What a game heard, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Started,
    Delta(String),
    Finished {
        text: String,
        stop: StopReason,
        reply_ids: Option<Vec<u32>>,
        prompt_tokens: usize,
        cached_tokens: usize,
        refused: Vec<String>,
    },
    Failed {
        error: String,
        fallback: String,
    },
}

#[derive(Resource, Default)]
pub struct Log(pub Vec<(Entity, Heard)>);

/// The share of the model that was loaded, in each frame that loaded it.
#[derive(Resource, Default)]
pub struct Progress(pub Vec<f32>);

/// Holds the engine before its next forward pass while closed.
pub struct Valve {
    /// Passes it lets through before it closes; `usize::MAX` keeps it open.
    left: Mutex<usize>,
    changed: Condvar,
    /// The next forward pass panics, as a bug in a back-end would.
    pub burst: AtomicBool,
}

impl Valve {
    fn new(closed: bool) -> Self {
        Self { left: Mutex::new(if closed { 0 } else { usize::MAX }), changed: Condvar::new(), burst: false.into() }
    }

    pub fn open(&self) {
        self.allow(usize::MAX);
    }

    pub fn allow(&self, passes: usize) {
        *self.left.lock().unwrap() = passes;
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        *self.left.lock().unwrap() == 0
    }

    fn pass(&self) {
        let mut left = self.changed.wait_while(self.left.lock().unwrap(), |left| *left == 0).unwrap();
        if *left != usize::MAX {
            *left -= 1;
        }
        drop(left);
        assert!(!self.burst.swap(false, Ordering::SeqCst), "a bug in the back-end");
    }
}

/// The tiny model, behind a valve, allowed to say small letters and spaces only: it never ends a reply itself, and what
/// it says is always text.
struct Valved {
    inner: Arc<dyn Executor>,
    valve: Arc<Valve>,
    letters: Vec<bool>,
    script: Option<&'static [u8]>,
    said: Arc<AtomicUsize>,
}

impl Executor for Valved {
    fn config(&self) -> &ModelConfig {
        self.inner.config()
    }
    fn new_cache(&self) -> KvCache {
        self.inner.new_cache()
    }
    fn cache_bytes_per_token(&self) -> usize {
        self.inner.cache_bytes_per_token()
    }
    fn prepare(&self, adapter: &Adapter) -> elenchus_lm::Result<()> {
        self.inner.prepare(adapter)
    }
    fn forward(&self, batch: &mut [Row<'_>]) -> elenchus_lm::Result<Vec<Vec<f32>>> {
        self.valve.pass();
        let mut logits = self.inner.forward(batch)?;
        for row in logits.iter_mut().flat_map(|row| row.chunks_exact_mut(self.letters.len())) {
            if let Some(script) = self.script {
                let letter = script.get(self.said.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or_default();
                row.fill(f32::NEG_INFINITY);
                row[if letter == 0 { IM_END as usize } else { letter.into() }] = 0.0;
                continue;
            }
            for (logit, &letter) in row.iter_mut().zip(&self.letters) {
                *logit = if letter { *logit } else { f32::NEG_INFINITY };
            }
        }
        Ok(logits)
    }
}

/// How a game's folder and plugin are made.
pub struct Setup {
    pub model: TinyModel,
    pub engine: EngineSettings,
    pub settings: ElenchusSettings,
    /// Fails this many loads before one works.
    pub failing_loads: usize,
    /// The valve is closed from the start, before the model is loaded.
    pub closed: bool,
    /// In place of the tiny model.
    pub loader: Option<ModelLoader>,
    pub autostart: bool,
    /// What the tiny model says, letter by letter, reply after reply; 0 ends one.
    pub script: Option<&'static [u8]>,
}

impl Default for Setup {
    fn default() -> Self {
        let engine = EngineSettings { threads: 1, ..default() };
        Self {
            model: TinyModel::default(),
            engine,
            settings: settings(),
            failing_loads: 0,
            closed: false,
            loader: None,
            autostart: true,
            script: None,
        }
    }
}

/// Words stream one by one: what the tiny model says has no sentences to wait for.
pub fn settings() -> ElenchusSettings {
    ElenchusSettings { filter: None, ..default() }
}

pub struct Game {
    pub app: App,
    pub valve: Arc<Valve>,
    pub loader: ModelLoader,
    pub folder: Arc<TempDir>,
}

/// Whatever a test does, the engine's thread must be free to end.
impl Drop for Game {
    fn drop(&mut self) {
        self.valve.open();
    }
}

pub const SOCRATES: &str = "adapters://socrates/character.toml";

/// `character.toml` with replies of `max_tokens` letters.
pub fn character(name: &str, max_tokens: usize) -> String {
    format!(
        "version = 1\nname = \"{name}\"\npersona = \"You are {name}.\"\nfallbacks = [\"By the dog!\", \"Let me think.\"]\n\
         [stop]\nmax_tokens = {max_tokens}\nmax_sentences = 0\nmax_seconds = 600.0\n"
    )
}

pub fn write(path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

impl Setup {
    /// A game where Socrates lives in `adapters://` and speaks replies of 24 tokens.
    pub fn start(self) -> Game {
        let folder = Arc::new(TempDir::new().unwrap());
        write(folder.path().join("adapters/socrates/character.toml"), character("Socrates", 24));
        self.start_in(folder)
    }

    /// The same in a folder that is there already: a second run of the game, or another game on the same files.
    pub fn start_in(self, folder: Arc<TempDir>) -> Game {
        let gguf = folder.path().join(format!("tiny-{}.gguf", self.model.seed));
        if !gguf.exists() {
            self.model.write_gguf(&gguf);
        }
        let valve = Arc::new(Valve::new(self.closed));
        let loader = self.loader.unwrap_or_else(|| tiny_loader(gguf, valve.clone(), self.failing_loads, self.script));
        let mut app = App::new();
        app.add_plugins((
            MinimalPlugins,
            AdaptersSourcePlugin { folder: folder.path().join("adapters").to_str().unwrap().into() },
            AssetPlugin { file_path: folder.path().join("assets").to_str().unwrap().into(), ..default() },
            ElenchusPlugins.set(SpeechPlugin {
                engine: self.engine,
                loader: Some(loader.clone()),
                settings: self.settings,
                autostart: self.autostart,
                ..default()
            }),
        ))
        .init_resource::<Log>()
        .init_resource::<Progress>()
        .add_systems(Update, |status: Res<EngineStatus>, mut progress: ResMut<Progress>| {
            if let EngineStatus::Loading { progress: share } = *status {
                progress.0.push(share);
            }
        })
        .add_observer(|e: On<ReplyStarted>, mut log: ResMut<Log>| log.0.push((e.entity, Heard::Started)))
        .add_observer(|e: On<ReplyDelta>, mut log: ResMut<Log>| log.0.push((e.entity, Heard::Delta(e.text.clone()))))
        .add_observer(|e: On<ReplyFinished>, mut log: ResMut<Log>| {
            let report = e.report.as_ref();
            log.0.push((
                e.entity,
                Heard::Finished {
                    text: e.text.clone(),
                    stop: e.stop,
                    reply_ids: report.map(|report| report.reply_ids.clone()),
                    prompt_tokens: report.map_or(0, |report| report.prompt_tokens),
                    cached_tokens: report.map_or(0, |report| report.cached_tokens),
                    refused: report.into_iter().flat_map(|report| &report.refused).map(|of| of.rule.clone()).collect(),
                },
            ));
        })
        .add_observer(|e: On<ReplyFailed>, mut log: ResMut<Log>| {
            log.0.push((e.entity, Heard::Failed { error: e.error.to_string(), fallback: e.fallback.clone() }));
        });
        app.finish();
        app.cleanup();
        Game { app, valve, loader, folder }
    }
}

fn tiny_loader(gguf: PathBuf, valve: Arc<Valve>, failing_loads: usize, script: Option<&'static [u8]>) -> ModelLoader {
    let said = Arc::new(AtomicUsize::new(0));
    let inner = load_model(&EngineSettings { base: Some(gguf), threads: 1, ..default() });
    let left = AtomicUsize::new(failing_loads);
    Arc::new(move |progress| {
        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(elenchus_dialogue::Error::NoModel("the disk is out (hint: put it in)".into()));
        }
        valve.pass();
        let mut model = inner(progress)?;
        let letters = (0..model.executor.config().vocab_size as u32)
            .map(|id| matches!(model.tokenizer.token_bytes(id), [b'a'..=b'z' | b' ']))
            .collect();
        model.executor =
            Arc::new(Valved { inner: model.executor, valve: valve.clone(), letters, script, said: said.clone() });
        Ok(model)
    })
}

impl Game {
    pub fn spawn(&mut self, path: &str) -> Entity {
        let character = self.app.world().resource::<AssetServer>().load(path.to_owned());
        // Every test says its lines from the same seed.
        self.app.world_mut().spawn((Npc::new(character), Conversation::from_seed(7))).id()
    }

    pub fn say(&mut self, npc: Entity, text: &str) {
        self.trigger(Say::new(npc, "Plato", text));
    }

    /// As a game's `commands.trigger` does, observers' commands included.
    pub fn trigger<'a, E: Event<Trigger<'a>: Default>>(&mut self, event: E) {
        self.app.world_mut().commands().trigger(event);
        self.app.world_mut().flush();
    }

    pub fn log(&self, npc: Entity) -> Vec<Heard> {
        self.app.world().resource::<Log>().0.iter().filter(|(e, _)| *e == npc).map(|(_, heard)| heard.clone()).collect()
    }

    /// The outcomes alone: one for each `Say`.
    pub fn outcomes(&self, npc: Entity) -> Vec<Heard> {
        let ends = |heard: &Heard| matches!(heard, Heard::Finished { .. } | Heard::Failed { .. });
        self.log(npc).into_iter().filter(ends).collect()
    }

    /// The deltas joined.
    pub fn spoken(&self, npc: Entity) -> String {
        let delta = |heard| if let Heard::Delta(text) = heard { Some(text) } else { None };
        self.log(npc).into_iter().filter_map(delta).collect()
    }

    pub fn turns(&self, npc: Entity) -> Vec<(String, String)> {
        let turns = &self.app.world().get::<Conversation>(npc).unwrap().turns;
        turns.iter().map(|turn| (turn.speaker.clone(), turn.text.clone())).collect()
    }

    pub fn status(&self) -> &EngineStatus {
        self.app.world().resource()
    }

    pub fn update(&mut self, frames: usize) {
        for _ in 0..frames {
            self.app.update();
            sleep(Duration::from_millis(1));
        }
    }

    /// Runs frames until it holds; out of frames, says what was heard.
    pub fn run_until(&mut self, what: &str, holds: impl Fn(&Game) -> bool) {
        for _ in 0..60_000 {
            if holds(self) {
                return;
            }
            self.update(1);
        }
        let world = self.app.world();
        panic!("never happened: {what}; {:?}; {:?}", world.resource::<EngineStatus>(), world.resource::<Log>().0);
    }

    pub fn run_until_outcomes(&mut self, npc: Entity, count: usize) -> Vec<Heard> {
        self.run_until(&format!("{count} outcomes"), |game| game.outcomes(npc).len() >= count);
        self.outcomes(npc)
    }

    pub fn run_until_ready(&mut self) {
        self.run_until("the engine is ready", |game| {
            matches!(game.app.world().resource::<EngineStatus>(), EngineStatus::Ready { .. })
        });
    }

    /// Runs frames until an NPC is stopped in mid-reply, and says how much of it was heard.
    pub fn run_until_midway(&mut self, npc: Entity) -> String {
        let before = self.spoken(npc).len();
        self.run_until("the valve closes", |game| game.valve.is_closed());
        self.run_until("a first word", |game| game.spoken(npc).len() > before);
        self.update(20);
        assert!(self.is_speaking(npc));
        self.spoken(npc).split_off(before)
    }

    /// Says a line and stops the engine in mid-reply; what was heard by then.
    pub fn say_and_stop_midway(&mut self, npc: Entity, text: &str) -> String {
        // A prompt of a hundred tokens is read in two or three passes, a reply is 24.
        self.valve.allow(10);
        self.say(npc, text);
        self.run_until("the valve closes", |game| game.valve.is_closed());
        self.run_until("a first word", |game| !game.spoken(npc).is_empty());
        self.update(20);
        assert!(self.outcomes(npc).is_empty());
        self.spoken(npc)
    }

    pub fn is_speaking(&self, npc: Entity) -> bool {
        self.app.world().get::<Speaking>(npc).is_some()
    }
}

/// The text of an outcome that finished.
#[track_caller]
pub fn finished(heard: &Heard) -> (&str, StopReason) {
    match heard {
        Heard::Finished { text, stop, .. } => (text, *stop),
        other => panic!("not finished: {other:?}"),
    }
}

/// Error and fallback of an outcome that failed.
#[track_caller]
pub fn failed(heard: &Heard) -> (&str, &str) {
    match heard {
        Heard::Failed { error, fallback } => (error, fallback),
        other => panic!("not failed: {other:?}"),
    }
}

/// The table of a section of `docs/plugin-guide.md` and the tests of a file are the same, in the same order.
#[track_caller]
pub fn check_rows(section: &str, tests: &str) {
    let guide = include_str!("../../../../docs/plugin-guide.md");
    let (_, table) = guide.split_once(section).expect("the section");
    let (table, _) = table.split_once("\n## ").expect("what follows the section");
    let rows = table.lines().filter_map(|line| line.strip_suffix("` |")?.rsplit_once('`').map(|(_, name)| name));
    let tests = tests.split("#[test]\nfn ").skip(1).map(|test| test.split_once('(').expect("a function").0);
    let this = "every_row_of_the_guide_is_a_test_and_every_test_a_row";
    assert_eq!(rows.collect::<Vec<_>>(), tests.filter(|&test| test != this).collect::<Vec<_>>());
}
