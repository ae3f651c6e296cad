//! One turn of the loop: respond, judge, compare with the reference, learn.

use std::{collections::BTreeMap, time::Instant};

use candle_core::backprop::GradStore;
use elenchus_lm::{Activations, TrainableLora};
use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use super::{
    Estimator, Experience, Method, MiniBatch, Objective, Plan, PolicyOutput, RlConfig, RlLearner, RlReport, RlSettings,
    Rollout, Stats,
    policy::{Policy, example},
    report::describe,
    rollout::{Response, respond},
    train::{Prompt, ROLLOUTS, exchange, note, worn},
};
use crate::{
    AdamW, Error, Example, Result, RunFolder,
    adamw::add_gradients,
    forward::{passes, reply_logprobs},
    judge::{Exchange, Judged},
    memory::resident_bytes,
    order::{self, mixed},
};

/// One turn of the loop.
pub(super) struct Iteration<'a> {
    pub learner: &'a RlLearner<'a>,
    pub config: &'a RlConfig,
    pub policy: &'a Policy<'a>,
    pub reference: &'a TrainableLora,
    pub lora: &'a TrainableLora,
    /// From 0.
    pub step: u64,
}

/// Responses that can be learned from.
struct Scored {
    examples: Vec<Example>,
    responses: Vec<Response>,
    /// Which prompt of the iteration, and the score less its penalty.
    rollouts: Vec<Rollout>,
}

impl Iteration<'_> {
    /// Samples, judges, compares and learns.
    pub fn run(
        &self,
        prompts: &[Prompt<'_>],
        method: &mut dyn Method,
        optimiser: &mut AdamW,
        run: &RunFolder,
    ) -> Result<RlReport> {
        let (sampling, settings) = (&self.config.sampling, &self.config.training);
        let mut report = RlReport { step: self.step + 1, ..RlReport::default() };
        let drawn = order::full_batch(prompts, sampling.prompts, settings.seed, self.step);

        let clock = Instant::now();
        let responses = self.respond(&drawn)?;
        report.seconds.respond = clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let exchanges: Vec<Exchange> = (responses.iter().enumerate())
            .map(|(at, response)| exchange(self.learner, drawn[at / sampling.group], response))
            .collect();
        let judged = self.learner.judges.judge(&exchanges)?;
        note(self.learner.judges, run, ROLLOUTS, report.step, &exchanges, &judged)?;
        self.describe(&mut report, &exchanges, &responses, &judged);
        report.seconds.judge = clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let mut scored = self.scored(&drawn, responses, &judged);
        if !scored.rollouts.is_empty() {
            let plan = method.plan();
            let examples: Vec<&Example> = scored.examples.iter().collect();
            let outputs = self.outputs(&examples, plan)?;
            self.compare(&examples, &outputs, &mut scored.rollouts)?;
            report.engine_kl = engine_kl(&scored.responses, &scored.rollouts);
            let experience = Experience { rollouts: scored.rollouts };
            report.kl = experience.mean_kl(Estimator::K1);
            let (objective, stats) = method.objective(&experience)?;
            report.stats.extend(stats.into_iter().map(|(name, value)| (name.to_owned(), value)));
            report.seconds.recompute = clock.elapsed().as_secs_f64();

            let clock = Instant::now();
            let held = if is_on_policy(plan) { outputs } else { Vec::new() };
            self.learn(&mut report, &*objective, plan, &examples, held, optimiser)?;
            report.seconds.learn = clock.elapsed().as_secs_f64();
        }
        report.resident_bytes = resident_bytes();
        Ok(report)
    }

    fn respond(&self, drawn: &[&Prompt<'_>]) -> Result<Vec<Response>> {
        let RlLearner { engine, tokenizer, .. } = *self.learner;
        let tokens: Vec<&[u32]> = drawn.iter().map(|prompt| prompt.tokens.as_slice()).collect();
        let adapter = worn(self.lora, 1.0)?;
        let (sampling, seed) = (&self.config.sampling, mixed(self.config.training.seed, self.step));
        let is_end = |id| tokenizer.is_end(id);
        respond(engine, Some(&adapter), &tokens, sampling.group, sampling.max_tokens, seed, is_end)
    }

    fn describe(&self, report: &mut RlReport, exchanges: &[Exchange], responses: &[Response], judged: &[Judged]) {
        describe(report, exchanges);
        let scores: Vec<f64> = judged.iter().filter_map(|judged| judged.score).map(f64::from).collect();
        report.unscored = judged.len() - scores.len();
        report.score = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
        report.scores = self.learner.judges.means(judged);
        report.cost = judged.iter().sum();
        let tokens: usize = responses.iter().map(|response| response.tokens.len()).sum();
        report.reply_tokens = tokens as f64 / responses.len().max(1) as f64;
    }

    /// What can be learned from: what no judge could score is left out.
    fn scored(&self, drawn: &[&Prompt<'_>], responses: Vec<Response>, judged: &[Judged]) -> Scored {
        let sampling = &self.config.sampling;
        let mut scored = Scored { examples: Vec::new(), responses: Vec::new(), rollouts: Vec::new() };
        for (at, (response, judged)) in responses.into_iter().zip(judged).enumerate() {
            let Some(score) = judged.score else { continue };
            let query = at / sampling.group;
            let penalty = if response.is_ended { 0.0 } else { sampling.missing_end_penalty };
            scored.examples.push(example(&drawn[query].tokens, &response));
            scored.rollouts.push(Rollout { query, score: score - penalty, ..Rollout::default() });
            scored.responses.push(response);
        }
        scored
    }

    /// The policy's own numbers for all responses, pass by pass. A method that takes one step from them learns from these
    /// very passes, so their activations are kept.
    fn outputs(&self, examples: &[&Example], plan: Plan) -> Result<Vec<PolicyOutput>> {
        let settings = &self.config.training;
        let activations = if is_on_policy(plan) { kept(settings) } else { Activations::Drop };
        passes(examples, settings.pass_tokens).map(|pass| self.policy.output(pass, activations)).collect()
    }

    /// Fills in log-probabilities of policy and reference, and values.
    fn compare(&self, examples: &[&Example], outputs: &[PolicyOutput], rollouts: &mut [Rollout]) -> Result<()> {
        let mut rollouts = rollouts.iter_mut();
        for (pass, output) in passes(examples, self.config.training.pass_tokens).zip(outputs) {
            let reference = reply_logprobs(self.learner.executor, Some(self.reference), pass, None, Activations::Drop)?;
            let (logprobs, reference) = (output.logprobs.to_vec1::<f32>()?, reference.to_vec1::<f32>()?);
            let values =
                output.values.as_ref().map(candle_core::Tensor::to_vec1::<f32>).transpose()?.unwrap_or_default();
            let mut start = 0;
            for (example, rollout) in pass.iter().zip(&mut rollouts) {
                let tokens = start..start + example.tokens.len() - example.reply_start;
                start = tokens.end;
                rollout.logprobs = logprobs[tokens.clone()].to_vec();
                rollout.ref_logprobs = reference[tokens.clone()].to_vec();
                rollout.values = values.get(tokens).unwrap_or_default().to_vec();
            }
        }
        Ok(())
    }

    /// Steps of the optimiser. `held` are the passes of a method that learns from each response once.
    fn learn(
        &self,
        report: &mut RlReport,
        objective: &dyn Objective,
        plan: Plan,
        examples: &[&Example],
        held: Vec<PolicyOutput>,
        optimiser: &mut AdamW,
    ) -> Result<()> {
        let settings = &self.config.training;
        report.learning_rate = settings.schedule().rate(self.step);
        let mini_batch = if plan.mini_batch == 0 { examples.len() } else { plan.mini_batch };
        let mut held = held.into_iter();
        let mut sums = BTreeMap::<String, f64>::new();
        'epochs: for epoch in 0..plan.epochs {
            let mut responses: Vec<usize> = (0..examples.len()).collect();
            if !is_on_policy(plan) {
                let seed = mixed(mixed(settings.seed, self.step), epoch as u64);
                responses.shuffle(&mut Pcg64Mcg::seed_from_u64(seed));
            }
            for responses in responses.chunks(mini_batch) {
                let (mut grads, stats) = self.gradients(objective, responses, examples, &mut held)?;
                for (name, value) in &stats {
                    *sums.entry((*name).to_owned()).or_default() += value;
                }
                report.updates += 1;
                if objective.skips(&stats) {
                    report.skipped += 1;
                    continue;
                }
                if let Some(loss) = self.offline(&mut grads, optimiser.steps())? {
                    *report.offline_loss.get_or_insert_default() += loss;
                }
                let grad_norm = optimiser.grad_norm(&grads)?;
                if !grad_norm.is_finite() {
                    return Err(Error::Diverged { step: self.step, loss: grad_norm });
                }
                report.grad_norm += grad_norm;
                let scale = (settings.max_grad_norm / grad_norm.max(1e-12)).min(1.0);
                optimiser.step(&grads, scale, report.learning_rate)?;
                if objective.stops(&stats) {
                    break 'epochs;
                }
            }
        }
        let updates = report.updates.max(1) as f64;
        let learned = (report.updates - report.skipped).max(1) as f64;
        report.grad_norm /= learned;
        report.offline_loss = report.offline_loss.map(|loss| loss / learned);
        report.stats.extend(sums.into_iter().map(|(name, sum)| (name, sum / updates)));
        Ok(())
    }

    /// The gradients of a mini-batch, and its statistics.
    fn gradients(
        &self,
        objective: &dyn Objective,
        responses: &[usize],
        examples: &[&Example],
        held: &mut impl Iterator<Item = PolicyOutput>,
    ) -> Result<(GradStore, Stats)> {
        let settings = &self.config.training;
        let picked: Vec<&Example> = responses.iter().map(|&at| examples[at]).collect();
        let tokens = picked.iter().map(|example| example.tokens.len() - example.reply_start).sum();
        let of = MiniBatch { responses: responses.len(), tokens };
        let (mut rest, mut sums) = (responses, None);
        for pass in passes(&picked, settings.pass_tokens) {
            let (part, others) = rest.split_at(pass.len());
            rest = others;
            let output = match held.next() {
                Some(output) => output,
                None => self.policy.output(pass, kept(settings))?,
            };
            let loss = objective.loss(part, of, &output)?;
            let grads = loss.total.backward()?;
            sums = Some(match sums {
                None => (grads, loss.stats),
                Some((mut all, stats)) => {
                    add_gradients(&self.policy.vars(), &mut all, &grads)?;
                    let add = |((name, sum), (_, more)): ((&'static str, f64), (_, f64))| (name, sum + more);
                    (all, std::iter::zip(stats, loss.stats).map(add).collect())
                }
            });
        }
        sums.ok_or_else(|| elenchus_lm::Error::Batch("a mini-batch without responses".to_owned()).into())
    }

    /// Adds the gradient of the pairs that were written beforehand; their mean negative log-probability a token.
    fn offline(&self, grads: &mut GradStore, update: u64) -> Result<Option<f64>> {
        let settings = &self.config.training;
        let Some(offline) = self.config.offline.as_ref().filter(|_| !self.learner.offline.is_empty()) else {
            return Ok(None);
        };
        let batch = order::batch(self.learner.offline, offline.batch, settings.seed, update);
        let tokens: usize = batch.iter().map(|example| example.tokens.len() - example.reply_start).sum();
        let mut sum = 0.0;
        for pass in passes(&batch, settings.pass_tokens) {
            let logprobs = self.policy.output(pass, kept(settings))?.logprobs;
            let loss = (logprobs.sum_all()? * (-1.0 / tokens as f64))?;
            sum += f64::from(loss.to_scalar::<f32>()?);
            let weighed = (loss * f64::from(offline.weight * offline.reward))?;
            add_gradients(&self.lora.vars(), grads, &weighed.backward()?)?;
        }
        Ok(Some(sum))
    }
}

/// Whether each response is learned from once, all of them in one step.
fn is_on_policy(plan: Plan) -> bool {
    plan.epochs == 1 && plan.mini_batch == 0
}

fn kept(settings: &RlSettings) -> Activations {
    if settings.gradient_checkpointing { Activations::Recompute } else { Activations::Keep }
}

/// `KL(engine || trainer)` a token, by k3: what is sampled in one numerics and learned in the other.
fn engine_kl(responses: &[Response], rollouts: &[Rollout]) -> f64 {
    let pairs =
        responses.iter().zip(rollouts).flat_map(|(response, rollout)| response.logprobs.iter().zip(&rollout.logprobs));
    let (mut sum, mut count) = (0.0, 0usize);
    for (&engine, &trainer) in pairs {
        sum += f64::from(Estimator::K3.of(engine, trainer));
        count += 1;
    }
    sum / count.max(1) as f64
}
