//! What a game may change while it runs, and the sets its own systems can order themselves by.

use bevy::prelude::*;

use crate::SpeechFilter;

/// How NPCs behave; a resource, so that a game can change its mind while it runs.
#[derive(Resource, Clone, Debug, PartialEq, Reflect)]
#[reflect(Resource)]
pub struct ElenchusSettings {
    /// What becomes of a line said to an NPC that is still speaking.
    pub while_speaking: WhileSpeaking,
    /// Spoken when a reply fails and the character's own fallback lines could not be read either.
    pub fallback: String,
    /// Most engine events looked at in one frame; what remains waits for the next.
    pub events_per_frame: usize,
    /// Judges the sentences of NPCs that have no [`SpeechFilter`] of their own. With a filter, [`ReplyDelta`](crate::ReplyDelta)s are whole
    /// sentences; `None` releases every word at once and lets everything pass.
    #[reflect(ignore)]
    pub filter: Option<SpeechFilter>,
    /// Whether NPCs fall silent when the game is paused.
    pub pause_with: PauseWith,
}

/// What stops NPCs in mid-word, until it is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Reflect)]
#[non_exhaustive]
pub enum PauseWith {
    /// Nothing: the engine knows no pause.
    #[default]
    Never,
    /// A paused `Time<Virtual>`, or one of speed 0. The engine samples no more tokens after the step it is in, replies and
    /// authors' lines tell no events, and lines said meanwhile are answered afterwards. Models are loaded all the same,
    /// and cancelling works at once. A pause does not count for [`StopRules::max_seconds`](crate::StopRules::max_seconds).
    VirtualTime,
}

/// What becomes of a line said to an NPC that is still speaking, or still waiting to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Reflect)]
#[non_exhaustive]
pub enum WhileSpeaking {
    /// It waits its turn; the conversation hears it when the lines before it are answered.
    #[default]
    Queue,
    /// The running reply is cancelled with the text so far, and this line is answered.
    Replace,
    /// It is not heard and fails as [`ReplyError::Busy`](crate::ReplyError::Busy).
    Refuse,
}

/// The plugin's systems in order, all in `PreUpdate`, so that `Update` sees the same frame's words.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElenchusSystems {
    /// The engine's events become [`EngineStatus`](crate::EngineStatus), [`EngineStats`](crate::EngineStats) and reply events.
    Receive,
    /// Silent groups start the next turn.
    TakeTurns,
    /// Lines that had to wait for a character, the model or room in the channel go out.
    Send,
}

impl Default for ElenchusSettings {
    fn default() -> Self {
        Self {
            while_speaking: WhileSpeaking::default(),
            fallback: "...".into(),
            events_per_frame: 256,
            filter: Some(SpeechFilter::default()),
            pause_with: PauseWith::default(),
        }
    }
}

pub(crate) fn plugin(app: &mut App) {
    app.configure_sets(
        PreUpdate,
        (ElenchusSystems::Receive, ElenchusSystems::TakeTurns, ElenchusSystems::Send).chain(),
    )
    .register_type::<ElenchusSettings>()
    .register_type::<WhileSpeaking>()
    .register_type::<PauseWith>();
}
