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
use elenchus_dialogue::{Character, Model, ReplyFilter};
use elenchus_lm::{ComputeDevice, LoraAdapter};
use elenchus_train::{
    RunFolder,
    eval::character_eval::{
        BatteryFile, CharacterEval, CharacterReport, Group, LineSet, Participant, RunBattery, evaluate_character,
        markdown, table,
    },
    read_character,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::{
    base::{open_model, own_adapter, prepared},
    characters::{Characters, character_file},
    output::{note, print},
};

#[derive(Debug, Args)]
pub struct CharacterArgs {
    /// The character to measure: a folder of `adapters/`, or a character.toml
    #[arg(long, value_name = "NAME", default_value = "socrates")]
    character: String,
    /// PEFT folder in place of the character's own adapter; `none` measures the base alone
    #[arg(long, value_name = "DIR|none")]
    adapter: Option<PathBuf>,
    /// Its partner in the part without a player: a folder of `adapters/`; the one after it if left out
    #[arg(long, value_name = "NAME")]
    partner: Option<String>,
    /// Determines every reply
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// How often each conversation is held, each time with other random numbers
    #[arg(long, value_name = "N", default_value = "1")]
    seeds: NonZeroUsize,
    /// Hold only these groups of conversations, with commas between: own-name, persona-facts, game-facts,
    /// game-facts-of-three, player-name, last-line, not-knowing, role, repetition, npc-to-npc, ordinary
    #[arg(long, value_name = "GROUPS", value_delimiter = ',', value_parser = group)]
    only: Vec<Group>,
    /// Use other lines, by which nothing about the character was chosen; tune by the usual ones, and look here last
    #[arg(long)]
    kept_back: bool,
    /// Let every reply pass, as in a game without a `ReplyFilter`
    #[arg(long)]
    no_filter: bool,
    /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model if left out
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

fn group(name: &str) -> Result<Group, String> {
    let known = || Group::ALL.map(|group| serde_json::to_value(group).unwrap_or_default());
    serde_json::from_value(json!(name)).map_err(|_| {
        let known: Vec<String> = known().iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        format!("there is no such group (known: {})", known.join(", "))
    })
}

pub fn run(args: CharacterArgs) -> Result<()> {
    let setup = BatterySetup::open(&character_file(&args.character)?)?;
    let model = open_model(args.base, args.device)?;
    let (adapter, lora) = own_adapter(&setup.folder, args.adapter.as_deref())?;
    let partner = match &args.partner {
        Some(name) => Some(character_file(name)?.parent().map_or_else(PathBuf::new, Path::to_owned)),
        None => setup.next(),
    };
    let is_bare = args.adapter.as_deref().is_some_and(|adapter| adapter.as_os_str() == "none");
    let partner = partner.map(|folder| partner_of(&folder, &model, |_| !is_bare)).transpose()?;
    let mut of = setup.eval(&model, lora, partner)?;
    (of.seed, of.seeds, of.only) = (args.seed, args.seeds, args.only);
    if args.kept_back {
        of.lines = LineSet::KeptBack;
    }
    if args.no_filter {
        of.filter = None;
    }
    let clock = Instant::now();
    let report = measured(&of)?;
    let seconds = clock.elapsed().as_secs_f64();
    note(&format!("{} replies in {seconds:.0} s", report.replies));
    if let Some(file) = &args.replies {
        fs::write(file, markdown(&report)).with_context(|| file.display().to_string())?;
    }
    if args.json {
        let mut json = serde_json::to_value(&report)?;
        json["adapter"] = json!(adapter);
        json["base_sha256"] = json!(model.sha256);
        json["seconds"] = json!(seconds);
        return print(&format!("{json}\n"));
    }
    print(&format!("adapter: {}\n{}", adapter.as_deref().unwrap_or("none, the base alone"), table(&report)))
}

/// The battery of a training run's report: before the run, and with its adapter. Results that exist for that adapter
/// are reused.
pub fn measure_run(run: &RunFolder, model: &Model, character: &Path, before: Option<LoraAdapter>) -> Result<()> {
    let after = LoraAdapter::open(&run.file("adapter"))?;
    let hash: String = after.hash().iter().map(|byte| format!("{byte:02x}")).collect();
    if RunBattery::of(run)?.is_some_and(|battery| battery.adapter == hash) {
        return Ok(());
    }
    note("the battery: the character before the run, and now");
    let setup = BatterySetup::open(character)?;
    // A partner that was trained on another base speaks without its adapter.
    let fits = |lora: &LoraAdapter| lora.check_fits(model.executor.config()).is_ok();
    let partner = setup.next().map(|folder| partner_of(&folder, model, fits)).transpose()?;
    let before = measured(&setup.eval(model, before, partner.clone())?)?;
    let after = measured(&setup.eval(model, Some(after), partner)?)?;
    let battery = RunBattery { adapter: hash, seed: after.seed, before: before.rows, after: after.rows };
    Ok(battery.write(run)?)
}

/// The partner of the character, with its own adapter if it has one that it can use.
fn partner_of(folder: &Path, model: &Model, fits: impl FnOnce(&LoraAdapter) -> bool) -> Result<Participant> {
    let character = Arc::new(read_character(&folder.join("character.toml"))?);
    let lora = own_adapter(folder, None)?.1.filter(fits);
    Ok(Participant { adapter: prepared(model, lora, character.adapter_scale)?, character })
}

/// With a progress bar.
fn measured(of: &CharacterEval<'_>) -> Result<CharacterReport> {
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("{wide_bar} {pos}/{len}  {eta} left")?);
    let report = evaluate_character(of, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    Ok(report)
}

/// A character, its battery and its neighbours.
struct BatterySetup {
    folder: PathBuf,
    character: Arc<Character>,
    battery: BatteryFile,
    /// Folders and names, the next first.
    others: Vec<(PathBuf, String)>,
}

impl BatterySetup {
    fn open(file: &Path) -> Result<Self> {
        let character = Arc::new(read_character(file)?);
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let others = others(&folder, &character.name)?;
        let battery = folder.join("battery.toml");
        let battery = if battery.is_file() { BatteryFile::open(&battery)? } else { BatteryFile::default() };
        Ok(Self { folder, character, battery, others })
    }

    /// The folder of the character after this one.
    fn next(&self) -> Option<PathBuf> {
        self.others.first().map(|(folder, _)| folder.clone())
    }

    /// The whole battery, once, filtered as in a game.
    fn eval<'a>(
        &self,
        model: &'a Model,
        lora: Option<LoraAdapter>,
        partner: Option<Participant>,
    ) -> Result<CharacterEval<'a>> {
        let character = self.character.clone();
        let other_names: Vec<String> = self.others.iter().map(|(_, name)| name.clone()).collect();
        let mut filter = ReplyFilter::default();
        filter.names.clone_from(&other_names);
        Ok(CharacterEval {
            model,
            speaker: Participant { adapter: prepared(model, lora, character.adapter_scale)?, character },
            partner,
            persona_facts: self.battery.persona_facts.clone(),
            other_names,
            filter: Some(Arc::new(filter)),
            lines: LineSet::Development,
            seed: 1,
            seeds: NonZeroUsize::MIN,
            only: Vec::new(),
        })
    }
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
