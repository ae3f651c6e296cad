//! What the engine's thread counts and any other thread reads without waiting.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

/// Counters since the engine started, read without waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EngineStats {
    /// Forward passes.
    pub steps: u64,
    /// Prompt tokens read.
    pub prompt_tokens: u64,
    /// Prompt tokens found in memory instead.
    pub cached_tokens: u64,
    /// Tokens sampled.
    pub reply_tokens: u64,
    /// Replies being spoken.
    pub active: usize,
    /// Requests waiting for a place.
    pub queued: usize,
    /// Bytes of KV memory held.
    pub kv_bytes: usize,
    /// Decoding speed over the last second of work, all replies together.
    pub tokens_per_second: f32,
}

/// [`EngineStats`] in atomics. Each is right by itself; a snapshot may be a step apart between two of them.
#[derive(Default)]
pub(crate) struct Counters {
    pub steps: AtomicU64,
    pub prompt_tokens: AtomicU64,
    pub cached_tokens: AtomicU64,
    pub reply_tokens: AtomicU64,
    pub active: AtomicUsize,
    /// Requests accepted and without a place yet; what bounds the command channel.
    pub queued: AtomicUsize,
    /// Warm-ups accepted and not done yet; bounded alike.
    pub warm_ups: AtomicUsize,
    pub kv_bytes: AtomicUsize,
    /// A line of the player's was sent and not heard yet: a step without the player's replies is given up for it.
    pub player_waits: AtomicBool,
    tokens_per_second: AtomicU32,
}

impl Counters {
    pub fn snapshot(&self) -> EngineStats {
        EngineStats {
            steps: self.steps.load(Ordering::Relaxed),
            prompt_tokens: self.prompt_tokens.load(Ordering::Relaxed),
            cached_tokens: self.cached_tokens.load(Ordering::Relaxed),
            reply_tokens: self.reply_tokens.load(Ordering::Relaxed),
            active: self.active.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            kv_bytes: self.kv_bytes.load(Ordering::Relaxed),
            tokens_per_second: f32::from_bits(self.tokens_per_second.load(Ordering::Relaxed)),
        }
    }

    pub fn set_speed(&self, tokens_per_second: f32) {
        self.tokens_per_second.store(tokens_per_second.to_bits(), Ordering::Relaxed);
    }
}

/// Decoding speed over the last second of work; time without work does not count.
#[derive(Default)]
pub(crate) struct Speed {
    steps: VecDeque<(Duration, usize)>,
    time: Duration,
    tokens: usize,
}

impl Speed {
    /// Hears of a step and returns tokens a second.
    pub fn add(&mut self, time: Duration, tokens: usize) -> f32 {
        self.steps.push_back((time, tokens));
        self.time += time;
        self.tokens += tokens;
        while let Some(&(time, tokens)) = self.steps.front()
            && self.time - time >= Duration::from_secs(1)
        {
            self.steps.pop_front();
            self.time -= time;
            self.tokens -= tokens;
        }
        if self.time.is_zero() { 0.0 } else { self.tokens as f32 / self.time.as_secs_f32() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_that_of_the_last_second() {
        let mut speed = Speed::default();
        assert_eq!(speed.add(Duration::ZERO, 0), 0.0);
        for _ in 0..20 {
            speed.add(Duration::from_millis(100), 1);
        }
        assert_eq!(speed.add(Duration::from_millis(100), 1), 10.0);
        for _ in 0..9 {
            speed.add(Duration::from_millis(100), 2);
        }
        assert_eq!(speed.add(Duration::from_millis(100), 2), 20.0);
    }
}
