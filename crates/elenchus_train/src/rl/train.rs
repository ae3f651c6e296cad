//! The loop: sample, judge, compare with the reference, learn.
//!
//! An iteration is a function of the configuration, its number, the variables, the optimiser's moments and the method's
//! state: prompts, responses and mini-batches come from the seed and the number alone. So a run that was killed goes on
//! from its last checkpoint as if it had not been, and judges that keep what they said say it again.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use elenchus_candle::{CandleExecutor, TrainableLora};
use elenchus_dialogue::{Character, Model, Turn, messages};
use elenchus_lm::{Adapter, LoraAdapter, Precision};
use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{
    RlConfig, RlReport, Values,
    iteration::Iteration,
    policy::{CRITIC, Policy},
    review::write_review,
    rollout::{Response, respond},
};
use crate::{
    AdamW, Error, Example, ExamplePair, Result, RewardModel, RunFolder, Sample,
    adamw::set_vars,
    judge::{Exchange, Judged, Panel},
    logit_kl::{Reader, kl_per_token},
    report,
    run_folder::{Checkpoint, METRICS, SAMPLES},
    samples::{Voice, samples},
    tensorboard::EventFile,
};

/// Every response with what judges said of it.
pub(super) const ROLLOUTS: &str = "rollouts.jsonl";
/// What is said to prompts that are never learned from, at each evaluation.
pub(crate) const HELD_OUT: &str = "held_out.jsonl";
/// The folder of the adapter that a finished run gives.
const ADAPTER: &str = "adapter";
pub(crate) const RESULT: &str = "result.json";

/// Who learns, from whom, on what.
#[derive(Clone, Copy)]
pub struct RlLearner<'a> {
    /// The base in training numerics.
    pub executor: &'a CandleExecutor,
    /// The same base as a game runs it; its name is written into the adapter.
    pub model: &'a Model,
    /// Who answers.
    pub character: &'a Character,
    /// What the policy begins as; the reference.
    pub start: &'a LoraAdapter,
    /// What is said to the character; the newest turn last.
    pub prompts: &'a [Vec<Turn>],
    /// Who judges.
    pub judges: &'a Panel,
    /// Pairs that were written beforehand; empty without `offline`.
    pub offline: &'a [Example],
    /// What methods learn from that learn from preferences; where it is empty, judges prefer among the reference's replies.
    pub preferences: &'a [ExamplePair],
    /// What values are read from, for methods that want a model of them; a critic begins as a copy that was read for it.
    pub value_model: Option<&'a RewardModel>,
}

/// How a call of [`train`] ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RlOutcome {
    /// The run is over; its adapter is in this folder.
    Finished(PathBuf),
    /// It was stopped behind this iteration, and goes on from there.
    Stopped(u64),
    /// It must not go on behind this iteration; `checkpoints/` holds what the voice was before.
    Halted(u64, String),
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum RlEvent {
    /// Training begins, or goes on.
    Begun {
        /// Iterations done before.
        step: u64,
        /// Iterations planned.
        total_steps: u64,
        /// Prompts to draw from.
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

/// One line of `rollouts.jsonl` and `held_out.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgedRollout {
    /// The iteration, from 1; of what is held out, iterations done.
    pub step: u64,
    /// What was said, and answered.
    #[serde(flatten)]
    pub exchange: Exchange,
    /// The weighted sum of scores, without penalty.
    pub score: Option<f32>,
    /// Each judge's score, and what it is made of as `judge/part`.
    pub scores: BTreeMap<String, Option<f32>>,
    /// Nats between the voice and the one it began as, over this reply's tokens; of what is held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// What judges with words said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub words: BTreeMap<String, String>,
}

/// How a finished or halted run ended; `result.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RlResult {
    pub steps: u64,
    pub total_steps: u64,
    pub halted: Option<String>,
}

/// A prompt as turns and as the tokens the game would read.
pub(super) struct Prompt<'a> {
    pub turns: &'a [Turn],
    pub tokens: Vec<u32>,
}

/// Trains to the end, or goes on where a killed run's last checkpoint was. `should_stop` is looked at after each iteration:
/// the run then ends with a checkpoint.
pub fn train(
    learner: &RlLearner<'_>,
    config: &RlConfig,
    run: &RunFolder,
    should_stop: &AtomicBool,
    mut on_event: impl FnMut(RlEvent),
) -> Result<RlOutcome> {
    let settings = &config.training;
    let mut prompts = encode(learner, config.sampling.max_prompt_tokens)?;
    let fit = prompts.len();
    let held_out = config.sampling.held_out_prompts;
    if fit <= held_out {
        let (most, of) = (config.sampling.max_prompt_tokens, learner.prompts.len());
        let reason = format!(
            "{fit} of {of} prompts have at most {most} tokens, and `sampling.held_out_prompts` are {held_out} (hint: more prompts, a higher `sampling.max_prompt_tokens`, or a shorter persona)"
        );
        return Err(Error::Config { file: "rl.toml".to_owned(), reason });
    }
    prompts.shuffle(&mut Pcg64Mcg::seed_from_u64(HOLD_OUT_SEED));
    let held_out = prompts.split_off(fit - held_out);
    let _alone = run.lock()?;
    let lora = TrainableLora::new(learner.start, learner.executor)?;
    let reference = TrainableLora::new(learner.start, learner.executor)?;
    let mut method = config.method.method();
    let values = method.plan().values;
    let policy = Policy::new(learner.executor, &lora, values, learner.value_model)?;
    let mut optimiser = AdamW::new(policy.vars(), settings.adamw)?;
    if let Values::Model { rate } = values {
        optimiser = optimiser.with_rate(CRITIC, rate);
    }
    let mut step = 0;
    if let Some(checkpoint) = run.load_checkpoint()? {
        let state: Progress = checkpoint.state()?;
        optimiser.restore(checkpoint.step, &checkpoint.tensors)?;
        set_vars(&policy.vars(), &checkpoint.tensors, "")?;
        method.restore(state.method)?;
        step = state.step;
    }
    let begin = step;
    run.keep_lines(METRICS, |report: &RlReport| report.step <= begin)?;
    run.keep_lines(ROLLOUTS, |rollout: &JudgedRollout| rollout.step <= begin)?;
    run.keep_lines(HELD_OUT, |rollout: &JudgedRollout| begin > 0 && rollout.step <= begin)?;
    run.keep_lines(SAMPLES, |sample: &Sample| begin > 0 && sample.step <= begin)?;
    let mut reports: Vec<RlReport> = run.metrics()?;
    let curves = EventFile::rewrite(run, &reports)?;
    on_event(RlEvent::Begun {
        step,
        total_steps: settings.steps,
        prompts: prompts.len(),
        held_out: held_out.len(),
        too_long: learner.prompts.len() - fit,
    });
    let evaluate = |step: u64, on_event: &mut dyn FnMut(RlEvent)| {
        if !held_out.is_empty() {
            let scores = judge_held_out(learner, config, &held_out, &lora, &reference, step, run)?;
            on_event(RlEvent::HeldOut { step, scores });
        }
        let adapter = worn(&lora, learner.character.adapter_scale)?;
        let RlLearner { model, character, .. } = *learner;
        let voice = Voice { model, character };
        let samples = samples(voice, Some(&adapter), &settings.samples, settings.seed, step)?;
        samples.iter().try_for_each(|sample| run.append(SAMPLES, sample))?;
        on_event(RlEvent::Evaluated(samples));
        Ok::<_, Error>(())
    };
    if step == 0 {
        evaluate(0, &mut on_event)?;
    }
    let halted = |step: u64, reason: String| {
        run.write_json(RESULT, &RlResult { steps: step, total_steps: settings.steps, halted: Some(reason.clone()) })?;
        tell(run)?;
        Ok(RlOutcome::Halted(step, reason))
    };
    if let Some(reason) = config.guards.halt(&reports) {
        return halted(step, reason);
    }
    while step < settings.steps && !config.budget.is_spent(&reports) {
        run.remove(RESULT)?;
        let iteration = Iteration { learner, config, policy: &policy, reference: &reference, lora: &lora, step };
        let report = iteration.run(&prompts, &mut *method, &mut optimiser, run)?;
        step += 1;
        run.append(METRICS, &report)?;
        curves.append(&report)?;
        if report.engine_kl > config.guards.engine_kl {
            on_event(RlEvent::Alarm(format!(
                "step {step}: engine and trainer are {:.3} nats a token apart, more than {} (hint: --base-numerics f32)",
                report.engine_kl, config.guards.engine_kl
            )));
        }
        reports.push(report.clone());
        on_event(RlEvent::Step(Box::new(report)));
        let is_over = step == settings.steps || config.budget.is_spent(&reports);
        if is_over || step.is_multiple_of(settings.eval_steps) {
            evaluate(step, &mut on_event)?;
            tell(run)?;
        }
        let halt = config.guards.halt(&reports);
        let stops = should_stop.load(Ordering::Relaxed);
        if stops || halt.is_some() || is_over || step.is_multiple_of(settings.checkpoint_steps) {
            let kept = run.file(&format!("checkpoints/step-{step}"));
            lora.to_adapter(ADAPTER)?.save(&kept, &learner.model.name, Precision::F16)?;
            let (optimiser_steps, mut tensors) = optimiser.state();
            tensors.extend(policy.vars().into_iter().map(|(name, var)| (name, var.as_tensor().clone())));
            let progress = Progress { step, method: method.state() };
            run.save_checkpoint(&Checkpoint::new(optimiser_steps, tensors, &progress)?)?;
        }
        if let Some(reason) = halt {
            return halted(step, reason);
        }
        if is_over {
            break;
        }
        if stops {
            return Ok(RlOutcome::Stopped(step));
        }
    }
    let folder = run.file(ADAPTER);
    lora.to_adapter(ADAPTER)?.save(&folder, &learner.model.name, Precision::F16)?;
    run.write_json(RESULT, &RlResult { steps: step, total_steps: settings.steps, halted: None })?;
    tell(run)?;
    Ok(RlOutcome::Finished(folder))
}

/// What a run's files come to, for people.
fn tell(run: &RunFolder) -> Result<()> {
    report::rl::write(run)?;
    write_review(run)
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
    lora: &TrainableLora,
    reference: &TrainableLora,
    step: u64,
    run: &RunFolder,
) -> Result<BTreeMap<String, f64>> {
    let (adapter, reference) = (worn(lora, 1.0)?, worn(reference, 1.0)?);
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
        let (most, is_end) = (config.sampling.max_tokens, |id| learner.model.tokenizer.is_end(id));
        let responses = respond(&*learner.model.executor, Some(&adapter), &tokens, 1, most, number as u64, is_end)?;
        exchanges.extend(prompts.iter().zip(&responses).map(|(prompt, of)| exchange(learner, prompt, of)));
        for (prompt, response) in prompts.iter().zip(&responses) {
            // What foresees the last token is wanted, not what follows it.
            let said = &response.tokens[..response.tokens.len() - 1];
            let logits = |reader: &Reader<'_>| reader.logits(&prompt.tokens, said);
            let a_token = kl_per_token(&logits(&now)?, &logits(&then)?, now.vocab_size());
            kl.push(a_token * response.tokens.len() as f64);
        }
    }
    let judged = learner.judges.judge(&exchanges)?;
    note(learner.judges, run, HELD_OUT, step, &exchanges, &judged, &kl)?;
    Ok(learner.judges.means(&judged))
}

/// A response as judges see it.
pub(super) fn exchange(learner: &RlLearner<'_>, prompt: &Prompt<'_>, response: &Response) -> Exchange {
    let words = &response.tokens[..response.tokens.len() - usize::from(response.is_ended)];
    Exchange {
        context: prompt.turns.to_vec(),
        reply: learner.model.tokenizer.decode(words).trim().to_owned(),
        is_ended: response.is_ended,
    }
}

/// Keeps replies with what was said of them, and where it was measured, their divergence.
pub(super) fn note(
    judges: &Panel,
    run: &RunFolder,
    file: &str,
    step: u64,
    exchanges: &[Exchange],
    judged: &[Judged],
    kl: &[f64],
) -> Result<()> {
    exchanges.iter().zip(judged).enumerate().try_for_each(|(at, (exchange, judged))| {
        let words = judges.names().zip(&judged.verdicts).filter(|(_, verdict)| !verdict.words.is_empty());
        let line = JudgedRollout {
            step,
            exchange: exchange.clone(),
            score: judged.score,
            scores: judges.named(judged).collect(),
            kl: kl.get(at).copied(),
            words: words.map(|(name, verdict)| (name.to_owned(), verdict.words.clone())).collect(),
        };
        run.append(file, &line)
    })
}

/// What a checkpoint knows besides tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Progress {
    /// Iterations done; the optimiser may have taken more steps, or fewer.
    step: u64,
    method: serde_json::Value,
}

/// Prompts as the game would make them, those that are too long left out.
fn encode<'a>(learner: &RlLearner<'a>, most: usize) -> Result<Vec<Prompt<'a>>> {
    let mut prompts = Vec::new();
    for turns in learner.prompts {
        let tokens =
            learner.model.template.encode(&learner.model.tokenizer, &messages(learner.character, &[], turns), true)?;
        if tokens.len() <= most {
            prompts.push(Prompt { turns, tokens });
        }
    }
    Ok(prompts)
}

/// The adapter as it is now, as a game wears it.
pub(super) fn worn(lora: &TrainableLora, scale: f32) -> Result<Adapter> {
    Ok(Adapter { lora: Arc::new(lora.to_adapter("policy")?), scale })
}
