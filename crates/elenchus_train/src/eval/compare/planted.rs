//! What judges made of planted bad replies, as a comparison keeps it. A judge that does not reject what it is there for says
//! nothing about voices.

use serde::{Deserialize, Serialize};

use crate::bootstrap::Wins;

/// What is wrong with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bad {
    /// Somebody else's words, about as many.
    OtherSpeaker,
    /// The character's own words from elsewhere, about as many.
    OtherContext,
    /// Its first three words, over and over.
    Loop,
    /// What was said last, said back.
    Echo,
    /// It breaks off in the middle.
    Cut,
}

impl Bad {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::OtherSpeaker, Self::OtherContext, Self::Loop, Self::Echo, Self::Cut];

    /// As tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OtherSpeaker => "other speaker",
            Self::OtherContext => "other context",
            Self::Loop => "loop",
            Self::Echo => "echo",
            Self::Cut => "cut",
        }
    }
}

/// How often a judge rejects one kind of bad reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planted {
    /// The judge.
    pub judge: String,
    /// The kind.
    pub bad: Bad,
    /// Won: the real reply was scored higher. Tied: it cannot tell.
    pub wins: Wins,
}
