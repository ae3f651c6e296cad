//! The loop: sample, judge, compare with the reference, learn.
//!
//! An iteration is a function of the configuration, its number, the variables, the optimiser's moments and the method's
//! state: prompts, responses and mini-batches come from the seed and the number alone. So a run that was killed resumes
//! from its last checkpoint as if it had not been, and judges that keep their verdicts repeat them.

use std::{collections::BTreeMap, path::PathBuf, sync::atomic::AtomicBool};

use elenchus_candle::TrainableLora;
use elenchus_lm::{Adapter, Precision};
use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{
    Method, RlConfig, RlReport, Values,
    iteration::Iteration,
    judged_rollouts::{HELD_OUT, JudgedRollout, ROLLOUTS, RolloutLog, exchange},
    learner::{Prompt, RlLearner, adapter_of, encode},
    policy::{CRITIC, Policy},
    rollout::{Sampling, respond},
};
use crate::{
    AdamW, Error, Result, RunFolder, Sample,
    fit::{Best, End, Fit, RESULT, fit},
    model::logit_kl::{Reader, kl_per_token},
    optim::adamw::set_vars,
    run_folder::{Checkpoint, SAMPLES},
    samples::{Voice, samples},
};

/// The folder of the adapter that a finished run gives.
const ADAPTER: &str = "adapter";

/// How a call of [`train`] ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RlOutcome {
    /// The run is over; its adapter is in this folder.
    Finished(PathBuf),
    /// It was stopped after this iteration, and resumes from there.
    Stopped(u64),
    /// It must not continue after this iteration; `checkpoints/` holds earlier adapters.
    Halted(u64, String),
}

/// What a run reports on its way.
#[derive(Debug, Clone, PartialEq)]
pub enum RlEvent {
    /// Training begins, or resumes.
    Begun {
        /// Iterations done before.
        step: u64,
        /// Iterations planned.
        total_steps: u64,
        /// Prompts to sample from.
        prompts: usize,
        /// Prompts that are held out.
        held_out: usize,
        /// Prompts that are longer than `max_prompt_tokens`: left out.
        too_long: usize,
    },
    /// An iteration was done.
    Step(Box<RlReport>),
    /// Prompts that are never learned from were answered and judged.
    HeldOut {
        /// Iterations done.
        step: u64,
        /// Mean score of each judge.
        scores: BTreeMap<String, f64>,
    },
    /// What the character says now, in the game's own way.
    Evaluated(Vec<Sample>),
    /// Something that a person should look at.
    Alarm(String),
}

/// How a finished or halted run ended; `result.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RlResult {
    /// Iterations done.
    pub steps: u64,
    /// Iterations planned.
    pub total_steps: u64,
    /// Why it ended before its time.
    pub halted: Option<String>,
}

/// Trains to the end, or resumes from a killed run's last checkpoint. `should_stop` is read after each iteration: the run then
/// ends with a checkpoint.
pub fn train(
    learner: &RlLearner<'_>,
    config: &RlConfig,
    run: &RunFolder,
    should_stop: &AtomicBool,
    mut on_event: impl FnMut(RlEvent),
) -> Result<RlOutcome> {
    let settings = &config.training;
    let mut prompts = encode(learner, config.sampling.max_prompt_tokens)?;
    let fit_prompts = prompts.len();
    let held_out = config.sampling.held_out_prompts;
    if fit_prompts <= held_out {
        let (most, of) = (config.sampling.max_prompt_tokens, learner.prompts.len());
        let reason = format!(
            "{fit_prompts} of {of} prompts have at most {most} tokens, and `sampling.held_out_prompts` are {held_out} (hint: more prompts, a higher `sampling.max_prompt_tokens`, or a shorter persona)"
        );
        return Err(Error::Config { file: "rl.toml".to_owned(), reason });
    }
    prompts.shuffle(&mut Pcg64Mcg::seed_from_u64(HOLD_OUT_SEED));
    let held_out = prompts.split_off(fit_prompts - held_out);
    let _alone = run.lock()?;
    let lora = TrainableLora::new(learner.start, learner.executor)?;
    let reference = TrainableLora::new(learner.start, learner.executor)?;
    let method = config.method.method();
    let values = method.plan().values;
    let policy = Policy::new(learner.executor, &lora, values, learner.value_model)?;
    let mut optimiser = AdamW::new(policy.vars(), settings.adamw)?;
    if let Values::Model { rate } = values {
        optimiser = optimiser.with_rate(CRITIC, rate);
    }
    let mut training = RlFit {
        learner,
        config,
        run,
        too_long: learner.prompts.len() - fit_prompts,
        prompts,
        held_out,
        lora: &lora,
        reference: &reference,
        policy,
        method,
        optimiser,
        reports: Vec::new(),
        on_event: &mut on_event,
    };
    let ended = |step: u64, halted: Option<String>| {
        run.write_json(RESULT, &RlResult { steps: step, total_steps: settings.steps, halted })
    };
    match fit(&mut training, run, settings.optim().fit(settings.steps), should_stop)? {
        End::Stopped(step) => Ok(RlOutcome::Stopped(step)),
        End::Halted(step, reason) => {
            ended(step, Some(reason.clone()))?;
            Ok(RlOutcome::Halted(step, reason))
        }
        End::Over { step, .. } => {
            let folder = run.file(ADAPTER);
            lora.to_adapter(ADAPTER)?.save(&folder, &learner.model.name, Precision::F16)?;
            ended(step, None)?;
            Ok(RlOutcome::Finished(folder))
        }
    }
}

/// Learning from judges as the loop sees it; a step is an iteration.
struct RlFit<'a> {
    learner: &'a RlLearner<'a>,
    config: &'a RlConfig,
    run: &'a RunFolder,
    prompts: Vec<Prompt<'a>>,
    held_out: Vec<Prompt<'a>>,
    /// Prompts that were left out.
    too_long: usize,
    lora: &'a TrainableLora,
    reference: &'a TrainableLora,
    policy: Policy<'a>,
    method: Box<dyn Method>,
    optimiser: AdamW,
    /// Of all iterations.
    reports: Vec<RlReport>,
    on_event: &'a mut dyn FnMut(RlEvent),
}

impl Fit for RlFit<'_> {
    type Report = RlReport;

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<u64> {
        let state: Progress = checkpoint.state()?;
        self.optimiser.restore(checkpoint.step, &checkpoint.tensors)?;
        set_vars(&self.policy.vars(), &checkpoint.tensors, "")?;
        self.method.restore(state.method)?;
        Ok(state.step)
    }

    fn begin(&mut self, step: u64, _: Option<Best>, reports: Vec<RlReport>) -> Result<()> {
        self.run.keep_lines(ROLLOUTS, |rollout: &JudgedRollout| rollout.step <= step)?;
        self.run.keep_lines(HELD_OUT, |rollout: &JudgedRollout| step > 0 && rollout.step <= step)?;
        self.run.keep_lines(SAMPLES, |sample: &Sample| step > 0 && sample.step <= step)?;
        self.reports = reports;
        (self.on_event)(RlEvent::Begun {
            step,
            total_steps: self.config.training.steps,
            prompts: self.prompts.len(),
            held_out: self.held_out.len(),
            too_long: self.too_long,
        });
        if step == 0 { self.evaluate(0, None) } else { Ok(()) }
    }

    fn step(&mut self, step: u64) -> Result<RlReport> {
        let Self { learner, config, policy, lora, reference, prompts, method, optimiser, run, .. } = self;
        let iteration = Iteration { learner, config, policy, reference, lora, step };
        let report = iteration.run(prompts, &mut **method, optimiser, run)?;
        self.reports.push(report.clone());
        Ok(report)
    }

    fn measure(&mut self, _: &mut RlReport) -> Result<Option<f64>> {
        Ok(None)
    }

    fn stepped(&mut self, report: RlReport) {
        let most = self.config.guards.engine_kl;
        if report.engine_kl > most {
            (self.on_event)(RlEvent::Alarm(format!(
                "step {}: engine and trainer are {:.3} nats a token apart, more than {most} (hint: --base-numerics f32)",
                report.step, report.engine_kl
            )));
        }
        (self.on_event)(RlEvent::Step(Box::new(report)));
    }

    fn evaluate(&mut self, step: u64, _: Option<Best>) -> Result<()> {
        if !self.held_out.is_empty() {
            let Self { learner, config, held_out, lora, reference, run, .. } = &*self;
            let scores = judge_held_out(
                learner,
                config,
                held_out,
                [lora, reference],
                &RolloutLog { run, file: HELD_OUT, step },
            )?;
            (self.on_event)(RlEvent::HeldOut { step, scores });
        }
        let RlLearner { model, character, .. } = *self.learner;
        let settings = &self.config.training;
        let adapter = adapter_of(self.lora, character.adapter_scale)?;
        let voice = Voice { model, character };
        let samples = samples(voice, Some(&adapter), &settings.samples, settings.seed, step)?;
        samples.iter().try_for_each(|sample| self.run.append(SAMPLES, sample))?;
        (self.on_event)(RlEvent::Evaluated(samples));
        Ok(())
    }

    fn is_spent(&self) -> bool {
        self.config.budget.is_spent(&self.reports)
    }

    fn halt(&self) -> Option<String> {
        self.config.guards.halt(&self.reports)
    }

    fn checkpoint(&self, step: u64) -> Result<Checkpoint> {
        let kept = self.run.file(&format!("checkpoints/step-{step}"));
        self.lora.to_adapter(ADAPTER)?.save(&kept, &self.learner.model.name, Precision::F16)?;
        let (optimiser_steps, mut tensors) = self.optimiser.state();
        tensors.extend(self.policy.vars().into_iter().map(|(name, var)| (name, var.as_tensor().clone())));
        Checkpoint::new(optimiser_steps, tensors, &Progress { step, method: self.method.state() })
    }
}

/// Which prompts are held out is the same for all runs over them, so that runs can be compared on them.
const HOLD_OUT_SEED: u64 = 0x00e1_e9c4;

/// Sequences that are held in memory at once where nothing is learned from them.
const BATCH: usize = 32;

/// Answers and judges what is never learned from; each prompt has its own seed over the whole run.
fn judge_held_out(
    learner: &RlLearner<'_>,
    config: &RlConfig,
    prompts: &[Prompt<'_>],
    [lora, reference]: [&TrainableLora; 2],
    log: &RolloutLog<'_>,
) -> Result<BTreeMap<String, f64>> {
    let (adapter, reference) = (adapter_of(lora, 1.0)?, adapter_of(reference, 1.0)?);
    let reader = |adapter: &Adapter| {
        Reader::new(
            &*learner.model.executor,
            Some(adapter.clone()),
            prompts.iter().map(|prompt| prompt.tokens.as_slice()),
        )
    };
    let (now, then) = (reader(&adapter)?, reader(&reference)?);
    let (mut exchanges, mut kl) = (Vec::new(), Vec::new());
    for (number, prompts) in prompts.chunks(BATCH).enumerate() {
        let tokens: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.tokens.as_slice()).collect();
        let sampling = Sampling {
            executor: &*learner.model.executor,
            adapter: Some(&adapter),
            max_tokens: config.sampling.max_tokens,
            seed: number as u64,
            is_end: &|id| learner.model.tokenizer.is_end(id),
        };
        let responses = respond(sampling, &tokens, 1)?;
        exchanges.extend(prompts.iter().zip(&responses).map(|(prompt, of)| exchange(learner, prompt, of)));
        for (prompt, response) in prompts.iter().zip(&responses) {
            // What predicts the last token is wanted, not what follows it.
            let said = &response.tokens[..response.tokens.len() - 1];
            let logits = |reader: &Reader<'_>| reader.logits(&prompt.tokens, said);
            let a_token = kl_per_token(&logits(&now)?, &logits(&then)?, now.vocab_size());
            kl.push(a_token * response.tokens.len() as f64);
        }
    }
    let judged = learner.judges.judge(&exchanges)?;
    log.note(learner.judges, &exchanges, &judged, &kl)?;
    Ok(learner.judges.means(&judged))
}

/// What a checkpoint knows besides tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Progress {
    /// Iterations done; the optimiser may have taken more steps, or fewer.
    step: u64,
    method: serde_json::Value,
}
