//! What was said to an NPC and by it: plain data, so that a save game is this component and nothing else.

use std::hash::{BuildHasher, Hasher, RandomState};

use bevy::prelude::*;
use elenchus_dialogue::Turn;
use serde::{Deserialize, Serialize};

/// An NPC's conversation as a save game keeps it: no handle, no entity. Insert a loaded one on any NPC and it goes on.
///
/// Dereferences to [`elenchus_dialogue::Conversation`]: `turns`, `rng`, `push`.
///
/// Under another base model or adapter than it was saved with, the conversation continues in the new voice; the log warns
/// once, and [`base`](Self::base) and [`adapter`](Self::adapter) follow with the next reply.
#[derive(Component, Clone, Debug, PartialEq, Serialize, Deserialize, Deref, DerefMut, Reflect)]
#[reflect(opaque)]
#[reflect(Component, Default, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// The turns, and the generator that draws the next reply.
    #[deref]
    pub said: elenchus_dialogue::Conversation,
    /// Asset path of the character, once it has been spoken to; `None` for a character that came from no file.
    pub character: Option<String>,
    /// SHA-256 of the base model that spoke last, in hex.
    pub base: Option<String>,
    /// Hash of the adapter that spoke last, its scale included, in hex.
    pub adapter: Option<String>,
    /// The last turn was said to the NPC and its reply has not ended yet; see [`Self::take_unanswered`].
    pub awaiting_reply: bool,
}

impl Conversation {
    /// An empty conversation whose replies a seed determines. `Default` takes a random seed.
    pub fn from_seed(seed: u64) -> Self {
        Self {
            said: elenchus_dialogue::Conversation::from_seed(seed),
            character: None,
            base: None,
            adapter: None,
            awaiting_reply: false,
        }
    }

    /// Takes back the line whose reply was under way when the game was saved, to be said again:
    /// its reply will be the one that was lost.
    pub fn take_unanswered(&mut self) -> Option<Turn> {
        std::mem::take(&mut self.awaiting_reply).then(|| self.said.turns.pop()).flatten()
    }

    /// Whether this is the newest turn.
    pub(crate) fn ends_with(&self, speaker: &str, text: &str) -> bool {
        self.said.turns.last().is_some_and(|turn| turn.speaker == speaker && turn.text == text)
    }
}

impl Default for Conversation {
    fn default() -> Self {
        // The standard library's hasher keys are the one source of randomness that needs no crate and cannot fail.
        Self::from_seed(RandomState::new().build_hasher().finish())
    }
}

pub(crate) fn plugin(app: &mut App) {
    app.register_type::<Conversation>();
}
