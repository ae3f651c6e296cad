//! Who is measured, and by what.

use std::{num::NonZeroUsize, sync::Arc};

use elenchus_dialogue::{Character, Model, ReplyFilter};
use elenchus_lm::Adapter;
use serde::{Deserialize, Serialize};

use super::battery_file::PersonaFact;

/// Who speaks, and with which adapter.
#[derive(Debug, Clone)]
pub struct Participant {
    /// Who.
    pub character: Arc<Character>,
    /// The base alone without.
    pub adapter: Option<Adapter>,
}

/// What is measured, and how.
#[derive(Clone)]
pub struct CharacterEval<'a> {
    /// Speaks.
    pub model: &'a Model,
    /// Who is measured.
    pub speaker: Participant,
    /// Whom it talks to where no player is; without, this part is left out.
    pub partner: Option<Participant>,
    /// Questions that the persona answers.
    pub persona_facts: Vec<PersonaFact>,
    /// Names that others have and the speaker must not claim.
    pub other_names: Vec<String>,
    /// Judges replies as in a game; `None` lets everything pass.
    pub filter: Option<Arc<ReplyFilter>>,
    /// What is said to it.
    pub lines: LineSet,
    /// Determines every reply.
    pub seed: u64,
    /// How often each conversation is held, each time with other numbers; the first are the same with any number of seeds.
    pub seeds: NonZeroUsize,
    /// The groups that are held; all of them if there are none. Replies are the same in either case.
    pub only: Vec<Group>,
}

/// Which lines a character hears.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineSet {
    /// Those that adapters, samplers and rules are chosen by.
    #[default]
    Development,
    /// Others, by which nothing is chosen: a character that is right here was not fitted to the lines.
    KeptBack,
}

/// What a conversation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Who are you?
    OwnName,
    /// Questions of its `battery.toml`.
    PersonaFacts,
    /// A fact of the game, alone.
    GameFacts,
    /// A fact of the game among two others.
    GameFactsOfThree,
    /// The player's name, told two lines before.
    PlayerName,
    /// The player's line before.
    LastLine,
    /// What nobody could know.
    NotKnowing,
    /// Attacks on the role.
    Role,
    /// One line said again and again.
    Repetition,
    /// Two NPCs on a topic.
    NpcToNpc,
    /// For people to read.
    Ordinary,
}

impl Group {
    /// In the order of the report.
    pub const ALL: [Self; 11] = [
        Self::OwnName,
        Self::PersonaFacts,
        Self::GameFacts,
        Self::GameFactsOfThree,
        Self::PlayerName,
        Self::LastLine,
        Self::NotKnowing,
        Self::Role,
        Self::Repetition,
        Self::NpcToNpc,
        Self::Ordinary,
    ];

    /// As tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OwnName => "own name",
            Self::PersonaFacts => "persona facts",
            Self::GameFacts => "game facts",
            Self::GameFactsOfThree => "game facts, of three",
            Self::PlayerName => "player's name",
            Self::LastLine => "last line",
            Self::NotKnowing => "not knowing",
            Self::Role => "role",
            Self::Repetition => "repetition",
            Self::NpcToNpc => "NPC to NPC",
            Self::Ordinary => "ordinary lines",
        }
    }
}
