//! One reply in the making: the tokens of its sequence, what they have become as text, and when it ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use elenchus_lm::{Adapter, AdapterId, KvCache, Logits, Markup, REPLY_BREAK, Row, Sampler, Tokenizer};

use crate::{
    Character, Error, Priority, Refusal, ReplyFilter, ReplyReport, Request, RequestId, Result, StopReason, Turn,
    filter::{admits_to_be_ai, dictated, echoes, others_names, repeats, says_one_of},
    prompt::FINISH_TOKENS,
    reply::Assembler,
    scheduler::{Demand, Pending},
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

    /// All tokens but the last, which is always read for its logits.
    pub fn known(&self) -> &[u32] {
        &self.tokens[..self.tokens.len().saturating_sub(1)]
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
    character: Arc<Character>,
    /// Who else speaks in this conversation.
    others: Vec<String>,
    /// Names in the lines it heard that are not its own.
    others_names: Vec<String>,
    /// What the newest line puts in the character's mouth.
    dictated: Vec<String>,
    filter: Option<Arc<ReplyFilter>>,
    refused: Vec<Refusal>,
    /// What it said before, newest first.
    said: Vec<String>,
    /// The line it answers.
    answered: String,
    /// The tokens of that, where they count as repetition, then those of this reply.
    said_tokens: Vec<u32>,
    max_tokens: usize,
    max_seconds: f32,
    context: usize,
    /// Holds no memory and waits until there is some for it: a player's reply needed it.
    suspended: bool,
    prompt_tokens: usize,
    cached_tokens: usize,
    reply_ids: Vec<u32>,
    /// First tokens of attempts that said the same again.
    barred: Vec<u32>,
    /// Tokens of attempts that were refused.
    refused_tokens: usize,
    received: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

/// Own replies that count as repetition, at most.
const SAID: usize = 8;

impl Speech {
    /// `prompt` was read as far as `cache` remembers it.
    pub fn new(
        pending: Pending,
        prompt: Vec<u32>,
        cache: KvCache,
        context: usize,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let Pending { request, received } = pending;
        let max_tokens = max_tokens(&request);
        let Request { id, character, voice, turns, rng, priority, filter, .. } = request;
        let adapter = voice.and_then(|voice| voice.adapter);
        let answered = turns.last().map(|turn| turn.text.clone()).unwrap_or_default();
        let (own, others): (Vec<&Turn>, Vec<&Turn>) = turns.iter().partition(|turn| character.is_named(&turn.speaker));
        let said: Vec<String> = own.into_iter().rev().take(SAID).map(|turn| turn.text.clone()).collect();
        let mut said_tokens = Vec::new();
        for text in said.iter().rev() {
            said_tokens.extend(tokenizer.encode(text.trim(), Markup::AsText)?);
            said_tokens.push(REPLY_BREAK);
        }
        let dictated = dictated(&answered, &character);
        let others_names = others_names(others.iter().map(|turn| turn.text.as_str()), &answered, &character);
        let mut others: Vec<String> = others.into_iter().map(|turn| turn.speaker.clone()).collect();
        others.sort_unstable();
        others.dedup();
        Ok(Self {
            id,
            ending: None,
            most_tokens: prompt.len().saturating_add(max_tokens + FINISH_TOKENS).min(context),
            priority,
            sampler: Sampler { settings: character.sampler.clone(), rng },
            assembler: assembler(&character, &others, filter.is_some()),
            others,
            others_names,
            dictated,
            filter,
            refused: Vec::new(),
            said,
            answered,
            said_tokens,
            max_tokens,
            max_seconds: character.stop.max_seconds,
            character,
            context,
            suspended: false,
            prompt_tokens: prompt.len(),
            cached_tokens: cache.len(),
            reply_ids: Vec::new(),
            barred: Vec::new(),
            refused_tokens: 0,
            received,
            first_token: None,
            last_token: None,
            sequence: Sequence { adapter, tokens: prompt, cache },
        })
    }

    /// The same without a limit of time, so that a seed determines every word.
    pub fn untimed(self) -> Self {
        Self { max_seconds: f32::INFINITY, ..self }
    }

    pub fn demand(&self) -> Demand {
        let unread = if self.suspended { 0 } else { self.sequence.unread() };
        Demand { unread, speaking: self.has_spoken() && unread <= 1, priority: self.priority }
    }

    /// Whether its first token was sampled.
    pub fn has_spoken(&self) -> bool {
        self.first_token.is_some()
    }

    pub fn is_players(&self) -> bool {
        self.priority == Priority::Player
    }

    pub fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// Gives up its memory. [`Self::resume`] reads its tokens again, and the reply continues as if nothing had happened.
    pub fn suspend(&mut self, empty: KvCache) -> KvCache {
        self.suspended = true;
        std::mem::replace(&mut self.sequence.cache, empty)
    }

    /// Continues with what is still remembered of its tokens.
    pub fn resume(&mut self, cache: Option<KvCache>) {
        self.suspended = false;
        if let Some(cache) = cache {
            self.sequence.cache = cache;
        }
    }

    pub fn cached_tokens(&self) -> usize {
        self.cached_tokens
    }

    /// Samples the next token from its logits, once and in this order for every token: the generator must not care what
    /// else is in the batch. Returns text that can be shown.
    pub fn advance(&mut self, logits: &mut [f32], tokenizer: &Tokenizer) -> Option<String> {
        if self.reply_ids.is_empty() {
            self.barred.iter().for_each(|&token| logits[token as usize] = f32::NEG_INFINITY);
        }
        let token = match self.sampler.sample(logits, &self.said_tokens) {
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
            self.said_tokens.push(token);
            self.assembler.push(tokenizer.token_bytes(token)).or_else(|| {
                if self.is_long_enough() {
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
            if matches!(reason, StopReason::MaxTokens | StopReason::ContextFull | StopReason::MaxSeconds) {
                self.assembler.drop_unfinished_sentence();
            }
            self.assembler.finish(reason);
            self.ending = Some(Ending::Stopped(reason));
        }
        self.judge();
        self.assembler.delta()
    }

    /// Whether the limit of tokens is reached at the end of a sentence, or exceeded by as much as one may take to end.
    fn is_long_enough(&self) -> bool {
        let over = self.reply_ids.len().checked_sub(self.max_tokens);
        over.is_some_and(|over| over >= FINISH_TOKENS || self.assembler.is_at_sentence_end())
    }

    /// Releases whole sentences that may be shown. One that may not makes the reply begin again if nothing was shown yet,
    /// and ends it otherwise.
    fn judge(&mut self) {
        let Some(filter) = self.filter.clone() else { return };
        let attempts =
            |of: &dyn Fn(&str) -> bool| self.refused.iter().filter(|refused| of(&refused.rule)).count() as u32;
        let Some(text) = self.assembler.unjudged() else {
            if filter.silence && self.is_silent() && attempts(&|rule| rule == SILENCE) < filter.retries {
                self.refused.push(Refusal { rule: SILENCE.to_owned(), text: String::new() });
                self.begin_again();
            }
            return;
        };
        let others = self.others.iter().chain(&self.others_names).map(String::as_str);
        let begins = self.assembler.shown().is_empty();
        let admitted = || {
            let refusal = || Refusal { rule: AI_CLAIMS.to_owned(), text: text.trim().to_owned() };
            (begins && filter.ai_claims && admits_to_be_ai(text, &self.answered)).then(refusal)
        };
        let refusal = match filter.judge(text, &self.character, others).or_else(admitted) {
            Some(refusal) => refusal,
            // What is merely dull is said in the end.
            None if !begins => return self.assembler.release(),
            None => {
                let said = self.said.iter().take(filter.repeats).map(String::as_str);
                let rule = if filter.other_names
                    && attempts(&|rule| rule == DICTATED) < filter.retries
                    && says_one_of(text, &self.dictated)
                {
                    DICTATED
                } else if filter.echoes
                    && attempts(&|rule| rule == ECHOES) < filter.retries
                    && echoes(text, &self.answered)
                {
                    ECHOES
                } else if attempts(&|rule| rule == REPEATS) < filter.retries && repeats(text, said) {
                    REPEATS
                } else {
                    return self.assembler.release();
                };
                if self.is_out_of_time() {
                    return self.assembler.release();
                }
                if rule == REPEATS {
                    self.barred.extend(self.reply_ids.first());
                }
                self.refused.push(Refusal { rule: rule.to_owned(), text: text.trim().to_owned() });
                return self.begin_again();
            }
        };
        let tries = 1 + attempts(&|rule| ![DICTATED, ECHOES, REPEATS, SILENCE].contains(&rule));
        if begins && tries <= filter.retries && !self.is_out_of_time() {
            self.refused.push(refusal);
            return self.begin_again();
        }
        self.assembler.refuse();
        self.ending = Some(if begins {
            let tries = 1 + self.refused.len() as u32;
            Ending::Failed(Error::Refused { tries, rule: refusal.rule.clone(), text: refusal.text.clone() })
        } else {
            Ending::Stopped(StopReason::Refused)
        });
        self.refused.push(refusal);
    }

    /// Whether the model ended the reply before its first word.
    fn is_silent(&self) -> bool {
        let ended = matches!(self.ending, Some(Ending::Stopped(StopReason::EndToken | StopReason::OtherSpeaker)));
        ended && self.assembler.shown().trim().is_empty()
    }

    /// Whether the reply took all the time it may, so that there is none to sample it again.
    fn is_out_of_time(&self) -> bool {
        matches!(self.ending, Some(Ending::Stopped(StopReason::MaxSeconds)))
    }

    /// Back to the prompt, with the generator where it is. The prompt's last token is read once more for its logits. A model
    /// that is sure would say the same again, so it samples more freely.
    fn begin_again(&mut self) {
        let temperature = &mut self.sampler.settings.temperature;
        *temperature = temperature.max((*temperature + WARMER).min(WARMEST));
        self.ending = None;
        self.said_tokens.truncate(self.said_tokens.iter().rposition(|&id| id == REPLY_BREAK).map_or(0, |at| at + 1));
        self.refused_tokens += self.reply_ids.len();
        self.reply_ids.clear();
        self.sequence.tokens.truncate(self.prompt_tokens);
        let known = self.sequence.cache.len().min(self.prompt_tokens - 1);
        self.sequence.cache.truncate(known);
        self.assembler = assembler(&self.character, &self.others, true);
    }

    /// Leaves a pause out of all limits of time.
    pub fn forget_pause(&mut self, pause: Duration) {
        self.received += pause;
        for time in [&mut self.first_token, &mut self.last_token].into_iter().flatten() {
            *time += pause;
        }
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
                (self.refused_tokens + self.reply_ids.len()).saturating_sub(1) as f32 / decoding.as_secs_f32()
            },
            refused: self.refused,
            reply_ids: self.reply_ids,
            rng: self.sampler.rng,
        };
        (report, self.sequence)
    }
}

/// How much the temperature rises with every refused reply, and its limit.
const WARMER: f32 = 0.3;
const WARMEST: f32 = 1.0;

/// The rule against claims to be an AI.
const AI_CLAIMS: &str = "ai_claims";
/// The rule against saying what a line puts in the character's mouth.
const DICTATED: &str = "dictated";
/// The rule against saying the same again.
const REPEATS: &str = "repeats";
/// The rule against saying nothing.
const SILENCE: &str = "silence";
/// The rule against saying what was just heard.
const ECHOES: &str = "echoes";

fn assembler(character: &Character, others: &[String], judged: bool) -> Assembler {
    Assembler::new(&character.stop, &character.name, others.iter().map(String::as_str), judged)
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
        adapter: request.adapter().map(Adapter::id),
        rng: request.rng,
        reply_ids: Vec::new(),
        refused: Vec::new(),
        prompt_tokens: 0,
        cached_tokens: 0,
        first_token: Duration::ZERO,
        tokens_per_second: 0.0,
    }
}
