//! Immutable weights as the file stores them, shared behind `Arc`; each executor packs its own copy from here.
//!
//! Anything that could make a model compute something else than it was trained for (an unknown tensor, a rotary
//! scaling, a bias) is refused by name when the file is opened: a wrong answer is worse than none.

use std::{
    borrow::Cow,
    collections::HashSet,
    ops::Range,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    Architecture, BlockType, ChatTemplate, Error, Linear, ModelConfig, NormKind, QkNorm, Result, RopeLayout, Scales,
    Tokenizer,
    architectures::TensorNames,
    gguf::{Gguf, Value},
    safetensors::SafetensorsFolder,
};

mod gguf_config;
mod hf_config;
mod summary;
mod to_gguf;

pub(crate) use gguf_config::GgufKeys;
pub(crate) use hf_config::HfConfig;
pub use summary::ModelSummary;

/// Reports everything that a folder lacks at once, so that a wrong folder is recognised as no model.
fn check_folder(path: &Path) -> Result<()> {
    let has = |name: &str| path.join(name).is_file();
    let mut entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let weights = entries.any(|entry| entry.path().extension().is_some_and(|extension| extension == "safetensors"));
    // Code that computes and reads no text needs no tokenizer.
    if has("config.json") && weights {
        return Ok(());
    }
    let needed =
        [("config.json", has("config.json")), ("tokenizer.json", has("tokenizer.json")), ("*.safetensors", weights)];
    let missing: Vec<_> = needed.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
    let hint = if has("adapter_config.json") {
        "this is an adapter's folder; name the base it was trained on"
    } else {
        "name a `.gguf` file, or a folder as Hugging Face holds a model"
    };
    Err(Error::model_file(path, format!("the folder has no {} (hint: {hint})", missing.join(", no "))))
}

/// Refuses what is a GGUF file and no language model, by the file's own word for it.
fn check_type(gguf: &Gguf) -> Result<()> {
    let (what, hint) = match gguf.get("general.type") {
        Some(Value::String(kind)) if kind == "adapter" => (
            "an adapter",
            "name the base it was trained on; `elenchus adapter import` makes a folder of it that a character can use",
        ),
        Some(Value::String(kind)) if kind == "mmproj" => ("a projector for images", "name the language model's file"),
        Some(Value::String(kind)) if kind == "imatrix" => ("an importance matrix", "name the language model's file"),
        _ => return Ok(()),
    };
    Err(Error::model_file(gguf.path(), format!("it is {what}, not a model (hint: {hint})")))
}

/// Bytes hashed between two reports of progress.
const HASH_CHUNK: usize = 4 << 20;

/// A tensor's name, independent of the file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorName {
    /// `(vocab_size, hidden_size)`.
    TokenEmbedding,
    /// Added to a token's, `(max_positions, hidden_size)`, in families without rotary embedding.
    PositionEmbedding,
    /// The norm before the head, `(hidden_size)`.
    OutputNorm,
    /// What it adds in LayerNorm, `(hidden_size)`.
    OutputNormBias,
    /// The head, `(vocab_size, hidden_size)`; falls back to the embedding if a model ties the two.
    Output,
    /// The norm before attention of a layer.
    AttentionNorm(usize),
    /// What it adds in LayerNorm.
    AttentionNormBias(usize),
    /// The norm before the feed-forward part of a layer.
    FfnNorm(usize),
    /// What it adds in LayerNorm.
    FfnNormBias(usize),
    /// The norm of what attention of a layer adds.
    PostAttentionNorm(usize),
    /// The norm of what the feed-forward part of a layer adds.
    PostFfnNorm(usize),
    /// One of a layer's matrices.
    Linear(usize, Linear),
    /// The bias of its product, `(out_features)`.
    Bias(usize, Linear),
    /// The norm of a layer's queries, `(head_dim)` or as wide as all heads.
    QNorm(usize),
    /// The same of its keys.
    KNorm(usize),
}

/// A tensor's bytes, in the map where the file has its rows as they are needed.
#[derive(Debug, Clone)]
pub struct RawTensor<'a> {
    /// Rows first.
    pub shape: Vec<usize>,
    /// Block type; dense types included.
    pub dtype: BlockType,
    /// The blocks, row by row, little-endian. Their address may have any alignment.
    pub bytes: Cow<'a, [u8]>,
}

impl RawTensor<'_> {
    /// Some of its rows. A vector's rows are its numbers, and no blocks.
    fn rows(self, rows: Range<usize>) -> Self {
        let bytes = self.bytes.len() / self.shape[0];
        let part = rows.start * bytes..rows.end * bytes;
        let mut shape = self.shape;
        shape[0] = rows.len();
        let bytes = match self.bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[part]),
            Cow::Owned(bytes) => Cow::Owned(bytes[part].to_vec()),
        };
        Self { shape, dtype: self.dtype, bytes }
    }

    /// Some columns of a matrix of single numbers, as rows.
    fn columns(self, columns: Range<usize>) -> Self {
        let (height, width) = (self.shape[0], self.shape[1]);
        let size = self.dtype.type_size();
        let number = |row: usize, column: usize| &self.bytes[(row * width + column) * size..][..size];
        let bytes = columns.clone().flat_map(|column| (0..height).flat_map(move |row| number(row, column)));
        Self { shape: vec![columns.len(), height], dtype: self.dtype, bytes: Cow::Owned(bytes.copied().collect()) }
    }

    /// Its numbers, row by row.
    pub fn dequantise(&self) -> Vec<f32> {
        self.dtype.dequantise(&self.bytes)
    }
}

/// A mapped GGUF file or Hugging Face folder.
pub struct Weights {
    config: ModelConfig,
    tied: bool,
    /// Whether the names in a folder begin as those of a model without a head do: `h.0` in place of `transformer.h.0`.
    is_bare: bool,
    source: Source,
    hash: [u8; 32],
    path: PathBuf,
}

enum Source {
    Gguf(Gguf),
    Folder(SafetensorsFolder),
}

impl Weights {
    /// Opens a `.gguf` file (the first of a split one opens all), or a folder with `config.json` and `*.safetensors`.
    /// Reads every byte once to hash it; `progress` is called with the share read, 0 to 1.
    ///
    /// The files are mapped, not copied, for as long as the weights live: nobody may write to them meanwhile. A new version
    /// is written beside the old one and renamed.
    pub fn open(path: &Path, progress: &mut dyn FnMut(f32)) -> Result<Self> {
        let mut weights = Self::open_unhashed(path)?;
        weights.hash = weights.source.hash(progress);
        Ok(weights)
    }

    /// [`Self::open`] but for the hash.
    fn open_unhashed(path: &Path) -> Result<Self> {
        let (config, tied, source) = if path.is_dir() {
            check_folder(path)?;
            let (config, tied) = hf_config::read(path)?;
            (config, tied, Source::Folder(SafetensorsFolder::open(path)?))
        } else {
            let gguf = Gguf::open(path)?;
            check_type(&gguf)?;
            let config = gguf_config::read(&gguf)?;
            let tied = gguf.tensor(&config.architecture.gguf_names.name(TensorName::Output)).is_none();
            (config, tied, Source::Gguf(gguf))
        };
        let mut weights = Self { config, tied, is_bare: false, source, hash: [0; 32], path: path.to_owned() };
        weights.is_bare = weights.has_bare_names();
        weights.check_tensors()?;
        Ok(weights)
    }

    /// The architecture.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// SHA-256 of the file (of a folder or a split file: of its weight files' hashes, in name order).
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// [`Self::hash`] in hex, as characters and save games name a base.
    pub fn sha256(&self) -> String {
        crate::hex(&self.hash)
    }

    /// Bytes of its weight files.
    pub fn file_bytes(&self) -> usize {
        self.source.files().iter().map(|file| file.len()).sum()
    }

    /// The path it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tokenizer of the file or folder.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = match &self.source {
            Source::Gguf(gguf) => Tokenizer::from_gguf(gguf)?,
            Source::Folder(_) => Tokenizer::from_folder(&self.path)?,
        };
        let (ids, rows) = (tokenizer.vocab_size(), self.config.vocab_size);
        if ids > rows {
            let reason = format!("its vocabulary has {ids} tokens, but the embedding table only {rows} rows");
            return Err(Error::model_file(&self.path, reason));
        }
        Ok(tokenizer)
    }

    /// The chat template of the file or folder.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        match &self.source {
            Source::Gguf(gguf) => ChatTemplate::from_gguf(gguf),
            Source::Folder(_) => ChatTemplate::from_folder(&self.path),
        }
    }

    /// A tensor, its shape checked against the configuration.
    pub fn tensor(&self, name: TensorName) -> Result<RawTensor<'_>> {
        let (tensor, rows) = self.find(name)?;
        Ok(if self.is_transposed(name) { tensor.columns(rows) } else { tensor.rows(rows) })
    }

    /// Whether the head is the embedding.
    pub fn is_tied(&self) -> bool {
        self.tied
    }

    fn is_transposed(&self, name: TensorName) -> bool {
        self.names().is_transposed && matches!(name, TensorName::Linear(..))
    }

    /// The tensor of the file that holds a tensor, and which of its rows do: of its columns, if it is transposed.
    fn find(&self, name: TensorName) -> Result<(RawTensor<'_>, Range<usize>)> {
        let name = if self.tied && name == TensorName::Output { TensorName::TokenEmbedding } else { name };
        let own_name = self.own_name(name);
        let tensor = self.source.tensor(&own_name)?.ok_or_else(|| {
            Error::model_file(&self.path, format!("tensor `{own_name}` is missing (hint: an incomplete file?)"))
        })?;
        let mut expected = name.shape(&self.config);
        let mut rows = 0..expected[0];
        if let TensorName::Linear(_, linear) | TensorName::Bias(_, linear) = name {
            let height = |linear: Linear| linear.shape(&self.config).0;
            let fused = self.names().fused(linear);
            let before: usize = fused.iter().take_while(|&&part| part != linear).map(|&part| height(part)).sum();
            rows = before..before + expected[0];
            expected[0] = fused.into_iter().map(height).sum();
        }
        if self.is_transposed(name) {
            expected.reverse();
        }
        if tensor.shape != expected {
            let reason =
                format!("tensor `{own_name}` is {:?}, but the configuration asks for {expected:?}", tensor.shape);
            return Err(Error::model_file(&self.path, reason));
        }
        if (expected.len() == 1 || self.is_transposed(name)) && !tensor.dtype.is_dense() {
            let reason =
                format!("tensor `{own_name}` is in blocks of {:?}, but must be in single numbers", tensor.dtype);
            return Err(Error::model_file(&self.path, reason));
        }
        Ok((tensor, rows))
    }

    /// The weight of a norm, as what is normed is multiplied by it: some families' folders store the difference to 1.
    pub fn norm(&self, name: TensorName) -> Result<Vec<f32>> {
        let mut weight = self.tensor(name)?.dequantise();
        if matches!(self.source, Source::Folder(_)) {
            weight.iter_mut().for_each(|weight| *weight += self.config.architecture.hf_norm_offset);
        }
        Ok(weight)
    }

    /// What a norm adds; `None` in RMSNorm.
    pub fn norm_bias(&self, name: TensorName) -> Result<Option<Vec<f32>>> {
        match (self.config.norm, name.norm_bias()) {
            (NormKind::LayerNorm, Some(bias)) => Ok(Some(self.tensor(bias)?.dequantise())),
            _ => Ok(None),
        }
    }

    fn names(&self) -> &'static TensorNames {
        match self.source {
            Source::Gguf(_) => self.config.architecture.gguf_names,
            Source::Folder(_) => self.config.architecture.hf_names,
        }
    }

    fn own_name(&self, name: TensorName) -> String {
        let own_name = self.names().name(name);
        match own_name.split_once('.') {
            // A model without its head is saved without its first name.
            Some((first, rest)) if self.is_bare && self.names().block.starts_with(first) => rest.to_owned(),
            _ => own_name,
        }
    }

    fn has_bare_names(&self) -> bool {
        let embedding = self.own_name(TensorName::TokenEmbedding);
        let has = |name: &str| self.source.names().any(|other| other == name);
        matches!(self.source, Source::Folder(_))
            && !has(&embedding)
            && embedding.split_once('.').is_some_and(|(_, bare)| has(bare))
    }

    /// Checks that every required tensor is present, and that no tensor is present that this crate would ignore.
    fn check_tensors(&self) -> Result<()> {
        let names = TensorName::all(&self.config);
        for &name in &names {
            self.find(name)?;
        }
        let mut known: HashSet<String> = names.iter().map(|&name| self.own_name(name)).collect();
        if matches!(self.source, Source::Gguf(_)) {
            known.insert(gguf_config::ROPE_FACTORS.to_owned());
            if self.config.architecture.has_long_rope {
                known.extend(gguf_config::LONG_ROPE_FACTORS.map(str::to_owned));
            }
        }
        for name in self.source.names() {
            let is_buffer = self.config.architecture.hf_buffers.iter().any(|&end| name.ends_with(end));
            if !known.contains(name) && !is_buffer {
                return Err(Error::Unsupported {
                    what: format!("{}: tensor `{name}`", self.path.display()),
                    hint: format!(
                        "models of these architectures, without experts, can be run: {}",
                        Architecture::known()
                    ),
                });
            }
        }
        Ok(())
    }
}

impl Source {
    fn tensor(&self, own_name: &str) -> Result<Option<RawTensor<'_>>> {
        match self {
            Self::Gguf(gguf) => Ok(gguf.tensor(own_name).map(|(info, bytes)| RawTensor {
                shape: info.shape.clone(),
                dtype: info.dtype,
                bytes: Cow::Borrowed(bytes),
            })),
            Self::Folder(folder) => folder.tensor(own_name),
        }
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Gguf(gguf) => Box::new(gguf.tensors().iter().map(|(name, _)| name.as_str())),
            Self::Folder(folder) => Box::new(folder.names()),
        }
    }

    fn files(&self) -> Vec<&[u8]> {
        match self {
            Self::Gguf(gguf) => gguf.parts().collect(),
            Self::Folder(folder) => folder.files().iter().map(|file| &**file).collect(),
        }
    }

    fn hash(&self, progress: &mut dyn FnMut(f32)) -> [u8; 32] {
        let files = self.files();
        let total = files.iter().map(|file| file.len()).sum();
        let mut done = 0;
        let mut hash = |bytes| hash_bytes(bytes, &mut done, total, progress);
        match (self, files.as_slice()) {
            (Self::Gguf(_), [file]) => hash(file),
            _ => files.into_iter().fold(Sha256::new(), |all, file| all.chain_update(hash(file))).finalize().into(),
        }
    }
}

fn hash_bytes(bytes: &[u8], done: &mut usize, total: usize, progress: &mut dyn FnMut(f32)) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for chunk in bytes.chunks(HASH_CHUNK) {
        hasher.update(chunk);
        *done += chunk.len();
        progress((*done as f64 / total as f64) as f32);
    }
    hasher.finalize().into()
}

impl TensorName {
    /// What a norm adds, as a tensor of LayerNorm.
    fn norm_bias(self) -> Option<Self> {
        match self {
            Self::OutputNorm => Some(Self::OutputNormBias),
            Self::AttentionNorm(layer) => Some(Self::AttentionNormBias(layer)),
            Self::FfnNorm(layer) => Some(Self::FfnNormBias(layer)),
            _ => None,
        }
    }

    /// Every tensor of a model.
    pub fn all(config: &ModelConfig) -> Vec<Self> {
        let mut names = vec![Self::TokenEmbedding, Self::OutputNorm, Self::Output];
        names.extend(config.has_position_embedding.then_some(Self::PositionEmbedding));
        for (layer, block) in config.layers.iter().enumerate() {
            if block.norms.is_before() {
                names.extend([Self::AttentionNorm(layer), Self::FfnNorm(layer)]);
            }
            if block.norms.is_after() {
                names.extend([Self::PostAttentionNorm(layer), Self::PostFfnNorm(layer)]);
            }
            names.extend(block.linears().map(|linear| Self::Linear(layer, linear)));
            let biased = block.linears().filter(|&linear| block.biases[linear as usize]);
            names.extend(biased.map(|linear| Self::Bias(layer, linear)));
            if block.qk_norm.is_some() {
                names.extend([Self::QNorm(layer), Self::KNorm(layer)]);
            }
        }
        if config.norm == NormKind::LayerNorm {
            let biases: Vec<Self> = names.iter().filter_map(|name| name.norm_bias()).collect();
            names.extend(biases);
        }
        names
    }

    /// The shape in a model of this configuration, rows first.
    pub(crate) fn shape(self, config: &ModelConfig) -> Vec<usize> {
        match self {
            Self::TokenEmbedding | Self::Output => vec![config.vocab_size, config.hidden_size],
            Self::PositionEmbedding => vec![config.max_positions, config.hidden_size],
            Self::OutputNorm
            | Self::OutputNormBias
            | Self::AttentionNormBias(_)
            | Self::FfnNormBias(_)
            | Self::AttentionNorm(_)
            | Self::FfnNorm(_)
            | Self::PostAttentionNorm(_)
            | Self::PostFfnNorm(_) => vec![config.hidden_size],
            Self::Linear(_, linear) => {
                let (rows, columns) = linear.shape(config);
                vec![rows, columns]
            }
            Self::Bias(_, linear) => vec![linear.shape(config).0],
            Self::QNorm(layer) | Self::KNorm(layer) if config.layers[layer].qk_norm != Some(QkNorm::Whole) => {
                vec![config.head_dim]
            }
            Self::QNorm(_) => vec![config.q_dim()],
            Self::KNorm(_) => vec![config.kv_dim()],
        }
    }
}

/// An upper limit for a sane model's layers.
const MOST_LAYERS: usize = 1 << 10;

/// Checked before anything is allocated for each layer.
fn check_num_layers(layers: usize) -> Result<(), String> {
    if layers == 0 || layers > MOST_LAYERS {
        return Err(format!("the number of layers is {layers}; 1 to {MOST_LAYERS} is possible"));
    }
    Ok(())
}

/// Upper limits for a sane model, whatever its file says. The bounds leave an order of magnitude above the largest
/// Llama, and keep every later product of two sizes far from overflow.
fn check_config(config: &ModelConfig) -> Result<(), String> {
    for (name, size, most) in [
        ("vocabulary size", config.vocab_size, 1 << 22),
        ("hidden size", config.hidden_size, 1 << 18),
        ("intermediate size", config.intermediate_size, 1 << 20),
        ("number of heads", config.num_heads, 1 << 12),
        ("number of key/value heads", config.num_kv_heads, 1 << 12),
        ("head dimension", config.head_dim, 1 << 12),
        ("context length", config.max_positions, 1 << 26),
    ]
    .into_iter()
    .chain(config.layers.iter().map(|layer| ("sliding window", layer.sliding_window.unwrap_or(1), 1 << 26)))
    {
        if size == 0 || size > most {
            return Err(format!("the {name} is {size}; 1 to {most} is possible"));
        }
    }
    if !config.num_heads.is_multiple_of(config.num_kv_heads) {
        let (heads, kv_heads) = (config.num_heads, config.num_kv_heads);
        return Err(format!("{heads} heads cannot share {kv_heads} key/value heads evenly"));
    }
    if !config.head_dim.is_multiple_of(2) {
        return Err(format!("the head dimension {} is odd, but rotary embedding pairs dimensions", config.head_dim));
    }
    let Scales { embedding, attention, residual, logits } = config.scales;
    let numbers = [
        ("epsilon of the norms", config.norm_eps),
        ("scale of embeddings", embedding),
        ("scale of attention", attention.unwrap_or(1.0)),
        ("scale of the residual stream", residual),
        ("scale of the logits", logits),
        ("magnitude of the rotary embedding", config.rope_magnitude),
    ];
    let bases = config.layers.iter().filter_map(|layer| Some(("rotary base", layer.rope_theta?)));
    let caps = config.layers.iter().filter_map(|layer| Some(("cap of attention scores", layer.attention_cap?)));
    let caps = caps.chain(config.logit_cap.map(|cap| ("cap of the logits", cap)));
    let scalings = config.layers.iter().map(|layer| ("rotary scaling", layer.rope_scaling));
    let factors = config.rope_factors.iter().map(|&factor| ("rotary factor", factor));
    for (name, number) in numbers.into_iter().chain(bases).chain(caps).chain(scalings).chain(factors) {
        if !(number.is_finite() && number > 0.0) {
            return Err(format!("the {name} is {number}, but must be a positive number"));
        }
    }
    if config.norm == NormKind::LayerNorm && config.layers.iter().any(|layer| layer.norms.is_after()) {
        return Err("a LayerNorm after a part is not supported".into());
    }
    let ModelConfig { head_dim, rotary_dim, rope_layout, .. } = *config;
    if rotary_dim == 0 || rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
        return Err(format!("{rotary_dim} dimensions of heads of {head_dim} rotate; an even part of a head can"));
    }
    if rope_layout == RopeLayout::Interleaved && rotary_dim != head_dim {
        return Err(format!("{rotary_dim} dimensions of heads of {head_dim} rotate, in a file that interleaves them"));
    }
    if ![0, rotary_dim / 2].contains(&config.rope_factors.len()) {
        let (factors, half) = (config.rope_factors.len(), rotary_dim / 2);
        return Err(format!("there are {factors} rotary factors, but {half} pairs of a head's dimensions rotate"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
