//! What a reward model learns from.

use elenchus_dialogue::Turn;
use serde::Serialize;

/// One reply that is preferred to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preference {
    /// What was said before both.
    pub context: Vec<Turn>,
    /// The better reply.
    pub chosen: String,
    /// The other.
    pub rejected: String,
}

/// Preferences to train on and to measure on, of different works.
#[derive(Debug, Clone, PartialEq)]
pub struct Preferences {
    /// What is trained on.
    pub train: Vec<Preference>,
    /// What is measured on.
    pub held_out: Vec<Preference>,
    /// Replies, of both, for which no other of like length was left; of written preferences, ties.
    pub unmatched: usize,
}
