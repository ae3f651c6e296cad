//! A model's configuration from the keys of a GGUF file, `llama.*` or the prefix of its architecture.

use crate::{
    Architecture, Error, Linear, ModelConfig, Result, Scales, TensorName,
    architectures::TensorNames,
    gguf::{Gguf, Value},
};

/// Keys that change the computation in ways this crate does not support, and the values that do not.
const NEUTRAL: [(&str, &[Neutral]); 16] = [
    ("expert_count", &[Neutral::Zero]),
    ("rope.scaling.type", &[Neutral::Text("none"), Neutral::Text("")]),
    ("rope.scaling.factor", &[Neutral::Zero, Neutral::One]),
    ("rope.scaling.attn_factor", &[Neutral::One]),
    ("rope.scale_linear", &[Neutral::Zero, Neutral::One]),
    ("attention.sliding_window", &[Neutral::Zero]),
    ("attention.causal", &[Neutral::True]),
    ("attention.scale", &[Neutral::Zero]),
    ("attention.clamp_kqv", &[Neutral::Zero]),
    ("attention.max_alibi_bias", &[Neutral::Zero]),
    ("logit_scale", &[Neutral::Zero, Neutral::One]),
    ("residual_scale", &[Neutral::Zero, Neutral::One]),
    ("embedding_scale", &[Neutral::Zero, Neutral::One]),
    ("use_parallel_residual", &[Neutral::False]),
    ("attn_logit_softcapping", &[Neutral::Zero]),
    ("final_logit_softcapping", &[Neutral::Zero]),
];

#[derive(Clone, Copy)]
enum Neutral {
    Zero,
    One,
    True,
    False,
    Text(&'static str),
}

impl Neutral {
    fn matches(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Zero, Value::Int(int)) => *int == 0,
            (Self::Zero, Value::Float(float)) => *float == 0.0,
            (Self::One, Value::Int(int)) => *int == 1,
            (Self::One, Value::Float(float)) => *float == 1.0,
            (Self::True, Value::Bool(flag)) => *flag,
            (Self::False, Value::Bool(flag)) => !*flag,
            (Self::Text(text), Value::String(value)) => text == value,
            _ => false,
        }
    }
}

/// The tensor that holds [`ModelConfig::rope_factors`].
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// LongRoPE's: for sequences up to the original context, and for longer ones.
pub(super) const LONG_ROPE_FACTORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

/// The keys of a file's own architecture.
pub(crate) struct GgufKeys<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl GgufKeys<'_> {
    /// The whole key.
    pub fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn has(&self, key: &str) -> bool {
        self.gguf.get(&self.key(key)).is_some()
    }

    /// A size; an error if the key is absent.
    pub fn usize(&self, key: &str) -> Result<usize> {
        self.gguf.usize(&self.key(key))
    }

    /// A size, or `default` if the key is absent.
    pub fn usize_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.has(key) { self.usize(key) } else { Ok(default) }
    }

    /// A float, or `default` if the key is absent.
    pub fn f32_or(&self, key: &str, default: f32) -> Result<f32> {
        if self.has(key) { self.gguf.f32(&self.key(key)) } else { Ok(default) }
    }

    /// A text, or `default` if the key is absent.
    pub fn str_or<'s>(&'s self, key: &str, default: &'s str) -> Result<&'s str> {
        if self.has(key) { self.gguf.str(&self.key(key)) } else { Ok(default) }
    }

    /// The error of a key whose value a family cannot compute with.
    pub fn unsupported(&self, key: &str, value: &str) -> Error {
        let what = format!("{}: `{}` = {value:?}", self.gguf.path().display(), self.key(key));
        Error::Unsupported { what, hint: "use a plain model of this architecture".into() }
    }

    /// Which linears of a layer have a bias in the file.
    pub fn biases(&self, names: &TensorNames, layer: usize) -> [bool; 7] {
        Linear::ALL.map(|linear| self.gguf.tensor(&names.name(TensorName::Bias(layer, linear))).is_some())
    }
}

/// Reads and checks the configuration.
pub fn read(gguf: &Gguf) -> Result<ModelConfig> {
    let unsupported = |what: String, hint: &str| {
        Err(Error::Unsupported { what: format!("{}: {what}", gguf.path().display()), hint: hint.into() })
    };
    let name = gguf.str("general.architecture")?;
    let Some(architecture) = Architecture::by_name(name) else {
        let hint = format!("these can be run: {}", Architecture::known());
        return unsupported(format!("architecture `{name}`"), &hint);
    };
    let keys = GgufKeys { gguf, architecture: name };
    for (key, neutral) in NEUTRAL {
        if architecture.gguf_own_keys.contains(&key) {
            continue;
        }
        let key = keys.key(key);
        if let Some(value) = gguf.get(&key)
            && !neutral.iter().any(|neutral| neutral.matches(value))
        {
            return unsupported(format!("`{key}` = {value:?}"), "use a plain model of this architecture");
        }
    }
    let hidden_size = keys.usize("embedding_length")?;
    let num_heads = keys.usize("attention.head_count")?;
    let head_dim = match keys.has("attention.key_length") {
        true => keys.usize("attention.key_length")?,
        false if num_heads > 0 && hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
        false => {
            let reason = format!("the embedding length {hidden_size} cannot be shared by {num_heads} heads evenly");
            return Err(Error::model_file(gguf.path(), reason));
        }
    };
    let rotary_dim = keys.usize_or("rope.dimension_count", head_dim)?;
    for (key, must_be_equal) in
        [("attention.value_length", true), ("rope.dimension_count", !architecture.has_partial_rotary)]
    {
        let dim = keys.usize_or(key, head_dim)?;
        if must_be_equal && dim != head_dim {
            let what = format!("`{}` = {dim} in heads of {head_dim}", keys.key(key));
            return unsupported(what, "the two must be equal");
        }
    }
    let embedding = architecture.gguf_names.name(TensorName::TokenEmbedding);
    let Some((info, _)) = gguf.tensor(&embedding) else {
        return Err(Error::model_file(gguf.path(), format!("tensor `{embedding}` is missing")));
    };
    let num_layers = keys.usize("block_count")?;
    super::check_num_layers(num_layers).map_err(|reason| Error::model_file(gguf.path(), reason))?;
    let factors = |name| gguf.tensor(name).map(|(info, bytes)| info.dtype.dequantise(bytes));
    let context = keys.usize("context_length")?;
    let (rope_factors, rope_magnitude, max_positions) = match architecture.has_long_rope {
        true => {
            let magnitude = keys.f32_or("rope.scaling.attn_factor", 1.0)?;
            match factors(LONG_ROPE_FACTORS[0]) {
                Some(short) => {
                    let original = keys.usize_or("rope.scaling.original_context_length", context)?;
                    (short, magnitude, context.min(original))
                }
                None => (Vec::new(), magnitude, context),
            }
        }
        false => (factors(ROPE_FACTORS).unwrap_or_default(), 1.0, context),
    };
    let scales = architecture.gguf_scales.map_or(Ok(Scales::default()), |scales| scales(&keys))?;
    let config = ModelConfig {
        architecture,
        vocab_size: info.shape[0],
        hidden_size,
        intermediate_size: keys.usize("feed_forward_length")?,
        layers: (0..num_layers).map(|layer| (architecture.gguf_block)(&keys, layer)).collect::<Result<_>>()?,
        num_heads,
        num_kv_heads: keys.usize_or("attention.head_count_kv", num_heads)?,
        head_dim,
        rotary_dim,
        norm: architecture.norm,
        norm_eps: gguf.f32(&keys.key(architecture.norm.gguf_eps_key()))?,
        rope_layout: architecture.gguf_rope_layout,
        rope_factors,
        rope_magnitude,
        scales,
        logit_cap: architecture.gguf_logit_cap.map_or(Ok(None), |cap| cap(&keys))?,
        has_position_embedding: architecture.has_position_embedding,
        max_positions,
    };
    super::check_config(&config).map_err(|reason| Error::model_file(gguf.path(), reason))?;
    Ok(config)
}
