//! What the tests share: a tiny model and its voices on disk, executors that misbehave on purpose, and a listener that
//! holds every reply to the contract.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use elenchus_dialogue::{
    BaseInfo, Character, Engine, EngineEvent, EngineSettings, Error, ModelLoader, ReplyReport, Request, RequestId,
    StopRules, Turn, Voice, load_model,
};
use elenchus_lm::{
    Adapter, Executor, KvCache, LoraAdapter, ModelConfig, Numerics, Result as LmResult, Rng, Row, testing::TinyModel,
};
use tempfile::TempDir;

/// No test should ever wait this long.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct Lab {
    folder: Arc<TempDir>,
    pub settings: EngineSettings,
}

impl Lab {
    pub fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        // Exact, because sums must not depend on what else is in a batch.
        let settings =
            EngineSettings { base: Some(path), numerics: Numerics::Exact, threads: 1, ..EngineSettings::default() };
        Self { folder, settings }
    }

    pub fn adapter(&self, seed: u64) -> Adapter {
        self.adapter_for(TinyModel::default(), seed)
    }

    pub fn voice(&self, seed: u64) -> Voice {
        self.adapter(seed).into()
    }

    pub fn adapter_for(&self, model: TinyModel, seed: u64) -> Adapter {
        let folder = self.folder.path().join(format!("voice-{}-{seed}", model.hidden));
        model.write_adapter(&folder, seed);
        Adapter::new(Arc::new(LoraAdapter::open(&folder).unwrap()))
    }

    pub fn engine(&self) -> Talk {
        self.start(load_model(&self.settings))
    }

    /// An engine whose forward passes go through `hook`.
    pub fn hooked(&self, hook: impl Fn(&dyn Executor, &mut [Row<'_>]) -> Logits + Send + Sync + 'static) -> Talk {
        self.hooked_unless(move |inner, rows, _| hook(inner, rows).map(Some))
    }

    /// The same for a hook that may give a pass up.
    pub fn hooked_unless(
        &self,
        hook: impl Fn(&dyn Executor, &mut [Row<'_>], &IsUnwanted) -> LmResult<Option<Vec<Vec<f32>>>> + Send + Sync + 'static,
    ) -> Talk {
        let (load, hook) = (load_model(&self.settings), Arc::new(hook));
        self.start(Arc::new(move |progress| {
            let mut model = load(progress)?;
            model.executor =
                Arc::new(Hooked { inner: model.executor, hook: hook.clone(), has_no_cache: Arc::default() });
            Ok(model)
        }))
    }

    pub fn start(&self, loader: ModelLoader) -> Talk {
        Talk::new(Engine::start(self.settings.clone(), loader), self.folder.clone())
    }

    /// An engine that says what the test wrote, byte by byte; 0 is the end token.
    pub fn scripted(&self, script: &'static [u8]) -> Talk {
        let said = AtomicUsize::new(0);
        self.hooked(move |inner, rows| {
            let mut logits = inner.forward(rows)?;
            for row in logits.iter_mut().filter(|row| !row.is_empty()) {
                let at = said.fetch_add(1, Ordering::SeqCst);
                let token = match script.get(at).copied().unwrap_or_default() {
                    0 => elenchus_lm::testing::IM_END as usize,
                    byte => byte.into(),
                };
                row.fill(0.0);
                row[usize::from(SECOND_BEST)] = 1e5;
                row[token] = 1e6;
            }
            Ok(logits)
        })
    }
}

/// What a scripted engine says where the script's byte may not be said.
pub const SECOND_BEST: u8 = b'*';

pub type Logits = LmResult<Vec<Vec<f32>>>;
pub type IsUnwanted<'a> = dyn Fn() -> bool + Sync + 'a;
type Hook = dyn Fn(&dyn Executor, &mut [Row<'_>], &IsUnwanted) -> LmResult<Option<Vec<Vec<f32>>>> + Send + Sync;

pub struct Hooked {
    pub inner: Arc<dyn Executor>,
    pub hook: Arc<Hook>,
    /// Whether it panics where no pass is: when a cache is made.
    pub has_no_cache: Arc<AtomicBool>,
}

impl Executor for Hooked {
    fn config(&self) -> &ModelConfig {
        self.inner.config()
    }

    fn new_cache(&self) -> KvCache {
        assert!(!self.has_no_cache.load(Ordering::SeqCst), "no cache today");
        self.inner.new_cache()
    }

    fn cache_bytes_per_token(&self) -> usize {
        self.inner.cache_bytes_per_token()
    }

    fn prepare(&self, adapter: &Adapter) -> LmResult<()> {
        self.inner.prepare(adapter)
    }

    fn forward(&self, batch: &mut [Row<'_>]) -> Logits {
        (self.hook)(&*self.inner, batch, &|| false).map(|logits| logits.expect("nothing gives it up"))
    }

    fn forward_unless(
        &self,
        batch: &mut [Row<'_>],
        is_unwanted: &(dyn Fn() -> bool + Sync),
    ) -> LmResult<Option<Vec<Vec<f32>>>> {
        (self.hook)(&*self.inner, batch, is_unwanted)
    }
}

/// A character without rules that gibberish could trip over.
pub fn character(max_tokens: usize) -> Character {
    let text = "version = 1\nname = \"Socrates\"\npersona = \"You are Socrates, who asks.\"\nfallbacks = [\"Hm.\"]";
    let mut character = Character::parse(text, "socrates").unwrap();
    character.stop = StopRules { max_tokens, max_sentences: 0, other_speaker: false, ..StopRules::default() };
    character
}

pub fn turn(speaker: &str, text: &str) -> Turn {
    Turn { speaker: speaker.to_owned(), text: text.to_owned() }
}

/// A player's line to [`character`]; [`Talk::send`] gives it its id.
pub fn line(text: &str) -> Request {
    Request { rng: Rng::from_seed(7), ..Request::new(Arc::new(character(24)), vec![turn("player", text)]) }
}

/// What was heard of one reply.
#[derive(Debug, Default)]
pub struct Heard {
    pub started: bool,
    pub deltas: Vec<String>,
    pub outcome: Option<Result<ReplyReport, Error>>,
}

/// An engine and everything it said. Breaches of the contract panic as they are heard.
pub struct Talk {
    pub engine: Engine,
    pub heard: BTreeMap<RequestId, Heard>,
    /// The order in which replies started.
    pub started: Vec<RequestId>,
    pub ready: Option<BaseInfo>,
    pub load_failures: Vec<Error>,
    pub events: usize,
    next: u64,
    /// The model lies here until it is read.
    _folder: Arc<TempDir>,
}

impl Talk {
    fn new(engine: Engine, folder: Arc<TempDir>) -> Self {
        Self {
            engine,
            heard: BTreeMap::new(),
            started: Vec::new(),
            ready: None,
            load_failures: Vec::new(),
            events: 0,
            next: 0,
            _folder: folder,
        }
    }

    /// Hands a request over, or gives it back.
    pub fn try_send(&mut self, request: Request) -> Result<RequestId, Request> {
        self.next += 1;
        let id = RequestId(self.next);
        self.engine.try_send(Request { id, ..request })?;
        self.heard.insert(id, Heard::default());
        Ok(id)
    }

    pub fn send(&mut self, request: Request) -> RequestId {
        self.try_send(request).unwrap_or_else(|_| panic!("the channel is full"))
    }

    /// Listens until the condition holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "waited too long for {what}: {:?}", self.heard);
            if let Ok(event) = self.engine.events().recv_timeout(Duration::from_millis(2)) {
                self.hear(event);
            }
        }
    }

    pub fn until_ready(&mut self) {
        self.until("the model", |talk| talk.ready.is_some());
    }

    pub fn outcome(&mut self, id: RequestId) -> Result<ReplyReport, Error> {
        self.until("a reply", |talk| talk.heard[&id].outcome.is_some());
        self.heard[&id].outcome.clone().unwrap()
    }

    pub fn reply(&mut self, id: RequestId) -> ReplyReport {
        self.outcome(id).unwrap()
    }

    pub fn say(&mut self, request: Request) -> ReplyReport {
        let id = self.send(request);
        self.reply(id)
    }

    /// Hears what is there already.
    pub fn catch_up(&mut self) {
        while let Ok(event) = self.engine.events().try_recv() {
            self.hear(event);
        }
    }

    fn hear(&mut self, event: EngineEvent) {
        self.events += 1;
        match event {
            EngineEvent::Loading(share) => assert!((0.0..=1.0).contains(&share)),
            EngineEvent::Ready(info) => self.ready = Some(info),
            EngineEvent::LoadFailed(error) => self.load_failures.push(error),
            EngineEvent::Started(id) => {
                let heard = self.of(id);
                assert!(!std::mem::replace(&mut heard.started, true), "{id:?} started twice");
                self.started.push(id);
            }
            EngineEvent::Delta(id, text) => {
                let heard = self.of(id);
                assert!(heard.started && !text.is_empty());
                heard.deltas.push(text);
            }
            EngineEvent::Finished(id, report) => {
                let heard = self.of(id);
                assert_eq!(heard.deltas.concat(), report.text);
                heard.outcome = Some(Ok(report));
            }
            EngineEvent::Failed(id, error) => self.of(id).outcome = Some(Err(error)),
            other => panic!("an event this test does not know: {other:?}"),
        }
    }

    fn of(&mut self, id: RequestId) -> &mut Heard {
        let heard = self.heard.get_mut(&id).expect("only accepted requests are told of");
        assert!(heard.outcome.is_none(), "{id:?} was told of after its end");
        heard
    }
}
