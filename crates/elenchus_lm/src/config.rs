//! The architecture as data: one description that every executor reads.

use std::fmt;

use crate::Architecture;

/// How a head's dimensions are paired for rotary position embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayout {
    /// `(i, i + head_dim / 2)`: Hugging Face checkpoints.
    Halves,
    /// `(2i, 2i + 1)`: Llama's own GGUF files, whose q and k rows were permuted for it.
    Interleaved,
}

/// One of the up to seven weight matrices of a block: those that an adapter may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Linear {
    /// Queries, `(num_heads * head_dim, hidden_size)`.
    Q,
    /// Keys, `(num_kv_heads * head_dim, hidden_size)`.
    K,
    /// Values, `(num_kv_heads * head_dim, hidden_size)`.
    V,
    /// Attention output, `(hidden_size, num_heads * head_dim)`.
    O,
    /// The gated unit's gate, `(intermediate_size, hidden_size)`.
    Gate,
    /// The gated unit's other branch, or the only one, `(intermediate_size, hidden_size)`.
    Up,
    /// Back to the residual stream, `(hidden_size, intermediate_size)`.
    Down,
}

impl Linear {
    /// All seven, in the order a block uses them.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The name in Hugging Face checkpoints and PEFT adapters: `q_proj`.
    pub fn hf_name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The module that holds it in Hugging Face checkpoints: `self_attn` or `mlp`.
    pub fn hf_module(self) -> &'static str {
        match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        }
    }

    /// The name in GGUF files: `attn_q`.
    pub fn gguf_name(self) -> &'static str {
        match self {
            Self::Q => "attn_q",
            Self::K => "attn_k",
            Self::V => "attn_v",
            Self::O => "attn_output",
            Self::Gate => "ffn_gate",
            Self::Up => "ffn_up",
            Self::Down => "ffn_down",
        }
    }

    /// The linear called `name` in a Hugging Face checkpoint.
    pub fn from_hf_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|linear| linear.hf_name() == name)
    }

    /// `(out_features, in_features)` in a model of this configuration.
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        match self {
            Self::Q => (config.q_dim(), hidden),
            Self::K | Self::V => (config.kv_dim(), hidden),
            Self::O => (hidden, config.q_dim()),
            Self::Gate | Self::Up => (inner, hidden),
            Self::Down => (hidden, inner),
        }
    }
}

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hf_name())
    }
}

/// Everything an executor must know about a model besides its weights. Names are Hugging Face's.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: &'static Architecture,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the gated unit.
    pub intermediate_size: usize,
    /// The blocks.
    pub layers: Vec<BlockSpec>,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// How many of a head's dimensions rotate, the first ones; the others have no position.
    pub rotary_dim: usize,
    /// What normalises the residual stream.
    pub norm: NormKind,
    /// Added to the mean square in RMSNorm, to the variance in LayerNorm.
    pub norm_eps: f32,
    /// How q and k rows are laid out.
    pub rope_layout: RopeLayout,
    /// Divisors of the rotary frequencies, `(rotary_dim / 2)`: Llama 3's way to a longer context, and LongRoPE's. Empty
    /// for none.
    pub rope_factors: Vec<f32>,
    /// Cosines and sines are multiplied by this: LongRoPE's larger scores. 1 in most families.
    pub rope_magnitude: f32,
    /// Constants that multiply activations.
    pub scales: Scales,
    /// Logits are `cap * tanh(logit / cap)` of the head's product; `None` for the product itself.
    pub logit_cap: Option<f32>,
    /// Whether each position has an embedding that is added to the token's.
    pub has_position_embedding: bool,
    /// Longest context the model was trained for, in tokens.
    pub max_positions: usize,
}

/// How the residual stream is normalised where a part or the head reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `x / rms(x) * weight`.
    RmsNorm,
    /// `(x - mean(x)) / deviation(x) * weight + bias`.
    LayerNorm,
}

/// Constants that multiply activations; 1 in most families.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scales {
    /// Of a token's embedding.
    pub embedding: f32,
    /// Of the product of query and key; `None` for `1 / sqrt(head_dim)`.
    pub attention: Option<f32>,
    /// Of what attention and feed-forward part add to the residual stream.
    pub residual: f32,
    /// Of the logits.
    pub logits: f32,
}

impl Default for Scales {
    fn default() -> Self {
        Self { embedding: 1.0, attention: None, residual: 1.0, logits: 1.0 }
    }
}

/// What one layer has, where families or layers differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockSpec {
    /// Which linears add a bias to their product, in the order of [`Linear::ALL`].
    pub biases: [bool; 7],
    /// Base of the rotary frequencies; `None` for a layer without positions.
    pub rope_theta: Option<f32>,
    /// Positions are divided by this before they rotate (linear scaling); 1 for none.
    pub rope_scaling: f32,
    /// The RMSNorm of q and of k before they are rotated.
    pub qk_norm: Option<QkNorm>,
    /// Where attention and feed-forward part have their norms.
    pub norms: NormPlacement,
    /// Whether the feed-forward part is `act(gate) * up`; otherwise it is `act(up)`, and there is no gate.
    pub is_gated: bool,
    /// What the gate goes through, or `up` where there is none.
    pub activation: Activation,
    /// A token sees this many tokens, itself included; `None` sees all.
    pub sliding_window: Option<usize>,
    /// Attention scores are `cap * tanh(score / cap)` of the scaled products; `None` for the products themselves.
    pub attention_cap: Option<f32>,
}

impl Default for BlockSpec {
    /// Llama's: no biases, a rotary base of 10,000, no norm of q and k, norms before each part, SwiGLU, no window,
    /// no cap.
    fn default() -> Self {
        Self {
            biases: [false; 7],
            rope_theta: Some(10_000.0),
            rope_scaling: 1.0,
            qk_norm: None,
            norms: NormPlacement::Before,
            is_gated: true,
            activation: Activation::Silu,
            sliding_window: None,
            attention_cap: None,
        }
    }
}

impl NormKind {
    /// llama.cpp's key of what is added to the mean square or the variance.
    pub(crate) fn gguf_eps_key(self) -> &'static str {
        match self {
            Self::RmsNorm => "attention.layer_norm_rms_epsilon",
            Self::LayerNorm => "attention.layer_norm_epsilon",
        }
    }
}

impl BlockSpec {
    /// Whether the layer has a linear.
    pub fn has(&self, linear: Linear) -> bool {
        self.is_gated || linear != Linear::Gate
    }

    /// The layer's linears, in the order of [`Linear::ALL`].
    pub fn linears(&self) -> impl Iterator<Item = Linear> {
        Linear::ALL.into_iter().filter(|&linear| self.has(linear))
    }
}

/// What an RMSNorm of q or k reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself; the weight is as wide as a head.
    Heads,
    /// All heads together.
    Whole,
}

/// Where a block's norms stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before each part: `x + f(norm(x))`.
    Before,
    /// After each part: `x + norm(f(x))`.
    After,
    /// On both sides: `x + norm(f(norm(x)))`.
    Both,
}

impl NormPlacement {
    /// Whether a part reads normed values.
    pub fn is_before(self) -> bool {
        self != Self::After
    }

    /// Whether what a part adds is normed.
    pub fn is_after(self) -> bool {
        self != Self::Before
    }
}

/// The function of the gate in `act(gate) * up`, or of `up` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)`: SwiGLU.
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`: GeGLU.
    GeluTanh,
}

impl ModelConfig {
    /// The number of blocks.
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// The rotary frequencies of all layers, each set of `rotary_dim / 2` once, and for each layer the index of its own.
    ///
    /// In f32 as transformers computes them, `theta^(-2i / rotary_dim)`, divided by [`Self::rope_factors`] and the layer's
    /// linear scaling. A layer without positions has frequencies of 0: its rotation changes nothing.
    pub fn rope_frequencies(&self) -> (Vec<Vec<f32>>, Vec<usize>) {
        let (bases, of_layers) = self.rope_bases();
        let frequency = |(theta, scaling): (Option<f32>, f32), i: usize| {
            let factor = self.rope_factors.get(i).unwrap_or(&1.0);
            theta.map_or(0.0, |theta| {
                1.0 / libm::powf(theta, (2 * i) as f32 / self.rotary_dim as f32) / factor / scaling
            })
        };
        let half = self.rotary_dim / 2;
        let sets = bases.into_iter().map(|base| (0..half).map(|i| frequency(base, i)).collect());
        (sets.collect(), of_layers)
    }

    /// What the products of queries and keys are multiplied by.
    pub fn attention_scale(&self) -> f32 {
        self.scales.attention.unwrap_or(1.0 / (self.head_dim as f32).sqrt())
    }

    /// The rotary bases of all layers with their linear scaling, each pair once, and for each layer the index of its own.
    pub fn rope_bases(&self) -> (Vec<(Option<f32>, f32)>, Vec<usize>) {
        let mut bases = Vec::new();
        let of_layers = self.layers.iter().map(|layer| {
            let own = (layer.rope_theta, layer.rope_scaling);
            bases.iter().position(|base| *base == own).unwrap_or_else(|| {
                bases.push(own);
                bases.len() - 1
            })
        });
        let of_layers = of_layers.collect();
        (bases, of_layers)
    }

    /// Width of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_dim(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// For each row of q or k in this model's layout, the row of the Hugging Face layout it holds; `None` where the two
    /// are the same. Source: `LlamaModel.permute` in llama.cpp's `convert_hf_to_gguf.py`.
    pub fn rope_row_order(&self, heads: usize) -> Option<Vec<usize>> {
        match self.rope_layout {
            RopeLayout::Halves => None,
            RopeLayout::Interleaved => {
                let half = self.head_dim / 2;
                let within = |row: usize| (row % 2) * half + row / 2;
                Some(
                    (0..heads * self.head_dim)
                        .map(|row| row / self.head_dim * self.head_dim + within(row % self.head_dim))
                        .collect(),
                )
            }
        }
    }
}

/// First position a token sees.
pub fn window_start(sliding_window: Option<usize>, position: usize) -> usize {
    sliding_window.map_or(0, |window| (position + 1).saturating_sub(window))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn tiny() -> ModelConfig {
        ModelConfig {
            architecture: Architecture::llama(),
            vocab_size: 300,
            hidden_size: 64,
            intermediate_size: 96,
            layers: vec![BlockSpec::default(); 2],
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 16,
            rotary_dim: 16,
            norm: NormKind::RmsNorm,
            norm_eps: 1e-5,
            rope_layout: RopeLayout::Interleaved,
            rope_factors: Vec::new(),
            rope_magnitude: 1.0,
            scales: Scales::default(),
            logit_cap: None,
            has_position_embedding: false,
            max_positions: 128,
        }
    }

    #[test]
    fn interleaved_rows_pair_the_halves_of_each_head() {
        // llama.cpp: weights.reshape(n_head, 2, head_dim / 2, ..).swapaxes(1, 2)
        let order = ModelConfig { head_dim: 6, ..tiny() }.rope_row_order(2).unwrap();
        assert_eq!(order, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(ModelConfig { rope_layout: RopeLayout::Halves, ..tiny() }.rope_row_order(2), None);
    }
}
