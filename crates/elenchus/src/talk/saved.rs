//! A saved conversation: which characters took part, and each one's turns and generator.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use bevy_elenchus::Conversation;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

/// What `/save` writes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    /// The character being talked to.
    pub partner: String,
    /// All characters in the conversation.
    pub present: Vec<SavedCharacter>,
}

/// One character's part.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedCharacter {
    /// The character's folder.
    pub id: String,
    /// As the plugin stores it.
    pub conversation: Conversation,
}

impl Saved {
    pub fn new(partner: String, present: Vec<SavedCharacter>) -> Self {
        Self { version: VERSION, partner, present }
    }

    /// Replaces the file as a whole, so that a full disk does not destroy an older conversation.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        elenchus_lm::write_whole(path, text.as_bytes()).with_context(|| path.display().to_string())
    }

    /// Reads a file that [`Self::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let saved: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is no saved conversation", path.display()))?;
        ensure!(
            saved.version == VERSION,
            "{} has version {}, but this program reads {VERSION} (hint: update the program)",
            path.display(),
            saved.version
        );
        ensure!(
            saved.present.iter().any(|character| character.id == saved.partner),
            "{}: the partner `{}` is not among the characters present",
            path.display(),
            saved.partner
        );
        Ok(saved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        let mut conversation = Conversation::from_seed(7);
        conversation.push("Stranger", "What is courage?");
        Saved::new("socrates".into(), vec![SavedCharacter { id: "socrates".into(), conversation }])
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.json");
        saved().write(&path).unwrap();
        assert_eq!(Saved::read(&path).unwrap(), saved());
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["talk.json"]);
    }

    #[test]
    fn what_is_no_saved_conversation_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.json");
        let check = |text: &str, expected: &str| {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", Saved::read(&path).unwrap_err());
            assert!(error.contains(expected) && error.contains("talk.json"), "{error}");
        };
        check("{", "no saved conversation");
        check("{}", "missing field");
        check(&serde_json::to_string(&Saved { version: 2, ..saved() }).unwrap(), "version 2");
        check(&serde_json::to_string(&Saved { partner: "plato".into(), ..saved() }).unwrap(), "`plato`");
        fs::remove_file(&path).unwrap();
        assert!(format!("{:#}", Saved::read(&path).unwrap_err()).contains("talk.json"));
    }
}
