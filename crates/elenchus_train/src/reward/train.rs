//! Preferences move adapter and head together, by Bradley and Terry's loss.
//!
//! As in supervised fine-tuning a step follows from configuration, number and variables alone, so a killed run resumes bit
//! for bit. The last step's model is what a run gives: one epoch leaves nothing to choose a best one by.

use std::{path::PathBuf, sync::atomic::AtomicBool, time::Instant};

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
    AdamW, Error, Example, Result, RunFolder, Schedule, config_file,
    data::Pair,
    fit::{Best, End, Fit, fit},
    model::forward::{joined_passes, passes},
    numeric::mixed,
    optim::{
        adamw::{add_gradients, set_vars},
        batches::batch,
    },
    run_folder::Checkpoint,
    spread,
    tensorboard::Curves,
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
            let pair = Pair::new(String::new(), context.to_vec(), reply);
            RewardModel::example(&pair, character, model, max_tokens)
        };
        let of = |preference: &Preference| {
            let chosen = side(&preference.context, &preference.chosen)?;
            let rejected = side(&preference.context, &preference.rejected)?;
            Ok(chosen.zip(rejected).map(|(chosen, rejected)| Self { chosen, rejected }))
        };
        preferences.iter().filter_map(|preference| of(preference).transpose()).collect()
    }

    /// Samples which side is the better one, for a control: what is left to learn is nothing.
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
    /// Whether the sides of the pairs were sampled at random, for the card.
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

impl Curves for RewardStep {
    fn step(&self) -> u64 {
        self.step
    }

    fn seconds(&self) -> f64 {
        self.seconds
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        let mut scalars = vec![
            ("train/loss", self.loss),
            ("train/accuracy", self.accuracy),
            ("train/distance", self.distance),
            ("train/grad_norm", self.grad_norm),
            ("train/learning_rate", self.learning_rate),
        ];
        scalars.extend(self.held_out_accuracy.map(|value| ("held_out/accuracy", value)));
        scalars.extend(self.resident_bytes.map(|value| ("memory/resident_bytes", value as f64)));
        scalars.into_iter().map(|(tag, value)| (tag.to_owned(), value)).collect()
    }
}

/// How a call of [`train_reward`] ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RewardOutcome {
    /// The run is over; its model is in this folder.
    Finished(PathBuf, Box<RewardCard>),
    /// It was stopped after this step, and resumes from there.
    Stopped(u64),
}

/// What a run reports on its way.
#[derive(Debug, Clone, PartialEq)]
pub enum RewardEvent {
    /// Training begins, or resumes.
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

/// Trains to the end, or resumes from a killed run's last checkpoint. The model lies in `reward/` of the run.
/// `should_stop` is read after each step: the run then ends with a checkpoint.
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
    let model = RewardModel::fresh(executor, &linears, lora.rank, lora.alpha, settings.seed)?;
    let mut training = RewardFit {
        learner,
        config,
        schedule,
        measured: spread(held_out, settings.eval_pairs),
        optimiser: AdamW::new(model.vars(), settings.adamw)?,
        model,
        on_event: &mut on_event,
    };
    let step = match fit(&mut training, run, settings.optim().fit(schedule.total_steps), should_stop)? {
        End::Over { step, stops: false, .. } => step,
        End::Over { step, .. } | End::Stopped(step) | End::Halted(step, _) => return Ok(RewardOutcome::Stopped(step)),
    };
    let mut model = training.model;

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

/// Learning from preferences as the loop sees it.
struct RewardFit<'a> {
    learner: &'a RewardLearner<'a>,
    config: &'a RewardConfig,
    schedule: Schedule,
    /// The held-out pairs that evaluations measure.
    measured: Vec<ExamplePair>,
    model: RewardModel,
    optimiser: AdamW,
    on_event: &'a mut dyn FnMut(RewardEvent),
}

impl Fit for RewardFit<'_> {
    type Report = RewardStep;

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<u64> {
        self.optimiser.restore(checkpoint.step, &checkpoint.tensors)?;
        set_vars(&self.model.vars(), &checkpoint.tensors, "")?;
        Ok(checkpoint.step)
    }

    fn begin(&mut self, step: u64, _: Option<Best>, _: Vec<RewardStep>) -> Result<()> {
        (self.on_event)(RewardEvent::Begun { step, total_steps: self.schedule.total_steps });
        Ok(())
    }

    fn step(&mut self, step: u64) -> Result<RewardStep> {
        let RewardLearner { executor, train, .. } = *self.learner;
        let settings = &self.config.training;
        let started = Instant::now();
        let pairs = batch(train, settings.batch, settings.seed, step);
        let mut dropout = LoraDropout::new(self.config.lora.dropout, mixed(settings.seed, step));
        let (scores, loss, grads) = gradients(executor, &self.model, &pairs, &mut dropout, settings)?;
        if !loss.is_finite() {
            return Err(Error::Diverged { step, loss });
        }
        let learning_rate = self.schedule.rate(step);
        let grad_norm = self.optimiser.clipped_step(&grads, settings.max_grad_norm, learning_rate)?;
        drop(grads);
        let seconds = started.elapsed().as_secs_f64();
        let distances = scores.iter().map(|(chosen, rejected)| f64::from(chosen - rejected));
        Ok(RewardStep {
            step: step + 1,
            loss,
            accuracy: Accuracy::of(scores.iter().copied()).accuracy,
            distance: distances.sum::<f64>() / scores.len() as f64,
            grad_norm,
            learning_rate,
            tokens: pairs.iter().map(|pair| pair.chosen.tokens.len() + pair.rejected.tokens.len()).sum(),
            seconds,
            resident_bytes: resident_bytes(),
            held_out_accuracy: None,
        })
    }

    fn measure(&mut self, report: &mut RewardStep) -> Result<Option<f64>> {
        let scores = scored(self.learner.executor, &self.model, &self.measured, self.config.training.loss)?;
        report.held_out_accuracy = Some(Accuracy::of(scores).accuracy);
        // The last step's model is what a run gives.
        Ok(None)
    }

    fn stepped(&mut self, report: RewardStep) {
        (self.on_event)(RewardEvent::Step(report));
    }

    fn checkpoint(&self, _: u64) -> Result<Checkpoint> {
        let (step, mut tensors) = self.optimiser.state();
        tensors.extend(self.model.vars().into_iter().map(|(name, var)| (name, var.as_tensor().clone())));
        Checkpoint::new(step, tensors, &())
    }
}

/// Scores of a batch, its mean loss and the gradients, in as many passes as its tokens need.
fn gradients(
    executor: &CandleExecutor,
    model: &RewardModel,
    pairs: &[&ExamplePair],
    dropout: &mut LoraDropout,
    settings: &RewardSettings,
) -> Result<(Vec<(f32, f32)>, f64, GradStore)> {
    let activations = settings.optim().activations();
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
