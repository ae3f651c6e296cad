//! `elenchus talk`: a conversation in the terminal.
//!
//! The plugin speaks, in a headless Bevy app with 60 updates a second; there is no second implementation: the terminal
//! gets exactly what a game gets. Typed lines and lines from the command line arrive over the same channel.

mod input;
mod saved;
mod screen;
mod session;

use std::{io, io::IsTerminal, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use bevy::{
    app::ScheduleRunnerPlugin,
    log::{Level, LogPlugin},
    prelude::*,
};
use bevy_elenchus::{AdapterAsset, prelude::*};
use clap::Args;
use crossbeam_channel::{Receiver, bounded, unbounded};
use elenchus_lm::{ComputeDevice, LoraAdapter};

use crate::{characters::Characters, model};
use screen::Screen;
use session::Session;

/// Talks to a character. Without --say, the conversation is typed; /help shows the commands.
#[derive(Debug, Args)]
pub struct TalkArgs {
    /// The character to talk to: a folder of `adapters/`
    #[arg(long, value_name = "NAME", default_value = "socrates")]
    character: String,
    /// A line to say; several are the turns of one conversation
    #[arg(long, value_name = "TEXT")]
    say: Vec<String>,
    /// A fact of the game that the character knows, such as "A room costs 3 silver a night."; may be repeated
    #[arg(long = "fact", value_name = "TEXT")]
    facts: Vec<String>,
    /// Show every word at once and let every reply pass: no filter judges sentences
    #[arg(long)]
    no_filter: bool,
    /// Make the replies the same every time
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Maximum tokens in a reply
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model, fetched at first use, if left out
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// What the weights of a Hugging Face folder, or of a file that is not quantised, are quantised to
    #[arg(long, value_name = "TYPE", default_value = "q8_0")]
    quantize: model::QuantisedArg,
    /// Where the model runs: cpu, cuda, or cuda:N (in a build with `--features cuda`)
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: ComputeDevice,
    /// PEFT folder to use in place of the character's own adapter; `none` uses none
    #[arg(long, value_name = "DIR|none")]
    adapter: Option<PathBuf>,
    /// Print one JSON object per reply
    #[arg(long, requires = "say")]
    json: bool,
}

/// Runs the conversation to its end.
pub fn run(args: TalkArgs) -> Result<()> {
    let characters = Characters::find()?;
    let first = characters.id(&args.character)?.to_owned();
    let adapter = match args.adapter.as_deref() {
        None => None,
        Some(folder) if folder.as_os_str() == "none" => Some(None),
        Some(folder) => Some(Some(LoraAdapter::open(folder)?)),
    };
    let base = Some(model::base_or_default(args.base)?);
    let engine = EngineSettings { base, device: args.device, dense: args.quantize.into(), ..default() };

    let typed = args.say.is_empty();
    let screen = match (args.json, typed) {
        (true, _) => Screen::json(),
        (false, true) => Screen::typed(io::stdin().is_terminal()),
        (false, false) => Screen::transcript(),
    };
    let mut settings = ElenchusSettings::default();
    if args.no_filter {
        settings.filter = None;
    }
    let mut app = headless_app(&characters, engine, settings);
    let voice = match adapter {
        None => Voice::OfCharacter,
        Some(None) => Voice::Base,
        Some(Some(lora)) => {
            let lora = Arc::new(lora);
            let adapter = app.world_mut().resource_mut::<Assets<AdapterAsset>>().add(AdapterAsset { lora });
            Voice::Adapter { adapter, scale: 1.0 }
        }
    };
    let (failed, failure) = bounded(1);
    app.add_plugins(session::session_plugin).insert_resource(Session {
        inputs: if typed { input::from_stdin() } else { input::from_lines(args.say) },
        interrupts: if typed { interrupts()? } else { crossbeam_channel::never() },
        failed,
        screen,
        characters,
        voice,
        facts: args.facts,
        seed: args.seed,
        max_tokens: args.max_tokens.map(|tokens| tokens as usize),
        typed,
        partner: first,
        waiting: false,
        last: None,
    });
    let exit = app.run();
    match failure.try_recv() {
        Ok(error) => Err(error),
        Err(_) if exit.is_error() => Err(anyhow!("the app ended early")),
        Err(_) => Ok(()),
    }
}

/// Like a game's server: no window, no renderer, the plugin.
fn headless_app(characters: &Characters, engine: EngineSettings, settings: ElenchusSettings) -> App {
    let mut app = App::new();
    app.add_plugins((
        AdaptersSourcePlugin { folder: characters.folder.display().to_string() },
        MinimalPlugins.set(ScheduleRunnerPlugin::run_loop(Duration::from_secs_f64(1.0 / 60.0))),
        AssetPlugin::default(),
        // A model that cannot be loaded ends the program with that error; reporting it once is enough.
        LogPlugin { level: Level::WARN, filter: "bevy_elenchus::receive=error".into(), ..default() },
        ElenchusPlugins.set(SpeechPlugin { engine, settings, ..default() }),
    ));
    app
}

/// Receives Ctrl-C.
fn interrupts() -> Result<Receiver<()>> {
    let (sender, receiver) = unbounded();
    ctrlc::set_handler(move || {
        // The receiver is gone when the app is ending, which is what Ctrl-C requests.
        let _ = sender.send(());
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(receiver)
}
