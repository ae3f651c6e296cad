//! `elenchus train reward`: what people wrote becomes a judge of what a character says.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use elenchus_train::{
    Accuracy, Calibration, ExamplePair, Preference, Preferences, RewardCard, RewardEvent, RewardKind, RewardLearner,
    RewardLesson, RewardOutcome, RewardStep, RunFolder, report::reward_report, train_reward,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{BaseArgs, interrupts};
use crate::{
    base::TrainingBase,
    output::{note, print, say},
};

/// Beyond this a model may well have learned length.
const LENGTH_TELLS: f64 = 0.55;

#[derive(Debug, Args)]
pub struct RewardArgs {
    /// What is preferred to what
    #[arg(value_name = "REWARD.TOML")]
    config: PathBuf,
    /// The run's folder: metrics, checkpoint, and the model in `reward/`
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    base: BaseArgs,
    /// Train a control as well, in `shuffled_labels/`: the same with sides sampled at random, which has nothing to learn
    #[arg(long)]
    shuffled_labels: bool,
    /// Train a model for each fold of written preferences, in `fold-K/`, and pool their accuracies: what such preferences
    /// are worth, every one of them measured once
    #[arg(long, conflicts_with = "shuffled_labels")]
    folds: bool,
    /// Print what was measured as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: RewardArgs) -> Result<()> {
    let RewardArgs { config: file, out, base, shuffled_labels, folds, json } = args;
    let tell = |text: &str| if json { note(text) } else { say(&format!("{text}\n")) };
    let lesson = RewardLesson::open(&file)?;
    ensure!(
        !folds || lesson.config.kind == RewardKind::Preferences,
        "--folds is for `kind = \"preferences\"`: texts are held out by work (hint: leave it out)"
    );
    describe(&lesson, &tell);

    let voice = base.open()?;
    let should_stop = interrupts()?;
    let mut cards = Vec::new();
    if folds {
        for fold in 0..lesson.config.folds {
            let lesson = RewardLesson::open_fold(&file, Some(fold))?;
            let of_fold = out.join(format!("fold-{fold}"));
            let Some(card) = learn(&lesson, &voice, &of_fold, false, &should_stop, &tell)? else { return Ok(()) };
            cards.push(card);
        }
        tell(&format!("held-out accuracy over {} folds: {} pairs", cards.len(), pooled(&cards).0));
    } else {
        let Some(card) = learn(&lesson, &voice, &out, false, &should_stop, &tell)? else { return Ok(()) };
        cards.push(card);
    }
    if shuffled_labels {
        let control = learn(&lesson, &voice, &out.join("shuffled_labels"), true, &should_stop, &tell)?;
        let Some(control) = control else { return Ok(()) };
        cards.push(control);
    }
    let run = RunFolder::open(&out, &lesson.text)?;
    reward_report(&run, &cards)?;
    tell(&format!("the report is in {}", run.file("REPORT.html").display()));
    if json {
        let all = if folds {
            let (held_out, calibration) = pooled(&cards);
            json!({ "folds": cards, "held_out": held_out, "calibration": calibration })
        } else {
            json!(cards)
        };
        print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    }
    Ok(())
}

fn pooled(folds: &[RewardCard]) -> (Accuracy, Calibration) {
    let calibrations = folds.iter().filter_map(|card| card.calibration.as_ref());
    (Accuracy::pooled(folds.iter().map(|card| &card.held_out)), Calibration::pooled(calibrations))
}

/// What there is to learn, before anything is.
fn describe(lesson: &RewardLesson, tell: &impl Fn(&str)) {
    lesson.broken.iter().for_each(|line| note(&format!("left out: {line}")));
    let RewardLesson { config, preferences, character, .. } = lesson;
    let Preferences { train, held_out, unmatched } = preferences;
    let (train, held_out) = (train.len(), held_out.len());
    if config.kind == RewardKind::Preferences {
        let (what, fold, folds) = (config.aspect.as_deref().unwrap_or("all"), config.fold, config.folds);
        tell(&format!(
            "preferences ({what}) under {}: {train} to train on, {held_out} of fold {fold} of {folds} to measure on, {unmatched} ties dropped",
            character.name
        ));
    } else {
        tell(&format!(
            "{} of {}: {train} preferences to train on, {held_out} of {} to measure on, {unmatched} replies without another of like length",
            config.kind.name(),
            character.name,
            config.held_out_works.join(", "),
        ));
        // Named, because a work that was to be excluded and is misspelt would be learned unseen.
        tell(&format!("learned from: {}", lesson.works.iter().map(String::as_str).collect::<Vec<_>>().join(", ")));
    }
    let length_only = preferences.length_only_accuracy();
    tell(&format!("length alone predicts {:.1}% of what is held out", length_only * 100.0));
    if (length_only - 0.5).abs() > LENGTH_TELLS - 0.5 {
        note("length tells replies apart, so a model may learn it (hint: more texts to match lengths in)");
    }
}

/// One run; `None` if it was stopped.
fn learn(
    lesson: &RewardLesson,
    voice: &TrainingBase,
    out: &Path,
    shuffled_labels: bool,
    should_stop: &AtomicBool,
    tell: &impl Fn(&str),
) -> Result<Option<RewardCard>> {
    let (config, preferences) = (&lesson.config, &lesson.preferences);
    let mut train = examples(lesson, voice, &preferences.train)?;
    let mut held_out = examples(lesson, voice, &preferences.held_out)?;
    if shuffled_labels {
        ExamplePair::shuffle_labels(&mut train, config.training.seed);
        ExamplePair::shuffle_labels(&mut held_out, config.training.seed + 1);
    }
    let learner = RewardLearner {
        executor: &voice.executor,
        model: &voice.model,
        character: &lesson.character.name,
        train: &train,
        held_out: &held_out,
        length_only_accuracy: preferences.length_only_accuracy(),
        shuffled_labels,
    };
    let (run, screen) = (RunFolder::open(out, &lesson.text)?, Screen::new()?);
    let outcome = train_reward(&learner, config, &run, should_stop, |event| screen.show(event));
    screen.bar.finish_and_clear();
    Ok(match outcome? {
        RewardOutcome::Stopped(step) => {
            tell(&format!("Stopped after step {step}. Run the same command to resume."));
            None
        }
        RewardOutcome::Finished(folder, card) => {
            let what = if shuffled_labels { "control with shuffled labels" } else { "held-out accuracy" };
            tell(&format!(
                "{what}: {} pairs; the number of words alone {:.1}%, of tokens {:.1}%",
                card.held_out,
                card.length_only_accuracy * 100.0,
                card.token_count_only_accuracy * 100.0
            ));
            tell(&format!("the model is in {}", folder.display()));
            Some(*card)
        }
    })
}

fn examples(lesson: &RewardLesson, voice: &TrainingBase, preferences: &[Preference]) -> Result<Vec<ExamplePair>> {
    let max_tokens = lesson.config.training.max_tokens;
    let examples = ExamplePair::all(preferences, &lesson.character, &voice.model, max_tokens)?;
    if examples.len() < preferences.len() {
        let left_out = preferences.len() - examples.len();
        note(&format!("left out: {left_out} pairs whose prompt alone has {max_tokens} tokens or more"));
    }
    if examples.is_empty() {
        bail!("no pair fits {max_tokens} tokens (hint: raise `training.max_tokens`)");
    }
    Ok(examples)
}

/// A bar where somebody looks; a line for each measure everywhere.
struct Screen {
    bar: ProgressBar,
}

impl Screen {
    fn new() -> Result<Self> {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}  {eta} left");
        Ok(Self { bar: ProgressBar::new(0).with_style(style.context("the bar's template")?) })
    }

    fn show(&self, event: RewardEvent) {
        let bar = &self.bar;
        match event {
            RewardEvent::Begun { step, total_steps } => {
                if step > 0 {
                    self.line(&format!("resumes after step {step} of {total_steps}"));
                }
                bar.set_length(total_steps);
                bar.set_position(step);
                bar.reset_eta();
                bar.enable_steady_tick(Duration::from_millis(500));
            }
            RewardEvent::Step(report) => {
                bar.set_message(message(&report));
                bar.set_position(report.step);
                if let Some(accuracy) = report.held_out_accuracy {
                    let (step, of, accuracy) = (report.step, bar.length().unwrap_or_default(), accuracy * 100.0);
                    self.line(&format!("step {step} of {of}: {}, held-out accuracy {accuracy:.1}%", message(&report)));
                }
            }
            RewardEvent::Measuring(pairs) => bar.set_message(format!("the last measure: {pairs} pairs held out")),
        }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }
}

fn message(report: &RewardStep) -> String {
    let accuracy = report.accuracy * 100.0;
    format!("loss {:.3}, accuracy {accuracy:.0}%, {:.0} tokens/s", report.loss, report.tokens as f64 / report.seconds)
}
