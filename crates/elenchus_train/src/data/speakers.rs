//! One person has one name, written as a game writes it: where several people speak, a prompt shows their names, and
//! training should show what the game will.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// Makes one name of the many ways a text writes it: `SOCRATES.`, `socrates` and, told so, `SOC`.
#[derive(Debug, Clone, Default)]
pub struct Speakers {
    /// From a tidied name to the name the user gave.
    aliases: BTreeMap<String, String>,
}

impl Speakers {
    /// Aliases lead from a name in the texts to the name it stands for, which is kept as it is written here.
    ///
    /// # Errors
    /// An empty name, one alias for two names, or an alias of an alias.
    pub fn new<F: AsRef<str>, T: AsRef<str>>(aliases: impl IntoIterator<Item = (F, T)>) -> Result<Self> {
        let mut speakers = Self::default();
        for (from, to) in aliases {
            let (from, to) = (from.as_ref(), to.as_ref().trim());
            let fail = |reason: String| Err(Error::Alias { alias: from.to_owned(), reason });
            let tidied = tidy(from);
            if tidied.is_empty() || to.is_empty() {
                return fail("both names need letters (hint: SOC=Socrates)".to_owned());
            }
            match speakers.aliases.insert(tidied, to.to_owned()) {
                Some(other) if other != to => {
                    return fail(format!("stands for both {other} and {to} (hint: keep one)"));
                }
                _ => {}
            }
        }
        for (from, to) in &speakers.aliases {
            if let Some(last) = speakers.aliases.get(&tidy(to)).filter(|last| *last != to) {
                let reason = format!("leads to {to}, which is itself an alias of {last} (hint: {from}={last})");
                return Err(Error::Alias { alias: from.clone(), reason });
            }
        }
        Ok(speakers)
    }

    /// The name in one form: each word's first letter large, the others small, without trailing punctuation; an alias
    /// is replaced. Two names of one form are one person. Empty if the name has no letters or digits.
    pub fn normalise(&self, name: &str) -> String {
        let tidied = tidy(name);
        match self.aliases.get(&tidied) {
            Some(name) => name.clone(),
            // A target keeps its own letters however a text writes it: McDuff, not Mcduff.
            None => self.aliases.values().find(|target| tidy(target) == tidied).cloned().unwrap_or(tidied),
        }
    }
}

/// Whether a name says that nobody in the scene is known to speak: a narrator, or a label that was lost.
pub(super) fn is_nobody(name: &str) -> bool {
    matches!(name, "Narration" | "Narrator" | "Unlabelled")
}

fn tidy(name: &str) -> String {
    let name = name.trim_matches(|c: char| !c.is_alphanumeric());
    name.split_whitespace().map(title).collect::<Vec<_>>().join(" ")
}

/// `SAUSAGE-SELLER` to `Sausage-Seller`.
fn title(word: &str) -> String {
    let parts = word.split('-').map(|part| {
        let lower = part.to_lowercase();
        let mut letters = lower.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
    });
    parts.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_has_one_name() {
        let speakers = Speakers::new([("SOC", "Socrates"), ("A Friend.", "McDuff")]).unwrap();
        let check = |name, expected| assert_eq!(speakers.normalise(name), expected);
        check("SOCRATES", "Socrates");
        check(" socrates. ", "Socrates");
        check("_Socrates_", "Socrates");
        check("Soc.:", "Socrates");
        check("YOUNG   SOCRATES", "Young Socrates");
        check("SAUSAGE-SELLER", "Sausage-Seller");
        check("ΣΩΚΡΑΤΗΣ", "Σωκρατης");
        check("a friend", "McDuff");
        check("MCDUFF", "McDuff");
        check("FIRST CITIZEN 2", "First Citizen 2");
        check(" .:", "");
    }

    #[test]
    fn aliases_lead_one_way() {
        let check = |aliases: &[(&str, &str)], expected: &str| {
            let error = Speakers::new(aliases.iter().copied()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&[("", "Socrates")], "need letters");
        check(&[("SOC", " ")], "need letters");
        check(&[("SOC", "Socrates"), ("soc.", "Socius")], "both Socrates and Socius");
        check(&[("S", "Soc"), ("SOC", "Socrates")], "hint: S=Socrates");
        assert!(Speakers::new([("soc", "Socrates"), ("SOC", "Socrates"), ("Socrates", "Socrates")]).is_ok());
    }
}
