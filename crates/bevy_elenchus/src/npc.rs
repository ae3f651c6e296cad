//! What an NPC is made of. `spawn(Npc::new(handle))` is enough; the rest is required and can be given beside it.

use std::collections::VecDeque;

use bevy::prelude::*;
use elenchus_dialogue::{RequestId, Turn};

use crate::{AdapterAsset, CharacterAsset, Conversation, Say, Tell};

/// An entity that can be spoken to.
///
/// ```no_run
/// # use bevy::prelude::*; use bevy_elenchus::prelude::*;
/// # fn setup(mut commands: Commands, assets: Res<AssetServer>) {
/// commands.spawn((
///     Npc::new(assets.load("adapters://olive_seller/character.toml")),
///     GameFacts::new(["The player stole the olives."]),
/// ));
/// # }
/// ```
#[derive(Component, Clone, Debug, PartialEq, Reflect)]
#[reflect(Component)]
#[require(Conversation, GameFacts, LineQueue)]
pub struct Npc {
    /// Who it is.
    pub character: Handle<CharacterAsset>,
    /// Which adapter it wears; the next reply follows a change.
    pub voice: Voice,
}

/// Which adapter an NPC wears.
#[derive(Clone, Debug, Default, PartialEq, Reflect)]
pub enum Voice {
    /// The one in its character's folder, at the scale `character.toml` names; none if there is none.
    #[default]
    OfCharacter,
    /// None: the base model as it is, with the character's persona.
    Base,
    /// Another one.
    Adapter {
        /// Loaded from any `adapter_model.safetensors`, or added to `Assets<AdapterAsset>`.
        adapter: Handle<AdapterAsset>,
        /// Multiplies its update; 1 is as trained.
        scale: f32,
    },
}

/// What the NPC knows of the game, one sentence each; enters the prompt of its next reply.
#[derive(Component, Clone, Debug, Default, PartialEq, Eq, Deref, DerefMut, Reflect)]
#[reflect(Component, Default)]
pub struct GameFacts(pub Vec<String>);

/// A reply is under way, from the [`Say`] or [`Tell`] to its end, the wait for model and character included.
///
/// Remove it to cancel: the reply ends as [`StopReason::Cancelled`](crate::StopReason::Cancelled) with the text so far,
/// lines waiting their turn end likewise with no text, and the engine stops at the next token.
///
/// It is the plugin's to insert, and not for scenes: it is registered without `ReflectComponent`.
#[derive(Component, Debug, Reflect)]
#[component(clone_behavior = Ignore)]
#[reflect(from_reflect = false)]
pub struct Speaking {
    #[reflect(ignore)]
    pub(crate) id: RequestId,
    pub(crate) text: String,
    pub(crate) ambient: bool,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) group: Option<Entity>,
    /// [`ReplyStarted`](crate::ReplyStarted) was told.
    pub(crate) started: bool,
    /// What is still to be said of an author's line; `None` for a reply of the engine.
    pub(crate) told: Option<String>,
}

/// What reached the NPC while it was speaking.
#[derive(Component, Debug, Default)]
#[component(clone_behavior = Ignore)]
pub(crate) struct LineQueue {
    /// Lines to answer or to tell, the next one first.
    pub lines: VecDeque<Line>,
    /// Lines that were only heard; they enter the conversation behind the running reply.
    pub heard: Vec<Turn>,
}

/// The NPC is free for the next line in its queue.
#[derive(EntityEvent)]
pub(crate) struct NextLine {
    pub entity: Entity,
}

/// What an NPC is asked to do with its voice.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    Answer(Say),
    Tell(Tell),
}

impl Line {
    pub fn entity(&self) -> Entity {
        match self {
            Self::Answer(say) => say.entity,
            Self::Tell(tell) => tell.entity,
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Self::Answer(say) => &say.text,
            Self::Tell(tell) => &tell.text,
        }
    }

    pub fn is_ambient(&self) -> bool {
        matches!(self, Self::Answer(say) if say.ambient)
    }
}

impl Npc {
    /// An NPC that is this character, in the character's own voice.
    pub fn new(character: Handle<CharacterAsset>) -> Self {
        Self { character, voice: Voice::OfCharacter }
    }

    /// In another voice.
    pub fn with_voice(mut self, voice: Voice) -> Self {
        self.voice = voice;
        self
    }
}

impl GameFacts {
    /// Facts, one sentence each.
    pub fn new(facts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(facts.into_iter().map(Into::into).collect())
    }
}

impl Speaking {
    pub(crate) fn new(id: RequestId) -> Self {
        Self { id, text: String::new(), ambient: false, max_tokens: None, group: None, started: false, told: None }
    }

    /// What has been heard of the reply so far: its deltas, joined.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The group it speaks in; `None` for any other reply.
    pub fn group(&self) -> Option<Entity> {
        self.group
    }
}

pub(crate) fn plugin(app: &mut App) {
    app.register_type::<Npc>().register_type::<Voice>().register_type::<GameFacts>().register_type::<Speaking>();
}
