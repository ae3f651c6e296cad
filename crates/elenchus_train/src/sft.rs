//! Supervised fine-tuning: an adapter learns to foresee a character's replies, and the best one it ever was is kept.
//!
//! A step is a function of the configuration, its number and the variables: order, masks and rates come from the seed and
//! the step alone. So a resumed run needs only variables and moments to go on bit for bit. Evaluations change neither.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use candle_core::{Tensor, backprop::GradStore};
use elenchus_candle::{Activations, CandleExecutor, LoraDropout, TrainableLora};
use elenchus_dialogue::{Character, Model};
use elenchus_lm::{Adapter, Linear, LoraAdapter, Precision, resident_bytes};
use serde::{Deserialize, Serialize};

use crate::{
    AdamW, Error, Example, LoraSettings, Result, RunFolder, Sample, SftConfig, SftSettings,
    adamw::{add_gradients, set_vars},
    forward::{passes, reply_logprobs},
    order::{self, mixed},
    perplexity, report,
    run_folder::{Checkpoint, METRICS, SAMPLES},
    samples::{Voice, samples},
    spread,
    tensorboard::{Curves, EventFile},
};

/// The folder of the adapter with the lowest held-out perplexity so far.
const BEST: &str = "best";
/// The folder of the adapter that a finished run gives.
const ADAPTER: &str = "adapter";
const RESULT: &str = "result.json";
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
    /// Begun from; a fresh adapter if there is none.
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

/// What a finished run came to, over all held-out examples; `result.json`.
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
    /// It was stopped behind this step, and goes on from there.
    Stopped(u64),
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum SftEvent {
    /// Training begins, or goes on.
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
    /// What the character answers now; at step 0 the base alone. Behind an evaluating step's `Step`.
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

/// Variables that were best, and when.
struct Best {
    step: u64,
    perplexity: f64,
    lora: TrainableLora,
}

/// Trains to the end, or goes on where a killed run's last checkpoint was. The best adapter lies in `adapter/` of the run,
/// f16. `should_stop` is looked at after each step: the run then ends with a checkpoint.
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
    let _alone = run.lock()?;
    let schedule = settings.schedule(examples.len());
    let total_steps = schedule.total_steps;
    if let Some(start) = start {
        check_start(start, config, &linears).map_err(refuse)?;
    }
    let begun = || match start {
        Some(start) => TrainableLora::new(start, executor),
        None => TrainableLora::fresh(executor, &linears, config.lora.rank, config.lora.alpha, settings.seed),
    };
    let lora = begun()?;
    let mut optimiser = AdamW::new(lora.vars(), settings.adamw)?;
    let (mut step, mut best) = (0, None);
    if let Some(checkpoint) = run.load_checkpoint()? {
        optimiser.restore(checkpoint.step, &checkpoint.tensors)?;
        set_vars(&lora.vars(), &checkpoint.tensors, "")?;
        step = checkpoint.step;
        if let Some((step, perplexity)) = checkpoint.best {
            let lora = begun()?;
            set_vars(&lora.vars(), &checkpoint.tensors, BEST_PREFIX)?;
            best = Some(Best { step, perplexity, lora });
        }
    }
    let begin = step;
    run.keep_lines(METRICS, |report: &StepReport| report.step <= begin)?;
    run.keep_lines(SAMPLES, |sample: &Sample| begin > 0 && sample.step <= begin)?;
    let curves = EventFile::rewrite(run, &run.metrics::<StepReport>()?)?;
    keep_best(run, best.as_ref(), &model.name)?;
    let adapter_bytes = lora.vars().iter().map(|(_, var)| var.elem_count() * size_of::<f32>()).sum();
    on_event(SftEvent::Begun { step, total_steps, adapter_bytes, optimiser_bytes: 2 * adapter_bytes });

    let is_over = |step: u64, best: Option<&Best>| {
        let evaluations = |step: u64| step / settings.eval_steps;
        let since = best.map_or(0, |best| evaluations(step) - evaluations(best.step));
        step == total_steps || settings.patience.is_some_and(|patience| since >= patience)
    };
    let sample = |step: u64, lora: Option<&TrainableLora>| {
        let Learner { model, character, .. } = *learner;
        let adapter = |lora: &TrainableLora| {
            let scale = character.adapter_scale;
            Ok::<_, Error>(Adapter { lora: Arc::new(lora.to_adapter("sample")?), scale })
        };
        let (voice, adapter) = (Voice { model, character }, lora.map(adapter).transpose()?);
        let samples = samples(voice, adapter.as_ref(), &settings.samples, settings.seed, step)?;
        samples.iter().try_for_each(|sample| run.append(SAMPLES, sample))?;
        Ok::<_, Error>(samples)
    };
    if step == 0 {
        let samples = sample(0, None)?;
        on_event(SftEvent::Evaluated { step, best: None, samples });
    }
    let measured = spread(held_out, settings.eval_examples);
    if run.json::<BaseResult>(BASE)?.is_none() {
        let base = perplexity(executor, None, &measured, |_| {})?;
        let base = BaseResult { perplexity: finite(base.of_tokens()), tokens: base.tokens };
        run.write_json(BASE, &base)?;
    }

    while !is_over(step, best.as_ref()) {
        run.remove(RESULT)?;
        let started = Instant::now();
        let batch = batch(examples, settings, step);
        let mut dropout = LoraDropout::new(config.lora.dropout, mixed(settings.seed, step));
        let (loss, targets, grads) = gradients(executor, &lora, &batch, &mut dropout, settings)?;
        if !loss.is_finite() {
            return Err(Error::Diverged { step, loss });
        }
        let grad_norm = optimiser.grad_norm(&grads)?;
        let learning_rate = schedule.rate(step);
        optimiser.step(&grads, (settings.max_grad_norm / grad_norm.max(1e-12)).min(1.0), learning_rate)?;
        drop(grads);
        let seconds = started.elapsed().as_secs_f64();
        step += 1;

        let mut report = StepReport {
            step,
            loss,
            grad_norm,
            learning_rate,
            tokens: batch.iter().map(|example| example.tokens.len()).sum(),
            targets,
            seconds,
            resident_bytes: resident_bytes(),
            held_out_perplexity: None,
        };
        let evaluates = step == total_steps || step.is_multiple_of(settings.eval_steps);
        if evaluates {
            let perplexity = perplexity(executor, Some(&lora), &measured, |_| {})?.of_tokens();
            if !perplexity.is_finite() {
                return Err(Error::Diverged { step, loss: perplexity.ln() });
            }
            report.held_out_perplexity = Some(perplexity);
            if best.as_ref().is_none_or(|best| perplexity < best.perplexity) {
                let lora = TrainableLora::new(&lora.to_adapter(BEST)?, executor)?;
                best = Some(Best { step, perplexity, lora });
                keep_best(run, best.as_ref(), &model.name)?;
            }
        }
        run.append(METRICS, &report)?;
        curves.append(&report)?;
        on_event(SftEvent::Step(report));
        if evaluates {
            let samples = sample(step, Some(&lora))?;
            report::write(run)?;
            let best = best.as_ref().map(|best| (best.step, best.perplexity));
            on_event(SftEvent::Evaluated { step, best, samples });
        }
        let stops = should_stop.load(Ordering::Relaxed);
        if stops || is_over(step, best.as_ref()) || step.is_multiple_of(settings.checkpoint_steps) {
            run.save_checkpoint(&checkpoint(&lora, &optimiser, best.as_ref()))?;
        }
        if stops {
            return Ok(SftOutcome::Stopped(step));
        }
    }
    let best = best.ok_or_else(|| Error::Run {
        folder: run.file(""),
        reason: "its checkpoint is of the last step but knows no best one (hint: delete it to start over)".to_owned(),
    })?;
    let folder = run.file(ADAPTER);
    best.lora.to_adapter(ADAPTER)?.save(&folder, &model.name, Precision::F16)?;
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
    let worn = measure(Some(&shipped), held_out.len())?;
    let result = SftResult {
        steps: step,
        total_steps,
        best_step: best.step,
        perplexity: worn.of_tokens(),
        base_perplexity: base.of_tokens(),
        tokens: worn.tokens,
        end_perplexity: finite(worn.of_ends()),
        base_end_perplexity: finite(base.of_ends()),
        end_tokens: worn.end_tokens,
    };
    run.write_json(RESULT, &result)?;
    report::write(run)?;
    Ok(SftOutcome::Finished(folder, result))
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

/// Brings `best/` to what the run knows as best.
fn keep_best(run: &RunFolder, best: Option<&Best>, base_model_name: &str) -> Result<()> {
    let folder = run.file(BEST);
    match best {
        Some(best) => Ok(best.lora.to_adapter(BEST)?.save(&folder, base_model_name, Precision::F16)?),
        // A killed run may have left one of a step that is taken again.
        None if folder.is_dir() => {
            fs::remove_dir_all(&folder).map_err(|cause| Error::File { file: folder, cause, hint: "" })
        }
        None => Ok(()),
    }
}

/// The examples of a step, the first being 0. Each epoch has an order of its own.
pub fn batch<'a>(examples: &'a [Example], settings: &SftSettings, step: u64) -> Vec<&'a Example> {
    order::batch(examples, settings.batch, settings.seed, step)
}

/// Mean loss over all targets of a batch, each counted by its example's weight, their number, and the gradients, in as many passes as its tokens need.
pub fn gradients(
    executor: &CandleExecutor,
    lora: &TrainableLora,
    batch: &[&Example],
    dropout: &mut LoraDropout,
    settings: &SftSettings,
) -> Result<(f64, usize, GradStore)> {
    let activations = if settings.gradient_checkpointing { Activations::Recompute } else { Activations::Keep };
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

fn checkpoint(lora: &TrainableLora, optimiser: &AdamW, best: Option<&Best>) -> Checkpoint {
    let (step, mut tensors) = optimiser.state();
    let mut keep = |lora: &TrainableLora, prefix: &str| {
        tensors.extend(lora.vars().into_iter().map(|(name, var)| (format!("{prefix}{name}"), var.as_tensor().clone())));
    };
    keep(lora, "");
    if let Some(best) = best {
        keep(&best.lora, BEST_PREFIX);
    }
    Checkpoint { step, tensors, best: best.map(|best| (best.step, best.perplexity)), state: serde_json::Value::Null }
}
