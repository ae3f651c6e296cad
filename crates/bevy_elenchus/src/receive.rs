//! From the engine's events to the game's: drained without waiting, bounded per frame, one delta per NPC and frame.

use bevy::prelude::*;
use elenchus_dialogue::{EngineEvent, Error, ReplyReport, RequestId};

use crate::{
    ElenchusSettings, ElenchusSystems, EngineStats, EngineStatus, ReplyDelta, ReplyStarted, Speaking,
    ending::{self, Ending},
    engine_handle::EngineHandle,
    events::trigger,
    requests::Requests,
};

/// One request's share of a frame's events.
struct News {
    id: RequestId,
    started: bool,
    delta: String,
    ending: Option<Result<Box<ReplyReport>, Error>>,
}

pub(crate) fn receive(
    mut handle: ResMut<EngineHandle>,
    settings: Res<ElenchusSettings>,
    mut status: ResMut<EngineStatus>,
    mut commands: Commands,
) {
    let EngineHandle { engine: Some(engine), paused, held, .. } = &mut *handle else { return };
    // Asked before the channel is drained: what a dying engine said last is still heard.
    let running = engine.is_running();
    let mut frame: Vec<News> = Vec::new();
    for _ in 0..settings.events_per_frame.max(1) {
        let before = if *paused { None } else { held.pop_front() };
        let Some(event) = before.or_else(|| engine.events().try_recv().ok()) else { break };
        match event {
            EngineEvent::Loading(progress) => *status = EngineStatus::Loading { progress },
            EngineEvent::Ready(base) => *status = EngineStatus::Ready { base },
            EngineEvent::LoadFailed(error) => {
                warn!("no model, NPCs will speak fallback lines: {error}");
                *status = EngineStatus::Failed { error };
            }
            // No words are shown in a pause; the step that it began in may have produced some.
            of_a_reply if *paused => held.push_back(of_a_reply),
            EngineEvent::Started(id) => news(&mut frame, id).started = true,
            EngineEvent::Delta(id, text) => news(&mut frame, id).delta.push_str(&text),
            EngineEvent::Finished(id, report) => news(&mut frame, id).ending = Some(Ok(Box::new(report))),
            EngineEvent::Failed(id, error) => news(&mut frame, id).ending = Some(Err(error)),
            // A newer backend's, which no reply waits for.
            _ => {}
        }
    }
    let stopped = !running && held.is_empty() && engine.events().is_empty();
    if !frame.is_empty() {
        commands.queue(move |world: &mut World| frame.into_iter().for_each(|news| happen(world, news)));
    }
    if stopped && !matches!(*status, EngineStatus::Failed { .. }) {
        error!("the engine's thread has ended, NPCs will speak fallback lines");
        *status = EngineStatus::Failed { error: Error::Stopped };
        commands.queue(fail_all);
    }
}

fn news(frame: &mut Vec<News>, id: RequestId) -> &mut News {
    // A handful of NPCs speak at once: a scan beats a map.
    let index = frame.iter().position(|news| news.id == id).unwrap_or_else(|| {
        frame.push(News { id, started: false, delta: String::new(), ending: None });
        frame.len() - 1
    });
    &mut frame[index]
}

/// Each step may run observers of the game, which may cancel or despawn: the speaker is looked up again each time.
fn happen(world: &mut World, news: News) {
    let speaker = |world: &World| world.resource::<Requests>().speaker(news.id);
    if news.started
        && let Some(entity) = speaker(world)
        // An engine that was started again starts the reply again.
        && world.get_mut::<Speaking>(entity).is_none_or(|mut speaking| !std::mem::replace(&mut speaking.started, true))
    {
        trigger(world, ReplyStarted { entity });
    }
    if !news.delta.is_empty()
        && let Some(entity) = speaker(world)
    {
        if let Some(mut speaking) = world.get_mut::<Speaking>(entity) {
            speaking.text.push_str(&news.delta);
        }
        trigger(world, ReplyDelta { entity, text: news.delta });
    }
    match news.ending {
        Some(Ok(report)) => ending::end(world, news.id, Ending::Finished(report)),
        Some(Err(error)) => ending::end(world, news.id, Ending::Failed(error.into())),
        None => {}
    }
}

fn fail_all(world: &mut World) {
    for id in world.resource::<Requests>().under_way() {
        let entity = world.resource::<Requests>().speaker(id);
        let speaking = entity.and_then(|entity| world.get::<Speaking>(entity));
        if speaking.is_some_and(|speaking| speaking.told.is_some()) {
            continue;
        }
        ending::end(world, id, Ending::Failed(Error::Stopped.into()));
    }
}

/// The counters at the end of the frame's events.
pub(crate) fn update_stats(handle: Res<EngineHandle>, mut stats: ResMut<EngineStats>) {
    stats.set_if_neq(EngineStats(handle.engine.as_ref().map(|engine| engine.stats()).unwrap_or_default()));
}

pub(crate) fn plugin(app: &mut App) {
    app.add_systems(PreUpdate, (receive, update_stats).chain().in_set(ElenchusSystems::Receive));
}
