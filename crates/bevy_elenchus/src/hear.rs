//! Lines that are heard and not answered: by an NPC nearby, by the player, by any listener the game chooses.
//!
//! The plugin knows no space. A listener is a component, and whether a voice reaches it is the game's to say: a distance
//! between transforms, a room, a wall. It is asked once for each line and listener, not each frame.

use std::sync::Arc;

use bevy::prelude::*;
use elenchus_dialogue::{Turn, has_words};

use crate::{Conversation, Hear, Npc, Overheard, Speaking, lookup::character_path, npc::LineQueue};

/// Overhears what groups within [`Earshot`] say, as [`Overheard`](crate::Overheard) events. An NPC that is one remembers
/// it besides: the line enters its [`Conversation`], and it does not answer.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Reflect)]
#[reflect(Component, Default, Debug, PartialEq)]
pub struct Listener;

/// Whether a speaker's voice reaches a listener: a resource that the game replaces. By default it always does.
///
/// ```
/// # use bevy::prelude::*; use bevy_elenchus::prelude::*;
/// #[derive(Component)]
/// struct Position(Vec3);
///
/// let within_eight_metres = Earshot::new(|world: &World, speaker, listener| {
///     let position = |entity| world.get::<Position>(entity).map(|position| position.0);
///     position(speaker).zip(position(listener)).is_some_and(|(a, b)| a.distance(b) < 8.0)
/// });
/// # App::new().insert_resource(within_eight_metres);
/// ```
#[derive(Resource, Clone)]
pub struct Earshot(Arc<dyn Fn(&World, Entity, Entity) -> bool + Send + Sync>);

impl Earshot {
    /// Asked with the speaker and then the listener, when a line was said.
    pub fn new(reaches: impl Fn(&World, Entity, Entity) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(reaches))
    }

    pub(crate) fn reaches(&self, world: &World, speaker: Entity, listener: Entity) -> bool {
        (self.0)(world, speaker, listener)
    }
}

impl Default for Earshot {
    fn default() -> Self {
        Self::new(|_, _, _| true)
    }
}

pub(crate) fn on_hear(hear: On<Hear>, mut commands: Commands) {
    let Hear { entity, speaker, text } = hear.event().clone();
    commands.queue(move |world: &mut World| {
        if world.get::<Npc>(entity).is_none() {
            warn!("`Hear` to {entity}, which has no `Npc` component: it is not remembered");
        }
        overhear(world, entity, &speaker, &text);
    });
}

/// The line enters an NPC's conversation; if it is speaking, after its reply.
pub(crate) fn overhear(world: &mut World, entity: Entity, speaker: &str, text: &str) {
    if world.get::<Npc>(entity).is_none() || !has_words(text) {
        return;
    }
    let turn = Turn { speaker: speaker.to_owned(), text: text.to_owned() };
    let path = character_path(world, entity);
    let mut npc = world.entity_mut(entity);
    if npc.contains::<Speaking>() {
        npc.entry::<LineQueue>().or_default().get_mut().heard.push(turn);
    } else {
        let mut conversation = npc.entry::<Conversation>().or_default();
        let mut conversation = conversation.get_mut();
        // Also of an NPC that never spoke a save game says who it is.
        conversation.character = path;
        remember(&mut conversation, vec![turn]);
    }
}

/// What was heard during a reply that is over enters the conversation.
pub(crate) fn remember_heard(world: &mut World, entity: Entity) {
    let Some(heard) = world.get_mut::<LineQueue>(entity).map(|mut queue| std::mem::take(&mut queue.heard)) else {
        return;
    };
    if let Some(mut conversation) = world.get_mut::<Conversation>(entity)
        && !heard.is_empty()
    {
        remember(&mut conversation, heard);
    }
}

fn remember(conversation: &mut Conversation, turns: Vec<Turn>) {
    conversation.turns.extend(turns);
    // A line whose reply was lost with the game that was saved is not the newest any more.
    conversation.awaiting_reply = false;
}

pub(crate) fn plugin(app: &mut App) {
    app.init_resource::<Earshot>()
        .add_observer(on_hear)
        .register_type::<Listener>()
        .register_type::<Hear>()
        .register_type::<Overheard>();
}
