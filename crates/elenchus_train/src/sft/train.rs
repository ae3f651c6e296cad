//! Supervised fine-tuning: an adapter learns to predict a character's replies, and the best one is kept.
//!
//! A step is a function of the configuration, its number and the variables: order, masks and rates come from the seed and
//! the step alone. So variables and moments are all that a run needs to resume bit for bit. Evaluations change neither.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use candle_core::{Tensor, Var, backprop::GradStore};
use elenchus_candle::{CandleExecutor, LoraDropout, TrainableLora};
use elenchus_dialogue::{Character, Model};
use elenchus_lm::{Adapter, Linear, LoraAdapter, Precision, resident_bytes};
use serde::{Deserialize, Serialize};

use crate::{
    AdamW, Error, Example, LoraSettings, Result, RunFolder, Sample, Schedule, SftConfig, SftSettings,
    fit::{Best, End, Fit, FitSettings, RESULT, fit},
    model::forward::{passes, reply_logprobs},
    numeric::mixed,
    optim::{
        adamw::{add_gradients, set_vars},
        batches,
    },
    perplexity,
    run_folder::{Checkpoint, SAMPLES},
    samples::{Voice, samples},
    spread,
    tensorboard::Curves,
};

/// The folder of the adapter with the lowest held-out perplexity so far.
const BEST: &str = "best";
/// The folder of the adapter that a finished run gives.
const ADAPTER: &str = "adapter";
/// What evaluations are compared with.
const BASE: &str = "base.json";
/// Before the names of the best variables in a checkpoint.
const BEST_PREFIX: &str = "best.";

/// What is trained, and on what.
#[derive(Clone, Copy)]
pub struct Learner<'a> {
    /// The base; exact numerics, or quantised for a smaller memory.
    pub executor: &'a CandleExecutor,
    /// The base as it answers the samples; its name is written into the adapter.
    pub model: &'a Model,
    /// Whose replies are learned; answers the samples.
    pub character: &'a Character,
    /// Learned from.
    pub examples: &'a [Example],
    /// Measured on.
    pub held_out: &'a [Example],
    /// What training begins from; a fresh adapter if there is none.
    pub start: Option<&'a LoraAdapter>,
}

/// One step, as `metrics.jsonl` keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// From 1.
    pub step: u64,
    /// Mean negative log-probability of the targets.
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// Of this step.
    pub learning_rate: f64,
    /// Read.
    pub tokens: usize,
    /// Learned from.
    pub targets: usize,
    /// Spent on the step, evaluation left out.
    pub seconds: f64,
    /// Memory resident after the step; `None` where the system does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// Held-out reply perplexity after this step, where it was measured; over the same examples each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_perplexity: Option<f64>,
}

impl Curves for StepReport {
    fn step(&self) -> u64 {
        self.step
    }

    fn seconds(&self) -> f64 {
        self.seconds
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        let mut scalars = vec![
            ("train/loss", self.loss),
            ("train/grad_norm", self.grad_norm),
            ("train/learning_rate", self.learning_rate),
        ];
        if self.seconds > 0.0 {
            scalars.push(("train/tokens_per_second", self.tokens as f64 / self.seconds));
        }
        scalars.extend(self.held_out_perplexity.map(|value| ("held_out/perplexity", value)));
        scalars.extend(self.resident_bytes.map(|value| ("memory/resident_bytes", value as f64)));
        scalars.into_iter().map(|(tag, value)| (tag.to_owned(), value)).collect()
    }
}

/// The result of a finished run, over all held-out examples; `result.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SftResult {
    /// Steps taken; fewer than `total_steps` where the run ended early.
    pub steps: u64,
    /// Steps planned.
    pub total_steps: u64,
    /// After how many steps the adapter was best.
    pub best_step: u64,
    /// Held-out reply perplexity of that adapter as it ships, end tokens left out.
    pub perplexity: f64,
    /// Of the base alone.
    pub base_perplexity: f64,
    /// Tokens measured.
    pub tokens: usize,
    /// Perplexity of the tokens that end replies; `None` where all replies were cut.
    pub end_perplexity: Option<f64>,
    /// Of the base alone.
    pub base_end_perplexity: Option<f64>,
    /// End tokens measured.
    pub end_tokens: usize,
}

/// The base over the held-out examples that evaluations measure, so that like is compared with like; `base.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct BaseResult {
    /// `None` where replies have no tokens but their ends.
    perplexity: Option<f64>,
    tokens: usize,
}

/// How a call of [`train`] ended.
#[derive(Debug, Clone, PartialEq)]
pub enum SftOutcome {
    /// The run is over; its adapter is in this folder.
    Finished(PathBuf, SftResult),
    /// It was stopped after this step, and resumes from there.
    Stopped(u64),
}

/// What a run reports on its way.
#[derive(Debug, Clone, PartialEq)]
pub enum SftEvent {
    /// Training begins, or resumes.
    Begun {
        /// Steps taken before.
        step: u64,
        /// Steps planned.
        total_steps: u64,
        /// Bytes of the variables.
        adapter_bytes: usize,
        /// Bytes of the optimiser's moments.
        optimiser_bytes: usize,
    },
    /// A step was taken.
    Step(StepReport),
    /// What the character answers now; at step 0 the base alone. After an evaluating step's `Step`.
    Evaluated {
        /// Steps taken.
        step: u64,
        /// The best step so far and its held-out perplexity; `None` at step 0.
        best: Option<(u64, f64)>,
        /// Question and answer.
        samples: Vec<Sample>,
    },
    /// The last measure: this many of so many examples were read, those of base and adapter together.
    Measured(usize, usize),
}

/// Trains to the end, or resumes from a killed run's last checkpoint. The best adapter lies in `adapter/` of the run, f16.
/// `should_stop` is read after each step: the run then ends with a checkpoint.
pub fn train(
    learner: &Learner<'_>,
    config: &SftConfig,
    run: &RunFolder,
    should_stop: &AtomicBool,
    mut on_event: impl FnMut(SftEvent),
) -> Result<SftOutcome> {
    let Learner { executor, model, examples, held_out, start, .. } = *learner;
    let settings = &config.training;
    let refuse = |reason: String| Error::Config { file: "training.toml".to_owned(), reason };
    let linears = config.linears().map_err(|reason| refuse(format!("`lora.targets` {reason}")))?;
    if examples.is_empty() || held_out.is_empty() {
        let (train, eval) = (examples.len(), held_out.len());
        return Err(refuse(format!(
            "{train} examples to learn from and {eval} to measure on (hint: loosen `filters`)"
        )));
    }
    if let Some(start) = start {
        check_start(start, config, &linears).map_err(refuse)?;
    }
    let _alone = run.lock()?;
    let schedule = settings.schedule(examples.len());
    let total_steps = schedule.total_steps;
    let fresh = || match start {
        Some(start) => TrainableLora::new(start, executor),
        None => TrainableLora::fresh(executor, &linears, config.lora.rank, config.lora.alpha, settings.seed),
    };
    let lora = fresh()?;
    let mut training = SftFit {
        learner,
        config,
        run,
        schedule,
        measured: spread(held_out, settings.eval_examples),
        optimiser: AdamW::new(lora.vars(), settings.adamw)?,
        fresh: &fresh,
        best: None,
        lora,
        on_event: &mut on_event,
    };
    let how_far = FitSettings { patience: settings.patience, ..settings.optim().fit(total_steps) };
    let (step, best_step) = match fit(&mut training, run, how_far, should_stop)? {
        End::Over { step, best, stops: false } => (step, best.map(|(step, _)| step)),
        End::Over { step, .. } | End::Stopped(step) | End::Halted(step, _) => return Ok(SftOutcome::Stopped(step)),
    };
    let best = training.best.zip(best_step).ok_or_else(|| Error::Run {
        folder: run.file(""),
        reason: "its checkpoint is of the last step but has no best one (hint: delete it to start over)".to_owned(),
    })?;
    let (best, best_step) = best;
    let folder = run.file(ADAPTER);
    best.to_adapter(ADAPTER)?.save(&folder, &model.name, Precision::F16)?;
    if let Some(result) = run.json(RESULT)? {
        return Ok(SftOutcome::Finished(folder, result));
    }
    // What is measured is what ships, rounded to f16.
    let shipped = TrainableLora::new(&LoraAdapter::open(&folder)?, executor)?;
    let mut measure = |lora: Option<&TrainableLora>, before: usize| {
        perplexity(executor, lora, held_out, |read| on_event(SftEvent::Measured(before + read, 2 * held_out.len())))
    };
    let base = measure(None, 0)?;
    if should_stop.load(Ordering::Relaxed) {
        return Ok(SftOutcome::Stopped(step));
    }
    let adapted = measure(Some(&shipped), held_out.len())?;
    let result = SftResult {
        steps: step,
        total_steps,
        best_step,
        perplexity: adapted.of_tokens(),
        base_perplexity: base.of_tokens(),
        tokens: adapted.tokens,
        end_perplexity: finite(adapted.of_ends()),
        base_end_perplexity: finite(base.of_ends()),
        end_tokens: adapted.end_tokens,
    };
    run.write_json(RESULT, &result)?;
    Ok(SftOutcome::Finished(folder, result))
}

/// Supervised fine-tuning as the loop sees it.
struct SftFit<'a> {
    learner: &'a Learner<'a>,
    config: &'a SftConfig,
    run: &'a RunFolder,
    schedule: Schedule,
    /// The held-out examples that evaluations measure.
    measured: Vec<Example>,
    lora: TrainableLora,
    optimiser: AdamW,
    /// Variables as a run begins.
    fresh: &'a dyn Fn() -> elenchus_lm::Result<TrainableLora>,
    /// The variables with the lowest held-out perplexity.
    best: Option<TrainableLora>,
    on_event: &'a mut dyn FnMut(SftEvent),
}

impl Fit for SftFit<'_> {
    type Report = StepReport;

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<u64> {
        self.optimiser.restore(checkpoint.step, &checkpoint.tensors)?;
        set_vars(&self.lora.vars(), &checkpoint.tensors, "")?;
        if checkpoint.best.is_some() {
            let lora = (self.fresh)()?;
            set_vars(&lora.vars(), &checkpoint.tensors, BEST_PREFIX)?;
            self.best = Some(lora);
        }
        Ok(checkpoint.step)
    }

    fn begin(&mut self, step: u64, _: Option<Best>, _: Vec<StepReport>) -> Result<()> {
        self.run.keep_lines(SAMPLES, |sample: &Sample| step > 0 && sample.step <= step)?;
        self.save_best()?;
        let adapter_bytes = self.lora.vars().iter().map(|(_, var)| var.elem_count() * size_of::<f32>()).sum();
        (self.on_event)(SftEvent::Begun {
            step,
            total_steps: self.schedule.total_steps,
            adapter_bytes,
            optimiser_bytes: 2 * adapter_bytes,
        });
        if step == 0 {
            let samples = self.sample(0, false)?;
            (self.on_event)(SftEvent::Evaluated { step, best: None, samples });
        }
        if self.run.json::<BaseResult>(BASE)?.is_none() {
            let base = perplexity(self.learner.executor, None, &self.measured, |_| {})?;
            self.run.write_json(BASE, &BaseResult { perplexity: finite(base.of_tokens()), tokens: base.tokens })?;
        }
        Ok(())
    }

    fn step(&mut self, step: u64) -> Result<StepReport> {
        let settings = &self.config.training;
        let started = Instant::now();
        let batch = batch(self.learner.examples, settings, step);
        let mut dropout = LoraDropout::new(self.config.lora.dropout, mixed(settings.seed, step));
        let (loss, targets, grads) = gradients(self.learner.executor, &self.lora, &batch, &mut dropout, settings)?;
        if !loss.is_finite() {
            return Err(Error::Diverged { step, loss });
        }
        let learning_rate = self.schedule.rate(step);
        let grad_norm = self.optimiser.clipped_step(&grads, settings.max_grad_norm, learning_rate)?;
        drop(grads);
        Ok(StepReport {
            step: step + 1,
            loss,
            grad_norm,
            learning_rate,
            tokens: batch.iter().map(|example| example.tokens.len()).sum(),
            targets,
            seconds: started.elapsed().as_secs_f64(),
            resident_bytes: resident_bytes(),
            held_out_perplexity: None,
        })
    }

    fn measure(&mut self, report: &mut StepReport) -> Result<Option<f64>> {
        let perplexity = perplexity(self.learner.executor, Some(&self.lora), &self.measured, |_| {})?.of_tokens();
        if !perplexity.is_finite() {
            return Err(Error::Diverged { step: report.step, loss: perplexity.ln() });
        }
        report.held_out_perplexity = Some(perplexity);
        Ok(Some(perplexity))
    }

    fn keep_best(&mut self) -> Result<()> {
        self.best = Some(TrainableLora::new(&self.lora.to_adapter(BEST)?, self.learner.executor)?);
        self.save_best()
    }

    fn stepped(&mut self, report: StepReport) {
        (self.on_event)(SftEvent::Step(report));
    }

    fn evaluate(&mut self, step: u64, best: Option<Best>) -> Result<()> {
        let samples = self.sample(step, true)?;
        (self.on_event)(SftEvent::Evaluated { step, best, samples });
        Ok(())
    }

    fn checkpoint(&self, _: u64) -> Result<Checkpoint> {
        let (step, mut tensors) = self.optimiser.state();
        let mut keep = |lora: &TrainableLora, prefix: &str| {
            let named = |(name, var): (String, Var)| (format!("{prefix}{name}"), var.as_tensor().clone());
            tensors.extend(lora.vars().into_iter().map(named));
        };
        keep(&self.lora, "");
        if let Some(best) = &self.best {
            keep(best, BEST_PREFIX);
        }
        Ok(Checkpoint { step, tensors, best: None, state: serde_json::Value::Null })
    }
}

impl SftFit<'_> {
    /// What the character answers now, with its adapter or without.
    fn sample(&self, step: u64, adapted: bool) -> Result<Vec<Sample>> {
        let Learner { model, character, .. } = *self.learner;
        let settings = &self.config.training;
        let adapter = match adapted {
            true => Some(Adapter { lora: Arc::new(self.lora.to_adapter("sample")?), scale: character.adapter_scale }),
            false => None,
        };
        let voice = Voice { model, character };
        let samples = samples(voice, adapter.as_ref(), &settings.samples, settings.seed, step)?;
        samples.iter().try_for_each(|sample| self.run.append(SAMPLES, sample))?;
        Ok(samples)
    }

    /// Brings `best/` to what the run knows as best.
    fn save_best(&self) -> Result<()> {
        let folder = self.run.file(BEST);
        match &self.best {
            Some(best) => Ok(best.to_adapter(BEST)?.save(&folder, &self.learner.model.name, Precision::F16)?),
            // A killed run may have left one of a step that is taken again.
            None if folder.is_dir() => {
                fs::remove_dir_all(&folder).map_err(|cause| Error::File { file: folder, cause, hint: "" })
            }
            None => Ok(()),
        }
    }
}

/// JSON has no word for what is not finite.
fn finite(number: f64) -> Option<f64> {
    Some(number).filter(|number| number.is_finite())
}

/// An adapter to begin from has the shape that the configuration asks for: what is written in it is what is trained.
fn check_start(start: &LoraAdapter, config: &SftConfig, linears: &[Linear]) -> Result<(), String> {
    let LoraSettings { rank, alpha, .. } = config.lora;
    let pairs = start.pairs();
    for (&(layer, linear), pair) in &pairs {
        let its_alpha = pair.scaling * pair.rank as f32;
        if pair.rank != rank || (its_alpha - alpha).abs() > 1e-3 * alpha.abs() {
            return Err(format!(
                "`lora.start` has rank {} and alpha {its_alpha} on {linear} of layer {layer}, `lora` rank {rank} and alpha {alpha} (hint: write those of the start, or leave it out)",
                pair.rank
            ));
        }
        if !linears.contains(&linear) {
            return Err(format!("`lora.start` adapts {linear}, `lora.targets` does not (hint: name the same linears)"));
        }
    }
    let has = |linear: &Linear| pairs.keys().any(|(_, known)| known == linear);
    match linears.iter().find(|linear| !has(linear)) {
        Some(linear) => Err(format!(
            "`lora.targets` names {linear}, which `lora.start` does not adapt (hint: name the same linears)"
        )),
        None => Ok(()),
    }
}

/// The examples of a step, the first being 0. Each epoch has an order of its own.
pub fn batch<'a>(examples: &'a [Example], settings: &SftSettings, step: u64) -> Vec<&'a Example> {
    batches::batch(examples, settings.batch, settings.seed, step)
}

/// Mean loss over all targets of a batch, each counted by its example's weight, their number, and the gradients, in as many passes as its tokens need.
pub fn gradients(
    executor: &CandleExecutor,
    lora: &TrainableLora,
    batch: &[&Example],
    dropout: &mut LoraDropout,
    settings: &SftSettings,
) -> Result<(f64, usize, GradStore)> {
    let activations = settings.optim().activations();
    let reply = |example: &Example| example.tokens.len() - example.reply_start;
    let targets: usize = batch.iter().map(|example| reply(example)).sum();
    let counted: f64 = batch.iter().map(|example| reply(example) as f64 * f64::from(example.weight)).sum();
    let mut sums: Option<(f64, GradStore)> = None;
    // Neighbours share what they begin with.
    let mut batch = batch.to_vec();
    batch.sort_by(|a, b| a.tokens.cmp(&b.tokens));
    for pass in passes(&batch, settings.pass_tokens) {
        let logprobs = reply_logprobs(executor, Some(lora), pass, Some(dropout), activations)?;
        let weights: Vec<f32> =
            pass.iter().flat_map(|example| std::iter::repeat_n(example.weight, reply(example))).collect();
        let weights = Tensor::new(weights, logprobs.device())?;
        let loss = ((logprobs * weights)?.sum_all()? * (-1.0 / counted))?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let grads = loss.backward()?;
        sums = Some(match sums {
            None => (value, grads),
            Some((sum, mut all)) => {
                add_gradients(&lora.vars(), &mut all, &grads)?;
                (sum + value, all)
            }
        });
    }
    let (loss, grads) = sums.ok_or_else(|| elenchus_lm::Error::Batch("a step without examples".to_owned()))?;
    Ok((loss, targets, grads))
}
