//! A model as a GGUF file of its own, its dense weights quantised: what a game ships.
//!
//! Keys and names are those of llama.cpp's `convert_hf_to_gguf.py`. What was written is opened and compared with what was
//! read: a model that GGUF cannot describe (a window in a family that has none there) is refused, not changed.

use std::{fs, path::Path};

use super::{ModelSummary, Source, TensorName, Weights, gguf_config::ROPE_FACTORS};
use crate::{
    BlockType, Error, Linear, ModelConfig, Result, Scales,
    gguf::{GgufWriter, Value},
    tokenizer,
};

/// A tensor of the file: its name there, and what it holds one after the other, several where a family's file has them in
/// one matrix; nothing for the rotary factors.
struct Written {
    own_name: String,
    parts: Vec<TensorName>,
}

impl Weights {
    /// Writes the model with its tokenizer and chat template as a GGUF file whose matrices are of a type of
    /// [`BlockType::QUANTISABLE`]; `progress` is called with the share written, 0 to 1. The head, or an embedding that is
    /// also the head, gets Q8_0; matrices too narrow for whole blocks get Q5_0 in place of Q4_K, or F16; vectors stay f32.
    ///
    /// # Errors
    /// The model is quantised already, or its tokenizer or architecture cannot be written in GGUF.
    pub fn save_gguf(&self, path: &Path, block_type: BlockType, progress: &mut dyn FnMut(f32)) -> Result<()> {
        if !BlockType::QUANTISABLE.contains(&block_type) {
            return Err(Error::Unsupported {
                what: format!("quantising to {block_type}"),
                hint: format!("{} can be written", BlockType::QUANTISABLE.map(BlockType::name).join(", ")),
            });
        }
        let mut writer = GgufWriter::new();
        for (key, value) in self.gguf_metadata(block_type)? {
            writer.set(key, value);
        }
        let written = self.written()?;
        for tensor in &written {
            let (shape, dtype) = self.described(tensor, block_type)?;
            writer.declare(&tensor.own_name, &shape, dtype);
        }
        let mut done = 0;
        writer.write_streamed(path, &mut |index| {
            let (name, (_, dtype)) = (&written[index].own_name, self.described(&written[index], block_type)?);
            let values = self.values(&written[index])?;
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::model_file(
                    &self.path,
                    format!("tensor `{name}` holds {value} (hint: a damaged model?)"),
                ));
            }
            done += 1;
            progress(done as f32 / written.len() as f32);
            let bytes = dtype.quantise(&values);
            bytes.ok_or_else(|| Error::model_file(&self.path, format!("tensor `{name}` cannot be written as {dtype}")))
        })?;
        let read = Self::open_unhashed(path).and_then(|written| {
            written.tokenizer()?;
            match difference(&self.config, &written.config) {
                None => Ok(()),
                Some(what) => Err(Error::Unsupported {
                    what: format!("{}: {what}, in GGUF,", self.path.display()),
                    hint: "use the folder itself as the base".into(),
                }),
            }
        });
        if read.is_err() {
            fs::remove_file(path).map_err(|source| Error::io(path, source))?;
        }
        read
    }

    /// All tensors of the file.
    fn written(&self) -> Result<Vec<Written>> {
        let mut written: Vec<Written> = Vec::new();
        for name in TensorName::all(&self.config) {
            if self.tied && name == TensorName::Output {
                continue;
            }
            let own_name = self.config.architecture.gguf_names.name(name);
            match written.iter_mut().find(|tensor| tensor.own_name == own_name) {
                Some(fused) => fused.parts.push(name),
                None => written.push(Written { own_name, parts: vec![name] }),
            }
        }
        if !self.config.rope_factors.is_empty() {
            if self.config.architecture.has_long_rope {
                return Err(Error::Unsupported {
                    what: format!("{}: writing LongRoPE's two sets of factors", self.path.display()),
                    hint: "use the folder itself as the base, or convert it with llama.cpp".into(),
                });
            }
            written.push(Written { own_name: ROPE_FACTORS.to_owned(), parts: Vec::new() });
        }
        Ok(written)
    }

    /// Shape and type in the file.
    fn described(&self, written: &Written, block_type: BlockType) -> Result<(Vec<usize>, BlockType)> {
        let Some(&first) = written.parts.first() else {
            return Ok((vec![self.config.rope_factors.len()], BlockType::F32));
        };
        let tensor = self.tensor(first)?;
        if !tensor.dtype.is_dense() && tensor.dtype != BlockType::Q8_0 {
            return Err(Error::Unsupported {
                what: format!("{}: quantising `{}` of {}", self.path.display(), written.own_name, tensor.dtype),
                hint: "each quantisation adds its error; take the model in F32, F16, BF16 or Q8_0".into(),
            });
        }
        let is_head = match first {
            TensorName::Output => true,
            TensorName::TokenEmbedding => self.tied,
            _ => false,
        };
        let mut shape = tensor.shape;
        let columns = shape.last().copied().unwrap_or_default();
        let dtype = match (shape.len(), is_head) {
            (1, _) => BlockType::F32,
            // Small, and added to: llama.cpp quantises none.
            _ if first == TensorName::PositionEmbedding => BlockType::F32,
            // llama.cpp keeps six bits here, and more errors are heard from it than from any other matrix.
            (_, true) => BlockType::Q8_0.for_columns(columns).unwrap_or(BlockType::F16),
            (_, false) => block_type.for_columns(columns).unwrap_or(BlockType::F16),
        };
        shape[0] = written.parts.iter().map(|part| part.shape(&self.config)[0]).sum();
        Ok((shape, dtype))
    }

    /// The numbers as a GGUF file of the family has them.
    fn values(&self, written: &Written) -> Result<Vec<f32>> {
        if written.parts.is_empty() {
            return Ok(self.config.rope_factors.clone());
        }
        Ok(written.parts.iter().map(|&part| self.part_values(part)).collect::<Result<Vec<_>>>()?.concat())
    }

    fn part_values(&self, name: TensorName) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        if matches!(self.source, Source::Gguf(_)) {
            return Ok(tensor.dequantise());
        }
        let is_norm = matches!(
            name,
            TensorName::OutputNorm
                | TensorName::AttentionNorm(_)
                | TensorName::FfnNorm(_)
                | TensorName::PostAttentionNorm(_)
                | TensorName::PostFfnNorm(_)
                | TensorName::QNorm(_)
                | TensorName::KNorm(_)
        );
        let values = if is_norm { self.norm(name)? } else { tensor.dequantise() };
        let config = &self.config;
        let heads = match name {
            TensorName::Linear(_, Linear::Q) | TensorName::Bias(_, Linear::Q) => config.num_heads,
            TensorName::Linear(_, Linear::K) | TensorName::Bias(_, Linear::K) => config.num_kv_heads,
            _ => return Ok(values),
        };
        let in_gguf = ModelConfig { rope_layout: config.architecture.gguf_rope_layout, ..config.clone() };
        let Some(order) = in_gguf.rope_row_order(heads) else { return Ok(values) };
        let columns = values.len() / order.len();
        Ok(order.into_iter().flat_map(|row| &values[row * columns..(row + 1) * columns]).copied().collect())
    }

    fn gguf_metadata(&self, block_type: BlockType) -> Result<Vec<(String, Value)>> {
        let file_type = match block_type {
            BlockType::Q8_0 => 7,
            BlockType::Q4_0 => 2,
            // MOSTLY_Q4_K_S: all matrices in Q4_K.
            _ => 14,
        };
        let file_type = [
            ("general.file_type".to_owned(), Value::Int(file_type)),
            ("general.quantization_version".to_owned(), Value::Int(2)),
        ];
        if let Source::Gguf(gguf) = &self.source {
            let is_own = |key: &str| key.starts_with("split.") || file_type.iter().any(|(own, _)| own == key);
            let kept = gguf.metadata().iter().filter(|(key, _)| !is_own(key)).cloned();
            return Ok(kept.chain(file_type.clone()).collect());
        }
        let config = &self.config;
        let name = config.architecture.name;
        let folder = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let title = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ModelSummary { parameters, .. } = self.summarise()?;
        let mut metadata: Vec<(String, Value)> = vec![
            ("general.architecture".into(), name.into()),
            ("general.type".into(), "model".into()),
            ("general.name".into(), title.as_str().into()),
            ("general.size_label".into(), size_label(parameters).as_str().into()),
        ];
        metadata.extend(file_type);
        let own = |key: &str, value: Value| (format!("{name}.{key}"), value);
        for (key, size) in [
            ("block_count", config.num_layers()),
            ("context_length", config.max_positions),
            ("embedding_length", config.hidden_size),
            ("feed_forward_length", config.intermediate_size),
            ("attention.head_count", config.num_heads),
            ("attention.head_count_kv", config.num_kv_heads),
            ("attention.key_length", config.head_dim),
            ("attention.value_length", config.head_dim),
            ("rope.dimension_count", config.rotary_dim),
            ("vocab_size", config.vocab_size),
        ] {
            metadata.push(own(key, (size as i64).into()));
        }
        metadata.push(own(config.norm.gguf_eps_key(), config.norm_eps.into()));
        metadata.extend(caps(config).into_iter().map(|(key, cap)| own(key, cap.into())));
        metadata.extend(rotary(config).into_iter().map(|(key, value)| own(key, value)));
        let Scales { embedding, attention, residual, logits } = config.scales;
        if name == "granite" {
            for (key, scale) in [
                ("attention.scale", attention.unwrap_or_default()),
                ("embedding_scale", embedding),
                ("residual_scale", residual),
                ("logit_scale", 1.0 / logits),
            ] {
                metadata.push(own(key, scale.into()));
            }
        }
        metadata.extend(tokenizer::gguf_keys(&self.path, config.vocab_size)?);
        Ok(metadata)
    }
}

/// Rotary bases, scaling and windows: one base, or with windows a base for the layers that have one.
fn rotary(config: &ModelConfig) -> Vec<(&'static str, Value)> {
    let with_window = config.layers.iter().find(|layer| layer.sliding_window.is_some());
    let without = config.layers.iter().find(|layer| layer.sliding_window.is_none() && layer.rope_theta.is_some());
    let mut keys = Vec::new();
    if let Some((layer, theta)) = without.or(with_window).and_then(|layer| Some((layer, layer.rope_theta?))) {
        keys.push(("rope.freq_base", theta.into()));
        if layer.rope_scaling != 1.0 {
            keys.extend([("rope.scaling.type", "linear".into()), ("rope.scaling.factor", layer.rope_scaling.into())]);
        }
    }
    // Of a family that GGUF knows with windows; in another the file would be refused. 0 is none.
    if config.architecture.gguf_own_keys.contains(&"attention.sliding_window") {
        let window = with_window.and_then(|layer| layer.sliding_window).unwrap_or(0);
        keys.push(("attention.sliding_window", (window as i64).into()));
        let theta = with_window.and_then(|layer| layer.rope_theta);
        keys.extend(theta.map(|theta| ("rope.freq_base_swa", theta.into())));
    }
    keys
}

/// Caps of attention scores and logits, where there are any.
fn caps(config: &ModelConfig) -> Vec<(&'static str, f32)> {
    let attention = config.layers.iter().find_map(|layer| layer.attention_cap);
    let attention = attention.map(|cap| ("attn_logit_softcapping", cap));
    attention.into_iter().chain(config.logit_cap.map(|cap| ("final_logit_softcapping", cap))).collect()
}

/// What a model computes differently after it was written; `None` if nothing.
fn difference(own: &ModelConfig, written: &ModelConfig) -> Option<String> {
    let near = |a: f32, b: f32| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
    // Not compared: the layout, with which rows were reordered, and the family, because some share a name in GGUF.
    let sizes = |config: &ModelConfig| {
        let ModelConfig { vocab_size, hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim, .. } = *config;
        [vocab_size, hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim, config.max_positions]
    };
    if sizes(own) != sizes(written) || own.num_layers() != written.num_layers() {
        return Some(format!("sizes {:?}", sizes(own)));
    }
    for (number, (a, b)) in own.layers.iter().zip(&written.layers).enumerate() {
        // A window that no context reaches is none.
        let mut a = *a;
        a.sliding_window = a.sliding_window.filter(|&window| window < own.max_positions || b.sliding_window.is_some());
        if a.sliding_window != b.sliding_window {
            let (own, written) = (a.sliding_window, b.sliding_window);
            return Some(format!("layer {number} with a window of {own:?} tokens, which would be {written:?}"));
        }
        if a != *b {
            return Some(format!("layer {number}, which would be {b:?} and not {a:?}"));
        }
    }
    let scales = |config: &ModelConfig| {
        [
            config.scales.embedding,
            config.scales.residual,
            config.scales.logits,
            config.attention_scale(),
            config.norm_eps,
            config.rope_magnitude,
        ]
    };
    let (a, b) = (scales(own), scales(written));
    if !a.iter().zip(b).all(|(&a, b)| near(a, b)) {
        return Some(format!("scales {a:?}, which would be {b:?}"));
    }
    let kinds =
        |config: &ModelConfig| (config.rotary_dim, config.norm, config.logit_cap, config.has_position_embedding);
    if kinds(own) != kinds(written) {
        return Some(format!("norms, caps and positions {:?}, which would be {:?}", kinds(own), kinds(written)));
    }
    let (a, b) = (&own.rope_factors, &written.rope_factors);
    let same = a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| near(a, b));
    (!same).then(|| format!("rotary factors {a:?}, which would be {b:?}"))
}

/// A number of parameters as file names have it: 135M, 1.5B.
fn size_label(parameters: usize) -> String {
    let (scaled, unit) = match parameters {
        0..1_000_000 => (parameters as f64 / 1e3, "K"),
        1_000_000..1_000_000_000 => (parameters as f64 / 1e6, "M"),
        _ => (parameters as f64 / 1e9, "B"),
    };
    if scaled.round() < 10.0 { format!("{scaled:.1}{unit}") } else { format!("{scaled:.0}{unit}") }
}
