//! One reply in the making: the tokens of its sequence, what they have become as text, and when it ends.

use std::time::{Duration, Instant};

use elenchus_lm::{Adapter, AdapterId, KvCache, Logits, Row, Sampler, Tokenizer};

use crate::{
    Error, Priority, ReplyReport, Request, RequestId, StopReason,
    reply::Assembler,
    scheduler::{Pending, Wish},
};

/// Tokens and what has been read of them, in one voice.
pub(crate) struct Sequence {
    pub adapter: Option<Adapter>,
    pub tokens: Vec<u32>,
    /// Memory of the first `cache.len()` tokens.
    pub cache: KvCache,
}

impl Sequence {
    pub fn adapter_id(&self) -> Option<AdapterId> {
        self.adapter.as_ref().map(Adapter::id)
    }

    pub fn unread(&self) -> usize {
        self.tokens.len() - self.cache.len()
    }

    /// The next `count` unread tokens as a row of a batch.
    pub fn row(&mut self, count: usize, last: Logits) -> Row<'_> {
        let (from, to) = (self.cache.len(), self.cache.len() + count);
        let logits = if to == self.tokens.len() { last } else { Logits::None };
        Row { tokens: &self.tokens[from..to], adapter: self.adapter.as_ref(), cache: &mut self.cache, logits }
    }
}

/// How a reply ended.
pub(crate) enum Ending {
    Stopped(StopReason),
    Failed(Error),
}

/// A reply from its place in the batch to its end.
pub(crate) struct Speech {
    pub id: RequestId,
    pub sequence: Sequence,
    /// Set once; the reply leaves the batch then.
    pub ending: Option<Ending>,
    /// Tokens its sequence may grow to.
    pub most_tokens: usize,
    priority: Priority,
    sampler: Sampler,
    assembler: Assembler,
    max_tokens: usize,
    max_seconds: f32,
    context: usize,
    prompt_tokens: usize,
    cached_tokens: usize,
    reply_ids: Vec<u32>,
    received: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

impl Speech {
    /// `prompt` was read as far as `cache` remembers it.
    pub fn new(pending: Pending, prompt: Vec<u32>, cache: KvCache, context: usize) -> Self {
        let Pending { request, received } = pending;
        let max_tokens = max_tokens(&request);
        let Request { id, character, adapter, turns, rng, priority, .. } = request;
        let speakers = turns.iter().map(|turn| turn.speaker.as_str());
        Self {
            id,
            ending: None,
            most_tokens: prompt.len().saturating_add(max_tokens).min(context),
            priority,
            sampler: Sampler { settings: character.sampler.clone(), rng },
            assembler: Assembler::new(&character.stop, &character.name, speakers),
            max_tokens,
            max_seconds: character.stop.max_seconds,
            context,
            prompt_tokens: prompt.len(),
            cached_tokens: cache.len(),
            reply_ids: Vec::new(),
            received,
            first_token: None,
            last_token: None,
            sequence: Sequence { adapter, tokens: prompt, cache },
        }
    }

    pub fn wish(&self) -> Wish {
        let speaking = !self.reply_ids.is_empty();
        Wish { unread: self.sequence.unread(), speaking, priority: self.priority }
    }

    pub fn cached_tokens(&self) -> usize {
        self.cached_tokens
    }

    /// Draws the next token from its logits, once and in this order for every token: the generator must not care what
    /// else is in the batch. Returns text that can be shown.
    pub fn advance(&mut self, logits: &mut [f32], tokenizer: &Tokenizer) -> Option<String> {
        let token = match self.sampler.sample(logits, &self.sequence.tokens) {
            Ok(token) => token,
            Err(error) => {
                self.ending = Some(Ending::Failed(error.into()));
                return None;
            }
        };
        let now = Instant::now();
        let first = *self.first_token.get_or_insert(now);
        self.last_token = Some(now);
        self.reply_ids.push(token);
        let stop = if tokenizer.is_end(token) {
            Some(StopReason::EndToken)
        } else {
            self.sequence.tokens.push(token);
            self.assembler.push(tokenizer.token_bytes(token)).or_else(|| {
                if self.reply_ids.len() >= self.max_tokens {
                    Some(StopReason::MaxTokens)
                } else if self.sequence.tokens.len() >= self.context {
                    Some(StopReason::ContextFull)
                } else if (now - first).as_secs_f32() >= self.max_seconds {
                    Some(StopReason::MaxSeconds)
                } else {
                    None
                }
            })
        };
        if let Some(reason) = stop {
            self.assembler.finish(reason);
            self.ending = Some(Ending::Stopped(reason));
        }
        self.assembler.delta()
    }

    /// What the game hears of a reply that stopped, and the sequence, whose memory is worth keeping.
    pub fn into_report(self, stop: StopReason) -> (ReplyReport, Sequence) {
        let since = |from: Instant, to: Option<Instant>| to.map_or(Duration::ZERO, |to| to - from);
        let decoding = self.first_token.map_or(Duration::ZERO, |first| since(first, self.last_token));
        let report = ReplyReport {
            text: self.assembler.shown().to_owned(),
            stop,
            adapter: self.sequence.adapter_id(),
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            first_token: since(self.received, self.first_token),
            tokens_per_second: if decoding.is_zero() {
                0.0
            } else {
                (self.reply_ids.len() - 1) as f32 / decoding.as_secs_f32()
            },
            reply_ids: self.reply_ids,
            rng: self.sampler.rng,
        };
        (report, self.sequence)
    }
}

/// Tokens a reply may have: the character's limit, or less if the request asks for less.
pub(crate) fn max_tokens(request: &Request) -> usize {
    request.max_tokens.unwrap_or(usize::MAX).min(request.character.stop.max_tokens).max(1)
}

/// The report of a request that was cancelled before it got a place.
pub(crate) fn cancelled_report(request: Request) -> ReplyReport {
    ReplyReport {
        text: String::new(),
        stop: StopReason::Cancelled,
        rng: request.rng,
        adapter: request.adapter.as_ref().map(Adapter::id),
        reply_ids: Vec::new(),
        prompt_tokens: 0,
        cached_tokens: 0,
        first_token: Duration::ZERO,
        tokens_per_second: 0.0,
    }
}
