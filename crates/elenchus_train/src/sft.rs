//! Supervised fine-tuning: an adapter learns to foresee a character's replies.
//!
//! A step is a function of the configuration, its number and the variables: order, masks and rates come from the seed and
//! the step alone. So a resumed run needs only variables and moments to go on bit for bit.

use std::{collections::HashMap, path::PathBuf, time::Instant};

use candle_core::{Tensor, backprop::GradStore};
use elenchus_lm::{CandleExecutor, LoraDropout, Precision, TrainableLora};
use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use crate::{
    AdamW, Error, Example, Result, RunFolder, SftConfig, SftSettings,
    forward::{passes, reply_logprobs},
    perplexity,
    run_folder::Checkpoint,
};

/// What is trained, and on what.
pub struct Learner<'a> {
    /// The base; exact numerics, or quantised for a smaller memory.
    pub executor: &'a CandleExecutor,
    /// Written into the adapter.
    pub base_model_name: &'a str,
    /// Learned from.
    pub examples: &'a [Example],
    /// Measured on.
    pub held_out: &'a [Example],
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
    /// Spent.
    pub seconds: f64,
    /// Held-out reply perplexity after this step, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_perplexity: Option<f64>,
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum SftEvent {
    /// Goes on behind this many of so many steps.
    Begun(u64, u64),
    /// A step was taken.
    Step(StepReport),
}

/// Trains to the end, or goes on where a killed run's last checkpoint was; the adapter lies in `adapter/` of the run, f16.
/// Returns its folder.
pub fn train(
    learner: &Learner<'_>,
    config: &SftConfig,
    run: &RunFolder,
    mut on_event: impl FnMut(SftEvent),
) -> Result<PathBuf> {
    let Learner { executor, base_model_name, examples, held_out } = *learner;
    let settings = &config.training;
    let refuse = |reason: String| Error::Config { file: "training.toml".to_owned(), reason };
    let linears = config.linears().map_err(refuse)?;
    if examples.is_empty() || held_out.is_empty() {
        let (train, eval) = (examples.len(), held_out.len());
        return Err(refuse(format!(
            "{train} examples to learn from and {eval} to measure on (hint: loosen `filters`)"
        )));
    }
    let schedule = settings.schedule(examples.len());
    let total_steps = schedule.total_steps;
    let lora = TrainableLora::fresh(executor, &linears, config.lora.rank, config.lora.alpha, settings.seed)?;
    let mut optimiser = AdamW::new(lora.vars(), settings.adamw)?;
    let begin = match run.load_checkpoint()? {
        Some(checkpoint) => restore(&lora, &mut optimiser, &checkpoint)?,
        None => 0,
    };
    run.keep_metrics(|report: &StepReport| report.step <= begin)?;
    on_event(SftEvent::Begun(begin, total_steps));

    for step in begin..total_steps {
        let started = Instant::now();
        let batch = batch(examples, settings, step);
        let mut dropout = LoraDropout::new(config.lora.dropout, mixed(settings.seed, step));
        let (loss, targets, grads) = gradients(executor, &lora, &batch, &mut dropout, settings.pass_tokens)?;
        if !loss.is_finite() {
            return Err(Error::Diverged { step, loss });
        }
        let grad_norm = optimiser.grad_norm(&grads)?;
        let learning_rate = schedule.rate(step);
        optimiser.step(&grads, (settings.max_grad_norm / grad_norm.max(1e-12)).min(1.0), learning_rate)?;

        let taken = step + 1;
        let is_last = taken == total_steps;
        let measured = if is_last {
            held_out
        } else if taken.is_multiple_of(settings.eval_steps) {
            &held_out[..settings.eval_examples.min(held_out.len())]
        } else {
            &[]
        };
        let held_out_perplexity = if measured.is_empty() {
            None
        } else {
            Some(perplexity(executor, Some(&lora), measured, |_| {})?.of_tokens())
        };
        let report = StepReport {
            step: taken,
            loss,
            grad_norm,
            learning_rate,
            tokens: batch.iter().map(|example| example.tokens.len()).sum(),
            targets,
            seconds: started.elapsed().as_secs_f64(),
            held_out_perplexity,
        };
        run.log(&report)?;
        on_event(SftEvent::Step(report));
        if is_last || taken.is_multiple_of(settings.checkpoint_steps) {
            run.save_checkpoint(&checkpoint(&lora, &optimiser))?;
        }
    }
    let folder = run.file("adapter");
    lora.to_adapter("trained")?.save(&folder, base_model_name, Precision::F16)?;
    Ok(folder)
}

/// The examples of a step, the first being 0. Each epoch has an order of its own.
pub fn batch<'a>(examples: &'a [Example], settings: &SftSettings, step: u64) -> Vec<&'a Example> {
    let batches_per_epoch = examples.len().div_ceil(settings.batch).max(1) as u64;
    let (epoch, number) = (step / batches_per_epoch, (step % batches_per_epoch) as usize);
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.shuffle(&mut Pcg64Mcg::seed_from_u64(mixed(settings.seed, u64::MAX - epoch)));
    order.chunks(settings.batch).nth(number).unwrap_or_default().iter().map(|&at| &examples[at]).collect()
}

/// A seed for each use, far from its neighbours'.
fn mixed(seed: u64, number: u64) -> u64 {
    (seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Mean loss over all targets of a batch, their number, and the gradients, in as many passes as its tokens need.
fn gradients(
    executor: &CandleExecutor,
    lora: &TrainableLora,
    batch: &[&Example],
    dropout: &mut LoraDropout,
    pass_tokens: usize,
) -> Result<(f64, usize, GradStore)> {
    let targets: usize = batch.iter().map(|example| example.tokens.len() - example.reply_start).sum();
    let mut sums: Option<(f64, GradStore)> = None;
    for pass in passes(batch, pass_tokens) {
        let logprobs = reply_logprobs(executor, Some(lora), pass, Some(dropout), true)?;
        let loss = (logprobs.sum_all()? * (-1.0 / targets as f64))?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let grads = loss.backward()?;
        sums = Some(match sums {
            None => (value, grads),
            Some((sum, mut all)) => {
                for (_, var) in lora.vars() {
                    if let Some(grad) = grads.get(&var) {
                        let grad = match all.get(&var) {
                            Some(known) => (known + grad)?.detach(),
                            None => grad.clone(),
                        };
                        all.insert(&var, grad);
                    }
                }
                (sum + value, all)
            }
        });
    }
    let (loss, grads) = sums.ok_or_else(|| elenchus_lm::Error::Batch("a step without examples".to_owned()))?;
    Ok((loss, targets, grads))
}

fn checkpoint(lora: &TrainableLora, optimiser: &AdamW) -> Checkpoint {
    let (step, mut tensors) = optimiser.state();
    tensors.extend(lora.vars().into_iter().map(|(name, var)| (name, var.as_tensor().clone())));
    Checkpoint { step, tensors }
}

fn restore(lora: &TrainableLora, optimiser: &mut AdamW, checkpoint: &Checkpoint) -> Result<u64> {
    let state: &HashMap<String, Tensor> = &checkpoint.tensors;
    optimiser.restore(checkpoint.step, state)?;
    for (name, var) in lora.vars() {
        let tensor = state.get(&name).ok_or_else(|| Error::OptimiserState(format!("`{name}` is missing")))?;
        var.set(&tensor.to_device(var.device())?)?;
    }
    Ok(checkpoint.step)
}
