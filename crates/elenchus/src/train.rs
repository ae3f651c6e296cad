//! `elenchus train` and `elenchus eval`: a character's lines become an adapter, and what it has learned is measured.

use std::{
    fs,
    io::{self, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use elenchus_dialogue::Character;
use elenchus_lm::{
    CandleExecutor, ChatTemplate, ComputeDevice, LoraAdapter, Numerics, Tokenizer, TrainableLora, Weights,
};
use elenchus_train::{
    Example, Learner, RunFolder, SftConfig, SftEvent, StepReport,
    data::{self, OnBroken, Pair, Speakers},
    example, perplexity, train,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::{characters::Characters, model};

#[derive(Debug, Subcommand)]
pub enum TrainCommand {
    /// Fine-tune an adapter on a character's lines; a run that was killed goes on where it was
    Sft {
        /// The run's `training.toml`
        #[arg(value_name = "TRAINING.TOML")]
        config: PathBuf,
        /// The run's folder: metrics, checkpoint, adapter
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// GGUF file or Hugging Face folder; the default model if left out
        #[arg(long, value_name = "FILE")]
        base: Option<PathBuf>,
        /// Keep the base quantised: a smaller memory, coarser numbers
        #[arg(long)]
        quantised: bool,
        /// cpu, cuda, or cuda:N
        #[arg(long, value_name = "DEVICE", default_value = "cpu")]
        device: ComputeDevice,
    },
}

#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// How well replies are foreseen, in perplexity a token, prompted as the game would
    Perplexity {
        /// Pairs: JSON Lines, or any text that `data inspect` reads
        #[arg(long, value_name = "FILE")]
        pairs: PathBuf,
        /// GGUF file or Hugging Face folder; the default model if left out
        #[arg(long, value_name = "FILE")]
        base: Option<PathBuf>,
        /// PEFT folder to measure beside the base; `none` measures the base alone
        #[arg(long, value_name = "DIR|none", default_value = "none")]
        adapter: PathBuf,
        /// Whose replies and whose prompt: a folder of `adapters/`
        #[arg(long, value_name = "NAME", default_value = "socrates")]
        character: String,
        /// Turns before a reply, at most
        #[arg(long, value_name = "N", default_value = "4")]
        context: NonZeroUsize,
        /// Works to measure on, by name; all if left out
        #[arg(long = "work", value_name = "NAME")]
        works: Vec<String>,
        /// Tokens of an example at most; longer replies are cut
        #[arg(long, value_name = "N", default_value = "256")]
        max_tokens: usize,
        /// cpu, cuda, or cuda:N
        #[arg(long, value_name = "DEVICE", default_value = "cpu")]
        device: ComputeDevice,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: TrainCommand) -> Result<()> {
    let TrainCommand::Sft { config: file, out, base, quantised, device } = command;
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let config = SftConfig::parse(&text, &file.display().to_string())?;
    let beside = |path: &PathBuf| file.parent().unwrap_or(Path::new(".")).join(path);
    let character_file = beside(&config.character);
    let character = read_character(&character_file)?;

    let files: Vec<PathBuf> = config.data.iter().map(beside).collect();
    let pairs = read_pairs(&files, &character, config.context)?;
    let read = pairs.len();
    let (pairs, report) = data::filter(pairs, &config.filters);
    let pairs = pairs.into_iter().filter(|pair| !config.excluded_works.contains(&pair.work)).collect::<Vec<_>>();
    let split = data::by_work(pairs, &config.held_out_works)?;
    println!("{read} pairs of {}, {} fit to learn from:", character.name, report.kept);
    println!(
        "{} are trained on, {} of {} measured on",
        split.train.len(),
        split.held_out.len(),
        config.held_out_works.join(", ")
    );

    let voice = Voice::open(base, if quantised { Numerics::Quantised } else { Numerics::Exact }, device)?;
    let max_tokens = config.training.max_tokens;
    let examples = voice.examples(&split.train, &character, max_tokens)?;
    let held_out = voice.examples(&split.held_out, &character, max_tokens)?;
    let run = RunFolder::open(&out, &text)?;
    let name = voice.weights.path().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let learner =
        Learner { executor: &voice.executor, base_model_name: &name, examples: &examples, held_out: &held_out };
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}  {eta} left").context("the bar's template")?,
    );
    let mut measured = None;
    let adapter = train(&learner, &config, &run, |event| match event {
        SftEvent::Begun(step, steps) => {
            bar.set_length(steps);
            bar.set_position(step);
            bar.reset_eta();
        }
        SftEvent::Step(report) => {
            measured = report.held_out_perplexity.or(measured);
            bar.set_message(message(&report, measured));
            bar.set_position(report.step);
        }
    })?;
    bar.finish();
    // With it the folder is a whole character, as `adapters/` holds them.
    run.write("adapter/character.toml", &fs::read(&character_file)?)?;
    println!("the adapter is in {}", adapter.display());
    Ok(())
}

fn message(report: &StepReport, measured: Option<f64>) -> String {
    let speed = report.tokens as f64 / report.seconds;
    let measured = measured.map_or_else(String::new, |measured| format!("  held-out perplexity {measured:.2}"));
    format!("loss {:.3}{measured}  {speed:.0} tokens/s", report.loss)
}

pub fn eval(command: EvalCommand) -> Result<()> {
    let EvalCommand::Perplexity { pairs, base, adapter, character, context, works, max_tokens, device, json } = command;
    let characters = Characters::find()?;
    let id = characters.id(&character)?;
    let character = read_character(&characters.folder.join(id).join("character.toml"))?;
    let mut read = read_pairs(std::slice::from_ref(&pairs), &character, context)?;
    if !works.is_empty() {
        read.retain(|pair| works.contains(&pair.work));
        ensure!(!read.is_empty(), "{} has no pairs of {}", pairs.display(), works.join(", "));
    }
    let voice = Voice::open(base, Numerics::Exact, device)?;
    let lora = if adapter.as_os_str() == "none" {
        None
    } else {
        Some(TrainableLora::new(&LoraAdapter::open(&adapter)?, &voice.executor)?)
    };
    let examples = voice.examples(&read, &character, max_tokens)?;
    let bar = ProgressBar::new(examples.len() as u64 * (1 + u64::from(lora.is_some())));
    let base = perplexity(&voice.executor, None, &examples, |read| bar.set_position(read as u64))?;
    let worn = match &lora {
        Some(lora) => {
            let position = |read| bar.set_position((examples.len() + read) as u64);
            perplexity(&voice.executor, Some(lora), &examples, position)?
        }
        None => base,
    };
    bar.finish_and_clear();
    let report = json!({
        "pairs": examples.len(),
        "tokens": worn.tokens,
        "perplexity": worn.of_tokens(),
        "base_perplexity": base.of_tokens(),
        "end_tokens": worn.end_tokens,
        "end_perplexity": worn.of_ends(),
        "base_end_perplexity": base.of_ends(),
    });
    let text = if json {
        format!("{report}\n")
    } else {
        let line = |name: &str, worn: f64, base: f64| {
            format!("{name:<12} {worn:8.3}   base {base:8.3}   {:+.1}%\n", (worn / base - 1.0) * 100.0)
        };
        let replies = format!("{} replies, {} tokens\n", examples.len(), worn.tokens);
        replies
            + &line("perplexity", worn.of_tokens(), base.of_tokens())
            + &line("of its end", worn.of_ends(), base.of_ends())
    };
    // Not `print!`, which panics when nobody reads on.
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn read_character(file: &Path) -> Result<Character> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(Character::parse(&text, &file.display().to_string())?)
}

fn read_pairs(files: &[PathBuf], character: &Character, context: NonZeroUsize) -> Result<Vec<Pair>> {
    let speakers = Speakers::new::<&str, &str>([])?;
    let texts = data::read(files, &speakers, OnBroken::Stop)?;
    Ok(data::pairs(&texts, &speakers.normalise(&character.name), context)?)
}

/// A base model and what it takes to prompt it.
struct Voice {
    weights: std::sync::Arc<Weights>,
    executor: CandleExecutor,
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

impl Voice {
    fn open(base: Option<PathBuf>, numerics: Numerics, device: ComputeDevice) -> Result<Self> {
        let weights = model::open(&model::base_or_default(base)?)?;
        let executor = CandleExecutor::new(&weights, &device.open()?, numerics)?;
        eprintln!("base weights: {} in memory", model::size(executor.weight_bytes()));
        Ok(Self { tokenizer: weights.tokenizer()?, template: weights.chat_template()?, executor, weights })
    }

    fn examples(&self, pairs: &[Pair], character: &Character, max_tokens: usize) -> Result<Vec<Example>> {
        let mut examples = Vec::new();
        for pair in pairs {
            examples.extend(example(pair, character, &self.tokenizer, &self.template, max_tokens)?);
        }
        if examples.len() < pairs.len() {
            let left_out = pairs.len() - examples.len();
            eprintln!("left out: {left_out} pairs whose prompt alone has {max_tokens} tokens or more");
        }
        if examples.is_empty() {
            bail!("no pair fits {max_tokens} tokens (hint: raise the limit)");
        }
        Ok(examples)
    }
}
