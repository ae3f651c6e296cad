//! What configurations name: a character, and its pairs in some texts.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use elenchus_dialogue::Character;

use super::{OnBroken, Pair, Speakers, pairs, read};
use crate::{BrokenLine, Result, config_file::read_text};

/// Reads a `character.toml`.
pub fn read_character(file: &Path) -> Result<Character> {
    Ok(Character::parse(&read_text(file)?, &file.display().to_string())?)
}

/// A character's pairs in some texts, and the lines that were left out. `called` are the names under which the character
/// speaks there, if not under its own.
pub fn read_pairs(
    files: &[PathBuf],
    character: &Character,
    called: &[String],
    context: NonZeroUsize,
    on_broken: OnBroken,
) -> Result<(Vec<Pair>, Vec<BrokenLine>)> {
    let speakers = Speakers::new(called.iter().map(|name| (name, &character.name)))?;
    let mut texts = read(files, &speakers, on_broken)?;
    let broken = std::mem::take(&mut texts.broken);
    Ok((pairs(&texts, &speakers.normalise(&character.name), context)?, broken))
}
