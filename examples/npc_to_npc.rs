//! Two NPCs talk to each other without the player, and a listener nearby overhears it.
//!
//! `cargo run --release --example npc_to_npc` (once `cargo run --release -- model fetch` has fetched the model).

use std::time::Duration;

use bevy::{app::ScheduleRunnerPlugin, log::LogPlugin, prelude::*};
use bevy_elenchus::prelude::*;

const OPENING: &str = "Socrates! They say that you know nothing, and teach it to everyone. Is it true?";

fn main() -> AppExit {
    App::new()
        .add_plugins((
            AdaptersSourcePlugin::default(),
            MinimalPlugins.set(ScheduleRunnerPlugin::run_loop(Duration::from_secs_f64(1.0 / 60.0))),
            AssetPlugin::default(),
            LogPlugin::default(),
            ElenchusPlugins,
        ))
        .add_systems(Startup, meet)
        .add_observer(listen)
        .add_observer(apologise)
        .add_observer(part)
        .add_systems(Update, give_up.run_if(resource_changed::<EngineStatus>))
        .run()
}

fn meet(mut commands: Commands, assets: Res<AssetServer>) {
    let group = ConversationGroup {
        max_turns: Some(6),
        reply_tokens: Some(64),
        ..ConversationGroup::new("Hermes", OPENING).about("what a man can know")
    };
    commands.spawn((
        group,
        related![
            GroupMembers[
                Npc::new(assets.load("adapters://hermes/character.toml")),
                Npc::new(assets.load("adapters://socrates/character.toml")),
            ]
        ],
    ));
    commands.spawn(Listener);
    // The plugin sends no event for the opening, so show it here.
    println!("Hermes > {OPENING}");
}

fn listen(line: On<Overheard>) {
    println!("{} > {}", line.name, line.text);
}

fn apologise(failed: On<ReplyFailed>) {
    println!("({})", failed.fallback);
    error!("{}", failed.error);
}

fn part(_: On<GroupSilent>, mut exit: MessageWriter<AppExit>) {
    exit.write(AppExit::Success);
}

/// Without a model a group waits for one, and this game has nothing else to show.
fn give_up(status: Res<EngineStatus>, mut exit: MessageWriter<AppExit>) {
    if let EngineStatus::Failed { error } = &*status {
        error!("{error}");
        exit.write(AppExit::error());
    }
}
