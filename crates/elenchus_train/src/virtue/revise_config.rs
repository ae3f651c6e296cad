//! `revise.toml`: whose replies are revised, by which principles, and by whom. Unknown keys are errors.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use elenchus_dialogue::{Character, Turn};
use elenchus_lm::LoraAdapter;
use serde::{Deserialize, Serialize};

use super::Principles;
use crate::{
    Error, Result, RunFolder,
    chat::ChatSettings,
    config_file::read_text,
    config_file::{self, Misfit},
    data::read_prompts,
    read_character, spread,
};

/// One run of revisions; paths are relative to the configuration's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviseConfig {
    /// The `character.toml` of the character that answers first.
    pub character: PathBuf,
    /// The adapter of the first answer; the base alone answers if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// The file of principles, followed in its order.
    pub principles: PathBuf,
    /// Files of prompts: JSON Lines with `context` (turns), or `line` or `prompt` (one turn).
    pub prompts: Vec<PathBuf>,
    /// Turns before a reply, at most.
    #[serde(default = "config_file::four")]
    pub context: NonZeroUsize,
    /// Prompts at most, spread evenly over all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prompts: Option<NonZeroUsize>,
    /// Determines the first answers.
    #[serde(default)]
    pub seed: u64,
    /// Who revises. Without a `cache` answers are kept in the run's folder.
    pub chat: ChatSettings,
}

/// A `revise.toml` with all that it names.
#[derive(Debug)]
pub struct ReviseLesson {
    /// The configuration; the cache of its chat model is where it should be.
    pub config: ReviseConfig,
    /// The same as it is written, with the principles.
    pub text: String,
    /// Who answers.
    pub character: Character,
    /// The adapter of the first answer.
    pub start: Option<LoraAdapter>,
    /// What replies are revised by.
    pub principles: Principles,
    /// What is said to the character.
    pub prompts: Vec<Vec<Turn>>,
}

impl ReviseConfig {
    /// Reads the text of a `revise.toml`; `file` is what errors call it, with the line.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let config: Self = config_file::parse(text, file)?;
        if config.prompts.is_empty() {
            return Err(no_prompts().at(text, file));
        }
        config.chat.check().map_err(|reason| in_chat(reason).at(text, file))?;
        Ok(config)
    }
}

pub(super) fn no_prompts() -> Misfit {
    Misfit { field: "prompts", reason: "names no file (hint: prompts = [\"red_team.jsonl\"])".to_owned() }
}

/// A setting of the chat model, which says its own name.
pub(super) fn in_chat(reason: String) -> Misfit {
    Misfit { field: "chat", reason: format!("cannot be meant: {reason}") }
}

/// Lines as a comment in TOML.
pub(super) fn commented(lines: &str) -> String {
    lines.lines().map(|line| format!("# {line}\n")).collect()
}

/// All prompts of some files, or some spread evenly over them.
pub(super) fn prompts(
    files: impl Iterator<Item = PathBuf>,
    character: &Character,
    context: NonZeroUsize,
    most: Option<NonZeroUsize>,
) -> Result<Vec<Vec<Turn>>> {
    let mut prompts = Vec::new();
    for file in files {
        prompts.extend(read_prompts(&file, character, context)?);
    }
    Ok(spread(&prompts, most.map_or(usize::MAX, NonZeroUsize::get)))
}

/// A run cannot resume over other prompts than those it began with.
pub(super) fn other_prompts(run: &RunFolder, file: &str) -> Error {
    let reason = format!("{file} is of other prompts (hint: name another --out, or restore the files of prompts)");
    Error::Run { folder: run.file(""), reason }
}

/// Where a chat model's answers are kept: where the configuration says, beside it, or in the run's folder.
pub(super) fn cached(mut chat: ChatSettings, beside: &Path, out: &Path) -> ChatSettings {
    chat.cache = Some(chat.cache.map_or_else(|| out.join("answers"), |cache| beside.join(cache)));
    chat
}

impl ReviseLesson {
    /// Reads a `revise.toml` and what it names. `out` is the run's folder, where answers are kept if nothing else is said.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should.
    pub fn open(file: &Path, out: &Path) -> Result<Self> {
        let text = read_text(file)?;
        let mut config = ReviseConfig::parse(&text, &file.display().to_string())?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let character = read_character(&folder.join(&config.character))?;
        let start = config.start.as_ref().map(|start| LoraAdapter::open(&folder.join(start))).transpose()?;
        let principles = Principles::open(&folder.join(&config.principles))?;
        // Other principles are another run.
        let text = format!("{text}\n# by these principles:\n{}", commented(&principles.lines()));
        let files = config.prompts.iter().map(|file| folder.join(file));
        let prompts = prompts(files, &character, config.context, config.max_prompts)?;
        config.chat = cached(config.chat, folder, out);
        Ok(Self { config, text, character, start, principles, prompts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "character = \"c.toml\"\nprinciples = \"virtues.toml\"\nprompts = [\"p.jsonl\"]\n[chat]\nurl = \"http://a/v1\"\nmodel = \"m\"\n";

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let config = ReviseConfig::parse(LEAST, "it").unwrap();
        assert_eq!(ReviseConfig::parse(&toml::to_string(&config).unwrap(), "it").unwrap(), config);
        let check = |text: &str, says: &str| {
            let error = ReviseConfig::parse(text, "revise.toml").unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        check(&LEAST.replace("\"p.jsonl\"", ""), "revise.toml:3: `prompts` names no file");
        check(&LEAST.replace("principles", "principals"), "revise.toml:2: unknown field `principals`");
        check(&LEAST.replace("model", "modle"), "unknown field `modle` (hint: did you mean `model`?)");
        check(&LEAST.replace("http://a/v1", ""), "`chat` cannot be meant: `url` is empty");
        check(&format!("{LEAST}criterion = \"Is it kind?\""), "unknown field `criterion`");
    }

    #[test]
    fn answers_are_kept_in_the_run_unless_another_place_is_named() {
        let chat = |cache: Option<&str>| ChatSettings { cache: cache.map(PathBuf::from), ..ChatSettings::default() };
        let of = |cache| cached(chat(cache), Path::new("here"), Path::new("out")).cache.unwrap();
        assert_eq!((of(None), of(Some("kept"))), (PathBuf::from("out/answers"), PathBuf::from("here/kept")));
    }
}
