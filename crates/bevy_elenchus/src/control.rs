//! The engine as the game controls it: started, stopped, started again with other settings, paused.

use bevy::prelude::*;

use crate::{
    ElenchusSettings, ElenchusSystems, EngineStats, EngineStatus, PauseWith, ReloadEngine, RetryLoad, Speaking,
    StartEngine, StopEngine, ending, engine_handle::EngineHandle, receive, requests::Requests,
};

pub(crate) fn on_start(_: On<StartEngine>, mut handle: ResMut<EngineHandle>, mut status: ResMut<EngineStatus>) {
    if matches!(*status, EngineStatus::Stopped | EngineStatus::Failed { .. }) {
        handle.start();
        *status = EngineStatus::LOADING;
    } else {
        warn!(
            "`StartEngine` did nothing: the engine runs already (hint: `ReloadEngine` starts it with other settings)"
        );
    }
}

pub(crate) fn on_retry_load(_: On<RetryLoad>, mut handle: ResMut<EngineHandle>, mut status: ResMut<EngineStatus>) {
    match &*status {
        EngineStatus::Failed { .. } => {}
        EngineStatus::Ready { base } => {
            return warn!(
                "`RetryLoad` did nothing: {} is loaded (hint: `ReloadEngine` loads another model)",
                base.name
            );
        }
        EngineStatus::Loading { .. } => return warn!("`RetryLoad` did nothing: the model is being loaded"),
        EngineStatus::Stopped => {
            return warn!("`RetryLoad` did nothing: the engine is stopped (hint: `StartEngine`)");
        }
    }
    match &handle.engine {
        Some(engine) if engine.is_running() => engine.reload(),
        _ => handle.start(),
    }
    *status = EngineStatus::LOADING;
}

pub(crate) fn on_stop(_: On<StopEngine>, mut commands: Commands) {
    commands.queue(|world: &mut World| {
        world.resource_mut::<EngineHandle>().stop();
        *world.resource_mut::<EngineStatus>() = EngineStatus::Stopped;
        *world.resource_mut::<EngineStats>() = EngineStats::default();
        for (entity, _) in thought_of(world) {
            cancel(world, entity);
        }
    });
}

pub(crate) fn on_reload(reload: On<ReloadEngine>, mut commands: Commands) {
    let settings = reload.settings.clone();
    commands.queue(|world: &mut World| {
        let mut handle = world.resource_mut::<EngineHandle>();
        handle.settings = settings;
        handle.start();
        *world.resource_mut::<EngineStatus>() = EngineStatus::LOADING;
        let (begun, silent): (Vec<_>, Vec<_>) = thought_of(world).into_iter().partition(|(_, begun)| *begun);
        // No word of these was released: the new model answers them.
        for (entity, _) in silent {
            if let Some((id, ambient)) = world.get::<Speaking>(entity).map(|speaking| (speaking.id, speaking.ambient)) {
                world.resource_mut::<Requests>().send_again(id, ambient);
            }
        }
        for (entity, _) in begun {
            cancel(world, entity);
        }
    });
}

/// The replies that the engine has or will get, oldest first, and whether any of their words were heard.
fn thought_of(world: &World) -> Vec<(Entity, bool)> {
    let requests = world.resource::<Requests>();
    let speaker = |id| requests.speaker(id).and_then(|entity| Some((entity, world.get::<Speaking>(entity)?)));
    let speakers = requests.under_way().into_iter().filter_map(speaker).filter(|(_, speaking)| speaking.told.is_none());
    speakers.map(|(entity, speaking)| (entity, !speaking.text.is_empty())).collect()
}

/// Observers of one end may have ended the next.
fn cancel(world: &mut World, entity: Entity) {
    if world.get::<Speaking>(entity).is_some_and(|speaking| speaking.told.is_none()) {
        ending::cancel(world, entity);
        ending::next_line(world, entity);
    }
}

/// Each frame: whether the engine pauses with the game.
pub(crate) fn pause(
    settings: Res<ElenchusSettings>,
    time: Option<Res<Time<Virtual>>>,
    mut handle: ResMut<EngineHandle>,
) {
    let paused = match settings.pause_with {
        PauseWith::Never => false,
        PauseWith::VirtualTime => time.is_some_and(|time| time.is_paused() || time.relative_speed_f64() == 0.0),
    };
    if handle.paused != paused {
        handle.paused = paused;
        if let Some(engine) = &handle.engine {
            engine.pause(paused);
        }
    }
}

pub(crate) fn plugin(app: &mut App) {
    app.add_systems(PreUpdate, pause.before(receive::receive).in_set(ElenchusSystems::Receive))
        .add_observer(on_start)
        .add_observer(on_stop)
        .add_observer(on_reload)
        .add_observer(on_retry_load)
        .register_type::<StartEngine>()
        .register_type::<StopEngine>()
        .register_type::<ReloadEngine>()
        .register_type::<RetryLoad>();
}
