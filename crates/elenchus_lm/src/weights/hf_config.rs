//! A model's configuration from the `config.json` of a Hugging Face folder.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::Value;

use crate::{Architecture, Error, ModelConfig, Result, RopeLayout};

/// The keys that matter; defaults are those of transformers.
#[derive(Deserialize)]
pub(crate) struct HfConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    #[serde(default = "default_eps")]
    rms_norm_eps: f32,
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
    #[serde(default = "default_act")]
    hidden_act: String,
    #[serde(default)]
    tie_word_embeddings: bool,
    quantization_config: Option<Value>,
}

#[derive(Deserialize)]
struct RopeParameters {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f32>,
    partial_rotary_factor: Option<f32>,
}

fn default_eps() -> f32 {
    1e-6
}

fn default_act() -> String {
    "silu".into()
}

/// Tells a `null` from a key that is not there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<usize>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl HfConfig {
    /// Base of the rotary frequencies, wherever it stands.
    pub fn rope_theta(&self) -> f32 {
        let in_parameters = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        in_parameters.or(self.rope_theta).unwrap_or(10_000.0)
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
    /// Read first, so that another architecture is refused by name and not for a key it lacks.
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
    let config: HfConfig = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
    if config.quantization_config.is_some() {
        return unsupported("quantization_config".into());
    }
    if config.hidden_act != "silu" {
        return unsupported(format!("hidden_act `{}`", config.hidden_act));
    }
    for (name, rope) in [("rope_parameters", &config.rope_parameters), ("rope_scaling", &config.rope_scaling)] {
        let Some(rope) = rope else { continue };
        if let Some(rope_type) = rope.rope_type.as_deref().filter(|&rope_type| rope_type != "default") {
            return unsupported(format!("{name} of type `{rope_type}`"));
        }
        if let Some(factor) = rope.partial_rotary_factor.filter(|&factor| factor != 1.0) {
            return unsupported(format!("{name} with partial_rotary_factor {factor}"));
        }
    }
    let HfConfig { hidden_size, num_attention_heads: num_heads, .. } = config;
    let head_dim = match config.head_dim {
        Some(head_dim) => head_dim,
        None if num_heads > 0 && hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
        None => return Err(bad(format!("hidden_size {hidden_size} cannot be shared by {num_heads} heads evenly"))),
    };
    super::check_num_layers(config.num_hidden_layers).map_err(bad)?;
    let layers = (0..config.num_hidden_layers).map(|layer| (architecture.hf_block)(&config, layer));
    let default_kv_heads = architecture.hf_default_kv_heads.unwrap_or(num_heads);
    let model = ModelConfig {
        architecture,
        vocab_size: config.vocab_size,
        hidden_size,
        intermediate_size: config.intermediate_size,
        layers: layers.collect(),
        num_heads,
        num_kv_heads: config.num_key_value_heads.unwrap_or(default_kv_heads),
        head_dim,
        rms_norm_eps: config.rms_norm_eps,
        rope_layout: RopeLayout::Halves,
        max_positions: config.max_position_embeddings,
    };
    super::check_config(&model).map_err(bad)?;
    Ok((model, config.tie_word_embeddings))
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
        assert_eq!(theta(json!({})), 10_000.0);
        assert_eq!(theta(json!({"rope_theta": 5e5, "rope_scaling": null})), 5e5);
        assert_eq!(theta(json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}})), 1e6);
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
    fn what_cannot_be_run_is_refused_by_name() {
        let check = |changes: Value, expected: &str| {
            let error = with(&changes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} should hold {expected:?}");
        };
        check(json!({"model_type": "qwen9"}), "model_type `qwen9` is not supported");
        check(json!({"rope_scaling": {"rope_type": "llama3"}}), "rope_scaling of type `llama3`");
        check(json!({"rope_scaling": {"type": "linear", "factor": 2}}), "rope_scaling of type `linear`");
        check(json!({"rope_parameters": {"rope_type": "yarn"}}), "rope_parameters of type `yarn`");
        check(json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), "partial_rotary_factor 0.5");
        check(json!({"hidden_act": "gelu"}), "hidden_act `gelu`");
        check(json!({"quantization_config": {"bits": 4}}), "quantization_config");
        check(json!({"model_type": null}), "config.json: invalid type: null");
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
        check(json!({"rms_norm_eps": 0}), "the RMSNorm epsilon is 0");
        check(json!({"rope_theta": -1}), "the rotary base is -1");
        check(json!({"model_type": "mistral", "sliding_window": 0}), "the sliding window is 0");
    }
}
