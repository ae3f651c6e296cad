//! Requests to a backend.

use std::sync::Arc;

use elenchus_lm::{Adapter, Rng};

use crate::{Character, ReplyFilter, Turns};

/// Chosen by the caller; comes back with every event of the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Who is answered first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Background talk: the player's replies go before it.
    Ambient,
    /// The player waits.
    #[default]
    Player,
}

/// A character's voice: a name that the backend resolves, and its adapter where this machine has it.
///
/// The [`Engine`](crate::Engine) answers with the adapter, and with the base model where there is none. A backend elsewhere
/// knows the adapter by its name.
#[derive(Debug, Clone)]
pub struct Voice {
    /// The folder of the adapter, say `socrates`.
    pub name: Arc<str>,
    /// Its weights.
    pub adapter: Option<Adapter>,
}

impl Voice {
    /// A voice whose adapter another machine has.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), adapter: None }
    }
}

/// An adapter of this machine, named by its hash.
impl From<Adapter> for Voice {
    fn from(adapter: Adapter) -> Self {
        Self { name: adapter.id().to_string().into(), adapter: Some(adapter) }
    }
}

/// Asks for a character's next words. The newest turn is what it answers.
#[derive(Debug, Clone)]
pub struct Request {
    /// Comes back with every event; no other request that is not answered yet may have the same.
    pub id: RequestId,
    /// Who speaks.
    pub character: Arc<Character>,
    /// Its voice; `None` for the base model's own.
    pub voice: Option<Voice>,
    /// Facts of the game that enter the prompt.
    pub facts: Vec<String>,
    /// What belongs to the newest line alone, a sentence each: it stands beside that line, after everything that is cached.
    pub notes: Vec<String>,
    /// What was said, the line to answer last.
    pub turns: Turns,
    /// Samples the words.
    pub rng: Rng,
    /// Who goes first.
    pub priority: Priority,
    /// Caps [`crate::StopRules::max_tokens`] for this reply alone.
    pub max_tokens: Option<usize>,
    /// Judges its sentences before they are released; with one, deltas are whole sentences.
    pub filter: Option<Arc<ReplyFilter>>,
}

impl Request {
    /// The player's request for an answer to the last of `turns`: no voice, no facts, no notes, seed 0, no filter.
    pub fn new(character: Arc<Character>, turns: impl Into<Turns>) -> Self {
        Self {
            id: RequestId(0),
            character,
            voice: None,
            facts: Vec::new(),
            notes: Vec::new(),
            turns: turns.into(),
            rng: Rng::from_seed(0),
            priority: Priority::Player,
            max_tokens: None,
            filter: None,
        }
    }

    /// The adapter that a backend on this machine answers with.
    pub(crate) fn adapter(&self) -> Option<&Adapter> {
        self.voice.as_ref().and_then(|voice| voice.adapter.as_ref())
    }
}

/// Asks that a character's persona be read ahead of its first line.
#[derive(Debug, Clone)]
pub struct WarmUp {
    /// Who.
    pub character: Arc<Character>,
    /// Its voice.
    pub voice: Option<Voice>,
    /// Facts known already.
    pub facts: Vec<String>,
}
