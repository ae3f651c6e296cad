//! LoRA adapters, kept beside the base and never merged into it. The format is PEFT's folder; llama.cpp's GGUF file is
//! converted from it and back.
//!
//! An adapter is read without knowing its base: the same value serves a GGUF file, whose q and k rows are in another
//! order, and a Hugging Face folder. Options that cannot be applied exactly (DoRA, trained biases, whole modules) are
//! refused by name rather than ignored.

mod diff;
mod fused;
mod gguf;
mod matrix;
mod merge;
mod packed;
mod peft;

use std::{collections::BTreeMap, fs, io::ErrorKind, path::Path, sync::Arc};

use sha2::{Digest, Sha256};

use crate::{
    Architecture, Error, Linear, ModelConfig, Result,
    architectures::{TensorNames, all_hf_names},
    write_whole,
};

pub use diff::{LoraDiff, Overlap};
pub use matrix::Half;
pub(crate) use packed::{PairPlace, TILE};
pub use peft::tensor_name as peft_tensor_name;

use packed::PackedPairs;

/// An adapter's updates by layer and linear.
type Pairs = BTreeMap<(usize, Linear), LoraPair>;

/// A voice's low-rank update of some linears: `W x + scale * scaling * B (A x)`. Independent of a base until it is
/// used.
#[derive(Debug)]
pub struct LoraAdapter {
    name: String,
    /// How modules are called where it is saved: as in the checkpoints of its base's family.
    names: &'static TensorNames,
    packed: PackedPairs,
    hash: [u8; 32],
}

/// One linear's update, in Hugging Face's row order.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    /// `(rank, in_features)`, row-major.
    pub a: Vec<f32>,
    /// `(out_features, rank)`, row-major.
    pub b: Vec<f32>,
    /// The rank.
    pub rank: usize,
    /// `alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA.
    pub scaling: f32,
}

impl LoraPair {
    /// `(out_features, in_features)` of the linear.
    pub fn shape(&self) -> (usize, usize) {
        (self.b.len() / self.rank, self.a.len() / self.rank)
    }

    /// The alpha that gives this scaling back as `alpha / rank`, to the bit: the one with the fewest decimals.
    fn alpha(&self) -> f64 {
        let rank = self.rank as f64;
        let exact = f64::from(self.scaling) * rank;
        let rounded = |decimals: i32| (exact * 10f64.powi(decimals)).round() / 10f64.powi(decimals);
        (0..=15).map(rounded).find(|alpha| (alpha / rank) as f32 == self.scaling).unwrap_or(exact)
    }
}

/// What to do about a missing file, if the folder's contents tell.
fn missing_hint(folder: &Path, file: &str) -> Option<&'static str> {
    let holds = |name: &str| folder.join(name).exists();
    if file == "adapter_config.json" && holds("adapter_model.safetensors") {
        Some("the weights are there; PEFT and `elenchus train` write both files, so copy this one beside them")
    } else if file == "adapter_model.safetensors" {
        Some("the configuration is there; copy the weights beside it")
    } else if holds("adapter") {
        Some("a run's adapter lies in its folder `adapter`")
    } else {
        None
    }
}

/// Identity of an adapter in use: a hash of its content and its scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(pub [u8; 32]);

/// An adapter with its scale; cheap to clone.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// The weights.
    pub lora: Arc<LoraAdapter>,
    /// Multiplies the update; 1 is as trained.
    pub scale: f32,
}

/// How an adapter's weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Four bytes a weight, as in training.
    F32,
    /// Two bytes a weight, as shipped.
    F16,
}

impl LoraAdapter {
    /// Reads a PEFT folder: `adapter_config.json` and `adapter_model.safetensors`.
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |file: &str| {
            let path = folder.join(file);
            fs::read(&path).map_err(|source| match missing_hint(folder, file) {
                Some(hint) if source.kind() == ErrorKind::NotFound => {
                    Error::adapter(folder.display().to_string(), format!("{file} is missing (hint: {hint})"))
                }
                _ => Error::io(path, source),
            })
        };
        Self::parse(&folder.display().to_string(), &read("adapter_config.json")?, &read("adapter_model.safetensors")?)
    }

    /// Reads the two files' bytes; `name` is what errors call the adapter.
    pub fn parse(name: &str, config_json: &[u8], safetensors: &[u8]) -> Result<Self> {
        let (pairs, names) = peft::read(name, config_json, safetensors)?;
        Ok(Self { names, ..Self::from_pairs(name, pairs) })
    }

    /// An adapter from its updates, as a trainer has them; modules are called as in Llama.
    pub fn from_pairs(name: &str, pairs: BTreeMap<(usize, Linear), LoraPair>) -> Self {
        let hash = hash_pairs(&pairs);
        Self { name: name.to_owned(), names: all_hf_names()[0], packed: PackedPairs::new(&pairs), hash }
    }

    /// The same adapter for a base of this family, which decides how its modules are called where it is saved.
    pub fn for_family(self, architecture: &Architecture) -> Self {
        Self { names: architecture.hf_names, ..self }
    }

    /// Writes the folder as PEFT does. Each file appears whole or not at all (temporary file, then rename), the weights
    /// last, so that a game that watches the folder reads both once they belong together.
    pub fn save(&self, folder: &Path, base_model_name: &str, precision: Precision) -> Result<()> {
        fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
        let modules = fused::modules(&self.pairs(), self.names).map_err(|reason| Error::adapter(&self.name, reason))?;
        let weights = peft::to_safetensors(&self.name, (&modules, self.names), precision)?;
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            write_whole(&path, bytes).map_err(|source| Error::io(&path, source))
        };
        write("adapter_config.json", peft::config(&modules, self.names, base_model_name).as_bytes())?;
        write("adapter_model.safetensors", &weights)
    }

    /// Writes a GGUF file that llama.cpp loads beside a base of this configuration (`--lora`). Its updates are this
    /// adapter's; where pairs differ in alpha, of which the format knows only one, B carries the rest of the scaling.
    pub fn save_gguf(&self, path: &Path, config: &ModelConfig, precision: Precision) -> Result<()> {
        self.check_fits(config)?;
        self.check_has_gguf(config)?;
        gguf::to_writer(&self.name, &self.pairs(), config, precision)?.write(path)
    }

    /// Reads an adapter's GGUF file, made by llama.cpp's converter or by [`Self::save_gguf`], for a base of this
    /// configuration: the file does not say how wide a head is, which the order of its q and k rows depends on.
    pub fn open_gguf(path: &Path, config: &ModelConfig) -> Result<Self> {
        let adapter = Self::from_pairs(&path.display().to_string(), gguf::read(path, config)?);
        let adapter = adapter.for_family(config.architecture);
        adapter.check_fits(config)?;
        Ok(adapter)
    }

    /// One adapter whose updates are the weighted sums of these. Ranks add up: A matrices are stacked, B matrices stand
    /// side by side, and nothing is approximated. A linear that only some of them adapt gets the sum of theirs.
    pub fn merge(name: &str, parts: &[(&Self, f32)]) -> Result<Self> {
        let merged = Self::from_pairs(name, merge::merge(name, parts)?);
        Ok(Self { names: parts[0].0.names, ..merged })
    }

    fn check_has_gguf(&self, config: &ModelConfig) -> Result<()> {
        if config.architecture.has_gguf {
            return Ok(());
        }
        let family = config.architecture.model_type;
        Err(Error::adapter(&self.name, format!("llama.cpp does not know {family} (hint: keep the PEFT folder)")))
    }

    /// Checks every tensor against a base model's shapes.
    pub fn check_fits(&self, config: &ModelConfig) -> Result<()> {
        for (&(layer, linear), place) in self.packed.places() {
            let misfit = |what: String| {
                let hint = "(hint: trained on another base model?)";
                Err(Error::adapter(&self.name, format!("layer {layer} `{linear}`: {what} {hint}")))
            };
            if layer >= config.num_layers() {
                return misfit(format!("the base has {} layers", config.num_layers()));
            }
            if !config.layers[layer].has(linear) {
                return misfit("the base has none".into());
            }
            let (out_features, in_features) = linear.shape(config);
            let (rows, columns) = place.shape;
            if columns != in_features {
                return misfit(format!("lora_A has {columns} columns, but the base expects {in_features}"));
            }
            if rows != out_features {
                return misfit(format!("lora_B has {rows} rows, but the base expects {out_features}"));
            }
        }
        Ok(())
    }

    /// Its name in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The updates by layer and linear, widened to f32.
    pub fn pairs(&self) -> BTreeMap<(usize, Linear), LoraPair> {
        self.packed.places().iter().map(|(&key, place)| (key, self.packed.pair(place))).collect()
    }

    fn pair(&self, key: (usize, Linear)) -> Option<LoraPair> {
        self.packed.places().get(&key).map(|place| self.packed.pair(place))
    }

    /// The adapted linears, and how their numbers are stored.
    pub(crate) fn places(&self) -> &BTreeMap<(usize, Linear), PairPlace> {
        self.packed.places()
    }

    /// A `(in_features padded to 32, rank padded to 16)` and B `(tiles of out_features, rank, 16)` in f16; `None` where
    /// the numbers are kept in f32.
    pub(crate) fn halves(&self, place: &PairPlace) -> Option<(&[u16], &[u16])> {
        self.packed.halves(place)
    }

    /// The adapter with its numbers rounded to f16; `None` if they are already.
    pub(crate) fn narrowed(&self) -> Result<Option<Self>> {
        let packed = self.packed.narrowed().map_err(|value| {
            Error::adapter(&self.name, format!("the value {value} does not fit f16 (hint: did training diverge?)"))
        })?;
        Ok(packed.map(|packed| Self { name: self.name.clone(), names: self.names, packed, hash: self.hash }))
    }

    /// The number of trained parameters.
    pub fn num_parameters(&self) -> usize {
        self.places().values().map(|place| place.rank * (place.shape.0 + place.shape.1)).sum()
    }

    /// Hash of the content: ranks, scalings and weights as f32. The same content in another precision or under another
    /// name has the same hash if no value changed.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }
}

impl Adapter {
    /// The adapter as trained.
    pub fn new(lora: Arc<LoraAdapter>) -> Self {
        Self { lora, scale: 1.0 }
    }

    /// Identity of content and scale.
    pub fn id(&self) -> AdapterId {
        let mut hash = Sha256::new();
        hash.update(self.lora.hash);
        hash.update(self.scale.to_le_bytes());
        AdapterId(hash.finalize().into())
    }
}

impl std::fmt::Display for AdapterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::hex(&self.0))
    }
}

fn hash_pairs(pairs: &Pairs) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut bytes = Vec::new();
    for ((layer, linear), pair) in pairs {
        hash.update((*layer as u64).to_le_bytes());
        hash.update(linear.hf_name());
        hash.update((pair.rank as u64).to_le_bytes());
        hash.update(pair.scaling.to_le_bytes());
        for half in [&pair.a, &pair.b] {
            bytes.clear();
            bytes.extend(half.iter().flat_map(|value| value.to_le_bytes()));
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
