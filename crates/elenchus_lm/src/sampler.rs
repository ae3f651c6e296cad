//! From logits to the next token.

use serde::{Deserialize, Serialize};

/// A seeded generator that a save game can hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rng(rand_pcg::Pcg64Mcg);

/// How the next token is drawn. Applied in llama.cpp's order: repetition penalty, top-k, top-p, min-p, temperature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplerSettings {
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// Keeps the k likeliest; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits and multiplies negative ones of recent tokens; 1 changes nothing.
    pub repetition_penalty: f32,
    /// How many recent tokens count as repetition.
    pub repetition_window: usize,
}

impl Default for SamplerSettings {
    fn default() -> Self {
        Self { temperature: 0.7, top_k: 40, top_p: 0.95, min_p: 0.05, repetition_penalty: 1.1, repetition_window: 64 }
    }
}

impl Rng {
    /// A generator that always gives the same numbers for the same seed.
    pub fn from_seed(seed: u64) -> Self {
        let _ = seed;
        todo!()
    }
}

/// Draws one sequence's tokens.
#[derive(Debug, Clone)]
pub struct Sampler {
    /// How.
    pub settings: SamplerSettings,
    /// The state a save game keeps.
    pub rng: Rng,
}

impl Sampler {
    /// Draws the next token. `logits` are changed in place; `history` is what the sequence holds so far, newest last.
    /// NaN logits are never drawn; if none is finite, an error says so.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> crate::Result<u32> {
        let _ = (logits, history);
        todo!()
    }
}
