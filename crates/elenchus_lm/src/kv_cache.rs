//! A sequence's cache is separate from the weights, in append-only pages.
//!
//! A clone shares every page and copies none; the first append after that copies the one page that is not full. So all
//! conversations of a character share the pages of its persona prompt, and a snapshot costs a few pointers.
//!
//! Only the executor that made the cache knows what a page holds.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Tokens per page.
pub const PAGE_TOKENS: usize = 32;

/// Keys and values of the tokens a sequence has read. Made by [`crate::Executor::new_cache`], for that executor alone.
#[derive(Clone)]
pub struct KvCache {
    pages: Vec<Arc<Page<dyn Any + Send + Sync>>>,
    len: usize,
    layout: PageLayout,
    held: PagesHeld,
}

/// The bytes of all pages of an executor's caches, counted by the pages themselves: a page adds its own when it is made and
/// takes them away when the last cache that shares it is dropped.
#[derive(Debug, Clone, Default)]
pub struct PagesHeld(Arc<AtomicUsize>);

impl PagesHeld {
    /// Bytes now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A page and its part of the count.
struct Page<P: ?Sized> {
    /// Held for its drop.
    _counted: Counted,
    numbers: P,
}

struct Counted {
    held: PagesHeld,
    bytes: usize,
}

impl Counted {
    fn new(held: &PagesHeld, bytes: usize) -> Self {
        held.0.fetch_add(bytes, Ordering::Relaxed);
        Self { held: held.clone(), bytes }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The form of an executor's pages, fixed when a cache is made. An executor reads caches of an equal layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageLayout {
    /// The executor's name for this form, and how it stores numbers.
    pub form: &'static str,
    /// Layers of the model.
    pub layers: usize,
    /// Its key-value heads.
    pub kv_heads: usize,
    /// Numbers in a head.
    pub head_dim: usize,
    /// Bytes of a page.
    pub page_bytes: usize,
}

impl PageLayout {
    /// Keys (or values) of one token in one layer, in numbers.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Bytes one token takes.
    pub fn token_bytes(&self) -> usize {
        self.page_bytes.div_ceil(PAGE_TOKENS)
    }
}

impl fmt::Debug for KvCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvCache").field("len", &self.len).field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// For callers of an executor.
impl KvCache {
    /// Cached tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been read yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops all but the first `len` tokens; a larger `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.pages.truncate(len.div_ceil(PAGE_TOKENS));
        }
    }

    /// What all caches of its executor hold together, shared pages counted once.
    pub fn held(&self) -> &PagesHeld {
        &self.held
    }
}

/// For executors; `P` is the executor's page type, of [`PAGE_TOKENS`] tokens in all layers.
impl KvCache {
    /// An empty cache, whose pages count in `held`.
    pub fn new(layout: PageLayout, held: &PagesHeld) -> Self {
        Self { pages: Vec::new(), len: 0, layout, held: held.clone() }
    }

    /// The form of its pages.
    pub fn layout(&self) -> &PageLayout {
        &self.layout
    }

    /// Makes room for `tokens` more, so that writing cannot fail half-way. The length does not change.
    ///
    /// # Errors
    /// The errors of `new_page` and `copy`.
    pub fn reserve<P: Any + Send + Sync, E>(
        &mut self,
        tokens: usize,
        new_page: impl Fn() -> Result<P, E>,
        copy: impl Fn(&P) -> Result<P, E>,
    ) -> Result<(), E> {
        // Room that a pass reserved and gave up may be shared by now, with a clone made since.
        self.pages.truncate(self.len.div_ceil(PAGE_TOKENS));
        let counted = || Counted::new(&self.held, self.layout.page_bytes);
        if !self.len.is_multiple_of(PAGE_TOKENS)
            && let Some(last) = self.pages.last_mut()
            && Arc::get_mut(last).is_none()
        {
            let numbers = copy(page_of(&last.numbers))?;
            *last = Arc::new(Page { _counted: counted(), numbers });
        }
        while self.pages.len() < (self.len + tokens).div_ceil(PAGE_TOKENS) {
            let numbers = new_page()?;
            self.pages.push(Arc::new(Page { _counted: counted(), numbers }));
        }
        Ok(())
    }

    /// A page.
    ///
    /// # Panics
    /// There is none of this number, or the pages are another executor's.
    pub fn page<P: Any>(&self, number: usize) -> &P {
        page_of(&self.pages[number].numbers)
    }

    /// The pages from one on that lie after [`Self::len`]: reserved room.
    ///
    /// # Panics
    /// A page is shared, or they are another executor's.
    pub fn room<P: Any>(&mut self, first: usize) -> impl Iterator<Item = &mut P> {
        self.pages[first..].iter_mut().map(|page| {
            let page = Arc::get_mut(page).expect("reserve() made the pages after `len` unique");
            page.numbers.downcast_mut().expect("the cache is this executor's")
        })
    }

    /// Marks `tokens` written tokens as cached.
    pub fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

fn page_of<P: Any>(page: &(dyn Any + Send + Sync)) -> &P {
    page.downcast_ref().expect("the cache is this executor's")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const LAYOUT: PageLayout = PageLayout { form: "test", layers: 1, kv_heads: 1, head_dim: 1, page_bytes: 256 };

    type Page = [usize; PAGE_TOKENS];

    fn append(cache: &mut KvCache, values: std::ops::Range<usize>) {
        cache.reserve::<Page, Infallible>(values.len(), || Ok([0; PAGE_TOKENS]), |page| Ok(*page)).unwrap();
        for (value, position) in values.clone().zip(cache.len()..) {
            cache.room::<Page>(position / PAGE_TOKENS).next().unwrap()[position % PAGE_TOKENS] = value;
        }
        cache.advance(values.len());
    }

    fn keys(cache: &KvCache) -> Vec<usize> {
        (0..cache.len()).map(|at| cache.page::<Page>(at / PAGE_TOKENS)[at % PAGE_TOKENS]).collect()
    }

    #[test]
    fn a_clone_shares_full_pages_and_never_hears_the_other() {
        let held = PagesHeld::default();
        let mut first = KvCache::new(LAYOUT, &held);
        append(&mut first, 0..PAGE_TOKENS + 5);
        let mut second = first.clone();
        append(&mut first, 100..103);
        append(&mut second, 200..240);
        let head: Vec<usize> = (0..PAGE_TOKENS + 5).collect();
        assert_eq!(keys(&first), [head.clone(), (100..103).collect()].concat());
        assert_eq!(keys(&second), [head, (200..240).collect()].concat());
        assert!(Arc::ptr_eq(&first.pages[0], &second.pages[0]), "the full page is shared");
        assert!(!Arc::ptr_eq(&first.pages[1], &second.pages[1]), "the partial page was copied");
        let pages = |count: usize| count * LAYOUT.page_bytes;
        assert_eq!(held.bytes(), pages(2 + 3 - 1), "the shared page counts once");
        second.truncate(PAGE_TOKENS);
        assert_eq!(held.bytes(), pages(2));
        drop(first);
        assert_eq!(held.bytes(), pages(1), "the other still holds the shared page");
        drop(second);
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn room_that_was_given_up_is_not_shared_with_a_clone() {
        let mut first = KvCache::new(LAYOUT, &PagesHeld::default());
        append(&mut first, 0..PAGE_TOKENS + 5);
        let room = 2 * PAGE_TOKENS;
        first.reserve::<Page, Infallible>(room, || Ok([0; PAGE_TOKENS]), |page| Ok(*page)).unwrap();
        let mut second = first.clone();
        append(&mut first, 100..100 + room);
        append(&mut second, 200..200 + room);
        let head: Vec<usize> = (0..PAGE_TOKENS + 5).collect();
        assert_eq!(keys(&first), [head.clone(), (100..100 + room).collect()].concat());
        assert_eq!(keys(&second), [head, (200..200 + room).collect()].concat());
    }

    #[test]
    fn truncate_then_append_leaves_the_shared_page_alone() {
        let mut first = KvCache::new(LAYOUT, &PagesHeld::default());
        append(&mut first, 0..2 * PAGE_TOKENS);
        let mut second = first.clone();
        second.truncate(PAGE_TOKENS + 1);
        append(&mut second, 500..501);
        assert_eq!(keys(&first), (0..2 * PAGE_TOKENS).collect::<Vec<_>>());
        assert_eq!(keys(&second).last(), Some(&500));
        assert_eq!(second.len(), PAGE_TOKENS + 2);
    }
}
