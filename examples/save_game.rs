//! A game that remembers: Socrates is asked one question, the conversation is saved, and the game ends. Started again,
//! it continues where it was, word for word as if it had never ended.
//!
//! `cargo run --release --example save_game`, twice or more. `-- FILE` saves elsewhere.

use std::{env, fs, io::Write, path::PathBuf, time::Duration};

use bevy::{app::ScheduleRunnerPlugin, log::LogPlugin, prelude::*};
use bevy_elenchus::prelude::*;

/// The player's lines, one per game.
const LINES: [&str; 4] = [
    "Good day, Socrates. I am on my way to buy a horse.",
    "A good one, I hope. How would you know a good horse?",
    "And is a good man known in the same way?",
    "Then teach me to be one.",
];

#[derive(Resource)]
struct SaveFile(PathBuf);

fn main() -> AppExit {
    let file = env::args().nth(1).map_or_else(|| env::temp_dir().join("elenchus_save_game.json"), PathBuf::from);
    App::new()
        .add_plugins((
            AdaptersSourcePlugin::default(),
            MinimalPlugins.set(ScheduleRunnerPlugin::run_loop(Duration::from_secs_f64(1.0 / 60.0))),
            AssetPlugin::default(),
            LogPlugin::default(),
            ElenchusPlugins,
        ))
        .insert_resource(SaveFile(file))
        .add_systems(Startup, begin)
        .add_observer(speak)
        .add_observer(save)
        .add_observer(apologise)
        .run()
}

/// A save game is the `Conversation` component: what was said, and the random generator for the next reply.
fn begin(mut commands: Commands, assets: Res<AssetServer>, file: Res<SaveFile>) -> Result {
    let mut conversation = match fs::read_to_string(&file.0) {
        Ok(saved) => serde_json::from_str(&saved).map_err(|error| format!("{}: {error}", file.0.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Conversation::from_seed(1),
        Err(error) => return Err(format!("{}: {error}", file.0.display()).into()),
    };
    // Saved in mid-reply: that line is said again, and its reply will be the one that was lost.
    let unanswered = conversation.take_unanswered().map(|turn| turn.text);
    for turn in &conversation.turns {
        println!("{} > {}", turn.speaker, turn.text);
    }
    let line = unanswered.unwrap_or_else(|| LINES[conversation.turns.len() / 2 % LINES.len()].to_owned());
    print!("Plato > {line}\nSocrates > ");
    let character = assets.load("adapters://socrates/character.toml");
    let socrates = commands.spawn((Npc::new(character), conversation)).id();
    commands.trigger(Say::new(socrates, "Plato", line));
    Ok(())
}

fn speak(delta: On<ReplyDelta>) {
    print!("{}", delta.text);
    std::io::stdout().flush().unwrap();
}

/// The reply has entered the conversation when it ends.
fn save(
    finished: On<ReplyFinished>,
    conversations: Query<&Conversation>,
    file: Res<SaveFile>,
    mut exit: MessageWriter<AppExit>,
) -> Result {
    let saved = serde_json::to_string_pretty(conversations.get(finished.entity)?)?;
    fs::write(&file.0, saved)?;
    println!("\n(saved in {})", file.0.display());
    exit.write(AppExit::Success);
    Ok(())
}

fn apologise(failed: On<ReplyFailed>, mut exit: MessageWriter<AppExit>) {
    println!("{}", failed.fallback);
    error!("{}", failed.error);
    exit.write(AppExit::error());
}
