//! LoRA adapters in PEFT's folder format, kept beside the base and never merged into it.
//!
//! An adapter is read without knowing its base: the same value serves a GGUF file, whose q and k rows are in another
//! order, and a Hugging Face folder. What cannot be honoured exactly (DoRA, trained biases, whole modules) is refused by
//! name rather than ignored.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::Write,
    path::Path,
    sync::{Arc, LazyLock},
};

use regex::Regex;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Error, Linear, ModelConfig, Result};

/// A voice's low-rank update of some linears: `W x + scale * scaling * B (A x)`. Knows no base model until it is worn.
#[derive(Debug)]
pub struct LoraAdapter {
    name: String,
    pairs: BTreeMap<(usize, Linear), LoraPair>,
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

/// Identity of a worn adapter: a hash of its content and the scale it is worn at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(pub [u8; 32]);

/// An adapter at the strength it is worn; cheap to clone.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// The weights.
    pub lora: Arc<LoraAdapter>,
    /// Multiplies the update; 1 is as trained.
    pub scale: f32,
}

impl LoraAdapter {
    /// Reads a PEFT folder: `adapter_config.json` and `adapter_model.safetensors`.
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |file: &str| {
            let path = folder.join(file);
            fs::read(&path).map_err(|source| Error::io(path, source))
        };
        Self::parse(&folder.display().to_string(), &read("adapter_config.json")?, &read("adapter_model.safetensors")?)
    }

    /// Reads the two files' bytes; `name` is what errors call the adapter.
    pub fn parse(name: &str, config_json: &[u8], safetensors: &[u8]) -> Result<Self> {
        let config = PeftConfig::parse(name, config_json)?;
        let tensors = SafeTensors::deserialize(safetensors).map_err(|error| {
            Error::adapter(
                name,
                format!("adapter_model.safetensors: {error} (hint: half-written or damaged? save it again)"),
            )
        })?;
        let mut halves: BTreeMap<(usize, Linear), [Option<Matrix>; 2]> = BTreeMap::new();
        for (tensor_name, view) in tensors.iter() {
            let key = parse_tensor_name(tensor_name).map_err(|reason| Error::adapter(name, reason))?;
            let matrix = Matrix::read(tensor_name, view.dtype(), view.shape(), view.data())
                .map_err(|reason| Error::adapter(name, reason))?;
            let slot = &mut halves.entry((key.layer, key.linear)).or_default()[key.half as usize];
            if slot.replace(matrix).is_some() {
                return Err(Error::adapter(name, format!("tensor `{tensor_name}` is there twice under two names")));
            }
        }
        if halves.is_empty() {
            return Err(Error::adapter(name, "adapter_model.safetensors holds no tensors (hint: was it trained?)"));
        }
        let mut pairs = BTreeMap::new();
        for ((layer, linear), halves) in halves {
            let module = format!("model.layers.{layer}.{}.{linear}", linear.hf_module());
            let [Some(a), Some(b)] = halves else {
                return Err(Error::adapter(name, format!("`{module}` has only one of lora_A and lora_B")));
            };
            let rank = a.rows;
            if b.columns != rank {
                let reason = format!("`{module}`: lora_A has rank {rank}, lora_B has rank {}", b.columns);
                return Err(Error::adapter(name, reason));
            }
            let configured = config.rank(&module);
            if configured != rank {
                let reason = format!("`{module}` has rank {rank}, but adapter_config.json says {configured}");
                return Err(Error::adapter(name, format!("{reason} (hint: do the two files belong together?)")));
            }
            let scaling = config.scaling(&module, rank);
            pairs.insert((layer, linear), LoraPair { a: a.data, b: b.data, rank, scaling });
        }
        let hash = hash_pairs(&pairs);
        Ok(Self { name: name.to_owned(), pairs, hash })
    }

    /// An adapter from its updates, as a trainer has them.
    pub fn from_pairs(name: &str, pairs: BTreeMap<(usize, Linear), LoraPair>) -> Self {
        let hash = hash_pairs(&pairs);
        Self { name: name.to_owned(), pairs, hash }
    }

    /// Writes the folder as PEFT does. Each file appears whole or not at all (temporary file, then rename), the weights
    /// last, so that a game that watches the folder reads both once they belong together.
    pub fn save(&self, folder: &Path, base_model_name: &str, precision: Precision) -> Result<()> {
        fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
        let config = serde_json::to_vec_pretty(&self.peft_config(base_model_name)).expect("plain JSON");
        write_whole(&folder.join("adapter_config.json"), &config)?;
        write_whole(&folder.join("adapter_model.safetensors"), &self.to_safetensors(precision)?)
    }

    /// `adapter_config.json`: the commonest rank and alpha, and patterns for the modules that have others.
    fn peft_config(&self, base_model_name: &str) -> Value {
        let alpha = |pair: &LoraPair| (f64::from(pair.scaling) * pair.rank as f64 * 1e4).round() / 1e4;
        let mut counts: BTreeMap<(usize, u64), usize> = BTreeMap::new();
        for pair in self.pairs.values() {
            *counts.entry((pair.rank, alpha(pair).to_bits())).or_default() += 1;
        }
        let (rank, common_alpha) = counts
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map_or((8, 8.0), |(key, _)| (key.0, f64::from_bits(key.1)));
        let module = |layer: usize, linear: Linear| format!("layers.{layer}.{}.{linear}", linear.hf_module());
        let mut rank_pattern = serde_json::Map::new();
        let mut alpha_pattern = serde_json::Map::new();
        for (&(layer, linear), pair) in &self.pairs {
            if pair.rank != rank {
                rank_pattern.insert(module(layer, linear), pair.rank.into());
            }
            if alpha(pair) != common_alpha {
                alpha_pattern.insert(module(layer, linear), alpha(pair).into());
            }
        }
        let targets: BTreeSet<&str> = self.pairs.keys().map(|(_, linear)| linear.hf_name()).collect();
        json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_model_name,
            "inference_mode": true, "r": rank, "lora_alpha": common_alpha, "lora_dropout": 0.0, "use_rslora": false,
            "use_dora": false, "bias": "none", "fan_in_fan_out": false, "modules_to_save": null,
            "rank_pattern": rank_pattern, "alpha_pattern": alpha_pattern, "target_modules": targets,
        })
    }

    fn to_safetensors(&self, precision: Precision) -> Result<Vec<u8>> {
        let dtype = match precision {
            Precision::F32 => Dtype::F32,
            Precision::F16 => Dtype::F16,
        };
        let bytes = |values: &[f32]| -> Vec<u8> {
            match precision {
                Precision::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                Precision::F16 => values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect(),
            }
        };
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .pairs
            .iter()
            .flat_map(|(&(layer, linear), pair)| {
                let LoraPair { a, b, rank, .. } = pair;
                [
                    (tensor_name(layer, linear, Half::A), vec![*rank, a.len() / rank], bytes(a)),
                    (tensor_name(layer, linear, Half::B), vec![b.len() / rank, *rank], bytes(b)),
                ]
            })
            .collect();
        let fail = |error: safetensors::SafeTensorError| Error::adapter(&self.name, error.to_string());
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| Ok((name, TensorView::new(dtype, shape.clone(), bytes).map_err(fail)?)))
            .collect::<Result<Vec<_>>>()?;
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize(views, Some(metadata)).map_err(fail)
    }

    /// Checks every tensor against a base model's shapes.
    pub fn check_fits(&self, config: &ModelConfig) -> Result<()> {
        for (&(layer, linear), pair) in &self.pairs {
            let misfit = |what: String| {
                let hint = "(hint: trained on another base model?)";
                Err(Error::adapter(&self.name, format!("layer {layer} `{linear}`: {what} {hint}")))
            };
            if layer >= config.num_layers {
                return misfit(format!("the base has {} layers", config.num_layers));
            }
            let (out_features, in_features) = linear.shape(config);
            let (columns, rows) = (pair.a.len() / pair.rank, pair.b.len() / pair.rank);
            if columns != in_features {
                return misfit(format!("lora_A has {columns} columns, but the base expects {in_features}"));
            }
            if rows != out_features {
                return misfit(format!("lora_B has {rows} rows, but the base expects {out_features}"));
            }
        }
        Ok(())
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The updates by layer and linear.
    pub fn pairs(&self) -> &BTreeMap<(usize, Linear), LoraPair> {
        &self.pairs
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

/// What `adapter_config.json` says that changes the numbers.
struct PeftConfig {
    rank: usize,
    alpha: f64,
    rank_pattern: Vec<(Regex, f64)>,
    alpha_pattern: Vec<(Regex, f64)>,
    use_rslora: bool,
}

impl PeftConfig {
    fn parse(name: &str, json: &[u8]) -> Result<Self> {
        let fail = |reason: String| Error::adapter(name, format!("adapter_config.json: {reason}"));
        let config: Value =
            serde_json::from_slice(json).map_err(|error| fail(format!("{error} (hint: half-written?)")))?;
        let Some(config) = config.as_object() else { return Err(fail("is not a JSON object".into())) };
        let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or("missing");
        if kind != "LORA" {
            return Err(fail(format!("`peft_type` is {kind}, only LORA is supported")));
        }
        if let Some((field, meaning)) = UNSUPPORTED.iter().find(|(field, _)| config.get(*field).is_some_and(is_set)) {
            let value = &config[*field];
            return Err(fail(format!(
                "`{field}` is {value}: {meaning} is not supported (hint: train plain LoRA on linear layers)"
            )));
        }
        let bias = config.get("bias").and_then(Value::as_str).unwrap_or("none");
        if bias != "none" {
            return Err(fail(format!("`bias` is {bias}: trained biases are not supported (hint: bias=\"none\")")));
        }
        let number = |field: &str| {
            let value = config.get(field).and_then(Value::as_f64).filter(|value| value.is_finite());
            value.ok_or_else(|| fail(format!("`{field}` is missing or not a number")))
        };
        let pattern = |field: &str| {
            let entries = match config.get(field) {
                None | Some(Value::Null) => return Ok(Vec::new()),
                Some(value) => value.as_object().ok_or_else(|| fail(format!("`{field}` is not an object")))?,
            };
            entries
                .iter()
                .map(|(key, value)| {
                    // `get_pattern_key` in PEFT: re.match(rf"(.*\.)?({key})$", module)
                    let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$"))
                        .map_err(|error| fail(format!("`{field}` key `{key}`: {error}")))?;
                    let value = value.as_f64().filter(|value| value.is_finite());
                    Ok((regex, value.ok_or_else(|| fail(format!("`{field}` value of `{key}` is not a number")))?))
                })
                .collect::<Result<Vec<_>>>()
        };
        let rank = number("r")?;
        if !(1.0..=4096.0).contains(&rank) || rank.fract() != 0.0 {
            return Err(fail(format!("`r` is {rank}, expected a whole number from 1 to 4096")));
        }
        Ok(Self {
            rank: rank as usize,
            alpha: number("lora_alpha")?,
            rank_pattern: pattern("rank_pattern")?,
            alpha_pattern: pattern("alpha_pattern")?,
            use_rslora: config.get("use_rslora").is_some_and(is_set),
        })
    }

    fn rank(&self, module: &str) -> usize {
        first_match(&self.rank_pattern, module).map_or(self.rank, |rank| rank as usize)
    }

    fn scaling(&self, module: &str, rank: usize) -> f32 {
        let alpha = first_match(&self.alpha_pattern, module).unwrap_or(self.alpha);
        let rank = rank as f64;
        (alpha / if self.use_rslora { rank.sqrt() } else { rank }) as f32
    }
}

/// Fields of `adapter_config.json` that change what the weights mean.
const UNSUPPORTED: [(&str, &str); 14] = [
    ("use_dora", "DoRA"),
    ("modules_to_save", "training whole modules beside LoRA"),
    ("lora_bias", "a bias on lora_B"),
    ("fan_in_fan_out", "transposed weights"),
    ("layer_replication", "repeated layers"),
    ("trainable_token_indices", "trained token embeddings"),
    ("target_parameters", "LoRA on bare parameters"),
    ("use_qalora", "QALoRA"),
    ("use_bdlora", "block-diagonal LoRA"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("arrow_config", "Arrow routing"),
    ("kasa_config", "KaSA"),
    ("velora_config", "VeLoRA"),
    ("monteclora_config", "MonteCLoRA"),
];

/// PEFT writes `null`, `false`, `{}` or `[]` for what is not used.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

fn first_match(pattern: &[(Regex, f64)], module: &str) -> Option<f64> {
    pattern.iter().find(|(regex, _)| regex.is_match(module)).map(|(_, value)| *value)
}

/// How an adapter's weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Four bytes a weight: what training holds.
    F32,
    /// Two bytes a weight: what ships.
    F16,
}

/// PEFT's name of a tensor.
pub(crate) fn tensor_name(layer: usize, linear: Linear, half: Half) -> String {
    format!("base_model.model.model.layers.{layer}.{}.{linear}.lora_{half:?}.weight", linear.hf_module())
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let fail = |source| Error::io(path, source);
    let mut file = tempfile::Builder::new().prefix(".adapter-").suffix(".tmp").tempfile_in(folder).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(fail)?;
    file.persist(path).map(drop).map_err(|error| fail(error.error))
}

/// Where a tensor belongs.
struct TensorKey {
    layer: usize,
    linear: Linear,
    half: Half,
}

/// One of a pair's two matrices.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Half {
    A = 0,
    B = 1,
}

fn parse_tensor_name(name: &str) -> Result<TensorKey, String> {
    static KEY: LazyLock<Regex> = LazyLock::new(|| {
        // Older PEFT versions keep the adapter's name: `lora_A.default.weight`.
        Regex::new(r"^base_model\.model\.(?:model\.)?layers\.(\d{1,6})\.(self_attn|mlp)\.(\w+)\.lora_([AB])(?:\.\w+)?\.weight$")
            .expect("the pattern is constant")
    });
    let refuse =
        |what: &str| format!("tensor `{name}`: {what} (hint: train plain LoRA on q, k, v, o, gate, up or down)");
    let Some(parts) = KEY.captures(name) else {
        let what = match name {
            _ if name.contains("lora_magnitude_vector") => "DoRA is not supported",
            _ if name.contains("lora_embedding") || name.contains("embed_tokens") => {
                "adapters of the embedding are not supported"
            }
            _ if name.contains("lm_head") => "adapters of the head are not supported",
            _ if name.ends_with(".bias") => "trained biases are not supported",
            _ if name.contains("modules_to_save") || !name.contains("lora_") => {
                "whole trained weights are not supported"
            }
            _ => "is not a LoRA tensor of a known linear layer",
        };
        return Err(refuse(what));
    };
    let linear = Linear::from_hf_name(&parts[3]).filter(|linear| linear.hf_module() == &parts[2]);
    Ok(TensorKey {
        layer: parts[1].parse().map_err(|_| refuse("has an absurd layer number"))?,
        linear: linear.ok_or_else(|| refuse("is not a known linear layer"))?,
        half: if &parts[4] == "A" { Half::A } else { Half::B },
    })
}

struct Matrix {
    rows: usize,
    columns: usize,
    data: Vec<f32>,
}

impl Matrix {
    fn read(name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<Self, String> {
        let &[rows, columns] = shape else { return Err(format!("tensor `{name}` has shape {shape:?}, expected two")) };
        if rows == 0 || columns == 0 {
            return Err(format!("tensor `{name}` is empty: {rows} x {columns}"));
        }
        let data: Vec<f32> = match dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect(),
            other => return Err(format!("tensor `{name}` is {other:?}, expected F32, F16 or BF16")),
        };
        let broken = data.iter().filter(|value| !value.is_finite()).count();
        if broken > 0 {
            let of = data.len();
            return Err(format!(
                "tensor `{name}` has {broken} of {of} values NaN or infinite (hint: training diverged?)"
            ));
        }
        Ok(Self { rows, columns, data })
    }
}

fn hash_pairs(pairs: &BTreeMap<(usize, Linear), LoraPair>) -> [u8; 32] {
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
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "later_key": 1}"#;

    /// Tensors as name, shape and a dtype; values count up.
    fn weights(tensors: &[(&str, &[usize], Dtype)]) -> Vec<u8> {
        let data: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, shape, dtype)| {
                let values = (0..shape.iter().product::<usize>()).map(|at| at as f32);
                match dtype {
                    Dtype::F16 => values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect(),
                    Dtype::BF16 => values.flat_map(|v| half::bf16::from_f32(v).to_le_bytes()).collect(),
                    _ => values.flat_map(f32::to_le_bytes).collect(),
                }
            })
            .collect();
        let views = tensors.iter().zip(&data).map(|((name, shape, dtype), data)| {
            ((*name).to_owned(), TensorView::new(*dtype, shape.to_vec(), data).unwrap())
        });
        safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()
    }

    const Q_A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    const Q_B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

    fn plain() -> Vec<u8> {
        weights(&[(Q_A, &[2, 8], Dtype::F32), (Q_B, &[8, 2], Dtype::F32)])
    }

    #[test]
    fn all_float_types_read_the_same() {
        let f32 = LoraAdapter::parse("a", CONFIG.as_bytes(), &plain()).unwrap();
        for dtype in [Dtype::F16, Dtype::BF16] {
            let bytes = weights(&[(Q_A, &[2, 8], dtype), (Q_B, &[8, 2], dtype)]);
            let other = LoraAdapter::parse("b", CONFIG.as_bytes(), &bytes).unwrap();
            assert_eq!(other.pairs(), f32.pairs());
            assert_eq!(other.hash(), f32.hash());
        }
    }

    #[test]
    fn scaling_follows_pattern_and_rslora() {
        let scaling = |extra: &str| {
            let config = CONFIG.replace("\"later_key\": 1", extra);
            LoraAdapter::parse("a", config.as_bytes(), &plain()).unwrap().pairs()[&(0, Linear::Q)].scaling
        };
        assert_eq!(scaling("\"x\": 0"), 2.0);
        assert_eq!(scaling("\"use_rslora\": true"), 4.0 / 2f32.sqrt());
        assert_eq!(scaling("\"alpha_pattern\": {\"q_proj\": 10}"), 5.0);
        assert_eq!(scaling("\"alpha_pattern\": {\"layers.0.self_attn.q_proj\": 6}"), 3.0);
        assert_eq!(scaling("\"alpha_pattern\": {\"v_proj\": 10}"), 2.0);
        assert_eq!(scaling("\"r\": 9, \"rank_pattern\": {\".*q_proj\": 2}"), 2.0);
    }

    #[test]
    fn what_is_saved_is_read_back_in_both_precisions() {
        let pair = |rank: usize, scaling| {
            let values = |count: usize| (0..count).map(|at| at as f32 / 8.0 - 1.0).collect();
            LoraPair { a: values(rank * 4), b: values(6 * rank), rank, scaling }
        };
        let pairs = [((0, Linear::Q), pair(2, 2.0)), ((0, Linear::Down), pair(3, 2.0)), ((1, Linear::Q), pair(2, 0.5))];
        let adapter = LoraAdapter::from_pairs("it", BTreeMap::from(pairs));
        for precision in [Precision::F32, Precision::F16] {
            let folder = tempfile::tempdir().unwrap();
            adapter.save(folder.path(), "base", precision).unwrap();
            let back = LoraAdapter::open(folder.path()).unwrap();
            assert_eq!(back.pairs(), adapter.pairs(), "{precision:?}");
            assert_eq!(back.hash(), adapter.hash());
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left behind");
        }
    }

    #[test]
    fn identity_is_content_and_scale() {
        let one = Arc::new(LoraAdapter::parse("one", CONFIG.as_bytes(), &plain()).unwrap());
        let two = Arc::new(LoraAdapter::parse("two", CONFIG.as_bytes(), &plain()).unwrap());
        assert_eq!(Adapter::new(one.clone()).id(), Adapter::new(two).id());
        assert_ne!(Adapter::new(one.clone()).id(), Adapter { lora: one, scale: 0.5 }.id());
    }

    fn check_refused(config: &str, tensors: &[u8], says: &[&str]) {
        let error = LoraAdapter::parse("it", config.as_bytes(), tensors).expect_err("refused").to_string();
        for part in says {
            assert!(error.contains(part), "`{error}` does not say `{part}`");
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let with = |field: &str| CONFIG.replace("\"later_key\": 1", field);
        check_refused(&with("\"use_dora\": true"), &plain(), &["use_dora", "DoRA"]);
        check_refused(&with("\"modules_to_save\": [\"lm_head\"]"), &plain(), &["modules_to_save", "lm_head"]);
        check_refused(&CONFIG.replace("\"none\"", "\"all\""), &plain(), &["`bias` is all"]);
        check_refused(&with("\"lora_bias\": true"), &plain(), &["lora_bias"]);
        check_refused(&CONFIG.replace("LORA", "IA3"), &plain(), &["peft_type", "IA3"]);
        check_refused(&CONFIG.replace("\"r\": 2", "\"r\": 3"), &plain(), &["rank 2", "says 3"]);
        check_refused(&CONFIG.replace("\"r\": 2", "\"r\": 1e30"), &plain(), &["`r` is"]);
        check_refused("[]", &plain(), &["not a JSON object"]);
        check_refused("{\"peft_type\": \"LO", &plain(), &["half-written"]);
        check_refused(CONFIG, &plain()[..40], &["adapter_model.safetensors"]);
        check_refused(CONFIG, &[0xff; 64], &["adapter_model.safetensors"]);
        check_refused(CONFIG, &weights(&[]), &["no tensors"]);
        check_refused(CONFIG, &weights(&[(Q_A, &[2, 8], Dtype::F32)]), &["only one of"]);
        let odd = |name: &str| {
            weights(&[(Q_A, &[2, 8], Dtype::F32), (Q_B, &[8, 2], Dtype::F32), (name, &[2, 8], Dtype::F32)])
        };
        for (name, says) in [
            ("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", "DoRA"),
            ("base_model.model.model.embed_tokens.lora_embedding_A", "embedding"),
            ("base_model.model.lm_head.lora_A.weight", "head"),
            ("base_model.model.model.layers.0.self_attn.q_proj.bias", "biases"),
            ("base_model.model.model.norm.weight", "whole trained weights"),
            ("base_model.model.model.layers.0.mlp.q_proj.lora_A.weight", "not a known linear"),
        ] {
            check_refused(CONFIG, &odd(name), &[name, says]);
        }
        let integers = weights(&[(Q_A, &[2, 8], Dtype::F32), (Q_B, &[8, 2], Dtype::I32)]);
        check_refused(CONFIG, &integers, &["I32"]);
    }

    #[test]
    fn nan_weights_are_refused_with_their_tensor() {
        let mut bytes = plain();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        check_refused(CONFIG, &bytes, &["1 of 16", "diverged"]);
    }

    #[test]
    fn another_width_is_told_with_its_numbers() {
        let adapter = LoraAdapter::parse("it", CONFIG.as_bytes(), &plain()).unwrap();
        let mut config = crate::config::tests::tiny();
        config.num_layers = 1;
        let error = adapter.check_fits(&config).unwrap_err().to_string();
        assert!(error.contains("lora_A has 8 columns, but the base expects 64"), "{error}");
        config.num_layers = 0;
        assert!(adapter.check_fits(&config).unwrap_err().to_string().contains("the base has 0 layers"));
    }
}
