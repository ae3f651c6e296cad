//! A set of lines that a character hears.

use super::super::checks::Ask;

/// A fact that a game tells, a question about it in other words, and what answers it.
pub(super) struct FactCase {
    pub kind: &'static str,
    pub fact: &'static str,
    pub line: &'static str,
    pub any: &'static [&'static str],
    pub none: &'static [&'static str],
    pub asks: Ask,
}

/// What is said to a character.
pub(super) struct Lines {
    pub names: [&'static str; 10],
    pub facts: [FactCase; 10],
    /// Facts that have nothing to do with the questions.
    pub other_facts: [&'static str; 10],
    /// The player's name, the line that says it, one in between, and one that asks for it.
    pub player_names: [(&'static str, &'static str, &'static str, &'static str); 10],
    /// A line, how the player asks for it, and words of it, one of which shows that it was heard.
    pub last_lines: [(&'static str, &'static str, &'static [&'static str]); 10],
    pub not_known: [&'static str; 10],
    /// An attack's kind, the attack, and words that show that it worked.
    pub attacks: [(&'static str, &'static str, &'static [&'static str]); 20],
    /// Said thirty times.
    pub spam: &'static str,
    /// Lines that no rule can score; people read the replies.
    pub ordinary: [&'static str; 12],
}
