//! `elenchus train`: a character's lines become an adapter, and judges make it better.

mod compare;
mod preferences;
mod revise;
mod reward;
mod rl;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use elenchus_lm::{ComputeDevice, Numerics, write_whole};
use elenchus_train::{
    Learner, Lesson, LessonExamples, RunFolder, SftEvent, SftOutcome, SftResult, StepReport, copy_report,
    judge::{Words, WordsSettings, read_labelled},
    report::sft_report,
    save_character, train,
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    base::TrainingBase,
    eval::measure_run,
    model,
    output::{note, say},
};

#[derive(Debug, Subcommand)]
pub enum TrainCommand {
    /// Fine-tune an adapter on a character's lines; a run that was killed resumes where it was
    Sft {
        /// The run's `training.toml`
        #[arg(value_name = "TRAINING.TOML")]
        config: PathBuf,
        /// The run's folder: metrics, samples, checkpoint, report, adapter
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        base: BaseArgs,
    },
    /// Train a judge of replies on what people wrote; a run that was killed resumes where it was
    Reward(reward::RewardArgs),
    /// Learn from judges what to say; a run that was killed resumes where it was
    Rl(rl::RlArgs),
    /// Compare methods of learning from judges: one start, one budget, several seeds; what was stopped resumes
    Compare(compare::CompareArgs),
    /// Let a chat model revise a character's answers by principles, for `train sft`; a run that was killed resumes
    Revise(revise::ReviseArgs),
    /// Let a chat model compare a character's answers, for `train reward`; a run that was killed resumes
    Preferences(preferences::PreferencesArgs),
    /// Learn from labelled verdicts what a judge's words mean: the reader that ships was made this way
    Verdicts {
        /// JSON Lines of {verdict, label: -1, 0 or 1, idx: number of what was judged}
        #[arg(long, value_name = "FILE")]
        labelled: PathBuf,
        /// Where the reader is written, as JSON
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// The base that is trained on.
#[derive(Debug, Args)]
pub struct BaseArgs {
    /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model if left out
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// How the trainer keeps the base's weights: less memory from left to right, and coarser numbers
    #[arg(long, value_name = "NUMERICS", default_value = "f32")]
    base_numerics: BaseNumerics,
    /// cpu, cuda, or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: ComputeDevice,
}

impl BaseArgs {
    fn open(self) -> Result<TrainingBase> {
        TrainingBase::open(self.base, self.base_numerics.into(), self.device)
    }

    fn open_speaking(self) -> Result<TrainingBase> {
        TrainingBase::open_speaking(self.base, self.base_numerics.into(), self.device)
    }
}

/// How the frozen base is kept while an adapter learns.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum BaseNumerics {
    /// Dequantised
    F32,
    /// Dequantised and rounded
    Bf16,
    /// As the file has it (QLoRA)
    Quantised,
}

impl From<BaseNumerics> for Numerics {
    fn from(numerics: BaseNumerics) -> Self {
        match numerics {
            BaseNumerics::F32 => Self::Exact,
            BaseNumerics::Bf16 => Self::Bf16,
            BaseNumerics::Quantised => Self::Quantised,
        }
    }
}

pub fn run(command: TrainCommand) -> Result<()> {
    match command {
        TrainCommand::Sft { config, out, base } => sft(config, out, base),
        TrainCommand::Rl(args) => rl::run(args),
        TrainCommand::Compare(args) => compare::run(args),
        TrainCommand::Reward(args) => reward::run(args),
        TrainCommand::Revise(args) => revise::run(args),
        TrainCommand::Preferences(args) => preferences::run(args),
        TrainCommand::Verdicts { labelled, out } => verdicts(&labelled, &out),
    }
}

fn sft(file: PathBuf, out: PathBuf, base: BaseArgs) -> Result<()> {
    let lesson = Lesson::open(&file)?;
    let Lesson { config, text, character_file, character, filtered, split, player_lines, .. } = &lesson;
    lesson.broken.iter().for_each(|line| note(&format!("left out: {line}")));
    say(&format!("{} pairs of {}, {} fit to learn from:\n", lesson.read, character.name, filtered.kept));
    let what = match config.held_out_fraction {
        Some(share) => format!("the last {:.0}%", share * 100.0),
        None => config.held_out_works.join(", "),
    };
    say(&format!("{} are trained on, {} of {what} measured on\n", split.train.len(), split.held_out.len()));
    // Named, because a work that was to be excluded and is misspelt would be learned unseen.
    let works: BTreeSet<&str> = split.train.iter().map(|pair| pair.work.as_str()).collect();
    say(&format!("learned from: {}\n", works.into_iter().collect::<Vec<_>>().join(", ")));
    if !player_lines.is_empty() {
        say(&format!("{} lines as a player says them are trained on as well\n", player_lines.len()));
    }

    let voice = base.open_speaking()?;
    let max_tokens = config.training.max_tokens;
    let LessonExamples { train: examples, held_out, own, persona, too_long } = lesson.examples(&voice.model)?;
    for left_out in too_long.into_iter().filter(|count| *count > 0) {
        note(&format!("left out: {left_out} pairs whose prompt alone has {max_tokens} tokens or more"));
    }
    if own == 0 || held_out.is_empty() {
        bail!("no pair fits {max_tokens} tokens (hint: raise the limit)");
    }
    let run = RunFolder::open(&out, text)?;
    if persona > 0 {
        say(&format!("{persona} examples of other personas and of {}'s own keep the persona\n", character.name));
    }
    let learner = Learner {
        executor: &voice.executor,
        model: &voice.model,
        character,
        examples: &examples,
        held_out: &held_out,
        start: lesson.start.as_deref(),
    };
    let (screen, should_stop) = (Screen::new()?, interrupts()?);
    let mut reported = Ok(());
    let outcome = train(&learner, config, &run, &should_stop, |event| {
        if reported.is_ok() && matches!(&event, SftEvent::Evaluated { step, .. } if *step > 0) {
            reported = sft_report(&run);
        }
        screen.show(event, &character.name);
    });
    screen.bar.finish_and_clear();
    let outcome = outcome?;
    reported?;
    match outcome {
        SftOutcome::Stopped(step) => {
            say(&format!("Stopped after step {step}. Run the same command to resume.\n"));
        }
        SftOutcome::Finished(adapter, result) => {
            sft_report(&run)?;
            save_character(&run, character_file, character, &voice.model, ("training.toml", text))?;
            say(&format!("{}\n", summary(&result)));
            if config.battery {
                measure_run(&run, &voice.model, character_file, None)?;
                sft_report(&run)?;
            }
            copy_report(&run)?;
            say(&format!(
                "the adapter is in {}, the report in {}\n",
                adapter.display(),
                run.file("REPORT.html").display()
            ));
        }
    }
    Ok(())
}

fn verdicts(labelled: &Path, out: &Path) -> Result<()> {
    let verdicts = read_labelled(labelled)?;
    let words = Words::train(&verdicts.iter().collect::<Vec<_>>(), WordsSettings::default());
    let words = words.with_context(|| format!("{} holds no verdicts", labelled.display()))?;
    write_whole(out, words.to_json().as_bytes()).with_context(|| out.display().to_string())?;
    say(&format!("learned from {} verdicts: {}\n", verdicts.len(), out.display()));
    Ok(())
}

/// Set by the first Ctrl-C, so that the step is finished and kept; the second ends the program at once.
fn interrupts() -> Result<Arc<AtomicBool>> {
    let should_stop = Arc::new(AtomicBool::new(false));
    let asked = should_stop.clone();
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            // What a process says that Ctrl-C ended.
            std::process::exit(130);
        }
        note("\nfinishing this step; Ctrl-C again ends at once, back to the last checkpoint");
    })
    .context("Ctrl-C cannot be heard")?;
    Ok(should_stop)
}

/// A bar where somebody looks; a line for each evaluation everywhere.
struct Screen {
    bar: ProgressBar,
}

impl Screen {
    fn new() -> Result<Self> {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}  {eta} left");
        Ok(Self { bar: ProgressBar::new(0).with_style(style.context("the bar's template")?) })
    }

    fn show(&self, event: SftEvent, name: &str) {
        let bar = &self.bar;
        match event {
            SftEvent::Begun { step, total_steps, adapter_bytes, optimiser_bytes } => {
                let (adapter, optimiser) = (model::size(adapter_bytes), model::size(optimiser_bytes));
                self.line(&format!("adapter: {adapter}, its optimiser: {optimiser} in memory"));
                if step > 0 {
                    self.line(&format!("resumes after step {step} of {total_steps}"));
                }
                bar.set_length(total_steps);
                bar.set_position(step);
                bar.reset_eta();
                bar.enable_steady_tick(Duration::from_millis(500));
            }
            SftEvent::Step(report) => {
                bar.set_message(message(&report));
                bar.set_position(report.step);
                if let Some(perplexity) = report.held_out_perplexity {
                    let (step, of, eta) = (report.step, bar.length().unwrap_or_default(), bar.eta().as_secs());
                    let left = format!("{}:{:02}:{:02} left", eta / 3600, eta / 60 % 60, eta % 60);
                    self.line(&format!(
                        "step {step} of {of}: {}, held-out perplexity {perplexity:.2}, {left}",
                        message(&report)
                    ));
                }
            }
            SftEvent::Evaluated { step, best, samples } => {
                if step == 0 && !samples.is_empty() {
                    self.line("before training, the base alone:");
                }
                for sample in samples {
                    let reply = sample.reply.replace('\n', " ");
                    self.line(&format!("    {}\n    {name} > {reply}", sample.line));
                }
                if let Some((step, perplexity)) = best {
                    self.line(&format!("best so far: step {step} with {perplexity:.2}"));
                }
            }
            SftEvent::Measured(read, of) => {
                bar.set_message("the last measure: all that is held out, base and adapter");
                bar.set_length(of as u64);
                bar.set_position(read as u64);
            }
        }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }
}

fn message(report: &StepReport) -> String {
    format!("loss {:.3}, {:.0} tokens/s", report.loss, report.tokens as f64 / report.seconds)
}

fn summary(result: &SftResult) -> String {
    let SftResult { steps, total_steps, best_step, perplexity, base_perplexity, tokens, .. } = result;
    let early =
        if steps < total_steps { format!(", ended early after {steps} of {total_steps}") } else { String::new() };
    let change = (perplexity / base_perplexity - 1.0) * 100.0;
    format!(
        "best was step {best_step}{early}: held-out perplexity {perplexity:.2}, base {base_perplexity:.2} ({change:+.1}%) over {tokens} tokens"
    )
}
