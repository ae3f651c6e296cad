//! A chat model behind an OpenAI-compatible endpoint: what may go wrong with a question costs that question its answer, what
//! would go wrong with every question ends the run, and nothing is paid for twice.
//!
//! Judges and revisers ask through the same client. An answer is known by a hash of what was sent and where to: the address
//! counts, for a model's name means what its server means by it. A server that moved is asked again; answers of two models are
//! never mixed.

mod answers;
mod cost;
mod counters;
mod endpoint;
mod lock;
mod pace;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use elenchus_lm::{Message, hex};
use sha2::{Digest, Sha256};

use self::{
    answers::{Answer, Answers},
    endpoint::{Endpoint, Failure},
    lock::lock,
    pace::{Pace, Stop},
};
pub use self::{
    cost::Cost,
    counters::{ChatCounters, FailureKind},
    settings::ChatSettings,
};
use crate::{Error, Result};

/// The result of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The answer; where there is none, why.
    pub words: Result<String, String>,
    /// Whether it reached `max_tokens` and is not whole.
    pub is_truncated: bool,
    /// What it took.
    pub cost: Cost,
}

/// Somebody who is asked over the network.
pub struct ChatClient {
    settings: ChatSettings,
    endpoint: Endpoint,
    answers: Mutex<Answers>,
    counters: Mutex<ChatCounters>,
    pace: Pace,
}

/// What is sent about one question, and what it is known by.
struct Asked {
    key: String,
    body: String,
}

/// A request that was made until nothing more could come of it. Its answer is among the answers, if there is one.
enum Outcome {
    Answered(Cost),
    GivenUp(FailureKind, String, Cost),
}

impl ChatClient {
    /// A client for these settings. `key` is what [`ChatSettings::key_env`] names. Opens the cache; nothing is sent yet.
    ///
    /// # Errors
    /// Settings that cannot be meant, a key that is missing or no header can hold, and a cache that cannot be read.
    pub fn new(settings: ChatSettings, key: Option<&str>) -> Result<Self> {
        let fail = |reason| Error::Chat { chat: settings.name.clone(), reason };
        settings.check().map_err(fail)?;
        let key = key.map(str::trim).filter(|key| !key.is_empty());
        if let (Some(variable), None) = (&settings.key_env, key) {
            return Err(fail(format!("`key_env` names {variable}, which is not set (hint: export {variable}=..)")));
        }
        let endpoint = Endpoint::new(&settings, key).map_err(fail)?;
        let answers = Answers::open(settings.cache.as_deref(), &settings.name)?;
        let counters = ChatCounters {
            spent_before: answers.spent_before,
            broken_cache_lines: answers.broken_lines,
            ..ChatCounters::default()
        };
        Ok(Self {
            pace: Pace::new(settings.requests_per_minute),
            answers: Mutex::new(answers),
            counters: Mutex::new(counters),
            settings,
            endpoint,
        })
    }

    /// What logs call it.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What happened so far.
    pub fn counters(&self) -> ChatCounters {
        lock(&self.counters).clone()
    }

    /// The result of each question, in order. Each is asked once, however often it occurs; the cost is counted for the first
    /// of several equal ones.
    ///
    /// # Errors
    /// A server that denies itself to this model or key, one that cannot be reached by any question, a spent budget, and a
    /// cache that fails. What was answered until then is in the cache.
    pub fn ask(&self, questions: &[impl AsRef<[Message]>]) -> Result<Vec<Said>> {
        let all: Vec<Asked> = questions.iter().map(|question| self.asked(question.as_ref())).collect::<Result<_>>()?;
        let new: Vec<&Asked> = {
            let answers = lock(&self.answers);
            let mut seen = BTreeSet::new();
            all.iter().filter(|asked| answers.get(&asked.key).is_none() && seen.insert(&asked.key)).collect()
        };
        let outcomes = self.ask_all(&new)?;
        if let Some(Outcome::GivenUp(_, reason, _)) = outcomes.last()
            && outcomes.iter().all(|outcome| matches!(outcome, Outcome::GivenUp(FailureKind::Connection, ..)))
        {
            let (chat, url) = (self.settings.name.clone(), self.endpoint.address());
            return Err(Error::ChatUnreachable { chat, url, count: outcomes.len(), reason: reason.clone() });
        }
        let mut outcomes: BTreeMap<&str, Outcome> = new.iter().map(|asked| asked.key.as_str()).zip(outcomes).collect();
        all.iter().map(|asked| self.said(&asked.key, outcomes.get_mut(asked.key.as_str()))).collect()
    }

    /// The result of an answer, or of its absence.
    fn said(&self, key: &str, outcome: Option<&mut Outcome>) -> Result<Said> {
        let cost = match outcome {
            Some(Outcome::GivenUp(_, reason, cost)) => {
                lock(&self.counters).given_up += 1;
                return Ok(Said { words: Err(reason.clone()), is_truncated: false, cost: std::mem::take(cost) });
            }
            Some(Outcome::Answered(cost)) => std::mem::take(cost),
            None => Cost::default(),
        };
        let answer = lock(&self.answers).get(key).cloned();
        let answer = answer.ok_or_else(|| self.fail("an answer is gone from the cache".to_owned()))?;
        let mut counters = lock(&self.counters);
        counters.cache_hits += u64::from(cost.calls == 0);
        counters.truncated += u64::from(answer.is_truncated());
        Ok(Said { is_truncated: answer.is_truncated(), words: Ok(answer.words), cost })
    }

    /// Counts an answer that somebody tried to read.
    pub(crate) fn count_read(&self, is_readable: bool) {
        let mut counters = lock(&self.counters);
        counters.worded += 1;
        counters.readable += u64::from(is_readable);
    }

    fn asked(&self, messages: &[Message]) -> Result<Asked> {
        let body = endpoint::request(&self.settings, messages);
        let body = body.map_err(|error| self.fail(format!("a question cannot be written as JSON: {error}")))?;
        let key = Sha256::new().chain_update(self.endpoint.url()).chain_update("\n").chain_update(&body).finalize();
        Ok(Asked { key: hex(&key), body })
    }

    /// Asks everything, several at once, and returns each result, in order.
    fn ask_all(&self, asked: &[&Asked]) -> Result<Vec<Outcome>> {
        let stop = Stop::default();
        let outcomes: Vec<OnceLock<Outcome>> = asked.iter().map(|_| OnceLock::new()).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&at| at < asked.len()) {
                match self.ask_one(asked[at], &stop) {
                    Ok(Some(outcome)) => outcomes[at].get_or_init(|| outcome),
                    // What another thread was told ends this one too.
                    Ok(None) => return,
                    Err(error) => return stop.tell(error),
                };
            }
        };
        thread::scope(|scope| (0..self.settings.concurrency.min(asked.len())).for_each(|_| _ = scope.spawn(work)));
        match stop.into_error() {
            Some(error) => Err(error),
            None => Ok(outcomes.into_iter().filter_map(OnceLock::into_inner).collect()),
        }
    }

    /// Asks until there is an answer or retries are spent; `None` if the batch was ended meanwhile.
    fn ask_one(&self, asked: &Asked, stop: &Stop) -> Result<Option<Outcome>> {
        let mut cost = Cost::default();
        loop {
            if !self.pace.wait(stop) {
                return Ok(None);
            }
            self.take_call(cost.calls > 0)?;
            cost.calls += 1;
            let failure = match self.endpoint.ask(asked.body.clone()) {
                Ok(answer) => return self.keep(&asked.key, answer, cost).map(Some),
                Err(failure) => failure,
            };
            self.spend(failure.cost);
            cost += failure.cost;
            *lock(&self.counters).failures.entry(failure.kind).or_default() += 1;
            if failure.kind == FailureKind::Denied {
                return Err(self.denied(&failure));
            }
            let held = failure.retry_after.filter(|wait| *wait <= self.settings.longest_wait());
            if let Some(wait) = held {
                self.pace.hold(wait);
            }
            let Failure { kind, reason, retry_after, .. } = failure;
            let asks_for_longer = retry_after.filter(|_| held.is_none());
            if !kind.is_passing() || asks_for_longer.is_some() || cost.calls > u64::from(self.settings.retries) {
                let wait = asks_for_longer.map_or(String::new(), |wait| format!(", and asks to wait {wait:?}"));
                let reason = format!("no answer ({kind}, requests: {}): the server {reason}{wait}", cost.calls);
                return Ok(Some(Outcome::GivenUp(kind, reason, cost)));
            }
            // Where the server said when to ask again, that is the only wait.
            if held.is_none() && !stop.sleep(self.settings.backoff(cost.calls as u32).mul_f64(random())) {
                return Ok(None);
            }
        }
    }

    /// Counts a request that is about to be sent, if the budget has room for it.
    fn take_call(&self, is_retry: bool) -> Result<()> {
        let mut counters = lock(&self.counters);
        let mut spent = counters.cost;
        spent += counters.spent_before;
        let budgets = [
            ("budget_calls", spent.calls, self.settings.budget_calls),
            ("budget_tokens", spent.prompt_tokens + spent.completion_tokens, self.settings.budget_tokens),
        ];
        for (budget, used, limit) in budgets {
            if let Some(limit) = limit.filter(|limit| used >= *limit) {
                let hint = match &self.settings.cache {
                    Some(_) => {
                        "raise it and start again: every answer that was paid for is in the cache and costs nothing"
                    }
                    None => "raise it, and name a `cache` so that no answer has to be paid for again",
                };
                return Err(Error::ChatBudget { chat: self.settings.name.clone(), budget, used, limit, hint });
            }
        }
        counters.cost.calls += 1;
        counters.retries += u64::from(is_retry);
        Ok(())
    }

    /// Tokens are known once an answer is there.
    fn spend(&self, cost: Cost) {
        lock(&self.counters).cost += cost;
    }

    fn keep(&self, key: &str, mut answer: Answer, cost: Cost) -> Result<Outcome> {
        self.spend(answer.cost);
        let is_counted = answer.cost.prompt_tokens + answer.cost.completion_tokens > 0;
        answer.cost += cost;
        let outcome = Outcome::Answered(answer.cost);
        lock(&self.answers).keep(key, answer)?;
        if self.settings.budget_tokens.is_some() && !is_counted {
            let reason = "answers without `usage`, so `budget_tokens` cannot be kept to (hint: set `budget_calls`)";
            return Err(self.fail(format!("{} {reason}", self.endpoint.address())));
        }
        Ok(outcome)
    }

    fn denied(&self, failure: &Failure) -> Error {
        let ChatSettings { model, key_env, .. } = &self.settings;
        let hint = match key_env {
            Some(variable) => {
                format!(
                    "is the key in {variable} right, is `url` right up to its /v1, and may the key use model `{model}`?"
                )
            }
            None => format!(
                "is `url` right up to its /v1, does the server have model `{model}`, and does it want a key? `key_env` names a key's variable"
            ),
        };
        self.fail(format!("{} {} (hint: {hint})", self.endpoint.address(), failure.reason))
    }

    fn fail(&self, reason: String) -> Error {
        Error::Chat { chat: self.settings.name.clone(), reason }
    }
}

/// The key is no part of it.
impl fmt::Debug for ChatClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatClient").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Even over 0 to 1. The standard library's random keys are all the chance this needs.
fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
