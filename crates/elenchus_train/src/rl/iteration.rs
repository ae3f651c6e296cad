//! One turn of the loop: respond, judge, compare with the reference, learn.

use std::{collections::BTreeMap, time::Instant};

use candle_core::backprop::GradStore;
use elenchus_candle::{Activations, TrainableLora};
use elenchus_lm::peak_resident_bytes;
use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use super::{
    Experience, Group, Method, MiniBatch, Objective, Plan, PolicyOutput, RlConfig, RlLearner, RlReport, Rollout,
    Source, Stats, kl::Estimator, learner::Prompt, policy::Policy, rollout::Response,
};
use crate::{
    AdamW, Error, Example, Result, RunFolder,
    model::forward::{joined_passes, passes, reply_logprobs},
    numeric::mixed,
    optim::{adamw::add_gradients, batches},
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
pub(super) struct Scored {
    pub examples: Vec<Example>,
    pub responses: Vec<Response>,
    /// Which prompt of the iteration, and the score less its penalty.
    pub rollouts: Vec<Rollout>,
}

impl Iteration<'_> {
    /// Samples, judges, compares and learns.
    pub(super) fn run(
        &self,
        prompts: &[Prompt<'_>],
        method: &mut dyn Method,
        optimiser: &mut AdamW,
        run: &RunFolder,
    ) -> Result<RlReport> {
        let (sampling, settings) = (&self.config.sampling, &self.config.training);
        let mut report = RlReport { step: self.step + 1, ..RlReport::default() };
        let drawn = batches::full_batch(prompts, sampling.prompts, settings.seed, self.step);

        let plan = method.plan();
        let mut scored = if plan.source == Source::Reference && !self.learner.preferences.is_empty() {
            self.written(&mut report)
        } else {
            self.said(&mut report, &drawn, plan, run)?
        };

        let clock = Instant::now();
        if !scored.rollouts.is_empty() {
            let examples: Vec<&Example> = scored.examples.iter().collect();
            let outputs = self.outputs(&examples, &scored.rollouts, plan)?;
            self.compare(&examples, &outputs, &mut scored.rollouts)?;
            report.engine_kl = engine_kl(&scored.responses, &scored.rollouts, plan.source);
            let mismatched_kl = if plan.mismatched_kl { self.mismatched_kl(&scored)? } else { 0.0 };
            let experience = Experience { rollouts: scored.rollouts, mismatched_kl };
            // Samples of the reference tell how far it is from the policy, not the policy from it.
            let kl = experience.mean_kl(Estimator::K1);
            report.kl = if plan.source == Source::Policy { kl } else { -kl };
            let (objective, stats) = method.objective(&experience)?;
            report.stats.extend(stats.into_iter().map(|(name, value)| (name.to_owned(), value)));
            report.seconds.recompute = clock.elapsed().as_secs_f64();

            let clock = Instant::now();
            let held = if is_on_policy(plan) { outputs } else { Vec::new() };
            let lesson = Lesson { objective: &*objective, experience: &experience, examples: &examples, held };
            self.learn(&mut report, plan, lesson, optimiser)?;
            report.seconds.learn = clock.elapsed().as_secs_f64();
        }
        report.peak_bytes = peak_resident_bytes();
        Ok(report)
    }

    /// Responses under the prompt of the next query: how the policy's log-ratio is where there is no reason for it.
    fn mismatched_kl(&self, scored: &Scored) -> Result<f32> {
        let count = scored.examples.len();
        let next_query = |at: usize| {
            let query = scored.rollouts[at].query;
            (at + 1..at + count).map(|other| other % count).find(|&other| scored.rollouts[other].query != query)
        };
        let examples: Vec<Example> = (0..count)
            .filter_map(|at| {
                let (own, other) = (&scored.examples[at], &scored.examples[next_query(at)?]);
                let prompt = &other.tokens[..other.reply_start];
                let tokens = [prompt, &own.tokens[own.reply_start..]].concat();
                Some(Example { tokens, reply_start: prompt.len(), is_ended: own.is_ended, weight: 1.0 })
            })
            .collect();
        let mut sum = 0.0;
        for pass in passes(&examples.iter().collect::<Vec<_>>(), self.config.training.pass_tokens) {
            let of = |lora| {
                let logprobs = reply_logprobs(self.learner.executor, Some(lora), pass, None, Activations::Drop)?;
                Ok::<_, Error>(logprobs.sum_all()?.to_scalar::<f32>()?)
            };
            sum += of(self.lora)? - of(self.reference)?;
        }
        Ok(sum / examples.len().max(1) as f32)
    }

    /// The policy's own numbers for all responses, pass by pass. A method that takes one step from them learns from these
    /// very passes, so their activations are kept.
    fn outputs(&self, examples: &[&Example], rollouts: &[Rollout], plan: Plan) -> Result<Vec<PolicyOutput>> {
        let settings = &self.config.training;
        let activations = if is_on_policy(plan) { settings.optim().activations() } else { Activations::Drop };
        let is_joined = |at: usize| plan.group == Group::Together && rollouts[at].query == rollouts[at - 1].query;
        joined_passes(examples, is_joined, settings.pass_tokens)
            .map(|pass| self.policy.output(pass, activations))
            .collect()
    }

    /// Fills in log-probabilities of policy and reference, and values.
    fn compare(&self, examples: &[&Example], outputs: &[PolicyOutput], rollouts: &mut [Rollout]) -> Result<()> {
        let mut rollouts = rollouts.iter_mut();
        let mut rest = examples;
        for output in outputs {
            let pass = taken(&mut rest, output)?;
            let reference = reply_logprobs(self.learner.executor, Some(self.reference), pass, None, Activations::Drop)?;
            let (logprobs, reference) = (output.logprobs.to_vec1::<f32>()?, reference.to_vec1::<f32>()?);
            let values = match &output.values {
                Some(values) => Some(values.clone()),
                None => self.policy.frozen_values(pass)?,
            };
            let values = values.as_ref().map(candle_core::Tensor::to_vec1::<f32>).transpose()?.unwrap_or_default();
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

    /// Steps of the optimiser.
    fn learn(&self, report: &mut RlReport, plan: Plan, lesson: Lesson<'_>, optimiser: &mut AdamW) -> Result<()> {
        let Lesson { objective, experience, examples, held } = lesson;
        let settings = &self.config.training;
        report.learning_rate = settings.schedule().rate(self.step);
        let mini_batch = if plan.mini_batch == 0 { examples.len() } else { plan.mini_batch };
        let mut held = held.into_iter();
        let mut sums = BTreeMap::<String, f64>::new();
        'epochs: for epoch in 0..plan.epochs {
            let mut units = units(&experience.rollouts, plan.group);
            if !is_on_policy(plan) {
                let seed = mixed(mixed(settings.seed, self.step), epoch as u64);
                units.shuffle(&mut Pcg64Mcg::seed_from_u64(seed));
            }
            for responses in mini_batches(units, mini_batch) {
                let is_joined = |at: usize| {
                    let query = |at: usize| experience.rollouts[responses[at]].query;
                    plan.group == Group::Together && query(at) == query(at - 1)
                };
                let (mut grads, stats) = self.gradients(objective, &responses, is_joined, examples, &mut held)?;
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
        is_joined: impl Fn(usize) -> bool,
        examples: &[&Example],
        held: &mut impl Iterator<Item = PolicyOutput>,
    ) -> Result<(GradStore, Stats)> {
        let settings = &self.config.training;
        let picked: Vec<&Example> = responses.iter().map(|&at| examples[at]).collect();
        let tokens = picked.iter().map(|example| example.tokens.len() - example.reply_start).sum();
        let of = MiniBatch { responses: responses.len(), tokens };
        let (mut rest, mut sums) = (responses, None);
        for pass in joined_passes(&picked, is_joined, settings.pass_tokens) {
            let (part, others) = rest.split_at(pass.len());
            rest = others;
            let output = match held.next() {
                Some(output) => output,
                None => self.policy.output(pass, settings.optim().activations())?,
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
        let batch = batches::batch(self.learner.offline, offline.batch, settings.seed, update);
        let tokens: usize = batch.iter().map(|example| example.tokens.len() - example.reply_start).sum();
        let mut sum = 0.0;
        for pass in passes(&batch, settings.pass_tokens) {
            let logprobs = self.policy.output(pass, settings.optim().activations())?.logprobs;
            let loss = (logprobs.sum_all()? * (-1.0 / tokens as f64))?;
            sum += f64::from(loss.to_scalar::<f32>()?);
            let weighed = (loss * f64::from(offline.weight * offline.reward))?;
            add_gradients(&self.lora.vars(), grads, &weighed.backward()?)?;
        }
        Ok(Some(sum))
    }
}

/// Whether each response is learned from once, all of them in one step.
/// What the optimiser's steps learn from.
struct Lesson<'a> {
    objective: &'a dyn Objective,
    experience: &'a Experience,
    examples: &'a [&'a Example],
    /// The passes of a method that learns from each response once.
    held: Vec<PolicyOutput>,
}

fn is_on_policy(plan: Plan) -> bool {
    plan.epochs == 1 && plan.mini_batch == 0
}

/// The examples that a pass was made of, taken off the front.
fn taken<'a>(rest: &mut &'a [&'a Example], output: &PolicyOutput) -> Result<&'a [&'a Example]> {
    let mut tokens = output.logprobs.elem_count();
    let count = rest.iter().take_while(|example| {
        let before = tokens;
        tokens = tokens.saturating_sub(example.tokens.len() - example.reply_start);
        before > 0
    });
    let (pass, others) = rest.split_at(count.count());
    *rest = others;
    Ok(pass)
}

/// What a mini-batch is filled with: responses, or all to one query where they are not to be parted.
fn units(rollouts: &[Rollout], group: Group) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..rollouts.len()).collect();
    let is_joined = |a: &usize, b: &usize| group == Group::Together && rollouts[*a].query == rollouts[*b].query;
    all.chunk_by(is_joined).map(<[usize]>::to_vec).collect()
}

/// Units end to end, cut before one that would make a mini-batch larger than it should be; one that is too large by itself
/// is a mini-batch. Within one, responses are in their own order, so that those to one prompt are neighbours and a pass reads
/// it once.
fn mini_batches(units: Vec<Vec<usize>>, most: usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for unit in units {
        match batches.last_mut() {
            Some(last) if last.len() + unit.len() <= most => last.extend(unit),
            _ => batches.push(unit),
        }
    }
    batches.iter_mut().for_each(|responses| responses.sort_unstable());
    batches
}

/// `KL(engine || trainer)` a token, by k3: what is sampled in one numerics and learned in the other.
fn engine_kl(responses: &[Response], rollouts: &[Rollout], source: Source) -> f64 {
    let pairs = responses.iter().zip(rollouts).flat_map(|(response, rollout)| {
        let trainer = if source == Source::Policy { &rollout.logprobs } else { &rollout.ref_logprobs };
        response.logprobs.iter().zip(trainer)
    });
    let (mut sum, mut count) = (0.0, 0usize);
    for (&engine, &trainer) in pairs {
        sum += f64::from(Estimator::K3.of(engine, trainer));
        count += 1;
    }
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_to_a_query_stay_together_where_a_loss_has_them_in_one_term() {
        let rollouts: Vec<Rollout> =
            [0, 0, 1, 2, 2, 2].iter().map(|&query| Rollout { query, ..Rollout::default() }).collect();
        assert_eq!(units(&rollouts, Group::Compared).len(), 6);
        let together = units(&rollouts, Group::Together);
        assert_eq!(together, [vec![0, 1], vec![2], vec![3, 4, 5]]);
        assert_eq!(mini_batches(together.clone(), 2), [vec![0, 1], vec![2], vec![3, 4, 5]]);
        assert_eq!(mini_batches(together.clone(), 4), [vec![0, 1, 2], vec![3, 4, 5]]);
        assert_eq!(mini_batches(together, 6), [vec![0, 1, 2, 3, 4, 5]]);
        assert_eq!(mini_batches(units(&rollouts, Group::Alone), 4), [vec![0, 1, 2, 3], vec![4, 5]]);
        let shuffled = [4, 0, 5, 1, 3, 2].map(|at| vec![at]).to_vec();
        assert_eq!(mini_batches(shuffled, 4), [vec![0, 1, 4, 5], vec![2, 3]], "a prompt's responses are neighbours");
    }
}
