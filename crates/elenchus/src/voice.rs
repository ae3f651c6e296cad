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
    Example, SftConfig,
    data::{self, FilterReport, OnBroken, Pair, Speakers, Split},
    example,
};

use crate::model;

pub fn read_character(file: &Path) -> Result<Character> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(Character::parse(&text, &file.display().to_string())?)
}

/// `called` are the names under which the character speaks in the texts, if not under its own.
pub fn read_pairs(
    files: &[PathBuf],
    character: &Character,
    called: &[String],
    context: NonZeroUsize,
) -> Result<Vec<Pair>> {
    let speakers = Speakers::new(called.iter().map(|name| (name, &character.name)))?;
    let texts = data::read(files, &speakers, OnBroken::Stop)?;
    Ok(data::pairs(&texts, &speakers.normalise(&character.name), context)?)
}

/// What a `training.toml` has a character learn. What is trained on and what is measured on is decided here alone, so that
/// no measure is taken of what was trained on.
pub struct Lesson {
    pub config: SftConfig,
    /// The configuration as it is written.
    pub text: String,
    pub character_file: PathBuf,
    pub character: Character,
    /// Pairs in the texts, fit to learn from or not.
    pub read: usize,
    /// What the filters did.
    pub filtered: FilterReport,
    /// The pairs in the texts that are trained on and measured on.
    pub split: Split,
    /// Lines as a player says them, trained on as well.
    pub player_lines: Vec<Pair>,
}

impl Lesson {
    pub fn open(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let config = SftConfig::parse(&text, &file.display().to_string())?;
        let beside = |path: &PathBuf| file.parent().unwrap_or(Path::new(".")).join(path);
        let character_file = beside(&config.character);
        let character = read_character(&character_file)?;
        let files: Vec<PathBuf> = config.data.iter().map(beside).collect();
        let pairs = read_pairs(&files, &character, &config.speakers, config.context)?;
        let read = pairs.len();
        // Whole works that are trained on answer with any fit reply, whatever was said before it in the text.
        let spoken = config.player_lines.as_ref().filter(|_| config.held_out_fraction.is_none()).map(|_| pairs.clone());
        let (split, filtered) = config.split(pairs).with_context(|| file.display().to_string())?;
        let player_lines = match (&config.player_lines, spoken) {
            (Some(lines), Some(mut spoken)) => {
                let untrained = [&config.held_out_works, &config.excluded_works];
                spoken.retain(|pair| !untrained.iter().any(|works| works.contains(&pair.work)));
                data::player_lines(&beside(lines), &data::filter(spoken, &config.filters.of_replies()).0)?
            }
            // Of a work that is cut in two, only what is trained on, so that nothing held out is learned by this way.
            (Some(lines), None) => data::player_lines(&beside(lines), &split.train)?,
            (None, _) => Vec::new(),
        };
        Ok(Self { config, text, character_file, character, read, filtered, split, player_lines })
    }
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
