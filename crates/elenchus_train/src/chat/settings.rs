//! Who is asked, and how patiently. The key is no setting: only the name of its variable is.

use std::{path::PathBuf, time::Duration};

use reqwest::Url;
use serde::{Deserialize, Serialize};

/// No wait and no time-out is longer than a day.
const LONGEST_SECONDS: f64 = 86_400.0;

/// A chat model behind an OpenAI-compatible endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChatSettings {
    /// What logs, tables and the cache's file call it; two judges of one configuration need two names.
    pub name: String,
    /// The server, up to `/v1`; `/chat/completions` is added where it is missing.
    pub url: String,
    /// The model, as the server calls it.
    pub model: String,
    /// The environment variable that holds the key, for servers that want one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// 0.33 is the AIRL paper's.
    pub temperature: f32,
    /// Tokens of an answer at most.
    pub max_tokens: u32,
    /// Sent along where it is set; not every server heeds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How long one request may take.
    pub timeout_seconds: f64,
    /// How often a failed request is sent again.
    pub retries: u32,
    /// The wait before the first retry lies anywhere between 0 and this; the upper end doubles with each further one.
    pub backoff_seconds: f64,
    /// No wait is longer. A server that asks for a longer one is not asked again this question.
    pub longest_wait_seconds: f64,
    /// Requests are spread evenly over the minute, retries included; unlimited if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Requests under way at once.
    pub concurrency: usize,
    /// Requests at most, retries included. What the answers in the cache took counts, so that a run which is
    /// resumed keeps to one budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_calls: Option<u64>,
    /// Tokens at most, read and written, counted likewise. What they are is known when an answer is there: the requests
    /// under way when the budget is reached may exceed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_tokens: Option<u64>,
    /// The folder of answers that were paid for; without one they last as long as the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
}

impl Default for ChatSettings {
    fn default() -> Self {
        Self {
            name: "chat".to_owned(),
            url: String::new(),
            model: String::new(),
            key_env: None,
            temperature: 0.33,
            max_tokens: 128,
            seed: None,
            timeout_seconds: 60.0,
            retries: 5,
            backoff_seconds: 1.0,
            longest_wait_seconds: 60.0,
            requests_per_minute: None,
            concurrency: 4,
            budget_calls: None,
            budget_tokens: None,
            cache: None,
        }
    }
}

impl ChatSettings {
    /// Refuses what cannot be meant, naming the field and what it may hold.
    pub(crate) fn check(&self) -> Result<(), String> {
        let texts = [
            ("name", &self.name, "\"in character\""),
            ("url", &self.url, "\"http://127.0.0.1:8000/v1\""),
            ("model", &self.model, "the model's name as the server has it"),
        ];
        if let Some((field, _, hint)) = texts.into_iter().find(|(_, text, _)| text.trim().is_empty()) {
            return Err(format!("`{field}` is empty (hint: {field} = {hint})"));
        }
        let counts = [
            ("max_tokens", Some(u64::from(self.max_tokens))),
            ("concurrency", Some(self.concurrency as u64)),
            ("requests_per_minute", self.requests_per_minute.map(u64::from)),
            ("budget_calls", self.budget_calls),
            ("budget_tokens", self.budget_tokens),
        ];
        if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == Some(0)) {
            return Err(format!("`{field}` is 0, expected at least 1 (hint: a limit that is left out does not hold)"));
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(format!("`temperature` is {}, expected 0 or more (hint: 0.33)", self.temperature));
        }
        let seconds = [
            ("timeout_seconds", self.timeout_seconds, 0.001),
            ("backoff_seconds", self.backoff_seconds, 0.0),
            ("longest_wait_seconds", self.longest_wait_seconds, 0.0),
        ];
        let misfit = seconds.into_iter().find(|(_, value, least)| !(*least..=LONGEST_SECONDS).contains(value));
        if let Some((field, value, least)) = misfit {
            return Err(format!("`{field}` is {value}, expected {least} to {LONGEST_SECONDS} seconds"));
        }
        self.endpoint().map(drop)
    }

    /// Where requests go.
    pub(super) fn endpoint(&self) -> Result<Url, String> {
        let url = Url::parse(&self.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(mut url) = url else {
            let hint = "url = \"http://127.0.0.1:8000/v1\"";
            return Err(format!("`url` is `{}`, which is no http or https address (hint: {hint})", self.url));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("`url` holds a user or a password (hint: put it into an environment variable, and that \
                        variable's name into `key_env`)"
                .to_owned());
        }
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        if !path.ends_with("/chat/completions") {
            url.set_path(&format!("{path}/chat/completions"));
        }
        Ok(url)
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_seconds)
    }

    pub(super) fn longest_wait(&self) -> Duration {
        Duration::from_secs_f64(self.longest_wait_seconds)
    }

    /// The longest wait before a retry, counted from 1.
    pub(super) fn backoff(&self, retry: u32) -> Duration {
        let doubled = self.backoff_seconds * 2f64.powi(retry.saturating_sub(1).min(64) as i32);
        Duration::from_secs_f64(doubled.min(self.longest_wait_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "url = \"http://127.0.0.1:8000/v1\"\nmodel = \"m\"\n";

    fn parse(more: &str) -> Result<ChatSettings, String> {
        let settings: ChatSettings = toml::from_str(&format!("{LEAST}{more}")).map_err(|error| error.to_string())?;
        settings.check().map(|()| settings)
    }

    #[test]
    fn defaults_are_there_and_written_settings_read_the_same() {
        let settings = parse("seed = 7\nkey_env = \"KEY\"").unwrap();
        assert_eq!(settings.temperature, 0.33);
        let written = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<ChatSettings>(&written).unwrap(), settings);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let check = |more: &str, says: &str| {
            let error = parse(more).unwrap_err();
            assert!(error.contains(says), "{error}");
        };
        check("temperatur = 0.1", "unknown field `temperatur`");
        check("name = \" \"", "`name` is empty (hint: ");
        check("temperature = -0.1", "`temperature` is -0.1, expected 0 or more");
        check("temperature = nan", "`temperature` is NaN");
        check("max_tokens = 0", "`max_tokens` is 0");
        check("concurrency = 0", "`concurrency` is 0");
        check("requests_per_minute = 0", "`requests_per_minute` is 0");
        check("budget_calls = 0", "`budget_calls` is 0");
        check("timeout_seconds = 0.0", "`timeout_seconds` is 0, expected 0.001 to 86400 seconds");
        check("backoff_seconds = nan", "`backoff_seconds` is NaN");
        check("longest_wait_seconds = 1e300", "`longest_wait_seconds` is 1");
        assert!(ChatSettings::default().check().unwrap_err().contains("`url` is empty"));
    }

    #[test]
    fn requests_go_to_the_endpoint_behind_the_url() {
        let check = |url: &str, expected: Result<&str, &str>| {
            let settings = ChatSettings { url: url.to_owned(), ..ChatSettings::default() };
            match (settings.endpoint(), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.as_str(), expected),
                (Err(error), Err(says)) => assert!(error.contains(says) && !error.contains("secret"), "{error}"),
                (found, _) => panic!("{url}: {found:?}"),
            }
        };
        check("http://a:8000/v1", Ok("http://a:8000/v1/chat/completions"));
        check("https://a/v1/", Ok("https://a/v1/chat/completions"));
        check("https://a", Ok("https://a/chat/completions"));
        check("https://a/x/chat/completions?version=2#top", Ok("https://a/x/chat/completions?version=2"));
        check("127.0.0.1:8000/v1", Err("`url` is `127.0.0.1:8000/v1`"));
        check("file:///v1", Err("no http or https"));
        check("https://me:secret@a/v1", Err("`key_env`"));
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let settings = ChatSettings { backoff_seconds: 1.0, longest_wait_seconds: 5.0, ..ChatSettings::default() };
        let waits = [1, 2, 3, 4, 5, u32::MAX].map(|retry| settings.backoff(retry).as_secs());
        assert_eq!(waits, [1, 2, 4, 5, 5, 5]);
    }
}
