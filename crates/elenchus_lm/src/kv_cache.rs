//! One sequence's memory lives outside the weights, in append-only pages.
//!
//! A clone shares every page and copies none; the first append after that copies the one page that is not full. So all
//! conversations of a character share the pages of its persona prompt, and a snapshot costs a few pointers.

use std::{collections::HashSet, sync::Arc};

use candle_core::Tensor;

use crate::KvPrecision;

/// Tokens a page holds.
pub(crate) const PAGE_TOKENS: usize = 32;

/// Keys and values of the tokens a sequence has read. Made by [`crate::Executor::new_cache`], for that executor alone.
#[derive(Debug, Clone)]
pub struct KvCache {
    pages: Vec<Arc<KvPage>>,
    len: usize,
    layout: PageLayout,
}

/// What a page holds, fixed when the cache is made.
#[derive(Debug, Clone)]
pub(crate) struct PageLayout {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub form: PageForm,
}

/// How a page holds it.
#[derive(Debug, Clone)]
pub(crate) enum PageForm {
    /// f32 in plain memory.
    Host,
    /// f32 tensors.
    Device(candle_core::Device),
    /// As the CPU engine's kernels read it.
    Packed(KvPrecision),
}

/// `PAGE_TOKENS` tokens of all layers.
#[derive(Debug)]
pub(crate) enum KvPage {
    /// `(layers, 2, PAGE_TOKENS, kv_dim)`, keys before values.
    Host(Vec<f32>),
    /// Per layer keys and values, `(PAGE_TOKENS, kv_dim)` each.
    Device(Vec<(Tensor, Tensor)>),
    /// Per layer and head [`KvPrecision::page_bytes`].
    Packed(Vec<u8>),
}

impl PageLayout {
    /// Keys (or values) of one token, in numbers.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn page_bytes(&self) -> usize {
        match self.form {
            PageForm::Host | PageForm::Device(_) => self.layers * 2 * PAGE_TOKENS * self.kv_dim() * size_of::<f32>(),
            PageForm::Packed(precision) => self.layers * self.kv_heads * precision.page_bytes(self.head_dim),
        }
    }

    pub fn token_bytes(&self) -> usize {
        self.page_bytes().div_ceil(PAGE_TOKENS)
    }

    fn new_page(&self) -> candle_core::Result<KvPage> {
        let kv_dim = self.kv_dim();
        Ok(match &self.form {
            PageForm::Host => KvPage::Host(vec![0.0; self.layers * 2 * PAGE_TOKENS * kv_dim]),
            PageForm::Device(device) => {
                let zeros = || Tensor::zeros((PAGE_TOKENS, kv_dim), candle_core::DType::F32, device);
                KvPage::Device((0..self.layers).map(|_| Ok((zeros()?, zeros()?))).collect::<candle_core::Result<_>>()?)
            }
            PageForm::Packed(_) => KvPage::Packed(vec![0; self.page_bytes()]),
        })
    }
}

impl KvPage {
    fn copy(&self) -> candle_core::Result<Self> {
        Ok(match self {
            Self::Host(data) => Self::Host(data.clone()),
            Self::Packed(data) => Self::Packed(data.clone()),
            Self::Device(layers) => Self::Device(
                layers.iter().map(|(k, v)| Ok((k.copy()?, v.copy()?))).collect::<candle_core::Result<_>>()?,
            ),
        })
    }

    /// Keys and values of one layer, `(PAGE_TOKENS, kv_dim)` each. Panics on a page of another form.
    pub fn host_layer(&self, layer: usize, kv_dim: usize) -> (&[f32], &[f32]) {
        let Self::Host(data) = self else { panic!("a host page was asked of another cache") };
        let half = PAGE_TOKENS * kv_dim;
        data[layer * 2 * half..(layer + 1) * 2 * half].split_at(half)
    }

    fn host_layer_mut(&mut self, layer: usize, kv_dim: usize) -> (&mut [f32], &mut [f32]) {
        let Self::Host(data) = self else { panic!("a host page was asked of another cache") };
        let half = PAGE_TOKENS * kv_dim;
        data[layer * 2 * half..(layer + 1) * 2 * half].split_at_mut(half)
    }
}

impl KvCache {
    pub(crate) fn new(layout: PageLayout) -> Self {
        Self { pages: Vec::new(), len: 0, layout }
    }

    /// Tokens remembered.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been read yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all but the first `len` tokens; a larger `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.pages.truncate(len.div_ceil(PAGE_TOKENS));
        }
    }

    /// Bytes held by a set of caches, pages they share counted once.
    pub fn resident_bytes<'a>(caches: impl IntoIterator<Item = &'a Self>) -> usize {
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for cache in caches {
            for page in &cache.pages {
                if seen.insert(Arc::as_ptr(page)) {
                    bytes += cache.layout.page_bytes();
                }
            }
        }
        bytes
    }

    /// Makes room for `tokens` more, so that writing cannot fail half-way. The length does not change.
    pub(crate) fn reserve(&mut self, tokens: usize) -> candle_core::Result<()> {
        if !self.len.is_multiple_of(PAGE_TOKENS)
            && let Some(last) = self.pages.last_mut()
            && Arc::get_mut(last).is_none()
        {
            *last = Arc::new(last.copy()?);
        }
        while self.pages.len() < (self.len + tokens).div_ceil(PAGE_TOKENS) {
            self.pages.push(Arc::new(self.layout.new_page()?));
        }
        Ok(())
    }

    /// Writes one layer's keys and values, `(tokens, kv_dim)` each, behind the remembered tokens. Room must be reserved.
    pub(crate) fn write_host(&mut self, layer: usize, k: &[f32], v: &[f32]) {
        let kv_dim = self.layout.kv_dim();
        let tokens = k.len() / kv_dim;
        let mut done = 0;
        while done < tokens {
            let position = self.len + done;
            let (page, slot) = (position / PAGE_TOKENS, position % PAGE_TOKENS);
            let count = (tokens - done).min(PAGE_TOKENS - slot);
            let page = Arc::get_mut(&mut self.pages[page]).expect("reserve() made the pages behind `len` unique");
            let (page_k, page_v) = page.host_layer_mut(layer, kv_dim);
            page_k[slot * kv_dim..(slot + count) * kv_dim].copy_from_slice(&k[done * kv_dim..(done + count) * kv_dim]);
            page_v[slot * kv_dim..(slot + count) * kv_dim].copy_from_slice(&v[done * kv_dim..(done + count) * kv_dim]);
            done += count;
        }
    }

    /// As [`Self::write_host`], from and to tensors on the cache's device.
    pub(crate) fn write_device(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> candle_core::Result<()> {
        let tokens = k.dim(0)?;
        let mut done = 0;
        while done < tokens {
            let position = self.len + done;
            let (page, slot) = (position / PAGE_TOKENS, position % PAGE_TOKENS);
            let count = (tokens - done).min(PAGE_TOKENS - slot);
            let KvPage::Device(layers) = &*self.pages[page] else { panic!("a device page was asked of another cache") };
            let (page_k, page_v) = &layers[layer];
            page_k.slice_set(&k.narrow(0, done, count)?.contiguous()?, 0, slot)?;
            page_v.slice_set(&v.narrow(0, done, count)?.contiguous()?, 0, slot)?;
            done += count;
        }
        Ok(())
    }

    /// Keys and values of one layer for the first `len` tokens, `(len, kv_dim)` each, remembered or just written.
    pub(crate) fn read_device(&self, layer: usize, len: usize) -> candle_core::Result<(Tensor, Tensor)> {
        let pages = &self.pages[..len.div_ceil(PAGE_TOKENS)];
        let side = |pick: fn(&(Tensor, Tensor)) -> &Tensor| {
            let parts: Vec<&Tensor> = pages
                .iter()
                .map(|page| match &**page {
                    KvPage::Device(layers) => pick(&layers[layer]),
                    _ => panic!("a device page was asked of another cache"),
                })
                .collect();
            Tensor::cat(&parts, 0)?.narrow(0, 0, len)
        };
        Ok((side(|pair| &pair.0)?, side(|pair| &pair.1)?))
    }

    /// Whether pages are tensors on a device rather than plain memory.
    pub(crate) fn is_on_device(&self) -> bool {
        matches!(self.layout.form, PageForm::Device(_))
    }

    /// Whether this cache has the form an executor reads.
    pub(crate) fn has_layout(&self, layout: &PageLayout) -> bool {
        let sizes = |layout: &PageLayout| (layout.layers, layout.kv_heads, layout.head_dim);
        let forms = match (&self.layout.form, &layout.form) {
            (PageForm::Host, PageForm::Host) | (PageForm::Device(_), PageForm::Device(_)) => true,
            (PageForm::Packed(own), PageForm::Packed(other)) => own == other,
            _ => false,
        };
        sizes(&self.layout) == sizes(layout) && forms
    }

    /// The packed pages from one on, behind `len`: room that was reserved.
    pub(crate) fn packed_room(&mut self, first: usize) -> impl Iterator<Item = &mut [u8]> {
        self.pages[first..].iter_mut().map(|page| {
            let page = Arc::get_mut(page).expect("reserve() made the pages behind `len` unique");
            let KvPage::Packed(bytes) = page else { panic!("a packed page was asked of another cache") };
            bytes.as_mut_slice()
        })
    }

    /// The bytes of a packed page.
    pub(crate) fn packed_page(&self, page: usize) -> &[u8] {
        let KvPage::Packed(bytes) = &*self.pages[page] else { panic!("a packed page was asked of another cache") };
        bytes
    }

    /// The pages, for kernels that walk them.
    pub(crate) fn pages(&self) -> &[Arc<KvPage>] {
        &self.pages
    }

    /// Counts `tokens` written ones as remembered.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: PageLayout = PageLayout { layers: 2, kv_heads: 1, head_dim: 3, form: PageForm::Host };

    fn append(cache: &mut KvCache, values: std::ops::Range<usize>) {
        let rows: Vec<f32> = values.clone().flat_map(|value| [value as f32; 3]).collect();
        cache.reserve(values.len()).unwrap();
        for layer in 0..2 {
            cache.write_host(layer, &rows, &rows);
        }
        cache.advance(values.len());
    }

    fn keys(cache: &KvCache) -> Vec<usize> {
        (0..cache.len())
            .map(|at| cache.pages[at / PAGE_TOKENS].host_layer(1, 3).0[at % PAGE_TOKENS * 3] as usize)
            .collect()
    }

    #[test]
    fn a_clone_shares_full_pages_and_never_hears_the_other() {
        let mut first = KvCache::new(LAYOUT);
        append(&mut first, 0..PAGE_TOKENS + 5);
        let mut second = first.clone();
        append(&mut first, 100..103);
        append(&mut second, 200..240);
        let head: Vec<usize> = (0..PAGE_TOKENS + 5).collect();
        assert_eq!(keys(&first), [head.clone(), (100..103).collect()].concat());
        assert_eq!(keys(&second), [head, (200..240).collect()].concat());
        assert!(Arc::ptr_eq(&first.pages[0], &second.pages[0]), "the full page is shared");
        assert!(!Arc::ptr_eq(&first.pages[1], &second.pages[1]), "the partial page was copied");
        let together = KvCache::resident_bytes([&first, &second]);
        let apart = KvCache::resident_bytes([&first]) + KvCache::resident_bytes([&second]);
        assert_eq!(together + LAYOUT.page_bytes(), apart);
    }

    #[test]
    fn truncate_then_append_leaves_the_shared_page_alone() {
        let mut first = KvCache::new(LAYOUT);
        append(&mut first, 0..2 * PAGE_TOKENS);
        let mut second = first.clone();
        second.truncate(PAGE_TOKENS + 1);
        append(&mut second, 500..501);
        assert_eq!(keys(&first), (0..2 * PAGE_TOKENS).collect::<Vec<_>>());
        assert_eq!(keys(&second).last(), Some(&500));
        assert_eq!(second.len(), PAGE_TOKENS + 2);
    }
}
