//! Command line arguments.

use std::path::PathBuf;

use bevy::prelude::*;
use clap::Parser;

use crate::{bench::Bench, script::Script};

/// The agora of Athens: walk up to a character and talk.
#[derive(Resource, Parser, Clone, Debug)]
#[command(version)]
pub struct Args {
    /// Threads the model computes on; 0 takes half of the cores.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// The characters: folders of `adapters/`, with commas between them. All, if left out.
    #[arg(long, value_delimiter = ',')]
    pub characters: Vec<String>,
    /// The folder with the characters' folders.
    #[arg(long, value_name = "FOLDER", default_value = "adapters")]
    pub adapters: String,
    /// Another model, a GGUF file or a Hugging Face folder.
    #[arg(long)]
    pub base: Option<PathBuf>,
    /// Makes replies repeatable: the same lines in the same order get the same replies.
    #[arg(long)]
    pub seed: Option<u64>,
    /// The file that F5 saves the game to and F9 loads it from.
    #[arg(long, default_value = "agora_save.json")]
    pub save: PathBuf,
    /// The file for votes on replies, a line each.
    #[arg(long, default_value = "agora_votes.jsonl")]
    pub votes: PathBuf,
    /// No talk among the characters.
    #[arg(long)]
    pub quiet: bool,
    /// Start with the overlay shown.
    #[arg(long)]
    pub overlay: bool,
    /// Opens no window, and draws only photographs: without photographs no GPU is needed.
    #[arg(long)]
    pub headless: bool,
    /// Size of the window or the photographs.
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "1280x720", value_parser = size)]
    pub size: UVec2,
    /// The player's steps, one per line; see `examples/agora/scripts/`.
    #[arg(long, value_name = "FILE", value_parser = Script::read)]
    pub script: Option<Script>,
    /// Ends after this many frames; without it a game with no window ends when its script does.
    #[arg(long)]
    pub frames: Option<u32>,
    /// Photographs the last frame.
    #[arg(long, value_name = "FILE")]
    pub screenshot: Option<PathBuf>,
    /// Measures instead of playing, with no window.
    #[arg(long)]
    pub bench: Option<Bench>,
    /// How long the bench measures: each half of a turn of `frames` (10 by default), or all of `chatter` (600).
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Turns of `--bench frames`.
    #[arg(long, default_value_t = 7)]
    pub turns: usize,
}

impl Args {
    /// Whether anything will be drawn.
    pub fn draws(&self) -> bool {
        let photographs = self.screenshot.is_some() || self.script.as_ref().is_some_and(Script::photographs);
        !self.headless || photographs || self.bench == Some(Bench::Frames)
    }
}

fn size(text: &str) -> Result<UVec2, String> {
    let size = text.split_once('x').and_then(|(x, y)| Some(UVec2::new(x.parse().ok()?, y.parse().ok()?)));
    size.filter(|size| size.min_element() >= 64).ok_or_else(|| format!("`{text}` is no size (hint: 1280x720)"))
}
