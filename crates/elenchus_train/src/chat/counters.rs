//! What happened to a chat model's requests, by kind: what a run's log holds beside the scores.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::cost::Cost;

/// Why a request brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// There was no connection, or it ended before an answer in HTTP began.
    Connection,
    /// The server kept silent, or spoke too slowly.
    Timeout,
    /// The answer broke off.
    CutBody,
    /// The answer had nothing in it.
    EmptyBody,
    /// The model said nothing.
    EmptyContent,
    /// 429: too many requests.
    TooManyRequests,
    /// 5xx, and 408.
    ServerError,
    /// Another 4xx: the request itself is wrong, and is not sent again.
    BadRequest,
    /// 401, 403, 404 and their like: no request would fare better, so the run ends.
    Denied,
    /// The answer is no UTF-8.
    NotUtf8,
    /// The answer is no JSON.
    NotJson,
    /// The answer is JSON, but not `choices[0].message.content`.
    OtherShape,
}

/// What a chat client did so far, in this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatCounters {
    /// Requests sent, retries included, and the tokens they took.
    pub cost: Cost,
    /// What the answers that were in the cache when it was opened had taken. Counts for the budget.
    pub spent_before: Cost,
    /// Questions whose answer took no call: it was in the cache, or another question of the batch is the same.
    pub cache_hits: u64,
    /// Lines of the cache that held no answer and were passed over.
    pub broken_cache_lines: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// Questions without an answer, for every request failed.
    pub given_up: u64,
    /// Answers that reached `max_tokens`; they are read as far as they go.
    pub truncated: u64,
    /// Answers that somebody tried to read: verdicts.
    pub worded: u64,
    /// Those of them that could be read.
    pub readable: u64,
    /// Failed requests by kind.
    pub failures: BTreeMap<FailureKind, u64>,
}

impl ChatCounters {
    /// The share of verdicts in words that could be read; `None` before the first.
    pub fn parse_rate(&self) -> Option<f64> {
        (self.worded > 0).then(|| self.readable as f64 / self.worded as f64)
    }
}

impl FailureKind {
    /// Whether the same request may fare better.
    pub(super) fn is_passing(self) -> bool {
        !matches!(self, Self::BadRequest | Self::Denied)
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "no connection",
            Self::Timeout => "time-out",
            Self::CutBody => "cut body",
            Self::EmptyBody => "empty body",
            Self::EmptyContent => "empty content",
            Self::TooManyRequests => "too many requests",
            Self::ServerError => "server error",
            Self::BadRequest => "bad request",
            Self::Denied => "denied",
            Self::NotUtf8 => "not UTF-8",
            Self::NotJson => "not JSON",
            Self::OtherShape => "another shape",
        })
    }
}
