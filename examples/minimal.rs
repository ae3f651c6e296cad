//! A whole game: a player asks Socrates a question, the answer streams into the terminal, and the game ends.
//!
//! `cargo run --release --example minimal` (once `cargo run --release -- model fetch` has fetched the model).

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
        .add_systems(Startup, ask)
        .add_observer(speak)
        .add_observer(leave)
        .add_observer(apologise)
        .run()
}

fn ask(mut commands: Commands, assets: Res<AssetServer>) {
    let socrates = commands.spawn(Npc::new(assets.load("adapters://socrates/character.toml"))).id();
    commands.trigger(Say::new(socrates, "Plato", "Socrates, what is courage?"));
}

fn speak(delta: On<ReplyDelta>) {
    print!("{}", delta.text);
    std::io::stdout().flush().unwrap();
}

fn leave(_: On<ReplyFinished>, mut exit: MessageWriter<AppExit>) {
    println!();
    exit.write(AppExit::Success);
}

fn apologise(failed: On<ReplyFailed>, mut exit: MessageWriter<AppExit>) {
    println!("{}", failed.fallback);
    error!("{}", failed.error);
    exit.write(AppExit::error());
}
