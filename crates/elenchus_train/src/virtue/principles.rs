//! Principles are a designer's words, one name and one request each: a game writes its own, and nothing here knows a virtue.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    config_file::{self, read_text},
};

/// What a character should keep to, in the order in which replies are revised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principles {
    /// Each of them.
    pub principles: Vec<Principle>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principle {
    /// What it is called.
    pub name: String,
    /// What it asks of a reply.
    pub asks: String,
}

impl Principles {
    /// Reads a file of principles.
    ///
    /// # Errors
    /// A file that cannot be read, unknown or missing keys, no principles, one without words, two of one name.
    pub fn open(file: &Path) -> Result<Self> {
        Self::parse(&read_text(file)?, &file.display().to_string())
    }

    /// The same of its text; `file` is what errors call it.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let of: Self = config_file::parse(text, file)?;
        let fail = |reason: String| Err(Error::Config { file: file.to_owned(), reason });
        if of.principles.is_empty() {
            return fail("`principles` is empty (hint: [[principles]] with a `name` and what it `asks`)".to_owned());
        }
        for (at, Principle { name, asks }) in of.principles.iter().enumerate() {
            let number = at + 1;
            if name.trim().is_empty() {
                return fail(format!("`name` of principle {number} is empty (hint: name = \"honesty\")"));
            }
            if asks.trim().is_empty() {
                return fail(format!(
                    "`asks` of principle {number} (`{name}`) is empty (hint: say what it asks of a reply, in a sentence)"
                ));
            }
            if of.principles[..at].iter().any(|other| other.name.trim().eq_ignore_ascii_case(name.trim())) {
                return fail(format!(
                    "`name` of principle {number} is `{name}` once more (hint: another name for one)"
                ));
            }
        }
        Ok(of)
    }

    /// All of them as lines of a question.
    pub(super) fn lines(&self) -> String {
        let line = |Principle { name, asks }: &Principle| format!("- {}: {}\n", name.trim(), asks.trim());
        self.principles.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_six_virtues_ship() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../adapters/virtues.toml");
        let of = Principles::open(Path::new(file)).unwrap();
        let names: Vec<&str> = of.principles.iter().map(|of| of.name.as_str()).collect();
        assert_eq!(names, ["honesty", "prudence", "justice", "compassion", "humility", "respect"]);
    }

    #[test]
    fn errors_name_file_field_and_fix() {
        let check = |text: &str, says: &[&str]| {
            let error = Principles::parse(text, "lore.toml").unwrap_err().to_string();
            assert!(says.iter().all(|part| error.contains(part)), "{error}");
        };
        let one = "[[principles]]\nname = \"lore\"\nasks = \"Never speak of the war.\"\n";
        assert_eq!(Principles::parse(one, "it").unwrap().lines(), "- lore: Never speak of the war.\n");
        check("", &["lore.toml", "principles"]);
        check("principles = []", &["lore.toml", "`principles` is empty", "hint"]);
        check(&one.replace("asks", "ask"), &["lore.toml:3", "unknown field `ask`", "did you mean `asks`?"]);
        check("[[principles]]\nname = \"lore\"", &["lore.toml", "missing field `asks`"]);
        check(&one.replace("lore", " "), &["`name` of principle 1 is empty", "hint"]);
        check(&one.replace("Never speak of the war.", ""), &["`asks` of principle 1 (`lore`) is empty", "hint"]);
        check(&format!("{one}{}", one.replace("lore", "Lore")), &["principle 2 is `Lore` once more", "hint"]);
    }
}
