//! What was said, and the generator that samples what will be said: all that a save game needs to continue identically.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use elenchus_lm::Rng;
use serde::{Deserialize, Serialize};

/// One person's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// A name or stable id, never an entity.
    pub speaker: String,
    /// What was said.
    pub text: String,
}

/// Turns, oldest first. A clone shares them, so that a request costs the same however long the conversation is; who changes
/// its turns while another holds a clone gets a copy of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Turn>", into = "Vec<Turn>")]
pub struct Turns(Arc<Vec<Turn>>);

impl Deref for Turns {
    type Target = Vec<Turn>;

    fn deref(&self) -> &Vec<Turn> {
        &self.0
    }
}

impl DerefMut for Turns {
    fn deref_mut(&mut self) -> &mut Vec<Turn> {
        Arc::make_mut(&mut self.0)
    }
}

impl<'a> IntoIterator for &'a Turns {
    type Item = &'a Turn;
    type IntoIter = std::slice::Iter<'a, Turn>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl From<Vec<Turn>> for Turns {
    fn from(turns: Vec<Turn>) -> Self {
        Self(Arc::new(turns))
    }
}

impl From<Turns> for Vec<Turn> {
    fn from(turns: Turns) -> Self {
        Arc::unwrap_or_clone(turns.0)
    }
}

/// The turns a character has heard and spoken, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// Everything said so far.
    pub turns: Turns,
    /// Draws the next reply; the engine hands back its next state with each.
    pub rng: Rng,
}

impl Conversation {
    /// An empty conversation whose replies a seed determines.
    pub fn from_seed(seed: u64) -> Self {
        Self { turns: Turns::default(), rng: Rng::from_seed(seed) }
    }

    /// Appends a turn.
    pub fn push(&mut self, speaker: impl Into<String>, text: impl Into<String>) {
        self.turns.push(Turn { speaker: speaker.into(), text: text.into() });
    }

    /// Forgets all but the newest turns. A prompt never holds more than the context does, but every turn is counted for it
    /// and saved: talk without an end, as among NPCs, is cut now and then. Cut seldom and deep, for the memory of a prompt
    /// that begins elsewhere is read again.
    pub fn keep_newest(&mut self, turns: usize) {
        let forgotten = self.turns.len().saturating_sub(turns);
        self.turns.drain(..forgotten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_turns_are_kept() {
        let mut conversation = Conversation::from_seed(7);
        for number in 0..5 {
            conversation.push("player", number.to_string());
        }
        let said = |conversation: &Conversation| {
            conversation.turns.iter().map(|turn| turn.text.clone()).collect::<Vec<_>>().join(" ")
        };
        conversation.keep_newest(9);
        assert_eq!(said(&conversation), "0 1 2 3 4");
        conversation.keep_newest(2);
        assert_eq!(said(&conversation), "3 4");
    }

    #[test]
    fn a_save_game_holds_all_of_it() {
        let mut conversation = Conversation::from_seed(7);
        conversation.push("player", "Χαῖρε! 🏺 \"what\"\nis virtue?");
        conversation.push("Socrates", "I do not know.");
        let json = serde_json::to_string(&conversation).unwrap();
        assert_eq!(serde_json::from_str::<Conversation>(&json).unwrap(), conversation);
        let toml = toml::to_string(&conversation);
        // 128-bit generator states must be written in a form that every format can hold.
        assert_eq!(toml::from_str::<Conversation>(&toml.unwrap()).unwrap(), conversation);
    }
}
