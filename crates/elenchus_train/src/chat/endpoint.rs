//! One request, and whatever may come back. Nothing a server sends is trusted: not its length, its pace, its letters or its
//! shape.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use elenchus_lm::{Message, Role};
use reqwest::{
    StatusCode, Url,
    blocking::{Client, Response},
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{answers::Answer, cost::Cost, counters::FailureKind, settings::ChatSettings};

/// No answer has more bytes than this.
const MAX_BYTES: u64 = 4 << 20;
/// Letters of an error's text that are shown.
const EXCERPT: usize = 200;

const USER_AGENT: &str = concat!("elenchus/", env!("CARGO_PKG_VERSION"));

/// An OpenAI-compatible server.
pub(super) struct Endpoint {
    client: Client,
    url: Url,
    timeout: Duration,
    /// Known only to keep it out of what servers say: the client holds the one that is sent.
    key: Option<String>,
}

/// A request that brought no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub kind: FailureKind,
    /// What happened, as the end of a sentence that begins with the address.
    pub reason: String,
    /// How long the server wants not to be asked.
    pub retry_after: Option<Duration>,
    /// What it took nevertheless.
    pub cost: Cost,
}

/// What is sent. An answer depends on nothing else but the server.
#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<RequestMessage<'a>>,
    temperature: f32,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
}

#[derive(Serialize)]
struct RequestMessage<'a> {
    role: &'static str,
    content: &'a str,
}

/// The part of an answer that is read.
#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Said,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    /// Models that refuse, or call a tool, say null here.
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

/// The body of a request.
pub(super) fn request(settings: &ChatSettings, messages: &[Message]) -> serde_json::Result<String> {
    let messages = messages.iter().map(|message| RequestMessage {
        role: match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        },
        content: &message.content,
    });
    serde_json::to_string(&Request {
        model: &settings.model,
        messages: messages.collect(),
        temperature: settings.temperature,
        max_tokens: settings.max_tokens,
        seed: settings.seed,
    })
}

impl Endpoint {
    /// A client for settings that were checked.
    pub(super) fn new(settings: &ChatSettings, key: Option<&str>) -> Result<Self, String> {
        let url = settings.endpoint()?;
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        if let Some(key) = key {
            let bearer = HeaderValue::from_str(&format!("Bearer {key}"));
            let mut bearer = bearer.map_err(|_| "the key holds letters that no header can (hint: a line break?)")?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let timeout = settings.timeout();
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .timeout(timeout)
            // Sooner, so that a host that is not there is told from one that is slow.
            .connect_timeout(timeout / 2)
            .pool_max_idle_per_host(settings.concurrency)
            // A question is not asked of whom a server names; the error says where it points.
            .redirect(Policy::none())
            .build()
            .map_err(|error| {
                format!("no connection can be made: {} (hint: are CA certificates installed?)", causes(error))
            })?;
        Ok(Self { client, url, timeout, key: key.map(str::to_owned) })
    }

    /// The address without its query, which some servers keep secrets in.
    pub(super) fn address(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.into()
    }

    /// The whole address: the same question to another server is another question.
    pub(super) fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Sends one request and reads its answer.
    pub(super) fn ask(&self, body: String) -> Result<Answer, Failure> {
        let started = Instant::now();
        let response = self.client.post(self.url.clone()).body(body).send().map_err(|error| {
            // A connection that is never made is the endpoint's failure, not this request's.
            let kind =
                if error.is_timeout() && !error.is_connect() { FailureKind::Timeout } else { FailureKind::Connection };
            Failure::new(kind, format!("does not answer: {}", causes(error)))
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.body(response, started);
        if !status.is_success() {
            let body = body.unwrap_or_default();
            return Err(self.refusal(status, &headers, &String::from_utf8_lossy(&body)));
        }
        let body = body?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(Failure::new(FailureKind::EmptyBody, "answers with nothing".to_owned()));
        }
        let text = String::from_utf8(body).map_err(|error| {
            Failure::new(FailureKind::NotUtf8, format!("answers with what is no text: {}", error.utf8_error()))
        })?;
        self.answer(&text)
    }

    /// All of an answer's bytes, within the time. (The client's own time-out restarts with every byte.)
    fn body(&self, response: Response, started: Instant) -> Result<Vec<u8>, Failure> {
        let slow = || Failure::new(FailureKind::Timeout, format!("was not done after {:?}", self.timeout));
        let mut bytes = Vec::new();
        let mut part = [0; 8192];
        let mut response = response.take(MAX_BYTES + 1);
        loop {
            let read = response.read(&mut part);
            if started.elapsed() >= self.timeout {
                return Err(slow());
            }
            match read {
                Ok(0) => break,
                Ok(read) => bytes.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Failure::new(FailureKind::CutBody, format!("broke off: {}", whole(&error))));
                }
            }
        }
        if bytes.len() as u64 > MAX_BYTES {
            let reason = format!("answers with more than {} MB", MAX_BYTES >> 20);
            return Err(Failure::new(FailureKind::OtherShape, reason));
        }
        Ok(bytes)
    }

    fn answer(&self, text: &str) -> Result<Answer, Failure> {
        let value: Value = serde_json::from_str(text).map_err(|_| {
            Failure::new(FailureKind::NotJson, format!("answers with what is no JSON: {}", self.excerpt(text)))
        })?;
        let shape = |what: &str| {
            Failure::new(FailureKind::OtherShape, format!("answers without {what}: {}", self.excerpt(text)))
        };
        let Completion { choices, usage } =
            Completion::deserialize(value).map_err(|_| shape("`choices[0].message.content`"))?;
        let choice = choices.into_iter().next().ok_or_else(|| shape("a choice"))?;
        let usage = usage.map(|usage| Cost {
            calls: 0,
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
        });
        let answer = Answer {
            words: choice.message.content.unwrap_or_default(),
            finish_reason: choice.finish_reason,
            cost: usage.unwrap_or_default(),
        };
        if answer.words.trim().is_empty() {
            let hint = if answer.is_truncated() { " (hint: raise `max_tokens`, it thinks aloud)" } else { "" };
            let reason = format!("answers without a word{hint}");
            return Err(Failure { cost: answer.cost, ..Failure::new(FailureKind::EmptyContent, reason) });
        }
        Ok(answer)
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &str) -> Failure {
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => FailureKind::TooManyRequests,
            StatusCode::REQUEST_TIMEOUT => FailureKind::ServerError,
            StatusCode::UNAUTHORIZED
            | StatusCode::PAYMENT_REQUIRED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::GONE => FailureKind::Denied,
            status if status.is_server_error() => FailureKind::ServerError,
            status if status.is_client_error() => FailureKind::BadRequest,
            // Redirections, for the most part.
            _ => FailureKind::Denied,
        };
        let mut reason = format!("answers {status}");
        let said = self.excerpt(body);
        if !said.is_empty() {
            reason = format!("{reason}: {said}");
        }
        // The other form, a date, is as good as none: the wait is then our own.
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let retry_after = seconds.and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok());
        Failure { retry_after, ..Failure::new(kind, reason) }
    }

    /// The beginning of what a server says, on one line. Some repeat the key they refuse.
    fn excerpt(&self, text: &str) -> String {
        let message = serde_json::from_str::<Value>(text).ok();
        let message =
            message.as_ref().and_then(|value| value["error"]["message"].as_str().or(value["detail"].as_str()));
        let mut text = message.unwrap_or(text).to_owned();
        if let Some(key) = &self.key {
            text = text.replace(key.as_str(), "[key]");
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let line = words.join(" ");
        match line.char_indices().nth(EXCERPT) {
            Some((end, _)) => format!("{}..", &line[..end]),
            None => line,
        }
    }
}

impl Failure {
    fn new(kind: FailureKind, reason: String) -> Self {
        Self { kind, reason, retry_after: None, cost: Cost::default() }
    }
}

/// An error with its causes, without the URL, which is named already.
fn causes(error: reqwest::Error) -> String {
    whole(&error.without_url())
}

fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
