//! What a conversation group is: an entity with a line to answer, and NPCs that point to it.
//!
//! Membership is a Bevy relationship and not a list in the group: an NPC points to one group at most, so none is ever
//! asked by two; a despawned NPC has left, and a group that is despawned has no members.

use std::time::Duration;

use bevy::prelude::*;
use elenchus_dialogue::has_words;
use serde::{Deserialize, Serialize};

use crate::SilenceReason;

/// NPCs that talk to each other unprompted: one at a time, each answering the newest line, which all of them hear.
///
/// Plain data, so that a save game is this component and its members' [`Conversation`](crate::Conversation)s: no entity.
/// All of it may be changed while they talk. Inserting another one starts over.
///
/// ```no_run
/// # use bevy::prelude::*; use bevy_elenchus::prelude::*;
/// # fn setup(mut commands: Commands, assets: Res<AssetServer>) {
/// commands.spawn((
///     ConversationGroup::new("Hermes", "Socrates, is it true that you know nothing?").about("what a man can know"),
///     related![GroupMembers[
///         Npc::new(assets.load("adapters://hermes/character.toml")),
///         Npc::new(assets.load("adapters://socrates/character.toml")),
///     ]],
/// ));
/// # }
/// ```
#[derive(Component, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Reflect)]
#[serde(default)]
#[reflect(Component, Default, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConversationGroup {
    /// Who said [`line`](Self::line): a member's name, or anybody else's. The member after it speaks next.
    pub speaker: String,
    /// What the next speaker answers: the opening at first, then the newest line. The opening is not told in events; a
    /// game that wants it seen shows it.
    pub line: String,
    /// What they talk about, as it follows "You and Hermes talk about ..": `the price of oil`, `who stole the key, and
    /// want to find out`. Each member is reminded of it, and of the others' names, with every line it answers.
    pub topic: Option<String>,
    /// Silence before each turn.
    pub pause: Duration,
    /// Silence after other talk with a member, or an [`Interrupt`](crate::Interrupt), before they continue.
    pub quiet: Duration,
    /// Caps each reply's length in tokens, below the character's own limit; a sentence that has begun may take 24 more.
    pub reply_tokens: Option<usize>,
    /// Lines they may say; `None` for no end.
    pub max_turns: Option<usize>,
    /// Tokens they may say all together; `None` for no end. Checked between turns, so that no reply is cut short: the last
    /// reply may exceed it.
    pub max_tokens: Option<usize>,
    /// Lines said so far.
    pub turns: usize,
    /// Tokens said so far. Replies that were cut short are not counted: the plugin does not wait for the engine then.
    pub tokens: usize,
}

/// The NPC talks in this group. Remove it to leave: a turn in progress is cut short then, and the group does not hear it.
#[derive(Component, Clone, Debug, PartialEq, Eq, Reflect)]
#[relationship(relationship_target = GroupMembers)]
#[reflect(Component, Debug, PartialEq, Clone)]
pub struct MemberOf(#[entities] pub Entity);

/// Who talks in this group, in the order of turns.
#[derive(Component, Debug, Default, PartialEq, Eq, Deref, Reflect)]
#[relationship_target(relationship = MemberOf)]
#[reflect(Component, Debug, Default, PartialEq)]
pub struct GroupMembers(Vec<Entity>);

/// What passes between two turns; not worth saving.
#[derive(Component, Debug, Default)]
#[component(clone_behavior = Ignore)]
pub(crate) struct Lull {
    /// How long the group has been silent.
    pub silence: Duration,
    /// By talk that was not the group's.
    pub interrupted: bool,
    /// Whom the game wants to hear next.
    pub next: Option<Entity>,
    /// Who failed to answer the newest line.
    pub failed: Vec<Entity>,
    /// The group has fallen silent, and said so.
    pub over: Option<SilenceReason>,
}

impl Lull {
    /// Other talk with a member: the group waits, and members that failed to answer may try again.
    pub fn interrupt(&mut self) {
        self.silence = default();
        self.interrupted = true;
        self.failed.clear();
    }
}

impl ConversationGroup {
    /// A group whose first turn answers `line`. If `speaker` is a member's name, that member is taken to have said it.
    pub fn new(speaker: impl Into<String>, line: impl Into<String>) -> Self {
        Self { speaker: speaker.into(), line: line.into(), ..Self::default() }
    }

    /// The same with something to talk about.
    pub fn about(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Why they have nothing more to say, if that is so.
    pub(crate) fn spent(&self) -> Option<SilenceReason> {
        let spent = |limit: Option<usize>, used| limit.is_some_and(|limit| used >= limit);
        if spent(self.max_turns, self.turns) {
            Some(SilenceReason::Turns)
        } else if spent(self.max_tokens, self.tokens) {
            Some(SilenceReason::Tokens)
        } else if !has_words(&self.line) {
            Some(SilenceReason::NoAnswer)
        } else {
            None
        }
    }
}

impl Default for ConversationGroup {
    fn default() -> Self {
        Self {
            speaker: String::new(),
            line: String::new(),
            topic: None,
            pause: Duration::from_millis(1500),
            quiet: Duration::from_secs(5),
            reply_tokens: None,
            max_turns: Some(8),
            max_tokens: None,
            turns: 0,
            tokens: 0,
        }
    }
}

pub(crate) fn plugin(app: &mut App) {
    // `TimePlugin` updates it; without that plugin groups never speak.
    app.init_resource::<Time>()
        .register_type::<ConversationGroup>()
        .register_type::<MemberOf>()
        .register_type::<GroupMembers>();
}
