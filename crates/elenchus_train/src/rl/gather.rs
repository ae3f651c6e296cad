//! What an iteration learns from: said now and judged, with values of its beginnings where a method asks for them, or
//! written beforehand.

use std::time::Instant;

use elenchus_lm::Adapter;

use super::{
    Plan, Rerolls, RlLearner, RlReport, Rollout, Source, ValuedStep,
    iteration::{Iteration, Scored},
    judged_rollouts::{ROLLOUTS, RolloutLog, exchange},
    learner::{Prompt, adapter_of},
    policy::example,
    report::describe,
    reroll::{Tree, steps_of},
    rollout::{Response, Sampling, respond},
};
use crate::{
    Example, Result, RunFolder,
    judge::{Cost, Exchange, Judged},
    numeric::mixed,
    optim::batches,
};

/// Which of an iteration's draws those of [`Rerolls`] are.
const STEPS_SEED: u64 = 0x5e17;

impl Iteration<'_> {
    /// What is said to some prompts and judged, by the policy or by the reference.
    pub(super) fn said(
        &self,
        report: &mut RlReport,
        drawn: &[&Prompt<'_>],
        plan: Plan,
        run: &RunFolder,
    ) -> Result<Scored> {
        let (sampling, seed) = (&self.config.sampling, mixed(self.config.training.seed, self.step));
        let clock = Instant::now();
        let adapter = adapter_of(if plan.source == Source::Policy { self.lora } else { self.reference }, 1.0)?;
        let tokens: Vec<&[u32]> = drawn.iter().map(|prompt| prompt.tokens.as_slice()).collect();
        let is_end = |id| self.learner.model.tokenizer.is_end(id);
        let engine = &*self.learner.model.executor;
        let (max_tokens, is_end) = (sampling.max_tokens, &is_end);
        let drawing = Sampling { executor: engine, adapter: Some(&adapter), max_tokens, seed, is_end };
        let responses = respond(drawing, &tokens, sampling.group)?;
        report.seconds.respond = clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let exchanges: Vec<Exchange> = (responses.iter().enumerate())
            .map(|(at, response)| exchange(self.learner, drawn[at / sampling.group], response))
            .collect();
        let judged = if plan.scores {
            self.learner.judges.judge(&exchanges)?
        } else {
            vec![Judged { score: None, verdicts: Vec::new() }; exchanges.len()]
        };
        let log = RolloutLog { run, file: ROLLOUTS, step: report.step };
        log.note(self.learner.judges, &exchanges, &judged, &[])?;
        self.describe(report, &exchanges, &responses, &judged, plan);
        report.seconds.judge = clock.elapsed().as_secs_f64();
        let steps = match plan.steps {
            Some(rerolls) => Some(self.valued_steps(report, drawn, &responses, rerolls, &adapter)?),
            None => None,
        };
        Ok(self.scored(drawn, responses, &judged, plan, steps.unwrap_or_default()))
    }

    /// The steps of each response, valued.
    fn valued_steps(
        &self,
        report: &mut RlReport,
        drawn: &[&Prompt<'_>],
        responses: &[Response],
        rerolls: Rerolls,
        adapter: &Adapter,
    ) -> Result<Vec<Vec<ValuedStep>>> {
        let RlLearner { model, judges, .. } = *self.learner;
        let tokenizer = &model.tokenizer;
        let sampling = &self.config.sampling;
        let prompts: Vec<&[u32]> = drawn.iter().map(|prompt| prompt.tokens.as_slice()).collect();
        let clock = Instant::now();
        let seed = mixed(mixed(self.config.training.seed, self.step), STEPS_SEED);
        let of = Tree {
            executor: &*model.executor,
            adapter: Some(adapter),
            prompts: &prompts,
            group: sampling.group,
            responses,
            max_tokens: sampling.max_tokens,
        };
        let is_end = |id| tokenizer.is_end(id);
        let branches = of.branches(rerolls, seed, |tokens| tokenizer.decode(tokens), is_end)?;
        report.seconds.respond += clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let said: Vec<&Response> = branches.iter().flat_map(|branch| &branch.responses).collect();
        report.rerolled_tokens = branches.iter().map(|branch| branch.new_tokens).sum();
        let exchanges: Vec<Exchange> = branches
            .iter()
            .flat_map(|branch| {
                branch.responses.iter().map(|response| exchange(self.learner, drawn[branch.prompt], response))
            })
            .collect();
        let judged = judges.judge(&exchanges)?;
        report.cost += judged.iter().sum::<Cost>();
        let score = |(response, judged): (&&Response, &Judged)| {
            let penalty = if response.is_ended { 0.0 } else { sampling.missing_end_penalty };
            judged.score.map(|score| score - penalty)
        };
        let scores: Vec<Option<f32>> = said.iter().zip(&judged).map(score).collect();
        report.seconds.judge += clock.elapsed().as_secs_f64();
        Ok(steps_of(&branches, &scores, responses.len(), sampling.group))
    }

    /// Pairs that were written beforehand: what was chosen is worth 1, what was rejected -1.
    pub(super) fn written(&self, report: &mut RlReport) -> Scored {
        let (prompts, seed) = (self.config.sampling.prompts, self.config.training.seed);
        let drawn = batches::full_batch(self.learner.preferences, prompts, seed, self.step);
        let mut scored = Scored { examples: Vec::new(), responses: Vec::new(), rollouts: Vec::new() };
        for (query, pair) in drawn.into_iter().enumerate() {
            for (example, score) in [(&pair.chosen, 1.0), (&pair.rejected, -1.0)] {
                scored.examples.push(example.clone());
                scored.rollouts.push(Rollout { query, score, ..Rollout::default() });
            }
        }
        let exchanges: Vec<Exchange> = scored.examples.iter().map(|example| self.read(example)).collect();
        describe(report, &exchanges);
        let tokens: usize = scored.examples.iter().map(|example| example.tokens.len() - example.reply_start).sum();
        report.reply_tokens = tokens as f64 / scored.examples.len().max(1) as f64;
        scored
    }

    fn read(&self, example: &Example) -> Exchange {
        let tokenizer = &self.learner.model.tokenizer;
        let words = &example.tokens[example.reply_start..example.tokens.len() - usize::from(example.is_ended)];
        Exchange { context: Vec::new(), reply: tokenizer.decode(words).trim().to_owned(), is_ended: example.is_ended }
    }

    fn describe(
        &self,
        report: &mut RlReport,
        exchanges: &[Exchange],
        responses: &[Response],
        judged: &[Judged],
        plan: Plan,
    ) {
        describe(report, exchanges);
        let scores: Vec<f64> = judged.iter().filter_map(|judged| judged.score).map(f64::from).collect();
        report.unscored = if plan.scores { judged.len() - scores.len() } else { 0 };
        report.score = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
        report.scores = self.learner.judges.means(judged);
        report.cost = judged.iter().sum();
        let tokens: usize = responses.iter().map(|response| response.tokens.len()).sum();
        report.reply_tokens = tokens as f64 / responses.len().max(1) as f64;
    }

    /// What can be learned from: what no judge could score is left out.
    fn scored(
        &self,
        drawn: &[&Prompt<'_>],
        responses: Vec<Response>,
        judged: &[Judged],
        plan: Plan,
        mut steps: Vec<Vec<ValuedStep>>,
    ) -> Scored {
        let sampling = &self.config.sampling;
        let mut scored = Scored { examples: Vec::new(), responses: Vec::new(), rollouts: Vec::new() };
        for (at, (response, judged)) in responses.into_iter().zip(judged).enumerate() {
            // What nobody is asked about is worth nothing.
            let Some(score) = judged.score.or((!plan.scores).then_some(0.0)) else { continue };
            let query = at / sampling.group;
            let penalty = if response.is_ended || !plan.scores { 0.0 } else { sampling.missing_end_penalty };
            let steps = steps.get_mut(at).map(std::mem::take).unwrap_or_default();
            if plan.steps.is_some() && steps.is_empty() {
                continue;
            }
            scored.examples.push(example(&drawn[query].tokens, &response));
            scored.rollouts.push(Rollout { query, score: score - penalty, steps, ..Rollout::default() });
            scored.responses.push(response);
        }
        scored
    }
}
