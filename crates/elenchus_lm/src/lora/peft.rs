//! The two files of a PEFT folder, as `peft` in Python writes and reads them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::LazyLock,
};

use regex::Regex;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use super::{
    LoraPair, Pairs, Precision,
    fused::Module,
    matrix::{Half, Halves, Matrix, TensorKey, commonest, module_name},
};
use crate::{
    Error, Linear, Result,
    architectures::{TensorNames, all_hf_names},
};

/// The updates in the two files, and how their base's family names its modules; `name` is the adapter's name in errors.
pub fn read(name: &str, config_json: &[u8], safetensors: &[u8]) -> Result<(Pairs, &'static TensorNames)> {
    let config = PeftConfig::parse(name, config_json)?;
    let tensors = SafeTensors::deserialize(safetensors).map_err(|error| {
        Error::adapter(
            name,
            format!("adapter_model.safetensors: {error} (hint: half-written or damaged? save it again)"),
        )
    })?;
    let mut halves = Halves::default();
    let mut families = all_hf_names().to_vec();
    for (tensor_name, view) in tensors.iter() {
        let key = parse_tensor_name(tensor_name, &mut families).map_err(|reason| Error::adapter(name, reason))?;
        Matrix::read(tensor_name, view.dtype(), view.shape(), view.data())
            .and_then(|matrix| halves.insert(tensor_name, &key, matrix))
            .map_err(|reason| Error::adapter(name, reason))?;
    }
    if halves.is_empty() {
        return Err(Error::adapter(name, "adapter_model.safetensors holds no tensors (hint: was it trained?)"));
    }
    let pairs = halves.into_pairs(name, None, |module, rank| {
        let configured = config.rank(module);
        if configured != rank {
            let reason = format!("`{module}` has rank {rank}, but adapter_config.json says {configured}");
            return Err(format!("{reason} (hint: do the two files belong together?)"));
        }
        Ok(config.scaling(module, rank))
    })?;
    Ok((pairs, families[0]))
}

/// `adapter_config.json`: the commonest rank and alpha, and patterns for the modules that have others. PEFT warns of
/// every module it adapts and finds no weights for, so linears are named alone only if each is adapted in all layers.
pub fn config(modules: &[Module], names: &TensorNames, base_model_name: &str) -> String {
    let (rank, common_alpha) =
        commonest(modules.iter().map(|module| (module.pair.rank, module.pair.alpha().to_bits())))
            .map_or((8, 8.0), |(rank, alpha)| (rank, f64::from_bits(alpha)));
    let mut rank_pattern = serde_json::Map::new();
    let mut alpha_pattern = serde_json::Map::new();
    for module in modules {
        let (name, pair) = (module.short_name(names), &module.pair);
        if pair.rank != rank {
            rank_pattern.insert(name.clone(), pair.rank.into());
        }
        if pair.alpha() != common_alpha {
            alpha_pattern.insert(name, pair.alpha().into());
        }
    }
    let kinds: BTreeSet<&[Linear]> = modules.iter().map(|module| module.parts.as_slice()).collect();
    let layers = modules.iter().map(|module| module.layer + 1).max().unwrap_or(0);
    let targets: Vec<String> = if modules.len() == layers * kinds.len() {
        kinds.into_iter().map(|parts| target(names, parts[0]).to_owned()).collect()
    } else {
        modules.iter().map(|module| module.short_name(names)).collect()
    };
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_model_name,
        "inference_mode": true, "r": rank, "lora_alpha": common_alpha, "lora_dropout": 0.0, "use_rslora": false,
        "use_dora": false, "bias": "none", "fan_in_fan_out": names.is_transposed, "modules_to_save": null,
        "rank_pattern": rank_pattern, "alpha_pattern": alpha_pattern, "target_modules": targets,
    });
    format!("{config:#}\n")
}

/// The end of a module's name that no module of another kind in a block shares: `q_proj`.
fn target(names: &TensorNames, linear: Linear) -> &'static str {
    let path = names.linears[linear as usize];
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    let is_shared = names.linears.iter().any(|&other| other != path && last(other) == last(path));
    if is_shared { path } else { last(path) }
}

/// `adapter_model.safetensors`; `names` are those of the modules.
pub fn to_safetensors(
    name: &str,
    (modules, names): (&[Module], &TensorNames),
    precision: Precision,
) -> Result<Vec<u8>> {
    let dtype = match precision {
        Precision::F32 => Dtype::F32,
        Precision::F16 => Dtype::F16,
    };
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::with_capacity(2 * modules.len());
    for module in modules {
        let LoraPair { a, b, rank, .. } = &module.pair;
        for (half, values, shape) in
            [(Half::A, a, vec![*rank, a.len() / rank]), (Half::B, b, vec![b.len() / rank, *rank])]
        {
            let tensor = format!("base_model.model.{}.lora_{half:?}.weight", module.name(names));
            let bytes = precision
                .encode(values)
                .map_err(|reason| Error::adapter(name, format!("tensor `{tensor}`: {reason}")))?;
            tensors.push((tensor, shape, bytes));
        }
    }
    let fail = |error: safetensors::SafeTensorError| Error::adapter(name, error.to_string());
    let views = tensors
        .iter()
        .map(|(tensor, shape, bytes)| Ok((tensor, TensorView::new(dtype, shape.clone(), bytes).map_err(fail)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(fail)
}

/// The fields of `adapter_config.json` that change the numbers.
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

/// Fields of `adapter_config.json` that change what the weights mean. `fan_in_fan_out` does not: it describes the base.
const UNSUPPORTED: [(&str, &str); 13] = [
    ("use_dora", "DoRA"),
    ("modules_to_save", "training whole modules beside LoRA"),
    ("lora_bias", "a bias on lora_B"),
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

/// PEFT writes `null`, `false`, `{}` or `[]` for unused fields.
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

/// PEFT's name of a tensor in Llama's family, by which trainers know variables of all families.
pub fn tensor_name(layer: usize, linear: Linear, half: Half) -> String {
    format!("base_model.model.model.{}.lora_{half:?}.weight", module_name(layer, linear))
}

/// Keeps only the families that have the tensor's module.
fn parse_tensor_name(name: &str, families: &mut Vec<&'static TensorNames>) -> Result<TensorKey, String> {
    static KEY: LazyLock<Regex> = LazyLock::new(|| {
        // Older PEFT versions keep the adapter's name: `lora_A.default.weight`.
        Regex::new(r"^base_model\.model\.(?:\w+\.)?(layers\.|h\.)(\d{1,6})\.([\w.]+)\.lora_([AB])(?:\.\w+)?\.weight$")
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
    let layer: usize = parts[2].parse().map_err(|_| refuse("has an absurd layer number"))?;
    let of = |names: &TensorNames| if names.short_block() == &parts[1] { names.parts(&parts[3]) } else { Vec::new() };
    families.retain(|names| !of(names).is_empty());
    let names = families.first().ok_or_else(|| refuse("is not a known linear layer beside the others"))?;
    Ok(TensorKey {
        layer,
        parts: of(names),
        module: format!("{}{layer}.{}", names.block, &parts[3]),
        half: if &parts[4] == "A" { Half::A } else { Half::B },
    })
}
