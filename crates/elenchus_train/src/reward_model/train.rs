//! Preferences move adapter and head together, by Bradley and Terry's loss.
//!
//! As in supervised fine-tuning a step follows from configuration, number and variables alone, so a killed run goes on bit
//! for bit. The last step's model is what a run gives: one epoch leaves nothing to choose a best one by.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use candle_core::backprop::GradStore;
use elenchus_candle::{Activations, CandleExecutor, LoraDropout};
use elenchus_dialogue::{Character, Model, Turn};
use elenchus_lm::resident_bytes;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{
    Accuracy, Calibration, PASS_TOKENS, Preference, RewardCard, RewardConfig, RewardLoss, RewardModel, RewardSettings,
    bradley_terry,
    preferences::length_only,
    value::{last_values, reply_tokens, value_loss},
};
use crate::{
    AdamW, Error, Example, Result, RunFolder,
    adamw::{add_gradients, set_vars},
    config_file,
    data::Pair,
    forward::{joined_passes, passes},
    order::{batch, mixed},
    run_folder::{Checkpoint, METRICS},
    spread,
};

/// The folder of the model that a finished run gives.
const REWARD: &str = "reward";

/// Pairs of the training set whose scores the model is normalised by.
const REFERENCE_PAIRS: usize = 128;

/// A preference as a model reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct ExamplePair {
    /// The better reply.
    pub chosen: Example,
    /// The other, under the same prompt.
    pub rejected: Example,
}

impl ExamplePair {
    /// What [`RewardModel::example`] makes of both sides; preferences whose prompt alone has `max_tokens` are left out.
    pub fn all(
        preferences: &[Preference],
        character: &Character,
        model: &Model,
        max_tokens: usize,
    ) -> Result<Vec<Self>> {
        let side = |context: &[Turn], reply: &str| {
            let pair = Pair {
                work: String::new(),
                context: context.to_vec(),
                reply: reply.to_owned(),
                facts: Vec::new(),
                confidence: 1.0,
            };
            RewardModel::example(&pair, character, model, max_tokens)
        };
        let of = |preference: &Preference| {
            let chosen = side(&preference.context, &preference.chosen)?;
            let rejected = side(&preference.context, &preference.rejected)?;
            Ok(chosen.zip(rejected).map(|(chosen, rejected)| Self { chosen, rejected }))
        };
        preferences.iter().filter_map(|preference| of(preference).transpose()).collect()
    }

    /// Draws by lot which side is the better one, for a control: what is left to learn is nothing.
    pub fn shuffle_labels(pairs: &mut [Self], seed: u64) {
        let mut rng = Pcg64Mcg::seed_from_u64(mixed(seed, 0x1abe1));
        for Self { chosen, rejected } in pairs {
            if rng.random() {
                std::mem::swap(chosen, rejected);
            }
        }
    }
}

/// What is trained, and on what.
#[derive(Clone, Copy)]
pub struct RewardLearner<'a> {
    /// The base; exact numerics, or quantised for a smaller memory.
    pub executor: &'a CandleExecutor,
    /// Its name and hash are written into adapter and card.
    pub model: &'a Model,
    /// Written into the card.
    pub character: &'a str,
    /// Learned from.
    pub train: &'a [ExamplePair],
    /// Measured on.
    pub held_out: &'a [ExamplePair],
    /// [`super::Preferences::length_only_accuracy`], for the card.
    pub length_only_accuracy: f64,
    /// Whether the sides of the pairs were drawn by lot, for the card.
    pub shuffled_labels: bool,
}

/// One step, as `metrics.jsonl` keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardStep {
    /// From 1.
    pub step: u64,
    /// Mean over the step's pairs.
    pub loss: f64,
    /// Of the step's pairs, before the step.
    pub accuracy: f64,
    /// Mean distance of their scores, not normalised.
    pub distance: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// Of this step.
    pub learning_rate: f64,
    /// Of both replies, prompts counted twice.
    pub tokens: usize,
    /// Spent on the step, evaluation left out.
    pub seconds: f64,
    /// Memory resident after the step; `None` where the system does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// After this step, where it was measured; over the same pairs each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_accuracy: Option<f64>,
}

/// How a call of [`train_reward`] ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RewardOutcome {
    /// The run is over; its model is in this folder.
    Finished(PathBuf, Box<RewardCard>),
    /// It was stopped behind this step, and goes on from there.
    Stopped(u64),
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum RewardEvent {
    /// Training begins, or goes on.
    Begun {
        /// Steps taken before.
        step: u64,
        /// Steps planned.
        total_steps: u64,
    },
    /// A step was taken.
    Step(RewardStep),
    /// The last measure begins, of so many held-out pairs.
    Measuring(usize),
}

/// Trains to the end, or goes on where a killed run's last checkpoint was. The model lies in `reward/` of the run.
/// `should_stop` is looked at after each step: the run then ends with a checkpoint.
pub fn train_reward(
    learner: &RewardLearner<'_>,
    config: &RewardConfig,
    run: &RunFolder,
    should_stop: &AtomicBool,
    mut on_event: impl FnMut(RewardEvent),
) -> Result<RewardOutcome> {
    let RewardLearner { executor, train, held_out, .. } = *learner;
    let (lora, settings) = (&config.lora, &config.training);
    let refuse = |reason: String| Error::Config { file: "reward.toml".to_owned(), reason };
    let linears = config_file::linears(&lora.targets).map_err(|reason| refuse(format!("`lora.targets` {reason}")))?;
    if train.is_empty() || held_out.is_empty() {
        let (train, held_out) = (train.len(), held_out.len());
        return Err(refuse(format!(
            "{train} pairs to learn from and {held_out} to measure on (hint: raise `training.max_tokens`)"
        )));
    }
    let _alone = run.lock()?;
    let schedule = settings.schedule(train.len());
    let total_steps = schedule.total_steps;
    let mut model = RewardModel::fresh(executor, &linears, lora.rank, lora.alpha, settings.seed)?;
    let mut optimiser = AdamW::new(model.vars(), settings.adamw)?;
    let mut step = 0;
    if let Some(checkpoint) = run.load_checkpoint()? {
        optimiser.restore(checkpoint.step, &checkpoint.tensors)?;
        set_vars(&model.vars(), &checkpoint.tensors, "")?;
        step = checkpoint.step;
    }
    let begin = step;
    run.keep_lines(METRICS, |report: &RewardStep| report.step <= begin)?;
    on_event(RewardEvent::Begun { step, total_steps });
    let measured = spread(held_out, settings.eval_pairs);

    while step < total_steps {
        let started = Instant::now();
        let pairs = batch(train, settings.batch, settings.seed, step);
        let mut dropout = LoraDropout::new(lora.dropout, mixed(settings.seed, step));
        let (scores, loss, grads) = gradients(executor, &model, &pairs, &mut dropout, settings)?;
        if !loss.is_finite() {
            return Err(Error::Diverged { step, loss });
        }
        let grad_norm = optimiser.grad_norm(&grads)?;
        let learning_rate = schedule.rate(step);
        optimiser.step(&grads, (settings.max_grad_norm / grad_norm.max(1e-12)).min(1.0), learning_rate)?;
        drop(grads);
        let seconds = started.elapsed().as_secs_f64();
        step += 1;

        let evaluates = step == total_steps || step.is_multiple_of(settings.eval_steps);
        let held_out_accuracy = evaluates
            .then(|| Ok::<_, Error>(Accuracy::of(scored(executor, &model, &measured, settings.loss)?).accuracy))
            .transpose()?;
        let distances = scores.iter().map(|(chosen, rejected)| f64::from(chosen - rejected));
        let report = RewardStep {
            step,
            loss,
            accuracy: Accuracy::of(scores.iter().copied()).accuracy,
            distance: distances.sum::<f64>() / scores.len() as f64,
            grad_norm,
            learning_rate,
            tokens: pairs.iter().map(|pair| pair.chosen.tokens.len() + pair.rejected.tokens.len()).sum(),
            seconds,
            resident_bytes: resident_bytes(),
            held_out_accuracy,
        };
        run.append(METRICS, &report)?;
        on_event(RewardEvent::Step(report));
        let stops = should_stop.load(Ordering::Relaxed);
        if stops || step == total_steps || step.is_multiple_of(settings.checkpoint_steps) {
            let (step, mut tensors) = optimiser.state();
            tensors.extend(model.vars().into_iter().map(|(name, var)| (name, var.as_tensor().clone())));
            run.save_checkpoint(&Checkpoint::new(step, tensors, &())?)?;
        }
        if stops {
            return Ok(RewardOutcome::Stopped(step));
        }
    }

    on_event(RewardEvent::Measuring(held_out.len()));
    // A value is what it says; scores are as large as training made them.
    if settings.loss == RewardLoss::BradleyTerry {
        let reference = spread(train, REFERENCE_PAIRS).into_iter().flat_map(|pair| [pair.chosen, pair.rejected]);
        model.normalise(executor, &reference.collect::<Vec<_>>())?;
    }
    let measured = scored(executor, &model, held_out, settings.loss)?;
    let card = RewardCard {
        kind: config.kind,
        loss: settings.loss,
        aspect: config.aspect.clone(),
        character: learner.character.to_owned(),
        base_name: learner.model.name.clone(),
        base_sha256: learner.model.sha256.clone(),
        max_tokens: settings.max_tokens,
        steps: step,
        pairs: train.len(),
        held_out: Accuracy::of(measured.iter().copied()),
        calibration: Some(Calibration::of(&measured)),
        length_only_accuracy: learner.length_only_accuracy,
        token_count_only_accuracy: length_only(&token_counts(train), &token_counts(held_out)),
        shuffled_labels: learner.shuffled_labels,
        gain: model.gain,
        bias: model.bias,
    };
    let folder = run.file(REWARD);
    model.save(&folder, &card)?;
    Ok(RewardOutcome::Finished(folder, Box::new(card)))
}

/// Scores of a batch, its mean loss and the gradients, in as many passes as its tokens need.
fn gradients(
    executor: &CandleExecutor,
    model: &RewardModel,
    pairs: &[&ExamplePair],
    dropout: &mut LoraDropout,
    settings: &RewardSettings,
) -> Result<(Vec<(f32, f32)>, f64, GradStore)> {
    let activations = if settings.gradient_checkpointing { Activations::Recompute } else { Activations::Keep };
    let examples: Vec<&Example> = pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]).collect();
    let (mut all_scores, mut sums) = (Vec::new(), None);
    let tokens: usize = examples.iter().map(|example| reply_tokens(example)).sum();
    for pass in joined_passes(&examples, |at| at % 2 == 1, settings.pass_tokens) {
        let loss = match settings.loss {
            RewardLoss::BradleyTerry => {
                let scores = model.pass(executor, pass, Some(dropout), activations)?;
                all_scores.extend(scores.to_vec1::<f32>()?);
                let scores = scores.reshape((pass.len() / 2, 2))?;
                let (chosen, rejected) = (scores.narrow(1, 0, 1)?, scores.narrow(1, 1, 1)?);
                let losses = bradley_terry(&chosen, &rejected, settings.margin, settings.center)?;
                (losses.sum_all()? * (1.0 / pairs.len() as f64))?
            }
            RewardLoss::Value => {
                let values = model.pass_values(executor, pass, Some(dropout), activations)?;
                all_scores.extend(last_values(&values, pass)?);
                (value_loss(&values, pass, settings.lam)? * (1.0 / tokens as f64))?
            }
        };
        let value = f64::from(loss.to_scalar::<f32>()?);
        let grads = loss.backward()?;
        sums = Some(match sums {
            None => (value, grads),
            Some((sum, mut all)) => {
                add_gradients(&model.vars(), &mut all, &grads)?;
                (sum + value, all)
            }
        });
    }
    let (loss, grads) = sums.ok_or_else(|| elenchus_lm::Error::Batch("a step without pairs".to_owned()))?;
    Ok((all_scores.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), loss, grads))
}

/// Scores of chosen and rejected replies, not normalised: the loss is made of these.
/// Of a value model what it expects when all words are said.
fn scored(
    executor: &CandleExecutor,
    model: &RewardModel,
    pairs: &[ExamplePair],
    loss: RewardLoss,
) -> Result<Vec<(f32, f32)>> {
    let examples: Vec<Example> = pairs.iter().flat_map(|pair| [pair.chosen.clone(), pair.rejected.clone()]).collect();
    let scores = match loss {
        RewardLoss::BradleyTerry => model.raw_scores(executor, &examples)?,
        RewardLoss::Value => {
            let mut values = Vec::with_capacity(examples.len());
            for pass in passes(&examples.iter().collect::<Vec<_>>(), PASS_TOKENS) {
                values.extend(last_values(&model.values(executor, pass, Activations::Drop)?, pass)?);
            }
            values
        }
    };
    Ok(scores.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn token_counts(pairs: &[ExamplePair]) -> Vec<(usize, usize)> {
    let count = |example: &Example| example.tokens.len() - example.reply_start;
    pairs.iter().map(|pair| (count(&pair.chosen), count(&pair.rejected))).collect()
}
