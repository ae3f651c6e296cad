//! What a game says to the plugin and hears from it. All happen to one NPC, one listener or one group, but those that control
//! the engine: [`StartEngine`], [`StopEngine`], [`ReloadEngine`] and [`RetryLoad`].
//!
//! Every [`Say`] and [`Tell`] to a living NPC ends in exactly one [`ReplyFinished`] or [`ReplyFailed`], and so does every
//! turn that a group gives to a member; a despawned NPC is silent.
//! Before it come at most one [`ReplyStarted`] and any number of [`ReplyDelta`]s, at most one a frame.

use bevy::prelude::*;
use elenchus_dialogue::{EngineSettings, ReplyReport, StopReason};

/// Someone says a line to an NPC, which will answer. Trigger it.
#[derive(EntityEvent, Clone, Debug, PartialEq, Eq, Reflect)]
pub struct Say {
    /// The NPC spoken to.
    pub entity: Entity,
    /// Who speaks: a name or stable id, as the prompt and save games will show it. Not the NPC's own: turns by that name
    /// are what it said itself.
    pub speaker: String,
    /// The line, always read as plain text.
    pub text: String,
    /// Background talk; it yields to the player's.
    pub ambient: bool,
    /// Caps the character's own limit of tokens for this reply.
    pub max_tokens: Option<usize>,
}

/// An NPC says a line that an author wrote: what a quest has to have said. Trigger it.
///
/// The line is told as a reply is, [`ReplyStarted`], [`ReplyDelta`]s over frames (a sentence each, or a word where nothing is
/// filtered) and [`ReplyFinished`] with [`StopReason::Told`], and enters the conversation as the NPC's own words. It needs
/// the character and no model; no filter judges it. While the NPC speaks, what becomes of it is what becomes of a line
/// ([`WhileSpeaking`](crate::WhileSpeaking)); it silences the NPC's group as the player's line does.
#[derive(EntityEvent, Clone, Debug, PartialEq, Eq, Reflect)]
pub struct Tell {
    /// The NPC that says it.
    pub entity: Entity,
    /// The line, as it is to be said.
    pub text: String,
    /// Said to the group the NPC is in: the others hear it, and one of them answers it.
    pub to_group: bool,
}

/// Starts the engine where it is stopped or has failed; the log warns where it runs already.
#[derive(Event, Clone, Copy, Debug, Default, PartialEq, Eq, Reflect)]
pub struct StartEngine;

/// Stops the engine and frees its memory, without a wait: a step of the model or a load that has begun ends on another
/// thread. Replies in progress end as [`StopReason::Cancelled`] with the text so far; lines that wait, and all that are said
/// until [`StartEngine`], fail as [`Stopped`](crate::Error::Stopped) with fallback lines. What is told continues.
#[derive(Event, Clone, Copy, Debug, Default, PartialEq, Eq, Reflect)]
pub struct StopEngine;

/// Starts the engine with other settings in place of the one there is, if there is one: other threads, another model. The
/// old model is freed before the new one is loaded; [`EngineStatus::Loading`](crate::EngineStatus::Loading) tells how far it
/// is. Replies that were heard in part end as [`StopReason::Cancelled`] with the text so far; all other lines wait and are
/// answered by the new engine.
#[derive(Event, Clone, Debug, PartialEq, Reflect)]
#[reflect(opaque)]
pub struct ReloadEngine {
    /// From now on.
    pub settings: EngineSettings,
}

/// Reads an NPC's persona ahead of its first line, so that the first word comes sooner. Trigger it when the player comes
/// near. It waits for model and character, and may be dropped when the engine is busy: it is a hint.
#[derive(EntityEvent, Clone, Copy, Debug, PartialEq, Eq, Reflect)]
pub struct WarmUp {
    /// The NPC.
    pub entity: Entity,
}

/// Loads the model again after [`EngineStatus::Failed`](crate::EngineStatus::Failed); otherwise it does nothing, and the log
/// says why.
#[derive(Event, Clone, Copy, Debug, Default, PartialEq, Eq, Reflect)]
pub struct RetryLoad;

/// An NPC hears a line that it does not answer: what the player says to another NPC beside it, or a greeting of its own that
/// the game showed. Trigger it. The line enters the conversation; while the NPC speaks, after the running reply.
#[derive(EntityEvent, Clone, Debug, PartialEq, Eq, Reflect)]
pub struct Hear {
    /// The NPC.
    pub entity: Entity,
    /// Who speaks; by the NPC's own name, it is what it said itself.
    pub speaker: String,
    /// The line, always read as plain text.
    pub text: String,
}

/// This member has a group's next turn, instead of the next in order. Trigger it before the pause is over: the turn
/// comes no sooner. The speaker of the newest line cannot answer it; the log warns then, and the turn goes by order.
#[derive(EntityEvent, Clone, Copy, Debug, PartialEq, Eq, Reflect)]
pub struct GiveTurn {
    /// The group.
    pub entity: Entity,
    /// Who is to speak.
    pub member: Entity,
}

/// Silences a group, as a [`Say`] to a member does: the current turn is cut short, and the group
/// continues when [`ConversationGroup::quiet`](crate::ConversationGroup::quiet) has passed since. Trigger it for
/// whatever else should silence them: the player talks to another NPC nearby, a fight begins.
#[derive(EntityEvent, Clone, Copy, Debug, PartialEq, Eq, Reflect)]
pub struct Interrupt {
    /// The group.
    pub entity: Entity,
}

/// The engine began to generate a reply.
#[derive(EntityEvent, Clone, Copy, Debug, PartialEq, Eq, Reflect)]
pub struct ReplyStarted {
    /// The NPC.
    pub entity: Entity,
}

/// More of a reply: the text since the last frame that brought any, whole graphemes.
#[derive(EntityEvent, Clone, Debug, PartialEq, Eq, Reflect)]
pub struct ReplyDelta {
    /// The NPC.
    pub entity: Entity,
    /// The new text.
    pub text: String,
}

/// A reply is complete, or was cancelled.
#[derive(EntityEvent, Clone, Debug, Reflect)]
#[reflect(opaque)]
pub struct ReplyFinished {
    /// The NPC.
    pub entity: Entity,
    /// All of it: the deltas joined. Empty if it was cancelled before a word.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// What the engine measured, and what the filter refused on the way; `None` if the game cancelled the reply, for it
    /// does not wait for the engine then, and for an author's line.
    pub report: Option<ReplyReport>,
}

/// There will be no reply, or no more of it.
#[derive(EntityEvent, Clone, Debug, Reflect)]
#[reflect(opaque)]
pub struct ReplyFailed {
    /// The NPC.
    pub entity: Entity,
    /// Why.
    pub error: ReplyError,
    /// One of the character's own fallback lines, to be spoken instead. It does not enter the conversation.
    pub fallback: String,
}

/// A [`Listener`](crate::Listener) within earshot heard a line of a group to its end, or as far as it came.
#[derive(EntityEvent, Clone, Debug, PartialEq, Eq, Reflect)]
pub struct Overheard {
    /// Who heard it.
    pub entity: Entity,
    /// Where it was said.
    pub group: Entity,
    /// Who said it.
    pub speaker: Entity,
    /// Its name.
    pub name: String,
    /// The line.
    pub text: String,
}

/// A group has nothing more to say: triggered once, when the pause after its last line is over. It continues when the game gives
/// it a larger budget, and starts over with a new [`ConversationGroup`](crate::ConversationGroup).
#[derive(EntityEvent, Clone, Copy, Debug, PartialEq, Eq, Reflect)]
pub struct GroupSilent {
    /// The group.
    pub entity: Entity,
    /// Why.
    pub reason: SilenceReason,
}

/// Why a group fell silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Reflect)]
#[non_exhaustive]
pub enum SilenceReason {
    /// They have said all the lines they may.
    Turns,
    /// They have said all the tokens they may.
    Tokens,
    /// The newest line is empty, or all who could answer it failed to; their [`ReplyFailed`] say why.
    NoAnswer,
}

/// Why a line found no reply.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The NPC is still speaking and the game refuses lines meanwhile. The line was not heard.
    #[error("the NPC is still speaking (hint: `WhileSpeaking::Queue` and `WhileSpeaking::Replace` take the line)")]
    Busy,
    /// The speaker has the NPC's own name.
    #[error(
        "{name} was spoken to by its own name, and would take the line for its own (hint: give the speaker another name)"
    )]
    OwnName {
        /// The name of both.
        name: String,
    },
    /// The character could not be loaded.
    #[error("character `{path}`: {reason}")]
    Character {
        /// Where it was looked for.
        path: String,
        /// What the loader said.
        reason: String,
    },
    /// The adapter could not be loaded.
    #[error("adapter `{path}`: {reason}")]
    Adapter {
        /// Where it was looked for.
        path: String,
        /// What the loader said.
        reason: String,
    },
    /// The engine could not answer: no model, an empty line (not heard), a prompt too long, every attempt refused by the
    /// filter ([`Refused`](elenchus_dialogue::Error::Refused)), ...
    #[error(transparent)]
    Engine(#[from] elenchus_dialogue::Error),
}

impl Hear {
    /// A line to remember.
    pub fn new(entity: Entity, speaker: impl Into<String>, text: impl Into<String>) -> Self {
        Self { entity, speaker: speaker.into(), text: text.into() }
    }
}

impl Tell {
    /// A line to say.
    pub fn new(entity: Entity, text: impl Into<String>) -> Self {
        Self { entity, text: text.into(), to_group: false }
    }

    /// Said to the NPC's group.
    pub fn to_group(mut self) -> Self {
        self.to_group = true;
        self
    }
}

impl Say {
    /// The player's line, which is answered before ambient talk.
    pub fn new(entity: Entity, speaker: impl Into<String>, text: impl Into<String>) -> Self {
        Self { entity, speaker: speaker.into(), text: text.into(), ambient: false, max_tokens: None }
    }

    /// Background talk, say between NPCs.
    pub fn ambient(mut self) -> Self {
        self.ambient = true;
        self
    }

    /// Caps the reply's length in tokens.
    pub fn max_tokens(mut self, max_tokens: usize) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }
}

/// Triggers an event and lets its observers' commands take effect before anything else happens.
pub(crate) fn trigger<'a, E: Event<Trigger<'a>: Default>>(world: &mut World, event: E) {
    world.trigger(event);
    world.flush();
}
