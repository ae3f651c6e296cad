//! A conversation of the battery.

use super::{checks::Wanted, setup::Group};

/// A conversation to hold: the player's lines, and what the last reply must be.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub group: Group,
    pub kind: String,
    pub facts: Vec<String>,
    pub lines: Vec<String>,
    pub check: Check,
}

/// How the last reply of a conversation is judged.
#[derive(Debug, Clone)]
pub(super) enum Check {
    OwnName,
    Says(Wanted),
    AdmitsNotKnowing,
    StaysInRole { worked: Vec<String> },
    None,
}
