//! A model's configuration from the `config.json` of a Hugging Face folder.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::Value;

use crate::{Architecture, Error, ModelConfig, Result, RopeLayout, Scales};

/// The keys that matter; defaults are those of transformers.
#[derive(Deserialize)]
pub(crate) struct HfConfig {
    vocab_size: usize,
    pub hidden_size: usize,
    intermediate_size: Option<usize>,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    /// Phi-3's context before it was stretched.
    original_max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f32>,
    /// Where transformers 4 wrote it.
    partial_rotary_factor: Option<f64>,
    /// Where transformers 4 wrote it.
    rope_theta: Option<f32>,
    /// Where transformers 5 writes it.
    rope_parameters: Option<RopeParameters>,
    rope_scaling: Option<RopeParameters>,
    /// `Some(None)` where the file says `null`.
    #[serde(default, deserialize_with = "present")]
    pub sliding_window: Option<Option<usize>>,
    #[serde(default)]
    pub use_sliding_window: bool,
    pub max_window_layers: Option<usize>,
    #[serde(default)]
    pub attention_bias: bool,
    #[serde(default)]
    pub mlp_bias: bool,
    hidden_act: Option<String>,
    /// Gemma's name for it; some files have both.
    hidden_activation: Option<String>,
    /// `full_attention` or `sliding_attention` for each layer: Gemma 3.
    pub layer_types: Option<Vec<String>>,
    sliding_window_pattern: Option<usize>,
    /// transformers 5's name for it.
    _sliding_window_pattern: Option<usize>,
    pub query_pre_attn_scalar: Option<f32>,
    rope_local_base_freq: Option<f32>,
    /// `Some(None)` where the file says `null`.
    #[serde(default, deserialize_with = "present")]
    pub attn_logit_softcapping: Option<Option<f32>>,
    #[serde(default, deserialize_with = "present")]
    final_logit_softcapping: Option<Option<f32>>,
    use_bidirectional_attention: Option<bool>,
    /// For each layer 1, or 0 for one without positions: SmolLM3.
    pub no_rope_layers: Option<Vec<u8>>,
    pub no_rope_layer_interval: Option<usize>,
    pub embedding_multiplier: Option<f32>,
    pub attention_multiplier: Option<f32>,
    pub residual_multiplier: Option<f32>,
    pub logits_scaling: Option<f32>,
    /// GPT-2's: false for scores without a scale.
    pub scale_attn_weights: Option<bool>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
    /// `global` or `local` for each layer: GPT-Neo.
    attention_layers: Option<Vec<String>>,
    /// The same as kinds that are repeated.
    attention_types: Option<Vec<(Vec<String>, usize)>>,
    pub window_size: Option<usize>,
    tie_word_embeddings: Option<bool>,
    quantization_config: Option<Value>,
}

#[derive(Deserialize)]
struct RopeParameters {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f32>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    /// LongRoPE's, for sequences up to the original context.
    short_factor: Option<Vec<f32>>,
    /// LongRoPE's magnitude, if it does not follow from the contexts.
    attention_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<usize>,
    /// Of layers that see everything and of those with a window, where the two differ: Gemma 3.
    full_attention: Option<Box<RopeParameters>>,
    sliding_attention: Option<Box<RopeParameters>>,
}

impl RopeParameters {
    /// LongRoPE's divisors of the frequencies, its magnitude, and the context they are for.
    /// Source: `_compute_longrope_parameters` in transformers' `modeling_rope_utils.py`.
    fn long_rope(&self, config: &HfConfig) -> Option<(Vec<f32>, f32, usize)> {
        let original = config.original_max_position_embeddings.or(self.original_max_position_embeddings)?;
        // Where the file has the original context outside, transformers does not read `factor`.
        let factor = self.factor.filter(|_| config.original_max_position_embeddings.is_none());
        let factor = factor.map_or(config.max_position_embeddings as f64 / original as f64, f64::from);
        let by_contexts = match factor > 1.0 {
            true => libm::sqrt(1.0 + libm::log(factor) / libm::log(original as f64)) as f32,
            false => 1.0,
        };
        let magnitude = self.attention_factor.unwrap_or(by_contexts);
        Some((self.short_factor.clone()?, magnitude, original.min(config.max_position_embeddings)))
    }

    /// Llama 3's divisors of the frequencies: 1 for short wavelengths, `factor` for long ones, and between them a blend.
    /// Source: `_compute_llama3_parameters` in transformers' `modeling_rope_utils.py`.
    fn llama3_factors(&self, theta: f32, head_dim: usize) -> Option<Vec<f32>> {
        let (factor, low, high) = (self.factor?, self.low_freq_factor?, self.high_freq_factor?);
        let context = self.original_max_position_embeddings? as f32;
        let divisor = |i: usize| {
            let frequency = 1.0 / libm::powf(theta, (2 * i) as f32 / head_dim as f32);
            let wavelength = std::f32::consts::TAU / frequency;
            if wavelength < context / high {
                1.0
            } else if wavelength > context / low {
                factor
            } else {
                let smooth = (context / wavelength - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        };
        Some((0..head_dim / 2).map(divisor).collect())
    }
}

/// Distinguishes a `null` from a missing key.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl HfConfig {
    /// Base of the rotary frequencies, from either place.
    pub fn rope_theta(&self) -> f32 {
        let in_parameters = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        in_parameters.or(self.rope_theta).unwrap_or(10_000.0)
    }

    /// The share of a head's dimensions that rotate, from either place.
    fn partial_rotary_factor(&self) -> f64 {
        let in_parameters = self.rope_parameters.as_ref().and_then(|rope| rope.partial_rotary_factor);
        in_parameters.or(self.partial_rotary_factor).unwrap_or(1.0)
    }
}

impl HfConfig {
    /// The kind of GPT-Neo's layer, from either place.
    pub fn attention_layer(&self, layer: usize) -> Option<&str> {
        if let Some(layers) = &self.attention_layers {
            return layers.get(layer).map(String::as_str);
        }
        let types = self.attention_types.iter().flatten();
        let mut layers = types.flat_map(|(kinds, times)| std::iter::repeat_n(kinds, *times).flatten());
        layers.nth(layer).map(String::as_str)
    }

    /// Every so many layers one sees everything: Gemma 3.
    pub fn sliding_window_pattern(&self) -> Option<usize> {
        self.sliding_window_pattern.or(self._sliding_window_pattern).filter(|&every| every > 0)
    }

    /// Rotary base and linear scaling of Gemma 3's layers: those that see everything, and those with a window.
    pub fn rope_of(&self, is_full: bool) -> (f32, f32) {
        let of_kind = self.rope_parameters.as_ref().and_then(|rope| match is_full {
            true => rope.full_attention.as_deref(),
            false => rope.sliding_attention.as_deref(),
        });
        let theta = of_kind.and_then(|rope| rope.rope_theta);
        let is_linear = |rope: &&RopeParameters| rope.rope_type.as_deref() == Some("linear");
        match is_full {
            // transformers 4 scales these layers alone.
            true => {
                let linear = of_kind.or(self.rope_scaling.as_ref()).filter(is_linear);
                (theta.or(self.rope_theta).unwrap_or(1e6), linear.and_then(|rope| rope.factor).unwrap_or(1.0))
            }
            false => {
                let linear = of_kind.filter(is_linear);
                let theta = theta.or(self.rope_local_base_freq).unwrap_or(1e4);
                (theta, linear.and_then(|rope| rope.factor).unwrap_or(1.0))
            }
        }
    }

    /// What a rotary scaling must be called to be read: all of them, with those of single kinds of layers.
    fn ropes(&self) -> Vec<(&'static str, &RopeParameters)> {
        let mut ropes: Vec<_> = self.rope_parameters.iter().map(|rope| ("rope_parameters", rope)).collect();
        ropes.extend(self.rope_scaling.iter().map(|rope| ("rope_scaling", rope)));
        let of_kinds: Vec<_> = ropes
            .iter()
            .flat_map(|(_, rope)| {
                [("full_attention", &rope.full_attention), ("sliding_attention", &rope.sliding_attention)]
            })
            .filter_map(|(name, rope)| Some((name, rope.as_deref()?)))
            .collect();
        ropes.extend(of_kinds);
        ropes
    }
}

/// Reads and checks the configuration; the flag says whether head and embedding are one tensor.
pub fn read(folder: &Path) -> Result<(ModelConfig, bool)> {
    let path = folder.join("config.json");
    let json = fs::read(&path).map_err(|source| Error::io(&path, source))?;
    parse(&path, &json)
}

fn parse(path: &Path, json: &[u8]) -> Result<(ModelConfig, bool)> {
    let bad = |reason: String| Error::model_file(path, reason);
    /// Read first, so that another architecture is refused by name and not for a missing key.
    #[derive(Deserialize)]
    struct ModelType {
        model_type: String,
    }
    let ModelType { model_type } = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
    let unsupported = |what: String| {
        let what = format!("{}: {what}", path.display());
        let hint = format!("plain checkpoints of these types can be run: {}", Architecture::known());
        Err(Error::Unsupported { what, hint })
    };
    let Some(architecture) = Architecture::by_model_type(&model_type) else {
        return unsupported(format!("model_type `{model_type}`"));
    };
    let mut json: Value = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
    for (own, usual) in architecture.hf_keys {
        if let Some(value) = json.get(own).cloned() {
            json[usual] = value;
        }
    }
    let config: HfConfig = serde_json::from_value(json).map_err(|error| bad(error.to_string()))?;
    if config.quantization_config.is_some() {
        return unsupported("quantization_config".into());
    }
    let activation = config.hidden_activation.as_ref().or(config.hidden_act.as_ref());
    if let Some(activation) = activation.filter(|&name| name != architecture.hf_activation) {
        return unsupported(format!("hidden_act `{activation}`"));
    }
    for (key, cap) in [
        ("attn_logit_softcapping", config.attn_logit_softcapping),
        ("final_logit_softcapping", config.final_logit_softcapping),
    ] {
        if let (Some(Some(cap)), None) = (cap, architecture.hf_default_logit_cap) {
            return unsupported(format!("{key} {cap}"));
        }
    }
    if config.scale_attn_by_inverse_layer_idx == Some(true) {
        return unsupported("scale_attn_by_inverse_layer_idx".into());
    }
    if config.use_bidirectional_attention == Some(true) {
        return unsupported("use_bidirectional_attention".into());
    }
    let (mut scaled, mut long) = (None, None);
    for (name, rope) in config.ropes() {
        match rope.rope_type.as_deref() {
            None | Some("default") => {}
            Some("linear") if architecture.hf_linear_rope => {}
            Some("llama3") => scaled = Some((name, rope)),
            // `su` is what it was called at first.
            Some("longrope" | "su") if architecture.has_long_rope => long = Some((name, rope)),
            Some(rope_type) => return unsupported(format!("{name} of type `{rope_type}`")),
        }
        if let (Some(factor), false) =
            (rope.partial_rotary_factor.filter(|&factor| factor != 1.0), architecture.has_partial_rotary)
        {
            return unsupported(format!("{name} with partial_rotary_factor {factor}"));
        }
    }
    let HfConfig { hidden_size, num_attention_heads: num_heads, .. } = config;
    let head_dim = match config.head_dim.or(architecture.hf_default_head_dim) {
        Some(head_dim) => head_dim,
        None if num_heads > 0 && hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
        None => return Err(bad(format!("hidden_size {hidden_size} cannot be shared by {num_heads} heads evenly"))),
    };
    let rotary_dim = match architecture.has_partial_rotary {
        // Cut off as in Python's `int`.
        true => (head_dim as f64 * config.partial_rotary_factor()) as usize,
        false => head_dim,
    };
    super::check_num_layers(config.num_hidden_layers).map_err(bad)?;
    let context = config.max_position_embeddings;
    let (rope_factors, rope_magnitude, max_positions) = match (scaled, long) {
        (None, None) => (Vec::new(), 1.0, context),
        (_, Some((name, rope))) => rope.long_rope(&config).ok_or_else(|| {
            bad(format!("{name} of type `longrope` needs short_factor and original_max_position_embeddings"))
        })?,
        (Some((name, rope)), None) => rope
            .llama3_factors(config.rope_theta(), head_dim)
            .ok_or_else(|| {
                bad(format!(
                    "{name} of type `llama3` needs factor, low_freq_factor, high_freq_factor and \
                 original_max_position_embeddings"
                ))
            })
            .map(|factors| (factors, 1.0, context))?,
    };
    let default_inner = architecture.hf_default_inner.and_then(|times| hidden_size.checked_mul(times));
    let intermediate_size = config.intermediate_size.or(default_inner);
    let layers = (0..config.num_hidden_layers).map(|layer| (architecture.hf_block)(&config, layer));
    let default_kv_heads = architecture.hf_default_kv_heads.unwrap_or(num_heads);
    let model = ModelConfig {
        architecture,
        vocab_size: config.vocab_size,
        hidden_size,
        intermediate_size: intermediate_size.ok_or_else(|| bad("missing field `intermediate_size`".into()))?,
        layers: layers.collect(),
        num_heads,
        num_kv_heads: config.num_key_value_heads.unwrap_or(default_kv_heads),
        head_dim,
        rotary_dim,
        norm: architecture.norm,
        norm_eps: config.rms_norm_eps.unwrap_or(architecture.hf_default_eps),
        rope_layout: RopeLayout::Halves,
        rope_factors,
        rope_magnitude,
        scales: architecture.hf_scales.map_or_else(Scales::default, |scales| scales(&config)),
        logit_cap: config.final_logit_softcapping.unwrap_or(architecture.hf_default_logit_cap),
        has_position_embedding: architecture.has_position_embedding,
        max_positions,
    };
    super::check_config(&model).map_err(bad)?;
    Ok((model, config.tie_word_embeddings.unwrap_or(architecture.hf_ties_by_default)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(changes: &Value) -> Result<(ModelConfig, bool)> {
        let mut config = json!({
            "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 160,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "an_unknown_key": [1, 2],
        });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        parse(Path::new("config.json"), config.to_string().as_bytes())
    }

    #[test]
    fn both_places_of_the_rotary_base_are_read() {
        let theta = |changes| with(&changes).unwrap().0.layers[0].rope_theta;
        assert_eq!(theta(json!({})), Some(10_000.0));
        assert_eq!(theta(json!({"rope_theta": 5e5, "rope_scaling": null})), Some(5e5));
        assert_eq!(theta(json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}})), Some(1e6));
    }

    #[test]
    fn absent_keys_take_the_defaults_of_transformers() {
        let read = |changes| with(&changes).unwrap();
        let (llama, tied) = read(json!({"num_key_value_heads": null, "sliding_window": 7}));
        assert_eq!((llama.head_dim, llama.num_kv_heads, llama.layers[2].sliding_window, tied), (16, 4, None, false));
        assert_eq!(read(json!({"head_dim": 32})).0.head_dim, 32);
        assert!(read(json!({"tie_word_embeddings": true})).1);
        assert_eq!(read(json!({"model_type": "mistral"})).0.layers[0].sliding_window, Some(4096));
        assert_eq!(read(json!({"model_type": "mistral", "sliding_window": null})).0.layers[0].sliding_window, None);
        assert_eq!(read(json!({"model_type": "mistral", "sliding_window": 16})).0.layers[0].sliding_window, Some(16));
    }

    #[test]
    fn both_places_of_the_partial_rotary_factor_are_read() {
        let rotary_dim = |mut changes: Value| {
            changes["model_type"] = "phi3".into();
            with(&changes).map(|(config, _)| config.rotary_dim)
        };
        assert_eq!(rotary_dim(json!({})).unwrap(), 16);
        assert_eq!(rotary_dim(json!({"partial_rotary_factor": 0.75})).unwrap(), 12);
        assert_eq!(rotary_dim(json!({"rope_parameters": {"partial_rotary_factor": 0.5}})).unwrap(), 8);
        let refused = |factor: f64| rotary_dim(json!({"partial_rotary_factor": factor})).unwrap_err().to_string();
        assert!(refused(0.95).contains("15 dimensions of heads of 16 rotate"), "{}", refused(0.95));
        assert!(refused(1.5).contains("24 dimensions of heads of 16 rotate"), "{}", refused(1.5));
    }

    #[test]
    fn long_rope_runs_at_the_original_context() {
        let of = |outer: Value, inner: Value| {
            let mut rope =
                json!({"type": "longrope", "short_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5], "long_factor": [9.0]});
            rope.as_object_mut().unwrap().extend(inner.as_object().unwrap().clone());
            let mut changes = json!({
                "model_type": "phi3", "partial_rotary_factor": 0.75, "max_position_embeddings": 131_072,
                "rope_scaling": rope,
            });
            changes.as_object_mut().unwrap().extend(outer.as_object().unwrap().clone());
            let config = with(&changes).unwrap().0;
            assert_eq!(config.rope_factors, [1.0, 1.5, 2.0, 2.5, 3.0, 3.5]);
            (config.rope_magnitude, config.max_positions)
        };
        let original = json!({"original_max_position_embeddings": 4096});
        // math.sqrt(1 + math.log(32) / math.log(4096)) = 1.1902380714238083
        assert_eq!(of(original.clone(), json!({})), (1.190_238_1, 4096));
        assert_eq!(of(original.clone(), json!({"factor": 4.0})), (1.190_238_1, 4096));
        assert_eq!(of(original.clone(), json!({"attention_factor": 1.5})), (1.5, 4096));
        // math.sqrt(1 + math.log(4) / math.log(8192)) = 1.0741723110591492
        assert_eq!(
            of(json!({}), json!({"factor": 4.0, "original_max_position_embeddings": 8192})),
            (1.074_172_3, 8192)
        );
        assert_eq!(of(json!({"max_position_embeddings": 512}), original), (1.0, 512));
    }

    #[test]
    fn biases_and_windows_are_each_familys_own() {
        let layers = |changes| with(&changes).unwrap().0.layers;
        let biases = |changes| layers(changes)[0].biases.map(u8::from);
        assert_eq!(biases(json!({})), [0; 7]);
        assert_eq!(biases(json!({"attention_bias": true})), [1, 1, 1, 1, 0, 0, 0]);
        assert_eq!(biases(json!({"mlp_bias": true})), [0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(biases(json!({"model_type": "qwen2"})), [1, 1, 1, 0, 0, 0, 0]);
        let windows = |changes| layers(changes).iter().map(|layer| layer.sliding_window).collect::<Vec<_>>();
        assert_eq!(windows(json!({"model_type": "qwen2", "sliding_window": 9})), [None; 3]);
        let some =
            json!({"model_type": "qwen2", "sliding_window": 9, "use_sliding_window": true, "max_window_layers": 2});
        assert_eq!(windows(some), [None, None, Some(9)]);
    }

    #[test]
    fn gemma_3_is_read_as_both_versions_of_transformers_write_it() {
        let of = |changes| {
            let (config, is_tied) = with(&changes).unwrap();
            assert!(is_tied && config.scales.embedding == 8.0 && config.scales.attention == Some(1.0 / 16.0));
            let layer = |layer: &crate::BlockSpec| (layer.rope_theta, layer.rope_scaling, layer.sliding_window);
            config.layers.iter().map(layer).collect::<Vec<_>>()
        };
        let (short, long) = ((Some(1e4), 1.0, Some(8)), (Some(1e6), 8.0, None));
        let older = json!({
            "model_type": "gemma3_text", "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
            "sliding_window": 8, "sliding_window_pattern": 3, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "final_logit_softcapping": null,
        });
        assert_eq!(of(older), [short, short, long]);
        let newer = json!({
            "model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 8,
            "_sliding_window_pattern": 6, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        });
        assert_eq!(of(newer), [short, long, short]);
    }

    #[test]
    fn caps_of_gemma_2_are_defaults_unless_the_file_says_otherwise() {
        let of = |caps: Value| {
            let mut changes = json!({"model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh"});
            changes.as_object_mut().unwrap().extend(caps.as_object().unwrap().clone());
            let config = with(&changes).unwrap().0;
            let windows: Vec<_> = config.layers.iter().map(|layer| layer.sliding_window).collect();
            assert_eq!(windows, [Some(4096), None, Some(4096)]);
            (config.layers[0].attention_cap, config.logit_cap)
        };
        assert_eq!(of(json!({})), (Some(50.0), Some(30.0)));
        assert_eq!(of(json!({"attn_logit_softcapping": null, "final_logit_softcapping": null})), (None, None));
        let some = json!({"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0});
        assert_eq!(of(some), (Some(20.0), Some(10.0)));
    }

    #[test]
    fn keys_of_gpt_2_and_gpt_neo_are_read_by_their_own_names() {
        let of = |own: Value| parse(Path::new("config.json"), own.to_string().as_bytes()).unwrap();
        let (gpt2, is_tied) = of(json!({
            "model_type": "gpt2", "vocab_size": 512, "n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 256,
            "n_ctx": 256, "n_inner": null, "layer_norm_epsilon": 1e-4, "activation_function": "gelu_new",
        }));
        assert!(is_tied && gpt2.has_position_embedding && gpt2.scales.attention.is_none());
        assert_eq!((gpt2.num_layers(), gpt2.hidden_size, gpt2.intermediate_size), (3, 64, 256));
        assert_eq!((gpt2.num_heads, gpt2.num_kv_heads, gpt2.max_positions, gpt2.norm_eps), (4, 4, 256, 1e-4));
        let (neo, _) = of(json!({
            "model_type": "gpt_neo", "vocab_size": 512, "hidden_size": 64, "num_heads": 4, "num_layers": 4,
            "max_position_embeddings": 128, "intermediate_size": 96, "window_size": 8,
            "attention_types": [[["global", "local"], 1], [["local", "global"], 1]],
        }));
        let windows: Vec<_> = neo.layers.iter().map(|layer| layer.sliding_window).collect();
        assert_eq!(windows, [None, Some(8), Some(8), None]);
        assert_eq!((neo.intermediate_size, neo.scales.attention, neo.norm_eps), (96, Some(1.0), 1e-5));
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_name() {
        let check = |changes: Value, expected: &str| {
            let error = with(&changes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} should hold {expected:?}");
        };
        check(json!({"model_type": "qwen9"}), "model_type `qwen9` is not supported");
        check(json!({"rope_scaling": {"rope_type": "llama3"}}), "rope_scaling of type `llama3` needs factor");
        check(json!({"rope_scaling": {"type": "linear", "factor": 2}}), "rope_scaling of type `linear`");
        check(json!({"rope_parameters": {"rope_type": "yarn"}}), "rope_parameters of type `yarn`");
        check(json!({"model_type": "phi3", "rope_scaling": {"type": "yarn"}}), "rope_scaling of type `yarn`");
        check(
            json!({"model_type": "phi3", "rope_scaling": {"type": "longrope"}}),
            "needs short_factor and original_max",
        );
        check(json!({"rope_scaling": {"type": "longrope"}}), "rope_scaling of type `longrope`");
        check(json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), "partial_rotary_factor 0.5");
        check(json!({"hidden_act": "gelu"}), "hidden_act `gelu`");
        check(json!({"model_type": "gemma3_text", "hidden_act": "silu"}), "hidden_act `silu`");
        check(json!({"model_type": "gemma3_text", "final_logit_softcapping": 30.0}), "final_logit_softcapping 30");
        check(json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping 50");
        check(json!({"model_type": "gemma2", "attn_logit_softcapping": 0.0}), "the cap of attention scores is 0");
        check(json!({"model_type": "gemma2", "use_bidirectional_attention": true}), "use_bidirectional_attention");
        check(json!({"quantization_config": {"bits": 4}}), "quantization_config");
        check(json!({"model_type": null}), "config.json: invalid type: null");
        check(json!({"intermediate_size": null}), "missing field `intermediate_size`");
        let inverse = json!({"model_type": "gpt2", "hidden_act": "gelu_new", "scale_attn_by_inverse_layer_idx": true});
        check(inverse, "scale_attn_by_inverse_layer_idx");
        check(json!({"vocab_size": -1}), "invalid value");
        check(json!({"vocab_size": null}), "invalid type");
        check(json!({"hidden_size": 0}), "the hidden size is 0");
        check(json!({"num_attention_heads": 0}), "hidden_size 64 cannot be shared by 0 heads");
        check(json!({"num_attention_heads": 3}), "hidden_size 64 cannot be shared by 3 heads");
        check(json!({"num_key_value_heads": 0}), "the number of key/value heads is 0");
        check(json!({"num_key_value_heads": 3}), "4 heads cannot share 3 key/value heads");
        check(json!({"num_hidden_layers": 4_000_000_000_u32}), "the number of layers is 4000000000");
        check(json!({"vocab_size": u64::MAX}), "the vocabulary size is 18446744073709551615");
        check(json!({"head_dim": 15}), "the head dimension 15 is odd");
        check(json!({"rms_norm_eps": 0}), "the epsilon of the norms is 0");
        check(json!({"rope_theta": -1}), "the rotary base is -1");
        check(json!({"model_type": "mistral", "sliding_window": 0}), "the sliding window is 0");
    }
}
