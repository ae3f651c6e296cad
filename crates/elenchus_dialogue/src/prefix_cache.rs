//! Memories of prompts already read, found again by adapter, scale and tokens; least recently used goes first.
//!
//! The base is not in the key: a cache lives and dies with the model that was loaded. Entries share their pages with each
//! other and with the replies that grew from them, so remembering one costs little more than what is new in it.

use elenchus_lm::{AdapterId, KvCache, PagesHeld};

use crate::prompt::common_prefix;

/// What was read in one voice.
struct Entry {
    adapter: Option<AdapterId>,
    /// The tokens `cache` holds.
    tokens: Vec<u32>,
    cache: KvCache,
    last_used: u64,
}

/// Everything remembered of one model.
pub(crate) struct PrefixCache {
    entries: Vec<Entry>,
    uses: u64,
    held: PagesHeld,
}

impl PrefixCache {
    /// Of the executor that made `cache`.
    pub fn new(cache: &KvCache) -> Self {
        Self { entries: Vec::new(), uses: 0, held: cache.held().clone() }
    }

    /// The memory of the longest beginning of `tokens` that was ever read under this adapter.
    pub fn longest(&mut self, adapter: Option<AdapterId>, tokens: &[u32]) -> Option<KvCache> {
        self.uses += 1;
        let candidates = self.entries.iter_mut().filter(|entry| entry.adapter == adapter);
        let (shared, entry) = candidates
            .map(|entry| (common_prefix(&entry.tokens, tokens), entry))
            .max_by_key(|(shared, _)| *shared)
            .filter(|(shared, _)| *shared > 0)?;
        entry.last_used = self.uses;
        let mut cache = entry.cache.clone();
        cache.truncate(shared);
        Some(cache)
    }

    /// Remembers `cache`, which holds exactly `tokens`. Entries that it continues are dropped: it can stand for them.
    pub fn store(&mut self, adapter: Option<AdapterId>, tokens: Vec<u32>, cache: KvCache) {
        debug_assert_eq!(tokens.len(), cache.len());
        if tokens.is_empty() {
            return;
        }
        self.uses += 1;
        let known = self.entries.iter_mut().find(|entry| entry.adapter == adapter && entry.tokens.starts_with(&tokens));
        if let Some(entry) = known {
            entry.last_used = self.uses;
            return;
        }
        self.entries.retain(|entry| entry.adapter != adapter || !tokens.starts_with(&entry.tokens));
        self.entries.push(Entry { adapter, tokens, cache, last_used: self.uses });
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Forgets until all caches of the executor, those in use among them, hold at most `budget` bytes, or nothing is left to
    /// forget. Returns the bytes held.
    pub fn evict(&mut self, budget: usize) -> usize {
        loop {
            let bytes = self.held.bytes();
            let oldest = (0..self.entries.len()).min_by_key(|&index| self.entries[index].last_used);
            match oldest {
                Some(oldest) if bytes > budget => drop(self.entries.swap_remove(oldest)),
                _ => return bytes,
            }
        }
    }
}
