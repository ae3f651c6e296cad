//! The agora of Athens: a scene in which every character speaks, to start your own game from.
//!
//! `cargo run --release --example agora` (once `cargo run --release -- model fetch` has fetched the model).
//! `-- --help` lists the arguments; `-- --headless --script FILE` plays it with no window.
//!
//! | module       | job                                                                    |
//! |--------------|------------------------------------------------------------------------|
//! | `args`       | command line arguments                                                 |
//! | `cast`       | the characters and their looks                                         |
//! | `scene`      | the place: colonnade, market, sun and sky                              |
//! | `figure`     | a body, and how it moves                                               |
//! | `crowd`      | where characters go and whom they look at                              |
//! | `meetings`   | which characters talk to each other without the player                 |
//! | `player`     | walking about, and the camera                                          |
//! | `talk`       | the player's talk with one character: the plugin's events, mostly      |
//! | `bubbles`    | speech above the speakers' heads                                       |
//! | `dialogue`   | the line being typed, the history, and votes                           |
//! | `text_field` | a line of text that can be typed                                       |
//! | `votes`      | votes as lines that a trainer reads                                    |
//! | `overlay`    | F1: what the engine does, and what it costs                            |
//! | `notice`     | what is missing, and what to do about it                               |
//! | `save`       | the whole scene as a file                                              |
//! | `script`     | a player's steps, from a file                                          |
//! | `bench`      | what speech costs, and whether long talk leaks                         |
//! | `screen`     | a window, a photograph, or neither                                     |
//! | `view`       | fonts and colours                                                      |
#![allow(clippy::too_many_arguments, reason = "a Bevy system names what it reads and writes")]

mod args;
mod bench;
mod bubbles;
mod cast;
mod crowd;
mod dialogue;
mod figure;
mod meetings;
mod notice;
mod overlay;
mod player;
mod save;
mod scene;
mod screen;
mod script;
mod talk;
#[cfg(test)]
mod tests;
mod text_field;
mod view;
mod votes;

use bevy::prelude::*;
use bevy_elenchus::prelude::*;
use clap::Parser;

use crate::{args::Args, bench::Bench};

fn main() -> AppExit {
    let mut args = Args::parse();
    args.headless |= args.bench.is_some();
    match args.bench {
        None => agora(args).run(),
        Some(bench) => {
            // Only the measured characters speak.
            args.quiet |= bench == Bench::Frames;
            bench::run(agora(args.clone()), bench, &args);
            AppExit::Success
        }
    }
}

/// The whole game.
fn agora(args: Args) -> App {
    let mut app = App::new();
    let engine = EngineSettings { threads: args.threads, base: args.base.clone(), ..default() };
    let adapters = AdaptersSourcePlugin { folder: args.adapters.clone() };
    app.add_plugins((adapters, screen::bevy(&args), ElenchusPlugins.set(SpeechPlugin { engine, ..default() })))
        .add_plugins((screen::screen_plugin, scene::scene_plugin, figure::figure_plugin))
        .add_plugins((crowd::crowd_plugin, meetings::meetings_plugin, player::player_plugin, talk::talk_plugin))
        .add_plugins((
            view::view_plugin,
            bubbles::bubbles_plugin,
            dialogue::dialogue_plugin,
            text_field::text_field_plugin,
        ))
        .add_plugins((votes::votes_plugin, overlay::overlay_plugin, notice::notice_plugin, save::save_plugin))
        .add_plugins(script::script_plugin);
    if let Some(script) = args.script.clone() {
        app.insert_resource(script::Running::new(script));
    }
    app.insert_resource(args);
    app
}
