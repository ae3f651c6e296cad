//! Is a character worth meeting? A battery of short conversations with what a game needs of one: its name, the facts it is
//! told, the player's words, its role, and no endless repetition.
//!
//! Rules judge the replies, so that two adapters can be compared within minutes and a test can hold a character to a number.
//! Rules see words and no sense: read the replies too. Everything is spoken as in a game (prompt, sampler, stop rules,
//! filter), and a seed determines every word.

mod battery_file;
mod cases;
mod checks;
mod play;
mod report;

use std::{num::NonZeroUsize, sync::Arc};

use elenchus_dialogue::{Character, Model, ReplyFilter, StopReason};
use elenchus_lm::Adapter;
use serde::{Deserialize, Serialize};

pub use battery_file::{BatteryFile, PersonaFact};
pub use checks::{Ask, Wanted};
pub use report::{markdown, table};

use crate::{Result, RunFolder, bootstrap::Interval};

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

/// A conversation to hold: the player's lines, and what the last reply must be.
#[derive(Debug, Clone)]
struct Case {
    group: Group,
    kind: String,
    facts: Vec<String>,
    lines: Vec<String>,
    check: Check,
}

/// How the last reply of a conversation is judged.
#[derive(Debug, Clone)]
enum Check {
    OwnName,
    Says(Wanted),
    AdmitsNotKnowing,
    StaysInRole { worked: Vec<String> },
    None,
}

/// A line and its reply.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exchange {
    /// What was said.
    pub line: String,
    /// Who answers.
    pub speaker: String,
    /// What it answers; empty where the filter refused every attempt and a game would show a fallback line.
    pub reply: String,
    /// Why it ended.
    pub stop: StopReason,
    /// What the filter refused before this reply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
}

/// A sentence that the filter refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// By which rule.
    pub rule: String,
    /// What was to be said.
    pub text: String,
}

/// A conversation as it went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Played {
    /// What it is about.
    pub group: Group,
    /// A part of the group; empty where there are none.
    pub kind: String,
    /// Facts of the game.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<String>,
    /// Line by line.
    pub exchanges: Vec<Exchange>,
    /// What is wrong with the last reply; several faults where every reply is judged.
    pub faults: Vec<String>,
}

/// How often replies were right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRow {
    /// What was asked of them.
    pub check: String,
    /// Whether it is a part of the row above it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_part: bool,
    /// How many were.
    pub right: usize,
    /// Of how many.
    pub of: usize,
    /// The share, Wilson's interval at 95%; `null` without replies.
    pub share: Option<Interval>,
    /// The first that was not: line, reply and what is wrong.
    pub failure: Option<Failure>,
}

/// A reply that was not right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was said.
    pub line: String,
    /// What was answered.
    pub reply: String,
    /// What is wrong.
    pub fault: String,
}

/// The whole battery.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CharacterReport {
    /// Who.
    pub character: String,
    /// Whom it talked to where no player was.
    pub partner: Option<String>,
    /// What was said to it.
    pub lines: LineSet,
    /// Determined every reply.
    pub seed: u64,
    /// How often each conversation was held.
    pub seeds: NonZeroUsize,
    /// Whether replies were filtered.
    pub is_filtered: bool,
    /// By check.
    pub rows: Vec<CheckRow>,
    /// Replies in all.
    pub replies: usize,
    /// Of these, those that were sampled again because the filter refused a sentence.
    pub sampled_again: usize,
    /// Replies of which every attempt was refused: a game shows a fallback line.
    pub refused: usize,
    /// Refused sentences by rule.
    pub refused_by_rule: std::collections::BTreeMap<String, usize>,
    /// Mean words of a reply to the player.
    pub mean_words: f64,
    /// All that was said.
    pub conversations: Vec<Played>,
}

impl CharacterReport {
    /// The row of a check.
    pub fn row(&self, check: &str) -> Option<&CheckRow> {
        self.rows.iter().find(|row| row.check == check)
    }
}

/// What a training run's report says of the battery: `battery.json` of its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunBattery {
    /// SHA-256 of the trained adapter's weights, as hex digits.
    pub adapter: String,
    /// Determined every reply.
    pub seed: u64,
    /// As the run found it: the base without an adapter, or, where a run learned from judges, the adapter it began from.
    pub before: Vec<CheckRow>,
    /// With the run's adapter.
    pub after: Vec<CheckRow>,
}

impl RunBattery {
    pub(crate) const FILE: &str = "battery.json";

    /// Before and after, check by check.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&CheckRow, &CheckRow)> {
        let same = |row: &CheckRow| (row.check.clone(), row.is_part);
        let before = move |row: &CheckRow| self.before.iter().find(|before| same(before) == same(row));
        self.after.iter().filter(|row| !row.is_part).filter_map(move |row| Some((before(row)?, row)))
    }

    /// What a finished run's folder says of its battery, if it was measured.
    ///
    /// # Errors
    /// A file that cannot be read, or is none of ours.
    pub fn of(run: &RunFolder) -> Result<Option<Self>> {
        run.json(Self::FILE)
    }

    /// Saves it in the folder of an SFT or RL run, whose report then has it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, run: &RunFolder) -> Result<()> {
        run.write_json(Self::FILE, self)
    }
}

/// Holds every conversation and judges it; `on_progress` is given how many replies are done, and of how many.
///
/// # Errors
/// What the engine cannot continue from.
pub fn evaluate_character(
    of: &CharacterEval<'_>,
    mut on_progress: impl FnMut(usize, usize),
) -> Result<CharacterReport> {
    let cases = cases::all(of.lines, &of.persona_facts);
    let conversations = play::play(of, &cases, &mut on_progress)?;
    Ok(report::report(of, conversations))
}
