//! The model on candle tensors, on any device: the oracle, the trainer's forward and the GPU path.
//!
//! Rows of a batch are laid end to end, so that every product runs once over all of them; only attention and adapters
//! look at a row by itself. Products with quantised weights are candle's own.

mod adapter;
mod cache;
mod device;
mod matrix;
mod ops;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod train;

use std::sync::Arc;

use candle_core::{Device, Tensor};

use self::{
    adapter::{PreparedAdapter, Span, prepare, segments},
    matrix::{Matrix, dense},
    ops::{Rotation, Sequence, add_lora, cached_attention, rms_norm, rope, swiglu},
};
use elenchus_lm::{
    Adapter, AdapterStore, Error, Executor, KvCache, Linear, Logits, ModelConfig, Numerics, PageLayout, Result, Row,
    TensorName, Weights, check_batch,
};

pub use device::open_device;
pub use ops::Activations;
pub use train::{LoraDropout, PackedSequences, Segment, TrainableLora, TrainablePair};

/// As the rest of the engine reports it.
fn refused(error: candle_core::Error) -> Error {
    Error::Tensors(Box::new(error))
}

/// Runs a model on candle tensors.
///
/// On the CPU, candle's quantised products use a process-wide pool of its own (`CANDLE_NUM_THREADS`, by default one
/// thread a core), whatever pool this is called from; the other steps use the caller's rayon pool.
pub struct CandleExecutor {
    config: ModelConfig,
    device: Device,
    layout: PageLayout,
    embedding: Arc<Matrix>,
    layers: Vec<Layer>,
    output_norm: Tensor,
    output: Arc<Matrix>,
    adapters: AdapterStore<PreparedAdapter>,
}

struct Layer {
    attention_norm: Tensor,
    ffn_norm: Tensor,
    /// In the order of [`Linear::ALL`].
    linears: [Arc<Matrix>; 7],
    /// What is added to their products, `(out_features)`.
    biases: [Option<Tensor>; 7],
}

impl CandleExecutor {
    /// Packs weights for a device.
    pub fn new(weights: &Weights, device: &Device, numerics: Numerics) -> Result<Self> {
        let config = weights.config().clone();
        let matrix = |name| Matrix::load(&weights.tensor(name)?, device, numerics).map_err(refused);
        let vector = |name| dense(&weights.tensor(name)?, device).map_err(refused);
        let embedding = Arc::new(matrix(TensorName::TokenEmbedding)?);
        let is_tied =
            std::ptr::eq(weights.tensor(TensorName::TokenEmbedding)?.bytes, weights.tensor(TensorName::Output)?.bytes);
        let output = if is_tied { embedding.clone() } else { Arc::new(matrix(TensorName::Output)?) };
        let bias = |layer: usize, linear: Linear| match config.layers[layer].biases[linear as usize] {
            true => vector(TensorName::Bias(layer, linear)).map(Some),
            false => Ok(None),
        };
        let layers = (0..config.num_layers())
            .map(|layer| {
                let biases = Linear::ALL.map(|linear| bias(layer, linear));
                let [q, k, v, o, gate, up, down] = Linear::ALL.map(|linear| matrix(TensorName::Linear(layer, linear)));
                Ok(Layer {
                    attention_norm: vector(TensorName::AttentionNorm(layer))?,
                    ffn_norm: vector(TensorName::FfnNorm(layer))?,
                    linears: [q?, k?, v?, o?, gate?, up?, down?].map(Arc::new),
                    biases: {
                        let [q, k, v, o, gate, up, down] = biases;
                        [q?, k?, v?, o?, gate?, up?, down?]
                    },
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            layout: cache::page_layout(&config, device),
            device: device.clone(),
            embedding,
            layers,
            output_norm: vector(TensorName::OutputNorm)?,
            output,
            adapters: AdapterStore::default(),
            config,
        })
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes the packed weights take.
    pub fn weight_bytes(&self) -> usize {
        let linears = self.layers.iter().flat_map(|layer| &layer.linears).map(|linear| linear.bytes()).sum::<usize>();
        let norms = (2 * self.layers.len() + 1) * self.config.hidden_size * size_of::<f32>();
        let head = if Arc::ptr_eq(&self.embedding, &self.output) { 0 } else { self.output.bytes() };
        linears + norms + self.embedding.bytes() + head
    }

    fn prepared(&self, adapter: &Adapter) -> Result<Arc<PreparedAdapter>> {
        self.adapters.get(adapter, &self.config, |adapter| prepare(adapter, &self.config, &self.device))
    }

    /// Which rows of the stacked batch wear what.
    fn spans(&self, batch: &[Row<'_>]) -> Result<Vec<Span>> {
        let mut spans: Vec<Span> = Vec::new();
        let mut next = 0;
        for row in batch {
            let rows = next..next + row.tokens.len();
            next = rows.end;
            let Some(adapter) = row.adapter.filter(|adapter| adapter.scale != 0.0) else { continue };
            let adapter = self.prepared(adapter)?;
            match spans.last_mut() {
                Some(last) if last.rows.end == rows.start && Arc::ptr_eq(&last.adapter, &adapter) => {
                    last.rows.end = rows.end;
                }
                _ => spans.push(Span { rows, adapter }),
            }
        }
        Ok(spans)
    }

    fn linear(&self, x: &Tensor, layer: usize, linear: Linear, spans: &[Span]) -> candle_core::Result<Tensor> {
        let mut y = self.layers[layer].linears[linear as usize].forward(x)?;
        if let Some(bias) = &self.layers[layer].biases[linear as usize] {
            y = y.broadcast_add(bias)?;
        }
        add_lora(y, x, &segments(spans, layer, linear))
    }

    /// One block: `x` `(rows, hidden_size)` to the same; keys and values go behind each row's cache.
    fn block(
        &self,
        x: Tensor,
        layer: usize,
        batch: &mut [Row<'_>],
        rotation: &Rotation,
        spans: &[Span],
    ) -> candle_core::Result<Tensor> {
        let eps = self.config.rms_norm_eps;
        let h = rms_norm(&x, &self.layers[layer].attention_norm, eps)?;
        let q = rope(&self.linear(&h, layer, Linear::Q, spans)?, rotation)?;
        let k = rope(&self.linear(&h, layer, Linear::K, spans)?, rotation)?;
        let v = self.linear(&h, layer, Linear::V, spans)?;
        self.write(layer, batch, &k, &v)?;
        let sequences: Vec<Sequence<'_>> =
            batch.iter().map(|row| Sequence { cache: row.cache, tokens: row.tokens.len() }).collect();
        let attended = cached_attention(&q, &self.config, layer, &sequences)?;
        let x = (x + self.linear(&attended, layer, Linear::O, spans)?)?;

        let h = rms_norm(&x, &self.layers[layer].ffn_norm, eps)?;
        let gate = self.linear(&h, layer, Linear::Gate, spans)?;
        let up = self.linear(&h, layer, Linear::Up, spans)?;
        x + self.linear(&swiglu(&gate, &up)?, layer, Linear::Down, spans)?
    }

    fn write(&self, layer: usize, batch: &mut [Row<'_>], k: &Tensor, v: &Tensor) -> candle_core::Result<()> {
        let mut next = 0;
        for row in batch {
            let rows = next..next + row.tokens.len();
            next = rows.end;
            let part = |x: &Tensor| x.narrow(0, rows.start, rows.len());
            cache::write(row.cache, layer, &part(k)?, &part(v)?)?;
        }
        Ok(())
    }
}

impl Executor for CandleExecutor {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn new_cache(&self) -> KvCache {
        KvCache::new(self.layout.clone())
    }

    fn cache_bytes_per_token(&self) -> usize {
        self.layout.token_bytes()
    }

    fn prepare(&self, adapter: &Adapter) -> Result<()> {
        self.prepared(adapter).map(drop)
    }

    fn forward(&self, batch: &mut [Row<'_>]) -> Result<Vec<Vec<f32>>> {
        check_batch(batch, &self.config, &self.layout)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let spans = self.spans(batch)?;
        self.run(batch, &spans).map_err(refused)
    }
}

impl CandleExecutor {
    fn run(&self, batch: &mut [Row<'_>], spans: &[Span]) -> candle_core::Result<Vec<Vec<f32>>> {
        for row in batch.iter_mut() {
            cache::reserve(row.cache, row.tokens.len(), &self.device)?;
        }
        let ids: Vec<u32> = batch.iter().flat_map(|row| row.tokens).copied().collect();
        let positions: Vec<usize> =
            batch.iter().flat_map(|row| row.cache.len()..row.cache.len() + row.tokens.len()).collect();
        let rotations = Rotation::of_layers(&self.config, &positions, &self.device)?;
        let mut x = self.embedding.embed(&Tensor::new(ids, &self.device)?)?;
        for (layer, rotation) in rotations.iter().enumerate() {
            x = self.block(x, layer, batch, rotation, spans)?;
        }
        let logits = self.head(&x, batch)?;
        for row in batch {
            row.cache.advance(row.tokens.len());
        }
        Ok(logits)
    }

    /// Logits of the positions that were asked for, row by row.
    fn head(&self, x: &Tensor, batch: &[Row<'_>]) -> candle_core::Result<Vec<Vec<f32>>> {
        let mut next = 0;
        let mut wanted = Vec::new();
        for row in batch {
            let rows = next..next + row.tokens.len() as u32;
            next = rows.end;
            wanted.extend(match row.logits {
                Logits::None => rows.end..rows.end,
                Logits::Last => rows.end - 1..rows.end,
                Logits::All => rows,
            });
        }
        if wanted.is_empty() {
            return Ok(vec![Vec::new(); batch.len()]);
        }
        let x = x.index_select(&Tensor::new(wanted, &self.device)?, 0)?;
        let x = rms_norm(&x, &self.output_norm, self.config.rms_norm_eps)?;
        let mut logits = self.output.forward(&x)?.flatten_all()?.to_vec1::<f32>()?.into_iter();
        let vocab_size = self.config.vocab_size;
        Ok(batch
            .iter()
            .map(|row| match row.logits {
                Logits::None => Vec::new(),
                Logits::Last => logits.by_ref().take(vocab_size).collect(),
                Logits::All => logits.by_ref().take(row.tokens.len() * vocab_size).collect(),
            })
            .collect())
    }
}
