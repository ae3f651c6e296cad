//! `battery.toml` beside a `character.toml`: questions that its persona answers.

use std::path::Path;

use serde::Deserialize;

use super::checks::{Ask, Wanted};
use crate::{
    Error, Result,
    config_file::{self, read_text},
};

/// What a character should know about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatteryFile {
    /// Questions and what answers them.
    #[serde(default, rename = "persona_fact")]
    pub persona_facts: Vec<PersonaFact>,
}

/// A question about the persona.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonaFact {
    /// What the player says.
    pub line: String,
    /// Words or phrases, one of which a right reply holds; `2` stands for `two` as well.
    pub any: Vec<String>,
    /// Words or phrases that a right reply does not hold.
    #[serde(default)]
    pub none: Vec<String>,
}

impl PersonaFact {
    pub(super) fn wanted(&self) -> Wanted {
        Wanted::new(&self.any, &self.none, Ask::Words)
    }
}

impl BatteryFile {
    /// Reads a `battery.toml`.
    ///
    /// # Errors
    /// A file that cannot be read, unknown or missing keys, a question without an answer or with it in its own words.
    pub fn open(file: &Path) -> Result<Self> {
        Self::parse(&read_text(file)?, &file.display().to_string())
    }

    /// The same of its text; `file` is what errors call it.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let of: Self = config_file::parse(text, file)?;
        for (at, fact) in of.persona_facts.iter().enumerate() {
            let fail = |reason: &str| {
                let reason = format!("[[persona_fact]] {} {reason}", at + 1);
                Err(Error::Config { file: file.to_owned(), reason })
            };
            if fact.line.trim().is_empty() {
                return fail("has an empty `line` (hint: write a question that the persona answers)");
            }
            if fact.any.iter().all(|any| any.trim().is_empty()) {
                return fail("has nothing in `any` (hint: words of which a right reply holds one)");
            }
            if fact.wanted().fault(&fact.line).is_none() {
                return fail("has an answer in its own `line`, so an echo would be right (hint: ask without it)");
            }
        }
        Ok(of)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_question_needs_an_answer_that_is_not_in_it() {
        let text = "[[persona_fact]]\nline = \"What does a cup cost?\"\nany = [\"two obols\"]\n";
        assert_eq!(BatteryFile::parse(text, "it").unwrap().persona_facts.len(), 1);
        assert_eq!(BatteryFile::parse("", "it").unwrap(), BatteryFile::default());
        let check = |text: &str, says: &str| {
            let error = BatteryFile::parse(text, "battery.toml").unwrap_err().to_string();
            assert!(error.contains("battery.toml") && error.contains(says), "{error}");
        };
        let page = include_str!("../../../../../docs/character-toml.md");
        let example = page.rsplit("```toml\n").next().and_then(|rest| rest.split("```").next()).unwrap();
        assert_eq!(BatteryFile::parse(example, "docs/character-toml.md").unwrap().persona_facts.len(), 1);
        check(&text.replace("What does a cup cost?", " "), "empty `line`");
        check(&text.replace("two obols", ""), "nothing in `any`");
        check(&text.replace("cup cost", "cup cost? Two obols"), "an echo would be right");
        check(&text.replace("any", "all"), "unknown field `all`");
    }

    #[test]
    fn each_character_that_ships_has_six_questions() {
        let adapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../adapters");
        let folders = fs::read_dir(adapters).unwrap().map(|entry| entry.unwrap().path());
        for folder in folders.filter(|folder| folder.join("character.toml").is_file()) {
            let of = BatteryFile::open(&folder.join("battery.toml")).unwrap();
            assert_eq!(of.persona_facts.len(), 6, "{}", folder.display());
        }
    }
}
