//! `training.toml`: everything a run depends on besides the texts themselves. Unknown keys are errors: a misspelt
//! learning rate must not train with the default.

use std::path::PathBuf;

use elenchus_lm::Linear;
use serde::{Deserialize, Serialize};

use crate::{AdamWSettings, Decay, Error, Result, Schedule, data::Filters};

/// One run of supervised fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
    /// The `character.toml` whose prompt is trained under; paths are relative to the configuration's folder.
    pub character: PathBuf,
    /// Texts: plain with labels, or JSON Lines of turns or pairs.
    pub data: Vec<PathBuf>,
    /// Turns before a reply, at most.
    #[serde(default = "four")]
    pub context: std::num::NonZeroUsize,
    /// Works whose pairs are measured on and never trained on.
    pub held_out_works: Vec<String>,
    /// Works that are neither trained on nor measured on.
    #[serde(default)]
    pub excluded_works: Vec<String>,
    /// Which pairs are fit to learn from.
    #[serde(default)]
    pub filters: Filters,
    /// The adapter.
    #[serde(default)]
    pub lora: LoraSettings,
    /// The steps.
    #[serde(default)]
    pub training: SftSettings,
}

fn four() -> std::num::NonZeroUsize {
    std::num::NonZeroUsize::new(4).unwrap_or(std::num::NonZeroUsize::MIN)
}

/// Shape of a fresh adapter; the defaults are AIRL's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraSettings {
    /// The rank.
    pub rank: usize,
    /// The update is multiplied by `alpha / rank`.
    pub alpha: f32,
    /// Share of the inputs that is left out at random while training.
    pub dropout: f32,
    /// The linears that learn, by Hugging Face's names.
    pub targets: Vec<String>,
}

impl Default for LoraSettings {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, dropout: 0.05, targets: vec!["q_proj".into(), "v_proj".into()] }
    }
}

/// How it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SftSettings {
    /// Determines the fresh adapter, the order of examples and the dropout.
    pub seed: u64,
    /// Times every example is seen.
    pub epochs: u64,
    /// Examples in a step.
    pub batch: usize,
    /// Tokens of an example at most, prompt included; longer replies are cut.
    pub max_tokens: usize,
    /// Tokens in one forward and backward pass: memory against speed. A step takes as many passes as it needs.
    pub pass_tokens: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Steps of the way up to it.
    pub warmup_steps: u64,
    /// The way down.
    pub decay: Decay,
    /// Gradients are scaled to this global norm where they exceed it.
    pub max_grad_norm: f64,
    /// The optimiser.
    pub adamw: AdamWSettings,
    /// Steps between two checkpoints: what a killed run may lose.
    pub checkpoint_steps: u64,
    /// Steps between two measures of held-out perplexity.
    pub eval_steps: u64,
    /// Held-out examples measured during the run; the last measure takes all.
    pub eval_examples: usize,
}

impl Default for SftSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            epochs: 1,
            batch: 8,
            max_tokens: 256,
            pass_tokens: 1024,
            learning_rate: 3e-4,
            warmup_steps: 10,
            decay: Decay::Linear,
            max_grad_norm: 1.0,
            adamw: AdamWSettings::default(),
            checkpoint_steps: 25,
            eval_steps: 50,
            eval_examples: 64,
        }
    }
}

impl SftSettings {
    /// The learning rates of a run over so many examples.
    pub fn schedule(&self, examples: usize) -> Schedule {
        let total_steps = self.epochs * examples.div_ceil(self.batch) as u64;
        Schedule { peak: self.learning_rate, warmup_steps: self.warmup_steps, total_steps, decay: self.decay }
    }
}

impl SftConfig {
    /// Reads the text of a `training.toml`; `file` is what errors call it.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)
            .map_err(|error| Error::Config { file: file.to_owned(), reason: error.to_string().trim().to_owned() })?;
        config.check().map_err(|reason| Error::Config { file: file.to_owned(), reason })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let (lora, training) = (&self.lora, &self.training);
        let positive = [
            ("lora.rank", lora.rank as u64),
            ("training.epochs", training.epochs),
            ("training.batch", training.batch as u64),
            ("training.max_tokens", training.max_tokens as u64),
            ("training.pass_tokens", training.pass_tokens as u64),
            ("training.checkpoint_steps", training.checkpoint_steps),
            ("training.eval_steps", training.eval_steps),
            ("training.eval_examples", training.eval_examples as u64),
        ];
        if let Some((field, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("`{field}` is 0, expected at least 1"));
        }
        if !(0.0..1.0).contains(&lora.dropout) {
            return Err(format!("`lora.dropout` is {}, expected 0 or more and less than 1", lora.dropout));
        }
        let rates =
            [("training.learning_rate", training.learning_rate), ("training.max_grad_norm", training.max_grad_norm)];
        if let Some((field, value)) = rates.iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
            return Err(format!("`{field}` is {value}, expected a number above 0"));
        }
        if self.data.is_empty() {
            return Err("`data` names no file (hint: data = [\"texts/meno.txt\"])".to_owned());
        }
        self.linears().map(drop)
    }

    /// `lora.targets` as linears.
    pub fn linears(&self) -> Result<Vec<Linear>, String> {
        let linear = |name: &String| {
            Linear::from_hf_name(name).ok_or_else(|| {
                let known: Vec<&str> = Linear::ALL.iter().map(|linear| linear.hf_name()).collect();
                format!("`lora.targets` names `{name}` (hint: {})", known.join(", "))
            })
        };
        if self.lora.targets.is_empty() {
            return Err("`lora.targets` is empty (hint: [\"q_proj\", \"v_proj\"])".to_owned());
        }
        self.lora.targets.iter().map(linear).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "character = \"character.toml\"\ndata = [\"a.jsonl\"]\nheld_out_works = [\"Meno\"]\n";

    #[test]
    fn defaults_are_there_and_a_written_configuration_reads_the_same() {
        let config = SftConfig::parse(LEAST, "it").unwrap();
        assert_eq!((config.lora.rank, config.training.batch, config.context.get()), (16, 8, 4));
        let written = toml::to_string(&config).unwrap();
        assert_eq!(SftConfig::parse(&written, "it").unwrap(), config);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let check = |more: &str, says: &str| {
            let error = SftConfig::parse(&format!("{LEAST}{more}"), "training.toml").unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("training.toml"), "{error}");
        };
        check("[training]\nlearningrate = 1", "learning_rate");
        check("[training]\nbatch = 0", "`training.batch` is 0");
        check("[training]\nlearning_rate = -1.0", "`training.learning_rate` is -1");
        check("[lora]\ndropout = 1.0", "`lora.dropout` is 1");
        check("[lora]\ntargets = [\"lm_head\"]", "lm_head");
        check("[lora]\ntargets = []", "empty");
        check("[training]\ndecay = \"steep\"", "steep");
    }
}
