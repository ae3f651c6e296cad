//! A base model, a character and its pairs, opened in one way for whoever trains and whoever measures.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use elenchus_dialogue::Character;
use elenchus_lm::{CandleExecutor, ChatTemplate, ComputeDevice, Numerics, Tokenizer, Weights};
use elenchus_train::{
    Example,
    data::{self, OnBroken, Pair, Speakers},
    example,
};

use crate::model;

pub fn read_character(file: &Path) -> Result<Character> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(Character::parse(&text, &file.display().to_string())?)
}

pub fn read_pairs(files: &[PathBuf], character: &Character, context: NonZeroUsize) -> Result<Vec<Pair>> {
    let speakers = Speakers::new::<&str, &str>([])?;
    let texts = data::read(files, &speakers, OnBroken::Stop)?;
    Ok(data::pairs(&texts, &speakers.normalise(&character.name), context)?)
}

/// A base model and what it takes to prompt it.
pub struct Voice {
    pub weights: Arc<Weights>,
    pub executor: CandleExecutor,
    pub tokenizer: Tokenizer,
    pub template: ChatTemplate,
}

impl Voice {
    pub fn open(base: Option<PathBuf>, numerics: Numerics, device: ComputeDevice) -> Result<Self> {
        let weights = model::open(&model::base_or_default(base)?)?;
        let executor = CandleExecutor::new(&weights, &device.open()?, numerics)?;
        eprintln!("base weights: {} in memory", model::size(executor.weight_bytes()));
        Ok(Self { tokenizer: weights.tokenizer()?, template: weights.chat_template()?, executor, weights })
    }

    pub fn examples(&self, pairs: &[Pair], character: &Character, max_tokens: usize) -> Result<Vec<Example>> {
        let mut examples = Vec::new();
        for pair in pairs {
            examples.extend(example(pair, character, &self.tokenizer, &self.template, max_tokens)?);
        }
        if examples.len() < pairs.len() {
            let left_out = pairs.len() - examples.len();
            eprintln!("left out: {left_out} pairs whose prompt alone has {max_tokens} tokens or more");
        }
        if examples.is_empty() {
            bail!("no pair fits {max_tokens} tokens (hint: raise the limit)");
        }
        Ok(examples)
    }
}
