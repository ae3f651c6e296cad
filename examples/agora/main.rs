//! The agora of Athens: a scene in which everybody speaks, to start a game of your own from.
//!
//! `cargo run --release --example agora` (once `cargo run --release -- model fetch` has fetched the model).
//! `-- --help` lists what can be chosen; `-- --headless --script FILE` plays it with no window.
//!
//! | module       | job                                                                    |
//! |--------------|------------------------------------------------------------------------|
//! | `args`       | what can be chosen on the command line                                 |
//! | `cast`       | who is there and what they look like                                   |
//! | `scene`      | the place: colonnade, market, sun and sky                              |
//! | `figure`     | a body, and how it moves                                               |
//! | `crowd`      | where characters go and whom they look at                              |
//! | `meetings`   | who talks to whom while nobody asks                                    |
//! | `player`     | walking about, and the camera                                          |
//! | `talk`       | the player's talk with one character: the plugin's events, mostly      |
//! | `bubbles`    | what is said, above the head of whoever says it                        |
//! | `dialogue`   | the line one types, what was said before, and opinions on it           |
//! | `text_field` | a line of text that can be typed                                       |
//! | `votes`      | opinions as lines that a trainer reads                                 |
//! | `overlay`    | F1: what the engine does, and what it costs                            |
//! | `notice`     | what is missing, and what to do about it                               |
//! | `save`       | the whole scene as a file                                              |
//! | `script`     | what a player does, from a file                                        |
//! | `bench`      | what speech costs, and whether long talk leaks                         |
//! | `screen`     | a window, a photograph, or neither                                     |
//! | `view`       | fonts and colours                                                      |

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
            // Only what is measured speaks.
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
    app.add_plugins((adapters, screen::bevy(&args), ElenchusPlugin { engine, ..default() }))
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
