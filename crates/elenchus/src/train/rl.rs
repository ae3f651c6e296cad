//! `elenchus train rl`: replies are sampled and judged, and what was better than expected becomes likelier.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use elenchus_lab::methods::methods;
use elenchus_train::{
    ExamplePair, RewardLoss, RewardModel, RunFolder, copy_report,
    judge::Judges,
    report::rl_report,
    rl::{RlEvent, RlLearner, RlLesson, RlOutcome, RlReport, Values, train},
    save_character,
};
use indicatif::{ProgressBar, ProgressStyle};

use super::{BaseArgs, interrupts};
use crate::{
    base::TrainingBase,
    eval::measure_run,
    output::{note, say},
};

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
    let lesson = RlLesson::open(&file, &methods())?;
    let setup = RlSetup::open(base, &lesson, &file)?;
    say(&format!("judges: {}\n", setup.judges.names().collect::<Vec<_>>().join(", ")));
    let run = RunFolder::open(&out, &lesson.text)?;
    let screen = Screen::new(&lesson.character.name)?;
    match setup.learn(&lesson, &run, &*interrupts()?, &screen)? {
        RlOutcome::Stopped(step) => {
            say(&format!("Stopped after step {step}. Run the same command to resume.\n"));
        }
        RlOutcome::Halted(step, reason) => {
            say(&format!("halted after step {step}: {reason}\n"));
            say(&format!("earlier adapters are in {}\n", run.file("checkpoints").display()));
        }
        RlOutcome::Finished(adapter) => {
            if lesson.config.battery {
                let model = &setup.voice.model;
                measure_run(&run, model, &lesson.character_file, Some(lesson.start))?;
                rl_report(&run, &methods())?;
                copy_report(&run)?;
            }
            let (adapter, report) = (adapter.display(), run.file("REPORT.html"));
            say(&format!("the adapter is in {adapter}, the report in {}\n", report.display()));
        }
    }
    Ok(())
}

/// What the runs of one character share: the base, as it is trained and as a game runs it, and the judges.
pub struct RlSetup {
    voice: TrainingBase,
    judges: Judges,
}

impl RlSetup {
    /// Opens what a run of this file needs.
    pub fn open(base: BaseArgs, lesson: &RlLesson, file: &Path) -> Result<Self> {
        let voice = base.open_speaking()?;
        let judges = voice.judges(&lesson.config.judges, file, &lesson.character)?;
        Ok(Self { voice, judges })
    }

    /// One run, to its end or to where it is stopped. A finished one's adapter is a character's folder.
    pub fn learn(
        &self,
        lesson: &RlLesson,
        run: &RunFolder,
        should_stop: &AtomicBool,
        screen: &Screen,
    ) -> Result<RlOutcome> {
        let Self { voice, judges } = self;
        let RlLesson { config, text, character_file, character, start, prompts, .. } = lesson;
        let offline = match config.offline {
            Some(_) => voice.examples(&lesson.offline, character, usize::MAX)?,
            None => Vec::new(),
        };
        let most = config.sampling.max_prompt_tokens + config.sampling.max_tokens;
        let preferences = ExamplePair::all(&lesson.preferences, character, &voice.model, most)?;
        let value_model = lesson.value_model.as_ref().map(|folder| {
            let (model, card) = RewardModel::open(folder, &voice.executor, &voice.model.sha256)?;
            if config.method.method().plan().values == (Values::Model { rate: 0.0 }) && card.loss != RewardLoss::Value {
                bail!(
                    "{}: scores whole replies and predicts nothing (hint: train it with `training.loss = \"value\"`)",
                    folder.display()
                );
            }
            Ok(model)
        });
        let value_model = value_model.transpose()?;
        let learner = RlLearner {
            executor: &voice.executor,
            model: &voice.model,
            character,
            start,
            prompts,
            judges,
            offline: &offline,
            preferences: &preferences,
            value_model: value_model.as_ref(),
        };
        let (methods, mut reported) = (methods(), Ok(()));
        let outcome = train(&learner, config, run, should_stop, |event| {
            if reported.is_ok() && matches!(event, RlEvent::Evaluated(_)) {
                reported = rl_report(run, &methods);
            }
            screen.show(event);
        });
        screen.bar.finish_and_clear();
        let outcome = outcome?;
        reported?;
        rl_report(run, &methods)?;
        if let RlOutcome::Finished(_) = &outcome {
            save_character(run, character_file, character, &voice.model, ("rl.toml", text))?;
            copy_report(run)?;
        }
        Ok(outcome)
    }
}

/// A bar where somebody looks; a line for every tenth iteration everywhere.
pub struct Screen {
    bar: ProgressBar,
    /// Who learns.
    name: String,
}

/// Iterations between two lines.
const LINE: u64 = 10;

impl Screen {
    pub fn new(name: &str) -> Result<Self> {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}  {eta} left");
        let bar = ProgressBar::new(0).with_style(style.context("the bar's template")?);
        Ok(Self { bar, name: name.to_owned() })
    }

    fn show(&self, event: RlEvent) {
        let Self { bar, name } = self;
        match event {
            RlEvent::Begun { step, total_steps, prompts, held_out, too_long } => {
                self.line(&format!("{prompts} prompts to learn from, {held_out} held out"));
                if too_long > 0 {
                    self.line(&format!("left out: {too_long} prompts longer than `sampling.max_prompt_tokens`"));
                }
                if step > 0 {
                    self.line(&format!("resumes after step {step} of {total_steps}"));
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
                self.line(&format!("after step {step}, held-out prompts: {}", shown(&scores)));
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
