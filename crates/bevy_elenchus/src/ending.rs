//! How a reply ends: finished, cancelled or failed, each exactly once.
//!
//! A request is forgotten first; whatever else hears of it afterwards, an observer or a late event, finds nothing to do.

use bevy::prelude::*;
use elenchus_dialogue::{ReplyReport, RequestId, StopReason};

use crate::{
    Conversation, EngineStatus, Npc, Overheard, ReplyDelta, ReplyError, ReplyFailed, ReplyFinished, ReplyStarted,
    Speaking,
    engine_handle::EngineHandle,
    events::trigger,
    group_lines,
    hear::remember_heard,
    lookup::{fallback_line, name},
    npc::{LineQueue, NextLine},
    requests::Requests,
};

/// The last word on a request.
pub(crate) enum Ending {
    Finished(Box<ReplyReport>),
    /// An author's line was said to its end.
    Told,
    Failed(ReplyError),
}

/// What a reply had come to when it was cancelled.
struct SoFar {
    text: String,
    group: Option<Entity>,
}

impl SoFar {
    fn of(speaking: &Speaking) -> Self {
        Self { text: speaking.text.clone(), group: speaking.group }
    }
}

/// The game's way to cancel; on a despawn, the end of the NPC.
pub(crate) fn on_speaking_removed(
    removed: On<Remove, Speaking>,
    speaking: Query<&Speaking>,
    requests: Res<Requests>,
    mut commands: Commands,
) {
    let entity = removed.entity;
    let Ok(speaking) = speaking.get(entity) else { return };
    let id = speaking.id;
    if requests.speaker(id).is_some() {
        let so_far = SoFar::of(speaking);
        commands.queue(move |world: &mut World| {
            if world.resource_mut::<Requests>().forget(id) {
                cancelled(world, entity, id, Some(so_far));
                cancel_queue(world, entity);
            }
        });
    }
}

/// A save game was loaded over a speaking NPC: the reply belongs to a conversation that is gone.
pub(crate) fn on_conversation_replaced(
    replaced: On<Discard, Conversation>,
    speaking: Query<&Speaking>,
    mut commands: Commands,
) {
    let entity = replaced.entity;
    let Ok(id) = speaking.get(entity).map(|speaking| speaking.id) else { return };
    commands.queue(move |world: &mut World| {
        if world.resource_mut::<Requests>().forget(id) {
            if let Ok(mut npc) = world.get_entity_mut(entity) {
                npc.remove::<Speaking>();
            }
            if let Some(mut queue) = world.get_mut::<LineQueue>(entity) {
                queue.heard.clear();
            }
            cancelled(world, entity, id, None);
            cancel_queue(world, entity);
        }
    });
}

/// What is no NPC any more does not speak.
pub(crate) fn on_npc_removed(removed: On<Remove, Npc>, speaking: Query<(), With<Speaking>>, mut commands: Commands) {
    if speaking.contains(removed.entity) {
        commands.entity(removed.entity).try_remove::<Speaking>();
    }
}

/// Cancels the running reply and leaves the queue alone.
pub(crate) fn cancel(world: &mut World, entity: Entity) {
    let Some(id) = world.get::<Speaking>(entity).map(|speaking| speaking.id) else { return };
    world.resource_mut::<Requests>().forget(id);
    let so_far = world.entity_mut(entity).take::<Speaking>().map(|speaking| SoFar::of(&speaking));
    cancelled(world, entity, id, so_far);
}

/// The engine's last word: the conversation keeps what it should, the game hears of it, the next line in the queue gets
/// its answer.
pub(crate) fn end(world: &mut World, id: RequestId, ending: Ending) {
    let Some(entity) = world.resource::<Requests>().speaker(id) else { return };
    world.resource_mut::<Requests>().forget(id);
    if world.get::<Npc>(entity).is_none() {
        return;
    }
    let so_far = world.entity_mut(entity).take::<Speaking>().map(|speaking| SoFar::of(&speaking));
    let group = so_far.as_ref().and_then(|so_far| so_far.group);
    let name = name(world, entity);
    let base = match world.resource::<EngineStatus>() {
        EngineStatus::Ready { base } => Some(base.sha256.clone()),
        _ => None,
    };
    let conversation = world.get_mut::<Conversation>(entity);
    match ending {
        Ending::Finished(report) => {
            if let Some(mut conversation) = conversation {
                remember(&mut conversation, &name, base, &report);
            }
            remember_heard(world, entity);
            let overheard = group.map(|group| group_lines::finished(world, group, entity, &name, &report));
            let overheard = overheard.unwrap_or_default();
            trigger(
                world,
                ReplyFinished { entity, text: report.text.clone(), stop: report.stop, report: Some(*report) },
            );
            tell_overheard(world, overheard);
        }
        Ending::Told => {
            let text = so_far.map(|so_far| so_far.text).unwrap_or_default();
            if let Some(mut conversation) = conversation {
                conversation.push(&name, &text);
            }
            remember_heard(world, entity);
            let overheard = group.map(|group| group_lines::said(world, group, entity, &name, &text));
            trigger(world, ReplyFinished { entity, text, stop: StopReason::Told, report: None });
            tell_overheard(world, overheard.unwrap_or_default());
        }
        Ending::Failed(error) => {
            debug!("{entity} has no reply: {error}");
            if let Some(mut conversation) = conversation {
                conversation.awaiting_reply = false;
            }
            remember_heard(world, entity);
            if let Some(group) = group {
                group_lines::failed(world, group, entity);
            }
            let fallback = fallback_line(world, entity);
            trigger(world, ReplyFailed { entity, error, fallback });
        }
    }
    next_line(world, entity);
}

fn remember(conversation: &mut Conversation, name: &str, base: Option<String>, report: &ReplyReport) {
    let adapter = report.adapter.map(|adapter| adapter.to_string());
    if conversation.base.is_some() && (conversation.base != base || conversation.adapter != adapter) {
        warn!(
            "{name} continues under another model: base {} and adapter {} before, base {} and adapter {} now",
            shown(&conversation.base),
            shown(&conversation.adapter),
            shown(&base),
            shown(&adapter)
        );
    }
    if !report.text.is_empty() {
        conversation.push(name, &report.text);
    }
    conversation.said.rng = report.rng.clone();
    conversation.base = base;
    conversation.adapter = adapter;
    conversation.awaiting_reply = false;
}

fn shown(hash: &Option<String>) -> &str {
    hash.as_deref().map_or("none", |hash| hash.get(..12).unwrap_or(hash))
}

/// Cleans up after a cancelled request. What was heard stays in the conversation; `None` leaves the conversation as it is.
/// The generator stays where it was, for how far the engine got is a matter of timing.
fn cancelled(world: &mut World, entity: Entity, id: RequestId, so_far: Option<SoFar>) {
    if let Some(engine) = &world.resource::<EngineHandle>().engine {
        engine.cancel(id);
    }
    if world.get::<Npc>(entity).is_none() {
        return;
    }
    let Some(SoFar { text, group }) = so_far else {
        return trigger(world, ReplyFinished { entity, text: default(), stop: StopReason::Cancelled, report: None });
    };
    let name = name(world, entity);
    if let Some(mut conversation) = world.get_mut::<Conversation>(entity) {
        if !text.is_empty() {
            conversation.push(&name, &text);
        }
        conversation.awaiting_reply = false;
    }
    remember_heard(world, entity);
    let overheard = match group {
        Some(group) if !text.is_empty() => group_lines::said(world, group, entity, &name, &text),
        _ => Vec::new(),
    };
    trigger(world, ReplyFinished { entity, text, stop: StopReason::Cancelled, report: None });
    tell_overheard(world, overheard);
}

/// Lines in the queue end as cancelled, one by one.
fn cancel_queue(world: &mut World, entity: Entity) {
    let Some(queue) = world.get_mut::<LineQueue>(entity).map(|mut queue| std::mem::take(&mut queue.lines)) else {
        return;
    };
    for _ in queue {
        if world.get::<Npc>(entity).is_none() {
            return;
        }
        trigger(world, ReplyFinished { entity, text: String::new(), stop: StopReason::Cancelled, report: None });
    }
}

fn tell_overheard(world: &mut World, overheard: Vec<Overheard>) {
    for overheard in overheard {
        if world.get_entity(overheard.entity).is_ok() {
            trigger(world, overheard);
        }
    }
}

/// A line that waited its turn gets its answer, if nothing else is under way.
pub(crate) fn next_line(world: &mut World, entity: Entity) {
    if world.get::<Npc>(entity).is_some() && world.get::<Speaking>(entity).is_none() {
        trigger(world, NextLine { entity });
    }
}

pub(crate) fn plugin(app: &mut App) {
    app.add_observer(on_speaking_removed)
        .add_observer(on_conversation_replaced)
        .add_observer(on_npc_removed)
        .register_type::<ReplyStarted>()
        .register_type::<ReplyDelta>()
        .register_type::<ReplyFinished>()
        .register_type::<ReplyFailed>();
}
