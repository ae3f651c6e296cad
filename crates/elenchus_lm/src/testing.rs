//! A tiny random model with a byte-level vocabulary, as a GGUF file, for tests that must not need a download.
//!
//! The id of a byte's token is the byte, so a test can read ids. Printable letters are sampled most; a reply of
//! the tiny model is gibberish, but one that depends on every token before it.

use std::{collections::BTreeMap, path::Path};

use half::f16;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use crate::{
    Activation, Architecture, BlockSpec, BlockType, Linear, LoraAdapter, LoraPair, ModelConfig, NormPlacement,
    Precision, QkNorm, Scales, TensorName, architectures,
    gguf::{GgufWriter, Value},
    tokenizer::byte_to_char,
};

/// The token after the last of the 256 bytes.
pub const END_OF_TEXT: u32 = 256;
/// `<|im_start|>`.
pub const IM_START: u32 = 257;
/// `<|im_end|>`, which ends a turn.
pub const IM_END: u32 = 258;

/// SmolLM2's markup; like its template, it adds a system text of its own unless one is given.
pub const CHAT_TEMPLATE: &str = "\
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{ '<|im_start|>system\nYou are a voice in a test.<|im_end|>\n' }}
{%- endif -%}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}";

const HEAD_DIM: usize = 16;
const ADAPTER_RANK: usize = 4;

/// Shape of a tiny model.
#[derive(Debug, Clone, Copy)]
pub struct TinyModel {
    /// Its family, by llama.cpp's name: `llama`, `qwen2` for biases, `qwen3` for norms of q and k, `smollm3` for layers
    /// without positions, `granite` for scales, `olmo2` for norms after the parts, `gemma3` for norms on both sides and
    /// GeGLU, `gemma2` for caps, `phi3` for fused matrices
    /// and heads of which a part rotates, `gpt2` for LayerNorm, positions and no gate.
    pub architecture: &'static str,
    /// Seed of its weights.
    pub seed: u64,
    /// Blocks.
    pub layers: usize,
    /// Width; a multiple of 64, of 256 for k-quants.
    pub hidden: usize,
    /// How its matrices are stored: dense, Q8_0, Q4_0 or Q4_K. [`Self::gguf_by`] makes the other types.
    pub dtype: BlockType,
}

impl Default for TinyModel {
    fn default() -> Self {
        Self { architecture: "llama", seed: 0, layers: 2, hidden: 64, dtype: BlockType::Q8_0 }
    }
}

impl TinyModel {
    /// Writes the model: Llama architecture, 256 bytes plus control tokens, SmolLM2's chat markup, Q8_0 weights.
    ///
    /// Panics if the file cannot be written.
    pub fn write_gguf(&self, path: &Path) {
        self.gguf().write(path).expect("the tiny model could be written");
    }

    /// The model as a writer, for tests that damage something before it is written.
    ///
    /// Panics on a block type that cannot be quantised to.
    pub fn gguf(&self) -> GgufWriter {
        self.gguf_by(&encode)
    }

    /// The model as a writer, its weights encoded as bytes of a type by `encode`.
    pub fn gguf_by(&self, encode: &dyn Fn(BlockType, &[f32]) -> Vec<u8>) -> GgufWriter {
        let config = self.config();
        let mut writer = GgufWriter::new();
        writer.set("general.architecture", self.architecture).set("general.name", "tiny");
        for (key, value) in [
            ("block_count", config.num_layers()),
            ("context_length", config.max_positions),
            ("embedding_length", config.hidden_size),
            ("feed_forward_length", config.intermediate_size),
            ("attention.head_count", config.num_heads),
            ("attention.head_count_kv", config.num_kv_heads),
            ("rope.dimension_count", config.rotary_dim),
            ("vocab_size", config.vocab_size),
        ] {
            writer.set(format!("{}.{key}", self.architecture), value as i64);
        }
        for (key, value) in [
            (config.norm.gguf_eps_key(), config.norm_eps),
            ("rope.freq_base", config.layers[config.num_layers() - 1].rope_theta.unwrap_or(1e4)),
        ] {
            writer.set(format!("{}.{key}", self.architecture), value);
        }

        if let ("granite", Scales { embedding, attention: Some(attention), residual, logits }) =
            (self.architecture, config.scales)
        {
            for (key, scale) in [
                ("embedding_scale", embedding),
                ("attention.scale", attention),
                ("residual_scale", residual),
                ("logit_scale", 1.0 / logits),
            ] {
                writer.set(format!("{}.{key}", self.architecture), scale);
            }
        }

        let mut tokens: Vec<Value> = (0..=255).map(|byte| byte_to_char(byte).to_string().as_str().into()).collect();
        tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(Value::from));
        let types: Vec<i64> = (0..tokens.len()).map(|id| if id < 256 { 1 } else { 3 }).collect();
        writer
            .set("tokenizer.ggml.model", "gpt2")
            .set("tokenizer.ggml.pre", "smollm")
            .set("tokenizer.ggml.tokens", Value::Array(tokens))
            .set("tokenizer.ggml.token_type", types)
            .set("tokenizer.ggml.merges", Vec::<&str>::new())
            .set("tokenizer.ggml.bos_token_id", i64::from(IM_START))
            .set("tokenizer.ggml.eos_token_id", i64::from(IM_END))
            .set("tokenizer.ggml.padding_token_id", i64::from(IM_END))
            .set("tokenizer.ggml.add_bos_token", false)
            .set("tokenizer.chat_template", CHAT_TEMPLATE);

        let mut rng = Pcg64Mcg::seed_from_u64(self.seed);
        let mut tensors: Vec<(String, Vec<usize>, BlockType, Vec<u8>)> = Vec::new();
        for name in TensorName::all(&config) {
            let shape = name.shape(&config);
            let (values, dtype) = random_weights(&mut rng, name, &shape, self.dtype);
            let (own_name, bytes) = (config.architecture.gguf_names.name(name), encode(dtype, &values));
            match tensors.iter_mut().find(|(other, ..)| *other == own_name) {
                // Parts of a fused tensor come in the order of their rows.
                Some((_, whole, _, rows)) => {
                    whole[0] += shape[0];
                    rows.extend(bytes);
                }
                None => tensors.push((own_name, shape, dtype, bytes)),
            }
        }
        for (name, shape, dtype, bytes) in tensors {
            writer.tensor(name, &shape, dtype, bytes);
        }
        writer
    }

    /// Writes a PEFT adapter of rank 4 on q and v that fits the model; each seed is a different voice.
    ///
    /// Panics if the folder cannot be written.
    pub fn write_adapter(&self, folder: &Path, seed: u64) {
        write_random_adapter(folder, &self.config(), ADAPTER_RANK, seed);
    }

    /// The configuration that the written file declares.
    pub fn config(&self) -> ModelConfig {
        assert!(self.hidden > 0 && self.hidden.is_multiple_of(64), "the width must be a multiple of 64");
        let num_heads = self.hidden / HEAD_DIM;
        let architecture = Architecture::by_name(self.architecture).expect("a family that can be run");
        let layers = (0..self.layers).map(|layer| {
            let plain = BlockSpec::default();
            match self.architecture {
                "qwen2" => BlockSpec { biases: architectures::flags(&[Linear::Q, Linear::K, Linear::V]), ..plain },
                "qwen3" => BlockSpec { qk_norm: Some(QkNorm::Heads), ..plain },
                "olmo2" => BlockSpec { qk_norm: Some(QkNorm::Whole), norms: NormPlacement::After, ..plain },
                "gemma3" => BlockSpec {
                    qk_norm: Some(QkNorm::Heads),
                    norms: NormPlacement::Both,
                    activation: Activation::GeluTanh,
                    sliding_window: (!(layer + 1usize).is_multiple_of(6)).then_some(1024),
                    ..plain
                },
                "gemma2" => BlockSpec {
                    norms: NormPlacement::Both,
                    activation: Activation::GeluTanh,
                    sliding_window: (!(layer + 1usize).is_multiple_of(2)).then_some(4096),
                    attention_cap: Some(50.0),
                    ..plain
                },
                "gpt2" => BlockSpec {
                    biases: [true, true, true, true, false, true, true],
                    rope_theta: None,
                    is_gated: false,
                    activation: Activation::GeluTanh,
                    ..plain
                },
                "smollm3" => {
                    BlockSpec { rope_theta: plain.rope_theta.filter(|_| !(layer + 1usize).is_multiple_of(4)), ..plain }
                }
                _ => plain,
            }
        });
        ModelConfig {
            architecture,
            vocab_size: 256 + 3,
            hidden_size: self.hidden,
            intermediate_size: 2 * self.hidden,
            layers: layers.collect(),
            num_heads,
            num_kv_heads: num_heads / 2,
            head_dim: HEAD_DIM,
            rotary_dim: if self.architecture == "phi3" { HEAD_DIM / 4 * 3 } else { HEAD_DIM },
            norm: architecture.norm,
            norm_eps: 1e-5,
            rope_layout: architecture.gguf_rope_layout,
            rope_factors: Vec::new(),
            rope_magnitude: 1.0,
            scales: match self.architecture {
                "granite" => Scales { embedding: 1.5, attention: Some(0.2), residual: 0.7, logits: 0.8 },
                "gemma2" | "gemma3" => Scales { embedding: (self.hidden as f32).sqrt(), ..Scales::default() },
                _ => Scales::default(),
            },
            logit_cap: (self.architecture == "gemma2").then_some(30.0),
            has_position_embedding: architecture.has_position_embedding,
            max_positions: 4096,
        }
    }
}

/// Numbers as bytes of a dense type or of one that can be quantised to.
fn encode(dtype: BlockType, values: &[f32]) -> Vec<u8> {
    dtype.quantise(values).unwrap_or_else(|| panic!("the tiny model cannot be written in {dtype}"))
}

/// Writes a random PEFT adapter on q and v for any model, strong enough that each seed is a different voice: its update
/// is about as large as what it is added to.
///
/// Panics if the folder cannot be written.
pub fn write_random_adapter(folder: &Path, config: &ModelConfig, rank: usize, seed: u64) {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut pairs = BTreeMap::new();
    for layer in 0..config.num_layers() {
        for linear in [Linear::Q, Linear::V] {
            let (rows, columns) = linear.shape(config);
            let a = uniform(&mut rng, rank * columns, 1.0 / (columns as f32).sqrt());
            let b = uniform(&mut rng, rows * rank, 1.0 / (rank as f32).sqrt());
            pairs.insert((layer, linear), LoraPair { a, b, rank, scaling: 2.0 });
        }
    }
    let adapter = LoraAdapter::from_pairs("random", pairs);
    adapter.save(folder, "random", Precision::F32).expect("the adapter's folder could be written");
}

/// Weights scaled so that attention is not uniform, each block changes the stream, and logits differ by several units.
fn random_weights(rng: &mut Pcg64Mcg, name: TensorName, shape: &[usize], dtype: BlockType) -> (Vec<f32>, BlockType) {
    let count = shape.iter().product();
    let columns = shape[shape.len() - 1];
    let fan_in = 1.0 / (columns as f32).sqrt();
    match name {
        TensorName::OutputNorm
        | TensorName::AttentionNorm(_)
        | TensorName::FfnNorm(_)
        | TensorName::PostAttentionNorm(_)
        | TensorName::PostFfnNorm(_)
        | TensorName::QNorm(_)
        | TensorName::KNorm(_) => {
            (uniform(rng, count, 0.1).into_iter().map(|value| 1.0 + value).collect(), BlockType::F32)
        }
        TensorName::TokenEmbedding => (uniform(rng, count, 1.0), dtype),
        TensorName::PositionEmbedding => (uniform(rng, count, 0.5), BlockType::F32),
        TensorName::OutputNormBias | TensorName::AttentionNormBias(_) | TensorName::FfnNormBias(_) => {
            (uniform(rng, count, 0.1), BlockType::F32)
        }
        TensorName::Linear(_, Linear::Q | Linear::K) => (uniform(rng, count, 2.0 * fan_in), dtype),
        TensorName::Bias(..) => (uniform(rng, count, 0.5), BlockType::F32),
        TensorName::Linear(..) => (uniform(rng, count, 1.5 * fan_in), dtype),
        TensorName::Output => {
            let mut values = uniform(rng, count, 3.0 * fan_in);
            for (id, row) in values.chunks_exact_mut(columns).enumerate() {
                let share = match id as u32 {
                    0x20..=0x7e => 1.0,
                    IM_END => 0.6,
                    END_OF_TEXT | IM_START => 0.0,
                    _ => 0.2,
                };
                row.iter_mut().for_each(|value| *value *= share);
            }
            (values, dtype)
        }
    }
}

/// Values of mean 0 and this standard deviation.
fn uniform(rng: &mut Pcg64Mcg, count: usize, deviation: f32) -> Vec<f32> {
    let width = 2.0 * 3f32.sqrt() * deviation;
    (0..count).map(|_| (rng.random::<f32>() - 0.5) * width).collect()
}

/// Random blocks of any type with small scales, as many as `values` fill: a model of them gives finite logits. Dense types
/// and Q8_0 hold the values.
///
/// Panics if the values fill no whole blocks.
pub fn random_blocks(dtype: BlockType, values: &[f32]) -> Vec<u8> {
    assert!(values.len().is_multiple_of(dtype.block_size()), "{} numbers are no blocks of {dtype:?}", values.len());
    // Where f16 scales and offsets stand in a block, and how large they are.
    let (at, size): (&[usize], f32) = match dtype {
        BlockType::Q4_0 | BlockType::Q5_0 => (&[0], 0.02),
        BlockType::Q4_1 | BlockType::Q5_1 => (&[0, 2], 0.02),
        BlockType::Q2K => (&[80, 82], 0.004),
        BlockType::Q3K => (&[108], 0.002),
        BlockType::Q4K | BlockType::Q5K => (&[0, 2], 0.0005),
        BlockType::Q6K => (&[208], 0.0002),
        BlockType::IQ4NL => (&[0], 0.001),
        BlockType::IQ4XS => (&[0], 0.00005),
        BlockType::TQ1_0 => (&[52], 0.1),
        BlockType::TQ2_0 => (&[64], 0.1),
        BlockType::MXFP4 => (&[], 0.0),
        BlockType::F32 | BlockType::F16 | BlockType::BF16 | BlockType::Q8_0 => return encode(dtype, values),
    };
    let mut bytes = vec![0; values.len() / dtype.block_size() * dtype.type_size()];
    let mut rng = Pcg64Mcg::seed_from_u64(u64::from(values[0].to_bits()));
    rng.fill_bytes(&mut bytes);
    for block in bytes.chunks_exact_mut(dtype.type_size()) {
        for &at in at {
            let scale = f16::from_f32(size * (0.5 + rng.random::<f32>()));
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        if dtype == BlockType::MXFP4 {
            // An exponent: about 2^-6 before the table's values up to 12.
            block[0] = 121 + block[0] % 3;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Weights, gguf::Gguf};

    #[test]
    fn the_file_is_the_same_each_time_and_opens_as_configured() {
        let folder = tempfile::tempdir().unwrap();
        let model = TinyModel { seed: 7, layers: 3, hidden: 128, ..TinyModel::default() };
        let (first, second) = (folder.path().join("first.gguf"), folder.path().join("second.gguf"));
        model.write_gguf(&first);
        model.write_gguf(&second);
        assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());
        assert_eq!(Weights::open(&first, &mut |_| {}).unwrap().config(), &model.config());
        assert_eq!(Gguf::open(&first).unwrap().str("tokenizer.chat_template").unwrap(), CHAT_TEMPLATE);
    }
}
