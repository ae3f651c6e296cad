//! `elenchus eval character`: a battery of conversations with one character, judged by rules.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Args;
use elenchus_dialogue::{ModelRef, ReplyFilter};
use elenchus_lm::ComputeDevice;
use elenchus_train::{
    character_eval::{BatteryFile, CharacterEval, Participant, evaluate_character, markdown, table},
    read_character,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::{
    characters::{Characters, character_file},
    output::{note, print},
    voice::{SpeakingBase, own_adapter},
};

#[derive(Debug, Args)]
pub struct CharacterArgs {
    /// Who is measured: a folder of `adapters/`, or a character.toml
    #[arg(long, value_name = "NAME", default_value = "socrates")]
    character: String,
    /// PEFT folder in place of the character's own adapter; `none` measures the base alone
    #[arg(long, value_name = "DIR|none")]
    adapter: Option<PathBuf>,
    /// Whom it talks to in the part without a player: a folder of `adapters/`; the one after it if left out
    #[arg(long, value_name = "NAME")]
    partner: Option<String>,
    /// Determines every reply
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// How often each conversation is held, each time with other random numbers
    #[arg(long, value_name = "N", default_value = "1")]
    seeds: NonZeroUsize,
    /// Let every reply pass, as in a game without a `ReplyFilter`
    #[arg(long)]
    no_filter: bool,
    /// GGUF file or Hugging Face folder; the default model if left out
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// cpu, cuda, or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: ComputeDevice,
    /// Write all lines and replies as Markdown, for people to read
    #[arg(long, value_name = "FILE")]
    replies: Option<PathBuf>,
    /// Print JSON: all of it, replies included
    #[arg(long)]
    json: bool,
}

pub fn run(args: CharacterArgs) -> Result<()> {
    let file = character_file(&args.character)?;
    let character = Arc::new(read_character(&file)?);
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let others = others(folder, &character.name)?;
    let battery = folder.join("battery.toml");
    let battery = if battery.is_file() { BatteryFile::open(&battery)? } else { BatteryFile::default() };

    let (adapter, lora) = own_adapter(folder, args.adapter.as_deref())?;
    let is_bare = args.adapter.as_deref().is_some_and(|adapter| adapter.as_os_str() == "none");
    let base = SpeakingBase::open(args.base, args.device)?;
    let speaker = Participant { adapter: base.adapter(lora, character.adapter_scale)?, character };
    let partner_folder = match &args.partner {
        Some(name) => Some(character_file(name)?.parent().map_or_else(PathBuf::new, Path::to_owned)),
        None => others.first().map(|(folder, _)| folder.clone()),
    };
    let partner = partner_folder.map(|folder| partner(&folder, &base, is_bare)).transpose()?;
    let other_names: Vec<String> = others.into_iter().map(|(_, name)| name).collect();
    let mut filter = ReplyFilter::default();
    filter.names.clone_from(&other_names);

    let of = CharacterEval {
        model: ModelRef { executor: &*base.engine, tokenizer: &base.tokenizer, template: &base.template },
        speaker,
        partner,
        persona_facts: battery.persona_facts,
        other_names,
        filter: (!args.no_filter).then(|| Arc::new(filter)),
        seed: args.seed,
        seeds: args.seeds,
    };
    let clock = Instant::now();
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("{wide_bar} {pos}/{len}  {eta} left")?);
    let report = evaluate_character(&of, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let seconds = clock.elapsed().as_secs_f64();
    note(&format!("{} replies in {seconds:.0} s", report.replies));
    if let Some(file) = &args.replies {
        fs::write(file, markdown(&report)).with_context(|| file.display().to_string())?;
    }
    if args.json {
        let mut json = serde_json::to_value(&report)?;
        json["adapter"] = json!(adapter);
        json["base_sha256"] = json!(base.weights.sha256());
        json["seconds"] = json!(seconds);
        return print(&format!("{json}\n"));
    }
    print(&format!("adapter: {}\n{}", adapter.as_deref().unwrap_or("none, the base alone"), table(&report)))
}

/// Other characters and their folders: those beside this one, the next first, or else those that `talk` finds.
fn others(folder: &Path, name: &str) -> Result<Vec<(PathBuf, String)>> {
    let absolute = fs::canonicalize(folder).with_context(|| folder.display().to_string())?;
    let id = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = absolute.parent().and_then(|parent| Characters::open(parent).ok());
    let beside = beside.filter(|characters| characters.ids.iter().any(|other| *other != id));
    let Some(characters) = beside.or_else(|| Characters::find().ok()) else { return Ok(Vec::new()) };
    let (before, after): (Vec<String>, Vec<String>) = characters.ids.into_iter().partition(|other| *other <= id);
    let folders = after.into_iter().chain(before).map(|id| characters.folder.join(id));
    let named = folders.map(|folder| {
        let name = read_character(&folder.join("character.toml"))?.name;
        Ok((folder, name))
    });
    let named = named.collect::<Result<Vec<_>>>()?;
    Ok(named.into_iter().filter(|(_, other)| other != name).collect())
}

/// Whoever talks to the character, with an adapter of its own if it has one.
fn partner(folder: &Path, base: &SpeakingBase, is_bare: bool) -> Result<Participant> {
    let character = Arc::new(read_character(&folder.join("character.toml"))?);
    let lora = match is_bare {
        true => None,
        false => own_adapter(folder, None)?.1,
    };
    Ok(Participant { adapter: base.adapter(lora, character.adapter_scale)?, character })
}
