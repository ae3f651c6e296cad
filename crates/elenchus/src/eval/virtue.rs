//! `elenchus eval virtue`: a voice before and after, by reward models, and how both stay in role.

use std::{
    collections::BTreeSet,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use elenchus_dialogue::{Character, Model, Turn};
use elenchus_lab::{
    methods::methods,
    role_suite::{self, RoleReport, RoleSuite},
    virtue_benchmark::{Benchmark, Scorer, Voices, benchmark, page, table},
};
use elenchus_lm::{Adapter, ComputeDevice, LoraAdapter, Numerics};
use elenchus_train::{
    RewardModel, Speaker,
    data::read_prompts,
    judge::{Judges, LearnedJudge, WeightedJudgeSettings},
    read_character,
    rl::{RlConfig, RlLesson},
    spread,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;

use crate::{
    base::{TrainingBase, prepared},
    characters::character_file,
    output::{note, print},
};

#[derive(Debug, Args)]
pub struct VirtueArgs {
    /// The old voice: a PEFT folder, or `none` for the base alone
    #[arg(long, value_name = "DIR|none", default_value = "none")]
    before: PathBuf,
    /// The new voice: a PEFT folder
    #[arg(long, value_name = "DIR")]
    after: PathBuf,
    /// Reward models of `elenchus train reward`, named by what they prefer or by a name you give
    #[arg(long, value_name = "DIR|NAME=DIR", value_delimiter = ',', required_unless_present = "roles")]
    rewards: Vec<String>,
    /// Prompts for both voices: JSON Lines of {context}, {line}, {prompt} or {question}
    #[arg(long, value_name = "FILE", requires = "rewards")]
    prompts: Option<PathBuf>,
    /// The rl.toml that made the new voice: its prompts are left out, and the reward models it pleased are marked
    #[arg(long, value_name = "RL.TOML")]
    rl: Option<PathBuf>,
    /// Other files of prompts, pairs or preferences that were trained on: their lines are left out
    #[arg(long, value_name = "FILE,FILE", value_delimiter = ',')]
    trained_on: Vec<PathBuf>,
    /// Attempts to get both voices out of their role; `adapters/role_suite.toml` ships
    #[arg(long, value_name = "ROLES.TOML")]
    roles: Option<PathBuf>,
    /// How often each attempt is made, with other seeds
    #[arg(long, value_name = "N", default_value = "3")]
    draws: NonZeroUsize,
    /// A file with [[judges]], as an rl.toml has them, that judge how the voices stay in role
    #[arg(long, value_name = "FILE", requires = "roles")]
    judges: Option<PathBuf>,
    /// Maximum prompts, spread evenly over them: a quick look
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Character whose prompt, sampler and stop rules are used: a folder of `adapters/`, or a character.toml
    #[arg(long, value_name = "NAME", default_value = "socrates")]
    character: String,
    /// Determines replies and intervals
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model if left out
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Where it is scored: cpu, cuda, or cuda:N; voices speak on the CPU, as in a game
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: ComputeDevice,
    /// Write a page with plots and all replies
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON: all of it, replies included
    #[arg(long)]
    json: bool,
}

/// The part of a file that names judges.
#[derive(Deserialize)]
struct JudgesFile {
    judges: Vec<WeightedJudgeSettings>,
}

pub fn run(args: VirtueArgs) -> Result<()> {
    let character = read_character(&character_file(&args.character)?)?;
    ensure!(
        args.rewards.is_empty() || args.prompts.is_some(),
        "--rewards have nothing to score (hint: --prompts FILE, of prompts that nothing was trained on)"
    );
    let rl = args.rl.as_deref().map(|file| RlLesson::open(file, &methods())).transpose()?;
    let (prompts, trained_on) = match &args.prompts {
        Some(file) => untrained(file, &args, rl.as_ref(), &character)?,
        None => (Vec::new(), 0),
    };
    let suite = args.roles.as_deref().map(RoleSuite::open).transpose()?;
    let settings = args.judges.as_deref().map(judges).transpose()?;

    let voice = TrainingBase::open_speaking(args.base.clone(), Numerics::Exact, args.device)?;
    let open = |folder: &Path| adapter(folder, &voice.model, character.adapter_scale);
    let (before, after) = (open(&args.before)?, open(&args.after)?);
    let names = names(&args.before, &args.after);
    let speaker = |adapter| Speaker { model: &voice.model, character: &character, adapter };
    let voices = Voices { before: (&names[0], speaker(before.as_ref())), after: (&names[1], speaker(after.as_ref())) };
    let bar = Progress::new()?;

    let mut measured: Option<Benchmark> = None;
    if !args.rewards.is_empty() {
        let optimised = match args.rl.as_deref().zip(rl.as_ref()) {
            Some((file, rl)) => optimised(file, &rl.config),
            None => BTreeSet::new(),
        };
        let models = args.rewards.iter().map(|named| reward(named, &optimised, &voice, &character));
        let models: Vec<(String, LearnedJudge, bool)> = models.collect::<Result<_>>()?;
        let scorers: Vec<Scorer<'_>> =
            models.iter().map(|(name, judge, optimised)| Scorer { name, judge, optimised: *optimised }).collect();
        let of = benchmark(voices, &voice.executor, &scorers, &prompts, args.seed, |what, done, of| {
            bar.show(what, done, of);
        })?;
        measured = Some(Benchmark { trained_on, ..of });
    }
    let mut roles: Vec<RoleReport> = Vec::new();
    if let Some(suite) = &suite {
        let judges: Option<Judges> = match args.judges.as_deref().zip(settings) {
            Some((file, settings)) => Some(voice.judges(&settings, file, &character)?),
            None => None,
        };
        for (name, speaker) in [voices.before, voices.after] {
            let what = format!("{name}: stays in role");
            let draws = args.draws.get() as u64;
            let report = role_suite::play(name, speaker, suite, (draws, args.seed), judges.as_ref(), |done, of| {
                bar.show(&what, done, of);
            })?;
            roles.push(report);
        }
    }
    bar.bar.finish_and_clear();

    if let Some(file) = &args.html {
        let page = whole_page(measured.as_ref(), &roles, &character.name);
        fs::write(file, page).with_context(|| file.display().to_string())?;
    }
    if args.json {
        return print(&format!("{}\n", json!({ "benchmark": measured, "roles": roles })));
    }
    let mut text = measured.as_ref().map_or_else(String::new, |of| table(of) + "\n");
    if !roles.is_empty() {
        text += &role_suite::table(&roles);
    }
    print(&text)
}

/// The prompts of a file that nothing was trained on, and how many were left out.
fn untrained(
    file: &Path,
    args: &VirtueArgs,
    rl: Option<&RlLesson>,
    character: &Character,
) -> Result<(Vec<Vec<Turn>>, usize)> {
    let context = rl.map_or(NonZeroUsize::MIN.saturating_add(3), |rl| rl.config.context);
    let prompts = read_prompts(file, character, context)?;
    // A prompt is identified by its newest line, whatever stood before it.
    let key = |turns: &[Turn]| turns.last().map_or_else(String::new, |turn| turn.text.trim().to_lowercase());
    let mut known: BTreeSet<String> = BTreeSet::new();
    known.extend(rl.into_iter().flat_map(|rl| &rl.prompts).map(|prompt| key(&prompt.turns)));
    for file in &args.trained_on {
        known.extend(read_prompts(file, character, context)?.iter().map(|turns| key(turns)));
    }
    let kept: Vec<Vec<Turn>> = prompts.iter().filter(|turns| !known.contains(&key(turns))).cloned().collect();
    let left_out = prompts.len() - kept.len();
    ensure!(
        !kept.is_empty(),
        "all {left_out} prompts of {} were trained on (hint: use prompts that were not)",
        file.display()
    );
    Ok((spread(&kept, args.limit.map_or(usize::MAX, NonZeroUsize::get)), left_out))
}

fn judges(file: &Path) -> Result<Vec<WeightedJudgeSettings>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let JudgesFile { judges } = toml::from_str(&text).with_context(|| file.display().to_string())?;
    ensure!(!judges.is_empty(), "{} names no judges (hint: [[judges]] with a `kind`)", file.display());
    Ok(judges)
}

fn adapter(folder: &Path, model: &Model, scale: f32) -> Result<Option<Adapter>> {
    if folder.as_os_str() == "none" {
        return Ok(None);
    }
    prepared(model, Some(LoraAdapter::open(folder)?), scale).with_context(|| folder.display().to_string())
}

/// Named by their folders, made distinct.
fn names(before: &Path, after: &Path) -> [String; 2] {
    let name = |folder: &Path| match folder.as_os_str() == "none" {
        true => "base".to_owned(),
        false => folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned(),
    };
    match [name(before), name(after)] {
        [one, other] if one == other => [before.display().to_string(), after.display().to_string()],
        names => names,
    }
}

/// The reward models that a run was trained to please, as canonical folders.
fn optimised(file: &Path, config: &RlConfig) -> BTreeSet<PathBuf> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let rewards = config.judges.iter().flat_map(|weighted| weighted.judge.rewards());
    rewards.filter_map(|reward| fs::canonicalize(folder.join(reward)).ok()).collect()
}

/// A reward model by its name, and whether it is among the optimised ones.
fn reward(
    named: &str,
    optimised: &BTreeSet<PathBuf>,
    voice: &TrainingBase,
    character: &Character,
) -> Result<(String, LearnedJudge, bool)> {
    let (name, folder) = match named.split_once('=') {
        Some((name, folder)) => (Some(name.to_owned()), Path::new(folder)),
        None => (None, Path::new(named)),
    };
    let (model, card) = RewardModel::open(folder, &voice.executor, &voice.model.sha256)?;
    let name = name.unwrap_or_else(|| card.name().to_owned());
    if card.held_out.low <= 0.5 {
        note(&format!("{name}: held-out accuracy {} is not clear of chance, so its scores say nothing", card.held_out));
    }
    let is_optimised = fs::canonicalize(folder).is_ok_and(|folder| optimised.contains(&folder));
    let judge = LearnedJudge::new(
        &name,
        model,
        card.max_tokens,
        voice.executor.clone(),
        voice.model.clone(),
        Arc::new(character.clone()),
    );
    Ok((name, judge, is_optimised))
}

/// The benchmark's page followed by the roles, or a page of the roles alone.
fn whole_page(measured: Option<&Benchmark>, roles: &[RoleReport], name: &str) -> String {
    let section = if roles.is_empty() { String::new() } else { role_suite::section(roles) };
    match measured {
        Some(of) => page(of, &section),
        None => role_suite::page(name, &section),
    }
}

/// A progress bar on a terminal; a line for each part everywhere.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new() -> Result<Self> {
        let style = ProgressStyle::with_template("{msg:<40} {wide_bar} {pos}/{len}  {eta} left")?;
        Ok(Self { bar: ProgressBar::new(0).with_style(style) })
    }

    fn show(&self, what: &str, done: usize, of: usize) {
        self.bar.set_message(what.to_owned());
        self.bar.set_length(of as u64);
        self.bar.set_position(done as u64);
        if done == 0 {
            self.bar.suspend(|| note(what));
        }
    }
}
