//! A model's configuration from the `llama.*` keys of a GGUF file.

use crate::{
    Architecture, Error, ModelConfig, Result, RopeLayout, TensorName,
    gguf::{Gguf, Value},
};

/// Keys that change the computation in ways this crate does not follow, and the values that leave it as it is.
const NEUTRAL: [(&str, &[Neutral]); 13] = [
    ("expert_count", &[Neutral::Zero]),
    ("rope.scaling.type", &[Neutral::Text("none"), Neutral::Text("")]),
    ("rope.scaling.factor", &[Neutral::Zero, Neutral::One]),
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

/// Reads and checks the configuration.
pub fn read(gguf: &Gguf) -> Result<ModelConfig> {
    let unsupported = |what: String, hint: &str| {
        Err(Error::Unsupported { what: format!("{}: {what}", gguf.path().display()), hint: hint.into() })
    };
    let architecture = gguf.str("general.architecture")?;
    if architecture != "llama" {
        return unsupported(
            format!("architecture `{architecture}`"),
            "GGUF files of architecture `llama` (Llama, SmolLM2, Mistral) can be run",
        );
    }
    for (key, neutral) in NEUTRAL {
        let key = format!("llama.{key}");
        if let Some(value) = gguf.get(&key)
            && !neutral.iter().any(|neutral| neutral.matches(value))
        {
            return unsupported(format!("`{key}` = {value:?}"), "use a plain Llama model");
        }
    }
    let usize_or = |key: &str, default: usize| if gguf.get(key).is_some() { gguf.usize(key) } else { Ok(default) };
    let f32_or = |key: &str, default: f32| if gguf.get(key).is_some() { gguf.f32(key) } else { Ok(default) };

    let hidden_size = gguf.usize("llama.embedding_length")?;
    let num_heads = gguf.usize("llama.attention.head_count")?;
    let head_dim = match gguf.get("llama.attention.key_length") {
        Some(_) => gguf.usize("llama.attention.key_length")?,
        None if num_heads > 0 && hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
        None => {
            let reason = format!("the embedding length {hidden_size} cannot be shared by {num_heads} heads evenly");
            return Err(Error::model_file(gguf.path(), reason));
        }
    };
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        let dim = usize_or(key, head_dim)?;
        if dim != head_dim {
            return unsupported(format!("`{key}` = {dim} in heads of {head_dim}"), "the two must be equal");
        }
    }
    let embedding = TensorName::TokenEmbedding.gguf_name();
    let Some((info, _)) = gguf.tensor(&embedding) else {
        return Err(Error::model_file(gguf.path(), format!("tensor `{embedding}` is missing")));
    };
    let config = ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: info.shape[0],
        hidden_size,
        intermediate_size: gguf.usize("llama.feed_forward_length")?,
        num_layers: gguf.usize("llama.block_count")?,
        num_heads,
        num_kv_heads: usize_or("llama.attention.head_count_kv", num_heads)?,
        head_dim,
        rms_norm_eps: gguf.f32("llama.attention.layer_norm_rms_epsilon")?,
        rope_theta: f32_or("llama.rope.freq_base", 10_000.0)?,
        rope_layout: RopeLayout::Interleaved,
        max_positions: gguf.usize("llama.context_length")?,
        sliding_window: None,
    };
    super::check_config(&config).map_err(|reason| Error::model_file(gguf.path(), reason))?;
    Ok(config)
}
