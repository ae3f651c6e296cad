//! `elenchus eval compare`: voices on the same prompts, under judges that nothing was optimised against.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use elenchus_lab::{
    methods::methods,
    planted::{plant, rejected},
};
use elenchus_lm::{ComputeDevice, LoraAdapter, Numerics};
use elenchus_train::{
    Lesson,
    data::read_prompts,
    eval::{
        compare::{Candidate, EvalJudge, EvalSetup, compare, page, reserved_pairs, table},
        example_turns,
    },
    judge::{FreeJudges, NgramStyle},
    rl::RlConfig,
    spread,
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    base::TrainingBase,
    characters::Characters,
    output::{note, print},
};

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// PEFT folders to compare, called by their folders' names; differences are to the first
    #[arg(long, value_name = "DIR|NAME=DIR", value_delimiter = ',', required = true)]
    adapters: Vec<String>,
    /// What is said to every voice: JSON Lines of {context}, {line}, {prompt} or {question}
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// Prompts at most, spread evenly over them: a quick look
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Whose prompt, sampler, stop rules and real replies: a folder of `adapters/` with a training.toml
    #[arg(long, value_name = "NAME", default_value = "socrates")]
    character: String,
    /// Another training.toml instead
    #[arg(long, value_name = "FILE", conflicts_with = "character")]
    lesson: Option<PathBuf>,
    /// Works for a judge of style to learn from, which no optimised judge may know
    #[arg(long, value_name = "WORK,WORK", value_delimiter = ',')]
    style_works: Vec<String>,
    /// An rl.toml whose judges are asked as well: those that a voice was trained to please
    #[arg(long, value_name = "RL.TOML")]
    optimised: Option<PathBuf>,
    /// A control: the first adapter, saying the reply of N that the optimised judges like best
    #[arg(long, value_name = "N", requires = "optimised")]
    best_of: Option<NonZeroUsize>,
    /// Held-out replies that bad ones are planted beside, to try the judges on; 0 for none
    #[arg(long, value_name = "N", default_value = "100")]
    planted: usize,
    /// Determines replies, planted replies and intervals
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model if left out
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Where it is measured: cpu, cuda, or cuda:N; voices speak on the CPU, as in a game
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: ComputeDevice,
    /// Write a page with plots and all replies
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON: all of it, replies included, as `eval blind` reads it
    #[arg(long)]
    json: bool,
}

pub fn run(args: CompareArgs) -> Result<()> {
    let lesson_file = match &args.lesson {
        Some(file) => file.clone(),
        None => {
            let characters = Characters::find()?;
            characters.folder.join(characters.id(&args.character)?).join("training.toml")
        }
    };
    let lesson = Lesson::open(&lesson_file)?;
    let character = &lesson.character;
    let prompts = read_prompts(&args.prompts, character, lesson.config.context)?;
    let prompts = spread(&prompts, args.limit.map_or(usize::MAX, NonZeroUsize::get));
    let style = match args.style_works.as_slice() {
        [] => None,
        works => {
            let pairs = reserved_pairs(&lesson, &lesson_file, works)?;
            Some(NgramStyle::train(&pairs, &character.name, NgramStyle::SETTINGS)?)
        }
    };
    let optimised = args.optimised.as_deref().map(rl_config).transpose()?;
    let mut candidates =
        vec![Candidate::persona(), Candidate::examples(example_turns(&lesson.split.train, &character.name)?)];
    let adapted = args.adapters.iter().map(|named| candidate(named, character.adapter_scale));
    candidates.extend(adapted.collect::<Result<Vec<_>>>()?);
    if let Some(count) = args.best_of {
        candidates.push(candidates[2].best_of(count.get()));
    }

    let voice = TrainingBase::open_speaking(args.base, Numerics::Exact, args.device)?;
    for candidate in &candidates {
        if let Some(lora) = &candidate.lora {
            lora.check_fits(voice.model.executor.config())
                .with_context(|| format!("the voice `{}`", candidate.name))?;
        }
    }
    let optimised = match args.optimised.as_deref().zip(optimised) {
        Some((file, config)) => Some(voice.judges(&config.judges, file, character)?),
        None => None,
    };
    let (style, style_test) = style.unzip();
    let free = FreeJudges::new(&voice.executor, &voice.model, character, &lesson.split.train, style)?;
    let judges = EvalJudge::all(free.judges(), optimised.as_ref());

    let bar =
        ProgressBar::new(0).with_style(ProgressStyle::with_template("{msg:<40} {wide_bar} {pos}/{len}  {eta} left")?);
    let line = |text: &str| bar.suspend(|| note(text));
    let planted =
        plant(&spread(&lesson.split.held_out, args.planted), &lesson.split.held_out, &character.name, args.seed);
    let free_judges = judges.iter().filter(|of| !of.optimised).map(|of| of.judge);
    let planted = rejected(free_judges, &planted, |judge| line(&format!("planted bad replies: {judge}")))?;

    let own: Vec<_> = lesson.split.train.iter().chain(&lesson.split.held_out).cloned().collect();
    let setup = EvalSetup {
        model: &voice.model,
        executor: &voice.executor,
        character,
        judges: &judges,
        choice: optimised.as_ref(),
        own: &own,
        held_out: &lesson.split.held_out,
        max_tokens: lesson.config.training.max_tokens,
    };
    let mut comparison = compare(&setup, &candidates, &prompts, args.seed, |what, done, of| {
        bar.set_message(what.to_owned());
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        if done == 0 {
            // Where no terminal shows the bar, a line says how far it is.
            line(what);
        }
    })?;
    bar.finish_and_clear();
    comparison.style = style_test;
    comparison.planted = planted;
    if let Some(file) = &args.html {
        fs::write(file, page(&comparison)).with_context(|| file.display().to_string())?;
    }
    print(&if args.json { serde_json::to_string(&comparison)? + "\n" } else { table(&comparison) })
}

/// The voice of a folder, or of `NAME=FOLDER`, at the character's scale.
fn candidate(named: &str, scale: f32) -> Result<Candidate> {
    let (name, folder) = match named.split_once('=') {
        Some((name, folder)) => (name.to_owned(), PathBuf::from(folder)),
        None => {
            let folder = PathBuf::from(named);
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
            (name.with_context(|| format!("`{named}` names no folder (hint: NAME=DIR)"))?, folder)
        }
    };
    ensure!(!name.trim().is_empty(), "`{named}` has no name before `=` (hint: NAME=DIR)");
    let mut lora = LoraAdapter::open(&folder)?;
    if scale != 1.0 {
        lora = LoraAdapter::merge(&name, &[(&lora, scale)])?;
    }
    Ok(Candidate::adapted(name, Arc::new(lora)))
}

fn rl_config(file: &Path) -> Result<RlConfig> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(RlConfig::parse(&text, &file.display().to_string(), &methods())?)
}
