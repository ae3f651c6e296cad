//! From a character, facts and turns to the messages of a prompt. Training uses this same function.

use elenchus_lm::Message;

use crate::{Character, Turn};

/// The messages a character reads before it speaks: persona and facts as the system message, then the turns. Its own
/// turns are the assistant's; neighbouring turns of others are one user message, each line led by its speaker's name
/// once more than one other person has spoken.
pub fn messages(character: &Character, facts: &[String], turns: &[Turn]) -> Vec<Message> {
    let _ = (character, facts, turns);
    todo!()
}
