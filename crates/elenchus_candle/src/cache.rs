//! The contents of this executor's cache pages: f32 in plain memory on a CPU, tensors elsewhere.

use candle_core::{DType, Device, Result, Tensor};
use elenchus_lm::{KvCache, ModelConfig, PAGE_TOKENS, PageLayout};

use super::ops::with_host;

const HOST: &str = "f32 of candle";
const DEVICE: &str = "f32 tensors of candle";

/// `PAGE_TOKENS` tokens of all layers in plain memory: `(layers, 2, PAGE_TOKENS, kv_dim)`, keys before values.
pub(crate) struct HostPage(Vec<f32>);

/// The same on a device: per layer keys and values, `(PAGE_TOKENS, kv_dim)` each.
struct DevicePage(Vec<(Tensor, Tensor)>);

/// The layout of a model's caches on a device.
pub(crate) fn page_layout(config: &ModelConfig, device: &Device) -> PageLayout {
    PageLayout {
        form: if device.is_cpu() { HOST } else { DEVICE },
        layers: config.num_layers(),
        kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        page_bytes: config.num_layers() * 2 * PAGE_TOKENS * config.kv_dim() * size_of::<f32>(),
    }
}

/// Whether pages are tensors on a device rather than plain memory.
pub(crate) fn is_on_device(cache: &KvCache) -> bool {
    cache.layout().form == DEVICE
}

/// Makes room for `tokens` more.
pub(crate) fn reserve(cache: &mut KvCache, tokens: usize, device: &Device) -> Result<()> {
    let PageLayout { layers, .. } = *cache.layout();
    let kv_dim = cache.layout().kv_dim();
    if is_on_device(cache) {
        let zeros = || Tensor::zeros((PAGE_TOKENS, kv_dim), DType::F32, device);
        let new_page = || Ok(DevicePage((0..layers).map(|_| Ok((zeros()?, zeros()?))).collect::<Result<_>>()?));
        let copy = |DevicePage(layers): &DevicePage| {
            Ok(DevicePage(layers.iter().map(|(k, v)| Ok((k.copy()?, v.copy()?))).collect::<Result<_>>()?))
        };
        cache.reserve(tokens, new_page, copy)
    } else {
        let new_page = || Ok(HostPage(vec![0.0; layers * 2 * PAGE_TOKENS * kv_dim]));
        cache.reserve(tokens, new_page, |HostPage(data): &HostPage| Ok(HostPage(data.clone())))
    }
}

/// Writes one layer's keys and values, `(tokens, kv_dim)` each, after the cached tokens. Room must be reserved.
pub(crate) fn write(cache: &mut KvCache, layer: usize, k: &Tensor, v: &Tensor) -> Result<()> {
    if is_on_device(cache) {
        write_device(cache, layer, k, v)
    } else {
        with_host(k, |k| with_host(v, |v| write_host(cache, layer, k, v)))?
    }
}

/// The parts of `tokens` tokens after the cached ones, split by page: `(first, slot, count)`.
fn parts(len: usize, tokens: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let slot = (len + done) % PAGE_TOKENS;
        let count = (tokens - done).min(PAGE_TOKENS - slot);
        let first = done;
        done += count;
        (count > 0).then_some((first, slot, count))
    })
}

pub(crate) fn write_host(cache: &mut KvCache, layer: usize, k: &[f32], v: &[f32]) {
    let (len, kv_dim) = (cache.len(), cache.layout().kv_dim());
    let parts = parts(len, k.len() / kv_dim);
    for (HostPage(data), (first, slot, count)) in cache.room::<HostPage>(len / PAGE_TOKENS).zip(parts) {
        let half = PAGE_TOKENS * kv_dim;
        let (page_k, page_v) = data[layer * 2 * half..(layer + 1) * 2 * half].split_at_mut(half);
        let (into, from) = (slot * kv_dim..(slot + count) * kv_dim, first * kv_dim..(first + count) * kv_dim);
        page_k[into.clone()].copy_from_slice(&k[from.clone()]);
        page_v[into].copy_from_slice(&v[from]);
    }
}

pub(crate) fn write_device(cache: &KvCache, layer: usize, k: &Tensor, v: &Tensor) -> Result<()> {
    let pages = cache.len() / PAGE_TOKENS..;
    for ((first, slot, count), page) in parts(cache.len(), k.dim(0)?).zip(pages) {
        let DevicePage(layers) = cache.page(page);
        let (page_k, page_v) = &layers[layer];
        page_k.slice_set(&k.narrow(0, first, count)?.contiguous()?, 0, slot)?;
        page_v.slice_set(&v.narrow(0, first, count)?.contiguous()?, 0, slot)?;
    }
    Ok(())
}

/// Keys and values of one layer for the first `len` tokens, `(len, kv_dim)` each, cached or just written.
pub(crate) fn read_device(cache: &KvCache, layer: usize, len: usize) -> Result<(Tensor, Tensor)> {
    let side = |pick: fn(&(Tensor, Tensor)) -> &Tensor| {
        let parts: Vec<&Tensor> =
            (0..len.div_ceil(PAGE_TOKENS)).map(|page| pick(&cache.page::<DevicePage>(page).0[layer])).collect();
        Tensor::cat(&parts, 0)?.narrow(0, 0, len)
    };
    Ok((side(|pair| &pair.0)?, side(|pair| &pair.1)?))
}

impl HostPage {
    /// Keys and values of one layer, `(PAGE_TOKENS, kv_dim)` each.
    pub fn layer(&self, layer: usize, kv_dim: usize) -> (&[f32], &[f32]) {
        let half = PAGE_TOKENS * kv_dim;
        self.0[layer * 2 * half..(layer + 1) * 2 * half].split_at(half)
    }
}

/// Both forms, for tests that compare them.
#[cfg(test)]
pub(crate) fn both_layouts(config: &ModelConfig) -> (PageLayout, PageLayout) {
    let host = page_layout(config, &Device::Cpu);
    (host.clone(), PageLayout { form: DEVICE, ..host })
}
