//! A voice is heard as soon as it is saved: the same question from the same seed is asked again whenever a file of
//! Socrates' folder changes.
//!
//! `cargo run --release --example hot_reload`, and beside it train Socrates, copy another adapter over
//! his, or edit his persona in `adapters/socrates/character.toml`. Ctrl-C ends it.

use std::{io::Write, time::Duration};

use bevy::{app::ScheduleRunnerPlugin, log::LogPlugin, prelude::*};
use bevy_elenchus::prelude::*;

fn main() -> AppExit {
    App::new()
        .add_plugins((
            AdaptersSourcePlugin::default(),
            MinimalPlugins.set(ScheduleRunnerPlugin::run_loop(Duration::from_secs_f64(1.0 / 60.0))),
            AssetPlugin::default(),
            LogPlugin::default(),
            ElenchusPlugins,
        ))
        .add_systems(Startup, |mut commands: Commands, assets: Res<AssetServer>| {
            commands.spawn(Npc::new(assets.load("adapters://socrates/character.toml")));
        })
        .add_systems(Update, ask)
        .add_observer(speak)
        .add_observer(|_: On<ReplyFinished>| println!())
        .add_observer(|failed: On<ReplyFailed>| println!("{} ({})", failed.fallback, failed.error))
        .run()
}

/// Asks at first, and again after each change; the conversation starts over, so that only the voice differs. That
/// cancels a running reply.
fn ask(
    mut commands: Commands,
    mut characters: MessageReader<AssetEvent<CharacterAsset>>,
    mut adapters: MessageReader<AssetEvent<AdapterAsset>>,
    npcs: Query<Entity, With<Npc>>,
) -> Result {
    let socrates = npcs.single()?;
    let is_there = characters.read().any(|event| matches!(event, AssetEvent::LoadedWithDependencies { .. }));
    let is_retrained = adapters.read().any(|event| matches!(event, AssetEvent::Modified { .. }));
    if is_there || is_retrained {
        commands.entity(socrates).insert(Conversation::from_seed(8));
        commands.trigger(Say::new(socrates, "Plato", "Socrates, what is courage?"));
        print!("Socrates > ");
    }
    Ok(())
}

fn speak(delta: On<ReplyDelta>) {
    print!("{}", delta.text);
    std::io::stdout().flush().unwrap();
}
