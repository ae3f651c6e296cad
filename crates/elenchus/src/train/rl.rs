//! `elenchus train rl`: replies are spoken, judged, and what was better than expected becomes likelier.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use elenchus_lm::{ComputeDevice, Executor};
use elenchus_train::{
    RunFolder,
    rl::{RlEvent, RlLearner, RlLesson, RlOutcome, RlReport, train},
};
use indicatif::{ProgressBar, ProgressStyle};

use super::{BaseArgs, interrupts, with_base};
use crate::output::{note, say};

#[derive(Debug, Args)]
pub struct RlArgs {
    /// The run's `rl.toml`
    #[arg(value_name = "RL.TOML")]
    config: PathBuf,
    /// The run's folder: metrics, rollouts, checkpoints, adapter
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    base: BaseArgs,
}

pub fn run(args: RlArgs) -> Result<()> {
    let RlArgs { config: file, out, base } = args;
    let RlLesson { config, text, character_file, character, start, prompts, offline } = RlLesson::open(&file)?;
    let device = base.device;
    let voice = base.open()?;
    // The game's own engine where there is one; a GPU samples with what it trains with.
    let engine: Arc<dyn Executor + Sync> = match device {
        ComputeDevice::Cpu => voice.engine()?,
        ComputeDevice::Cuda(_) => voice.executor.clone(),
    };
    let offline = match config.offline {
        Some(_) => voice.examples(&offline, &character, usize::MAX)?,
        None => Vec::new(),
    };
    let judges = voice.judges(&config.judges, &file, &engine, &character)?;
    say(&format!("judges: {}\n", judges.names().collect::<Vec<_>>().join(", ")));

    let run = RunFolder::open(&out, &text)?;
    let name = voice.weights.path().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let learner = RlLearner {
        executor: &voice.executor,
        engine: &*engine,
        tokenizer: &voice.tokenizer,
        template: &voice.template,
        character: &character,
        base_model_name: &name,
        start: &start,
        prompts: &prompts,
        judges: &judges,
        offline: &offline,
    };
    let (screen, should_stop) = (Screen::new()?, interrupts()?);
    let outcome = train(&learner, &config, &run, &should_stop, |event| screen.show(event, &character.name));
    screen.bar.finish_and_clear();
    match outcome? {
        RlOutcome::Stopped(step) => {
            say(&format!("stopped behind step {step}; the same command goes on from there\n"));
        }
        RlOutcome::Halted(step, reason) => {
            say(&format!("halted behind step {step}: {reason}\n"));
            say(&format!("earlier voices are in {}\n", run.file("checkpoints").display()));
        }
        RlOutcome::Finished(adapter) => {
            let described =
                fs::read_to_string(&character_file).with_context(|| character_file.display().to_string())?;
            run.write("adapter/character.toml", with_base(&described, &character, &name, &voice.weights).as_bytes())?;
            run.write("adapter/rl.toml", text.as_bytes())?;
            let report = run.file("REPORT.md");
            run.write("adapter/REPORT.md", &fs::read(&report).with_context(|| report.display().to_string())?)?;
            let (adapter, report) = (adapter.display(), run.file("REPORT.html"));
            say(&format!("the adapter is in {adapter}, the report in {}\n", report.display()));
        }
    }
    Ok(())
}

/// A bar where somebody looks; a line for every tenth iteration everywhere.
struct Screen {
    bar: ProgressBar,
}

/// Iterations between two lines.
const LINE: u64 = 10;

impl Screen {
    fn new() -> Result<Self> {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}  {eta} left");
        Ok(Self { bar: ProgressBar::new(0).with_style(style.context("the bar's template")?) })
    }

    fn show(&self, event: RlEvent, name: &str) {
        let bar = &self.bar;
        match event {
            RlEvent::Begun { step, total_steps, prompts, held_out, too_long } => {
                self.line(&format!("{prompts} prompts to learn from, {held_out} held out"));
                if too_long > 0 {
                    self.line(&format!("left out: {too_long} prompts longer than `sampling.max_prompt_tokens`"));
                }
                if step > 0 {
                    self.line(&format!("goes on behind step {step} of {total_steps}"));
                }
                bar.set_length(total_steps);
                bar.set_position(step);
                bar.reset_eta();
                bar.enable_steady_tick(Duration::from_millis(500));
            }
            RlEvent::Step(report) => {
                bar.set_message(message(&report));
                bar.set_position(report.step);
                if report.step == 1 || report.step.is_multiple_of(LINE) {
                    self.line(&format!("step {}: {}", report.step, details(&report)));
                }
            }
            RlEvent::HeldOut { step, scores } => {
                self.line(&format!("behind step {step}, held-out prompts: {}", shown(&scores)));
            }
            RlEvent::Evaluated(samples) => {
                for sample in samples {
                    self.line(&format!("    {}\n    {name} > {}", sample.line, sample.reply.replace('\n', " ")));
                }
            }
            RlEvent::Alarm(text) => self.line(&format!("alarm: {text}")),
        }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }
}

fn message(report: &RlReport) -> String {
    format!("score {:+.3}, KL {:.2}", report.score, report.kl)
}

fn details(report: &RlReport) -> String {
    format!(
        "{} ({}), {:.0} words, {:.0}% questions, {:.0}% ended, {:.1} s",
        message(report),
        shown(&report.scores),
        report.reply_words,
        report.questions * 100.0,
        report.ended * 100.0,
        report.seconds.total()
    )
}

fn shown(scores: &BTreeMap<String, f64>) -> String {
    scores.iter().map(|(name, score)| format!("{name} {score:+.3}")).collect::<Vec<_>>().join(", ")
}
