//! What an `rl.toml` names, read: who learns, from which prompts, beginning as whom.

use std::path::{Path, PathBuf};

use elenchus_dialogue::{Character, Turn};
use elenchus_lm::LoraAdapter;

use super::RlConfig;
use crate::{
    Lesson, Result,
    data::{Pair, read_prompts, read_written},
    lesson::read_text,
    read_character,
};

/// A configuration with all that it names.
#[derive(Debug)]
pub struct RlLesson {
    /// The configuration.
    pub config: RlConfig,
    /// The same as it is written.
    pub text: String,
    /// Where the character is described.
    pub character_file: PathBuf,
    /// Who learns.
    pub character: Character,
    /// What the policy begins as.
    pub start: LoraAdapter,
    /// What is said to the character.
    pub prompts: Vec<Vec<Turn>>,
    /// Pairs that were written beforehand.
    pub offline: Vec<Pair>,
}

impl RlLesson {
    /// Reads an `rl.toml` and what it names; its paths are relative to its folder.
    pub fn open(file: &Path) -> Result<Self> {
        let text = read_text(file)?;
        let config = RlConfig::parse(&text, &file.display().to_string())?;
        let beside = |path: &PathBuf| file.parent().unwrap_or(Path::new(".")).join(path);
        let character_file = beside(&config.character);
        let character = read_character(&character_file)?;
        let start = LoraAdapter::open(&beside(&config.start))?;
        let mut prompts = Vec::new();
        if let Some(lesson) = &config.lesson {
            let Lesson { split, player_lines, .. } = Lesson::open(&beside(lesson))?;
            prompts.extend(split.train.into_iter().chain(player_lines).map(|pair| pair.context));
        }
        for file in &config.prompts {
            prompts.extend(read_prompts(&beside(file), &character, config.context)?);
        }
        let offline = match &config.offline {
            Some(offline) => read_written(&beside(&offline.pairs), &character, config.context)?,
            None => Vec::new(),
        };
        Ok(Self { config, text, character_file, character, start, prompts, offline })
    }
}
