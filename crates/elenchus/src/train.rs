//! `elenchus train`: a character's lines become an adapter.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Subcommand;
use elenchus_lm::{ComputeDevice, Numerics};
use elenchus_train::{Learner, RunFolder, SftConfig, SftEvent, StepReport, data, train};
use indicatif::{ProgressBar, ProgressStyle};

use crate::voice::{Voice, read_character, read_pairs};

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
