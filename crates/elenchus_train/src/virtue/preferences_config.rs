//! `preferences.toml`: whose replies are compared, in which aspects, and by whom. Unknown keys are errors.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use elenchus_dialogue::{Character, Turn};
use elenchus_lm::LoraAdapter;
use serde::{Deserialize, Serialize};

use super::{
    Principles,
    revise_config::{cached, commented, in_chat, no_prompts, prompts},
};
use crate::{
    Error, Result,
    chat::ChatSettings,
    config_file::{self, read_text},
    read_character,
};

/// One run of judged preferences; paths are relative to the configuration's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreferencesConfig {
    /// The `character.toml` of the character that answers.
    pub character: PathBuf,
    /// Its adapter; the base alone answers if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// A file of principles that the judge is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principles: Option<PathBuf>,
    /// Files of prompts: JSON Lines with `context` (turns), or `line` or `prompt` (one turn).
    pub prompts: Vec<PathBuf>,
    /// Turns before a reply, at most.
    #[serde(default = "config_file::four")]
    pub context: NonZeroUsize,
    /// Prompts at most, spread evenly over all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prompts: Option<NonZeroUsize>,
    /// Determines what the character says.
    #[serde(default)]
    pub seed: u64,
    /// What replies are compared in: action, motivation and consequence if left out.
    #[serde(default = "three")]
    pub aspects: Vec<Aspect>,
    /// Who judges. Without a `cache` answers are kept in the run's folder.
    pub chat: ChatSettings,
}

/// What two replies are compared in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aspect {
    /// What preferences and reward models call it.
    pub name: String,
    /// What the character is asked about each of its replies before they are judged; the replies alone are if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<String>,
    /// What is asked of the judge.
    pub criterion: String,
}

/// `EthicalLLM`'s three.
fn three() -> Vec<Aspect> {
    let aspect = |name: &str, asks: Option<&str>, criterion: &str| Aspect {
        name: name.to_owned(),
        asks: asks.map(str::to_owned),
        criterion: criterion.to_owned(),
    };
    vec![
        aspect("action", None, "Which reply is the better thing to say?"),
        aspect(
            "motivation",
            Some("Why did you answer me like that?"),
            "Which speaker had the better motive for the reply?",
        ),
        aspect(
            "consequence",
            Some("What will come of it if I do as you say?"),
            "Which reply will have the better consequences?",
        ),
    ]
}

/// A `preferences.toml` with all that it names.
#[derive(Debug)]
pub struct PreferencesLesson {
    /// The configuration; the cache of its chat model is where it should be.
    pub config: PreferencesConfig,
    /// The same as it is written, with the principles.
    pub text: String,
    /// Who answers.
    pub character: Character,
    /// Its adapter.
    pub start: Option<LoraAdapter>,
    /// What the judge is shown.
    pub principles: Option<Principles>,
    /// What is said to the character.
    pub prompts: Vec<Vec<Turn>>,
}

impl PreferencesConfig {
    /// Reads the text of a `preferences.toml`; `file` is what errors call it.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let config: Self = config_file::parse(text, file)?;
        if config.prompts.is_empty() {
            return Err(no_prompts().at(text, file));
        }
        let fail = |reason: String| Err(Error::Config { file: file.to_owned(), reason });
        if config.aspects.is_empty() {
            return fail("`aspects` is empty (hint: leave it out for action, motivation and consequence)".to_owned());
        }
        for (at, Aspect { name, asks, criterion }) in config.aspects.iter().enumerate() {
            let is_empty = |text: &str| text.trim().is_empty();
            let number = at + 1;
            if is_empty(name) || is_empty(criterion) || asks.as_deref().is_some_and(is_empty) {
                return fail(format!(
                    "aspect {number} has an empty field (hint: `name` and `criterion` have words; leave `asks` out where nothing is asked)"
                ));
            }
            if config.aspects[..at].iter().any(|other| other.name == *name) {
                return fail(format!("aspect {number} is called `{name}` once more (hint: another name for one)"));
            }
        }
        config.chat.check().map_err(|reason| in_chat(reason).at(text, file))?;
        Ok(config)
    }
}

impl PreferencesLesson {
    /// Reads a `preferences.toml` and what it names. `out` is the run's folder, where answers are kept if nothing else is said.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should.
    pub fn open(file: &Path, out: &Path) -> Result<Self> {
        let mut text = read_text(file)?;
        let mut config = PreferencesConfig::parse(&text, &file.display().to_string())?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let character = read_character(&folder.join(&config.character))?;
        let start = config.start.as_ref().map(|start| LoraAdapter::open(&folder.join(start))).transpose()?;
        let principles = config.principles.as_ref().map(|file| Principles::open(&folder.join(file))).transpose()?;
        if let Some(principles) = &principles {
            // Other principles are another run.
            text += &format!("\n# by these principles:\n{}", commented(&principles.lines()));
        }
        let files = config.prompts.iter().map(|file| folder.join(file));
        let prompts = prompts(files, &character, config.context, config.max_prompts)?;
        config.chat = cached(config.chat, folder, out);
        Ok(Self { config, text, character, start, principles, prompts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str =
        "character = \"c.toml\"\nprompts = [\"p.jsonl\"]\n[chat]\nurl = \"http://a/v1\"\nmodel = \"m\"\n";

    #[test]
    fn three_aspects_unless_others_are_named() {
        let names = |text: &str| {
            let config = PreferencesConfig::parse(text, "it").unwrap();
            config.aspects.into_iter().map(|aspect| aspect.name).collect::<Vec<_>>()
        };
        assert_eq!(names(LEAST), ["action", "motivation", "consequence"]);
        let lore = format!("{LEAST}[[aspects]]\nname = \"lore\"\ncriterion = \"Which is truer to the lore?\"\n");
        assert_eq!(names(&lore), ["lore"]);
        let check = |text: &str, says: &str| {
            let error = PreferencesConfig::parse(text, "preferences.toml").unwrap_err().to_string();
            assert!(error.contains("preferences.toml") && error.contains(says), "{error}");
        };
        check(&LEAST.replace("\"p.jsonl\"", ""), ":2: `prompts` names no file");
        check(&format!("{lore}asks = \" \""), "aspect 1 has an empty field");
        check(&format!("{lore}ask = \"Why?\""), "unknown field `ask` (hint: did you mean `asks`?)");
        check(&format!("{lore}{}", &lore[LEAST.len()..]), "aspect 2 is called `lore` once more");
        check(&LEAST.replace("\"m\"", "\"\""), "`chat` cannot be meant: `model` is empty");
    }
}
