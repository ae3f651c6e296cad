//! What is asked of the engine.

use std::sync::Arc;

use elenchus_lm::{Adapter, Rng};

use crate::{Character, ReplyFilter, Turn};

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

/// Asks for a character's next words. The newest turn is what it answers.
#[derive(Debug, Clone)]
pub struct Request {
    /// Comes back with every event; no other request that is not answered yet may have the same.
    pub id: RequestId,
    /// Who speaks.
    pub character: Arc<Character>,
    /// The voice it wears.
    pub adapter: Option<Adapter>,
    /// Facts of the game that enter the prompt.
    pub facts: Vec<String>,
    /// What belongs to the newest line alone, a sentence each: it stands beside that line, after everything that is cached.
    pub notes: Vec<String>,
    /// What was said, the line to answer last.
    pub turns: Vec<Turn>,
    /// Draws the words.
    pub rng: Rng,
    /// Who goes first.
    pub priority: Priority,
    /// Caps [`crate::StopRules::max_tokens`] for this reply alone.
    pub max_tokens: Option<usize>,
    /// Judges its sentences before they are told; with one, deltas are whole sentences.
    pub filter: Option<Arc<ReplyFilter>>,
}

impl Request {
    /// The player's request for an answer to the last of `turns`: no adapter, no facts, no notes, seed 0, no filter.
    pub fn new(character: Arc<Character>, turns: Vec<Turn>) -> Self {
        Self {
            id: RequestId(0),
            character,
            adapter: None,
            facts: Vec::new(),
            notes: Vec::new(),
            turns,
            rng: Rng::from_seed(0),
            priority: Priority::Player,
            max_tokens: None,
            filter: None,
        }
    }
}

/// Asks that a character's persona be read ahead of its first line.
#[derive(Debug, Clone)]
pub struct WarmUp {
    /// Who.
    pub character: Arc<Character>,
    /// The voice.
    pub adapter: Option<Adapter>,
    /// Facts known already.
    pub facts: Vec<String>,
}
