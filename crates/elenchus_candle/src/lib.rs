//! The model on candle tensors, on any device: the reference, the trainer's forward and the GPU path.
//!
//! Rows of a batch are concatenated, so that every product runs once over all of them; only attention and adapters
//! handle each row separately. Products with quantised weights are candle's own.

mod adapter;
mod cache;
mod device;
mod matrix;
mod norms;
mod ops;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod train;

use std::sync::Arc;

use candle_core::{Device, Tensor};

use self::{
    adapter::{PreparedAdapter, Span, prepare, segments},
    matrix::{Matrix, dense},
    norms::{Norm, Norms},
    ops::{Rotation, Sequence, activated, add_lora, cached_attention, gated_unit, head_norm, rope, soft_cap},
};
use elenchus_lm::{
    Adapter, AdapterStore, Error, Executor, KvCache, Linear, Logits, ModelConfig, Numerics, PageLayout, PagesHeld,
    Result, Row, TensorName, Weights, check_batch,
};

pub use device::open_device;
pub use ops::Activations;
pub use train::{LoraDropout, PackedSequences, Segment, TrainableLora, TrainablePair};

/// In the form of the engine's other errors.
fn refused(error: candle_core::Error) -> Error {
    Error::Tensors(Box::new(error))
}

/// Runs a model on candle tensors.
///
/// On the CPU, candle's quantised products use their own process-wide pool (`CANDLE_NUM_THREADS`, by default one
/// thread a core), whatever pool this is called from; the other steps use the caller's rayon pool.
pub struct CandleExecutor {
    config: ModelConfig,
    device: Device,
    layout: PageLayout,
    held: PagesHeld,
    embedding: Arc<Matrix>,
    /// What each position adds to its token's embedding, `(max_positions, hidden_size)`.
    positions: Option<Tensor>,
    layers: Vec<Layer>,
    output_norm: Norm,
    output: Arc<Matrix>,
    adapters: AdapterStore<PreparedAdapter>,
}

struct Layer {
    norms: Norms,
    /// In the order of [`Linear::ALL`]; `None` for what the layer does not have.
    linears: [Option<Arc<Matrix>>; 7],
    /// Biases of their products, `(out_features)`.
    biases: [Option<Tensor>; 7],
    /// The norms of q and of k, `(head_dim)` or as wide as all heads.
    qk_norm: Option<[Tensor; 2]>,
}

impl CandleExecutor {
    /// Packs weights for a device.
    pub fn new(weights: &Weights, device: &Device, numerics: Numerics) -> Result<Self> {
        let config = weights.config().clone();
        let matrix = |name| Matrix::load(&weights.tensor(name)?, device, numerics).map_err(refused);
        let vector = |name| dense(&weights.tensor(name)?, device).map_err(refused);
        let embedding = Arc::new(matrix(TensorName::TokenEmbedding)?);
        let output = if weights.is_tied() { embedding.clone() } else { Arc::new(matrix(TensorName::Output)?) };
        let bias = |layer: usize, linear: Linear| match config.layers[layer].biases[linear as usize] {
            true => vector(TensorName::Bias(layer, linear)).map(Some),
            false => Ok(None),
        };
        let layers = (0..config.num_layers())
            .map(|layer| {
                let spec = &config.layers[layer];
                let biases = Linear::ALL.map(|linear| bias(layer, linear));
                let linears = Linear::ALL.map(|linear| match spec.has(linear) {
                    true => matrix(TensorName::Linear(layer, linear)).map(|matrix| Some(Arc::new(matrix))),
                    false => Ok(None),
                });
                let [q, k, v, o, gate, up, down] = linears;
                Ok(Layer {
                    qk_norm: match spec.qk_norm {
                        Some(_) => {
                            let norm = |name| Ok::<_, Error>(Norm::load(weights, name, device)?.weight);
                            Some([norm(TensorName::QNorm(layer))?, norm(TensorName::KNorm(layer))?])
                        }
                        None => None,
                    },
                    norms: Norms::load(weights, layer, device)?,
                    linears: [q?, k?, v?, o?, gate?, up?, down?],
                    biases: {
                        let [q, k, v, o, gate, up, down] = biases;
                        [q?, k?, v?, o?, gate?, up?, down?]
                    },
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            layout: cache::page_layout(&config, device),
            held: PagesHeld::default(),
            device: device.clone(),
            embedding,
            positions: match config.has_position_embedding {
                true => Some(vector(TensorName::PositionEmbedding)?),
                false => None,
            },
            layers,
            // A scale of the logits is one of what the head reads.
            output_norm: Norm::load(weights, TensorName::OutputNorm, device)?
                .scaled(config.scales.logits)
                .map_err(refused)?,
            output,
            adapters: AdapterStore::default(),
            config,
        })
    }

    /// The device of the weights.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes the packed weights take.
    pub fn weight_bytes(&self) -> usize {
        let linears = self.layers.iter().flat_map(|layer| layer.linears.iter().flatten());
        let linears = linears.map(|linear| linear.bytes()).sum::<usize>();
        let of_layer = |layer: &Layer| -> usize {
            let others = layer.qk_norm.iter().flatten().chain(layer.biases.iter().flatten());
            layer.norms.numbers() + others.map(Tensor::elem_count).sum::<usize>()
        };
        let positions = self.positions.as_ref().map_or(0, Tensor::elem_count);
        let vectors = self.layers.iter().map(of_layer).sum::<usize>() + self.output_norm.numbers() + positions;
        let head = if Arc::ptr_eq(&self.embedding, &self.output) { 0 } else { self.output.bytes() };
        linears + vectors * size_of::<f32>() + self.embedding.bytes() + head
    }

    fn prepared(&self, adapter: &Adapter) -> Result<Arc<PreparedAdapter>> {
        self.adapters.get(adapter, &self.config, |adapter| prepare(adapter, &self.config, &self.device))
    }

    /// The adapters of the concatenated rows.
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
        let Some(matrix) = &self.layers[layer].linears[linear as usize] else {
            candle_core::bail!("layer {layer} has no {linear}")
        };
        let mut y = matrix.forward(x)?;
        if let Some(bias) = &self.layers[layer].biases[linear as usize] {
            y = y.broadcast_add(bias)?;
        }
        add_lora(y, x, &segments(spans, layer, linear))
    }

    /// One block: `x` `(rows, hidden_size)` to the same; appends keys and values to each row's cache.
    fn block(
        &self,
        x: Tensor,
        layer: usize,
        batch: &mut [Row<'_>],
        rotation: &Rotation,
        spans: &[Span],
    ) -> candle_core::Result<Tensor> {
        let (eps, spec) = (self.config.norm_eps, &self.config.layers[layer]);
        let Layer { norms, qk_norm, .. } = &self.layers[layer];
        let h = norms.read(&x, 0, eps)?;
        let [q, k] = [Linear::Q, Linear::K].map(|linear| self.linear(&h, layer, linear, spans));
        let (mut q, mut k) = (q?, k?);
        if let Some([q_norm, k_norm]) = qk_norm {
            (q, k) = (head_norm(&q, q_norm, eps)?, head_norm(&k, k_norm, eps)?);
        }
        let (q, k) = (rope(&q, rotation)?, rope(&k, rotation)?);
        let v = self.linear(&h, layer, Linear::V, spans)?;
        self.write(layer, batch, &k, &v)?;
        let sequences: Vec<Sequence<'_>> =
            batch.iter().map(|row| Sequence { cache: row.cache, tokens: row.tokens.len() }).collect();
        let residual = self.config.scales.residual;
        let attended = scaled(cached_attention(&q, &self.config, layer, &sequences)?, residual)?;
        let x = (x + norms.added(self.linear(&attended, layer, Linear::O, spans)?, 0, eps)?)?;

        let h = norms.read(&x, 1, eps)?;
        let up = self.linear(&h, layer, Linear::Up, spans)?;
        let inner = match spec.is_gated {
            true => gated_unit(&self.linear(&h, layer, Linear::Gate, spans)?, &up, spec.activation)?,
            false => activated(&up, spec.activation)?,
        };
        let inner = scaled(inner, residual)?;
        x + norms.added(self.linear(&inner, layer, Linear::Down, spans)?, 1, eps)?
    }

    /// `(tokens, hidden_size)`.
    fn embed(&self, tokens: &[u32], positions: &[usize]) -> candle_core::Result<Tensor> {
        let x = scaled(self.embedding.embed(&Tensor::new(tokens, &self.device)?)?, self.config.scales.embedding)?;
        match &self.positions {
            Some(table) => {
                let positions = Tensor::from_iter(positions.iter().map(|&position| position as u32), &self.device)?;
                x + table.index_select(&positions, 0)?
            }
            None => Ok(x),
        }
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

/// Multiplied by a constant that is 1 in most families.
fn scaled(x: Tensor, by: f32) -> candle_core::Result<Tensor> {
    if by == 1.0 { Ok(x) } else { x * f64::from(by) }
}

impl Executor for CandleExecutor {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn new_cache(&self) -> KvCache {
        KvCache::new(self.layout.clone(), &self.held)
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
        let mut x = self.embed(&ids, &positions)?;
        for (layer, rotation) in rotations.iter().enumerate() {
            x = self.block(x, layer, batch, rotation, spans)?;
        }
        let logits = self.head(&x, batch)?;
        for row in batch {
            row.cache.advance(row.tokens.len());
        }
        Ok(logits)
    }

    /// Logits of the requested positions, row by row.
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
        let x = self.output_norm.of(&x, self.config.norm_eps)?;
        let logits = soft_cap(self.output.forward(&x)?, self.config.logit_cap)?;
        let mut logits = logits.flatten_all()?.to_vec1::<f32>()?.into_iter();
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
