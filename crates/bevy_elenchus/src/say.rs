//! From a line to a request that the engine has taken.
//!
//! Observers and systems only queue; every change of an NPC's state happens in a plain function with the whole world at
//! hand, so that no two of them can meet half-way.

use std::{cmp::Reverse, sync::Arc};

use bevy::prelude::*;
use elenchus_dialogue::{Character, Error, Request, RequestId, has_words};
use elenchus_lm::Adapter;

use crate::{
    AdapterAsset, CharacterAsset, Conversation, ElenchusSettings, ElenchusSystems, EngineStatus, GameFacts, MemberOf,
    Npc, ReplyError, ReplyFailed, Say, Speaking, Tell, Voice, WarmUp, WhileSpeaking,
    ending::{self, Ending},
    engine_handle::EngineHandle,
    events::trigger,
    group_lines, interruption,
    lookup::{character_path, fallback_line, filter_of, folder_name, loaded},
    npc::{Line, LineQueue, NextLine},
    requests::{Requests, priority},
    tell,
};

pub(crate) fn on_say(say: On<Say>, mut commands: Commands) {
    let say = say.event().clone();
    commands.queue(move |world: &mut World| hear(world, Line::Answer(say)));
}

pub(crate) fn on_tell(tell: On<Tell>, mut commands: Commands) {
    let tell = tell.event().clone();
    commands.queue(move |world: &mut World| hear(world, Line::Tell(tell)));
}

/// The queue's first line begins.
pub(crate) fn on_next_line(next: On<NextLine>, mut commands: Commands) {
    let entity = next.entity;
    commands.queue(move |world: &mut World| {
        if let Some(line) = world.get_mut::<LineQueue>(entity).and_then(|mut queue| queue.lines.pop_front()) {
            begin(world, line);
        }
    });
}

pub(crate) fn on_warm_up(warm_up: On<WarmUp>, mut requests: ResMut<Requests>) {
    if !requests.warm_ups.contains(&warm_up.entity) {
        requests.warm_ups.push(warm_up.entity);
    }
}

/// Each frame: lines that had to wait.
pub(crate) fn send_waiting(handle: Res<EngineHandle>, requests: Res<Requests>, mut commands: Commands) {
    if handle.paused {
        return;
    }
    if !requests.refused.is_empty() {
        commands.queue(tell_refused);
    }
    if !requests.unsent.is_empty() {
        commands.queue(send_unsent);
    }
    if !requests.warm_ups.is_empty() {
        commands.queue(send_warm_ups);
    }
}

/// A line reaches an NPC: it is answered or told, waits its turn, or is refused.
fn hear(world: &mut World, line: Line) {
    let entity = line.entity();
    if world.get::<Npc>(entity).is_none() {
        match line {
            Line::Answer(_) => warn!("`Say` to {entity}, which has no `Npc` component: it is not answered"),
            Line::Tell(_) => warn!("`Tell` for {entity}, which has no `Npc` component: it is not said"),
        }
        return;
    }
    if !has_words(line.text()) {
        return refuse(world, entity, Error::EmptyLine.into());
    }
    // Whatever happens to lines said while an NPC speaks: the player never waits for ambient talk.
    if !line.is_ambient()
        && let Some(group) = world.get::<MemberOf>(entity).map(|member| member.0)
    {
        interruption::interrupt(world, group);
    }
    if is_busy(world, entity) {
        match world.resource::<ElenchusSettings>().while_speaking {
            WhileSpeaking::Queue => return queue(world, line),
            WhileSpeaking::Refuse => return refuse(world, entity, ReplyError::Busy),
            WhileSpeaking::Replace => ending::cancel(world, entity),
        }
    }
    // The game heard of a cancelled reply and may have spoken first, or the NPC may be gone.
    if world.get::<Npc>(entity).is_some() {
        if is_busy(world, entity) {
            queue(world, line);
            // Where a reply was cancelled, no end of it calls the first in the queue.
            ending::next_line(world, entity);
        } else {
            begin(world, line);
        }
    }
}

/// A line's turn has come.
fn begin(world: &mut World, line: Line) {
    match line {
        Line::Answer(say) => answer(world, say, None),
        Line::Tell(tell) => tell::begin(world, tell),
    }
}

fn is_busy(world: &World, entity: Entity) -> bool {
    let waiting = world.get::<LineQueue>(entity).is_some_and(|queue| !queue.lines.is_empty());
    waiting || world.get::<Speaking>(entity).is_some()
}

fn queue(world: &mut World, line: Line) {
    // An observer of a turn that was cut short may have despawned it.
    if let Ok(mut npc) = world.get_entity_mut(line.entity()) {
        npc.entry::<LineQueue>().or_default().get_mut().lines.push_back(line);
    }
}

/// Never told within the `Say`: a game that answers each failure with another line must not run in circles.
fn refuse(world: &mut World, entity: Entity, error: ReplyError) {
    world.resource_mut::<Requests>().refused.push((entity, error));
}

/// The line enters the conversation and the NPC is speaking, if only in thought. A group's line is there already unless
/// the NPC has talked with others since.
pub(crate) fn answer(world: &mut World, say: Say, group: Option<Entity>) {
    let Say { entity, speaker, text, ambient, max_tokens } = say;
    let path = character_path(world, entity);
    let id = world.resource_mut::<Requests>().begin(entity, priority(ambient));
    let mut npc = world.entity_mut(entity);
    let mut conversation = npc.entry::<Conversation>().or_default();
    let mut conversation = conversation.get_mut();
    if group.is_none() || !conversation.ends_with(&speaker, &text) {
        conversation.push(speaker, text);
    }
    // Only the group asks again for what its members say to each other.
    conversation.awaiting_reply = group.is_none();
    conversation.character = path;
    npc.insert(Speaking { ambient, max_tokens, group, ..Speaking::new(id) });
    // At once if it can be; what cannot, and what never will be, is next frame's to try and to tell.
    let _ = send(world, id);
}

fn tell_refused(world: &mut World) {
    for (entity, error) in std::mem::take(&mut world.resource_mut::<Requests>().refused) {
        if world.get::<Npc>(entity).is_some() {
            let fallback = fallback_line(world, entity);
            trigger(world, ReplyFailed { entity, error, fallback });
        }
    }
}

/// What observers say meanwhile waits for the next frame.
fn send_unsent(world: &mut World) {
    let unsent: Vec<RequestId> = world.resource::<Requests>().unsent.iter().map(|&(_, id)| id).collect();
    for id in unsent {
        match send(world, id) {
            Ok(Sent::Yes | Sent::NotYet) => {}
            Ok(Sent::ChannelFull) => return,
            Err(error) => ending::end(world, id, Ending::Failed(error)),
        }
    }
}

enum Sent {
    Yes,
    NotYet,
    ChannelFull,
}

/// Hands a request to the engine if everything it needs is there; an error if something never will be.
fn send(world: &mut World, id: RequestId) -> Result<Sent, ReplyError> {
    let Some(request) = prepare(world, id)? else { return Ok(Sent::NotYet) };
    let priority = request.priority;
    let Some(engine) = &world.resource::<EngineHandle>().engine else { return Ok(Sent::NotYet) };
    if engine.try_send(request).is_err() {
        return Ok(Sent::ChannelFull);
    }
    world.resource_mut::<Requests>().unsent.remove(&(Reverse(priority), id));
    Ok(Sent::Yes)
}

/// The request as of now; `None` while something is still being loaded.
fn prepare(world: &World, id: RequestId) -> Result<Option<Request>, ReplyError> {
    let Some(entity) = world.resource::<Requests>().speaker(id) else { return Ok(None) };
    let (Some(npc), Some(speaking), Some(conversation)) =
        (world.get::<Npc>(entity), world.get::<Speaking>(entity), world.get::<Conversation>(entity))
    else {
        return Ok(None);
    };
    let Some((character, voice)) = who(world, npc)? else { return Ok(None) };
    if conversation.turns.last().is_some_and(|turn| character.is_named(&turn.speaker)) {
        return Err(ReplyError::OwnName { name: character.name.clone() });
    }
    Ok(Some(Request {
        id,
        character,
        voice,
        facts: facts(world, entity),
        notes: speaking.group.and_then(|group| group_lines::topic(world, group, entity)).into_iter().collect(),
        turns: conversation.turns.clone(),
        rng: conversation.rng.clone(),
        priority: priority(speaking.ambient),
        max_tokens: speaking.max_tokens,
        filter: filter_of(world, entity),
    }))
}

type Speaker = (Arc<Character>, Option<elenchus_dialogue::Voice>);

/// Character and voice, once the model is ready for them; `None` while something is still being loaded.
fn who(world: &World, npc: &Npc) -> Result<Option<Speaker>, ReplyError> {
    let Some(asset) = loaded::<CharacterAsset>(world, &npc.character)
        .map_err(|(path, reason)| ReplyError::Character { path, reason })?
    else {
        return Ok(None);
    };
    match world.resource::<EngineStatus>() {
        EngineStatus::Loading { .. } => return Ok(None),
        EngineStatus::Stopped => return Err(Error::Stopped.into()),
        EngineStatus::Failed { error } => return Err(error.clone().into()),
        EngineStatus::Ready { .. } => {}
    }
    let character = asset.character.clone();
    let (name, adapter) = match &npc.voice {
        Voice::OfCharacter => (
            folder_name(world, &npc.character),
            asset.adapter.as_ref().map(|adapter| (adapter, character.adapter_scale)),
        ),
        Voice::Base => return Ok(Some((character, None))),
        Voice::Adapter { adapter, scale } => (folder_name(world, adapter), Some((adapter, *scale))),
    };
    let name = name.unwrap_or_else(|| character.name.clone()).into();
    let Some((handle, scale)) = adapter else {
        return Ok(Some((character, Some(elenchus_dialogue::Voice { name, adapter: None }))));
    };
    let adapter =
        loaded::<AdapterAsset>(world, handle).map_err(|(path, reason)| ReplyError::Adapter { path, reason })?;
    let adapter = adapter.map(|adapter| Some(Adapter { lora: adapter.lora.clone(), scale }));
    Ok(adapter.map(|adapter| (character, Some(elenchus_dialogue::Voice { name, adapter }))))
}

fn send_warm_ups(world: &mut World) {
    let entities = std::mem::take(&mut world.resource_mut::<Requests>().warm_ups);
    for entity in entities {
        let Some(npc) = world.get::<Npc>(entity) else { continue };
        match who(world, npc) {
            Ok(Some((character, voice))) => {
                let facts = facts(world, entity);
                let warm_up = elenchus_dialogue::WarmUp { character, voice, facts };
                if let Some(engine) = &world.resource::<EngineHandle>().engine {
                    engine.warm_up(warm_up);
                }
            }
            Ok(None) => world.resource_mut::<Requests>().warm_ups.push(entity),
            Err(error) => debug!("{entity} cannot be warmed up: {error}"),
        }
    }
}

fn facts(world: &World, entity: Entity) -> Vec<String> {
    world.get::<GameFacts>(entity).map(|facts| facts.0.clone()).unwrap_or_default()
}

pub(crate) fn plugin(app: &mut App) {
    app.init_resource::<Requests>()
        .add_systems(PreUpdate, send_waiting.in_set(ElenchusSystems::Send))
        .add_observer(on_say)
        .add_observer(on_tell)
        .add_observer(on_next_line)
        .add_observer(on_warm_up)
        .register_type::<Say>()
        .register_type::<Tell>()
        .register_type::<WarmUp>();
}
