//! Responses resampled from intermediate steps: Monte Carlo values of their beginnings.
//!
//! A beginning is a response's memory, cut: its pages are shared by all that continue it, and nothing is read again but
//! the one token whose logits are wanted.

use elenchus_lm::{Adapter, Executor, KvCache, Logits, Row};

use super::{
    Rerolls, Response, ValuedStep,
    rollout::{Sampling, resume},
};
use crate::{Result, model::shared_prefix::shared_prefix, numeric::mixed};

/// Responses and how they came about.
#[derive(Clone, Copy)]
pub(super) struct Tree<'a> {
    pub executor: &'a dyn Executor,
    pub adapter: Option<&'a Adapter>,
    pub prompts: &'a [&'a [u32]],
    /// Responses to each prompt, beside each other.
    pub group: usize,
    pub responses: &'a [Response],
    pub max_tokens: usize,
}

/// A beginning and what was said from there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Branch {
    /// Whose beginning: a response's number; of an empty one, which all of a group share, the first's.
    pub response: usize,
    pub prompt: usize,
    /// The beginning's tokens.
    pub start: usize,
    /// Whole responses, the beginning among them.
    pub responses: Vec<Response>,
    /// Tokens after the beginning, of all of them.
    pub new_tokens: usize,
}

impl Tree<'_> {
    /// From each step's beginning as many responses as are asked for. `text` decodes tokens.
    pub(crate) fn branches(
        &self,
        rerolls: Rerolls,
        seed: u64,
        text: impl Fn(&[u32]) -> String,
        is_end: impl Fn(u32) -> bool + Sync,
    ) -> Result<Vec<Branch>> {
        let mut branches = Vec::new();
        let (persona, shared) = shared_prefix(self.executor, self.adapter, self.prompts.iter().copied())?;
        for (number, (prompt, responses)) in self.prompts.iter().zip(self.responses.chunks(self.group)).enumerate() {
            // One prompt at a time, so that no more than a group's memory is held beside the branches'.
            let mut beginning = persona.clone();
            let (last, before) =
                prompt.split_last().ok_or_else(|| elenchus_lm::Error::Batch("an empty prompt".into()))?;
            if before.len() > shared {
                self.read(&before[shared..], &mut beginning)?;
            }
            let mut starts = vec![(number * self.group, 0, beginning.clone(), *last)];
            for (place, response) in responses.iter().enumerate() {
                let steps = step_starts(&response.tokens, rerolls.most_steps, &text);
                let Some(&furthest) = steps.last().filter(|&&start| start > 0) else { continue };
                let mut cache = beginning.clone();
                let read = [&[*last], &response.tokens[..furthest - 1]].concat();
                self.read(&read, &mut cache)?;
                for start in steps.into_iter().filter(|&start| start > 0) {
                    let mut cut = cache.clone();
                    cut.truncate(prompt.len() + start - 1);
                    starts.push((number * self.group + place, start, cut, response.tokens[start - 1]));
                }
            }
            for (response, start, cache, last) in starts {
                let said = &self.responses[response].tokens[..start];
                let sampling = Sampling {
                    executor: self.executor,
                    adapter: self.adapter,
                    max_tokens: self.max_tokens - start,
                    seed: mixed(mixed(seed, response as u64), start as u64),
                    is_end: &is_end,
                };
                let rest = resume(sampling, cache, last, rerolls.count)?;
                let new_tokens = rest.iter().map(|rest| rest.tokens.len()).sum();
                let whole = rest.into_iter().map(|rest| Response { tokens: [said, &rest.tokens].concat(), ..rest });
                branches.push(Branch { response, prompt: number, start, responses: whole.collect(), new_tokens });
            }
        }
        Ok(branches)
    }

    fn read(&self, tokens: &[u32], cache: &mut KvCache) -> Result<()> {
        self.executor.forward(&mut [Row { tokens, adapter: self.adapter, cache, logits: Logits::None }])?;
        Ok(())
    }
}

/// Where sentences begin, in tokens: 0, and after each token that ends a sentence, if anything follows. At most `most`.
fn step_starts(tokens: &[u32], most: usize, text: impl Fn(&[u32]) -> String) -> Vec<usize> {
    let ends = |at: &usize| {
        let so_far = text(&tokens[..*at]);
        // What follows must be a new word: "3.5" and "..." are no ends.
        let next = text(&tokens[..at + 1]);
        so_far.trim_end_matches(['"', '\'', ')']).ends_with(['.', '?', '!'])
            && next.get(so_far.len()..).is_some_and(|more| more.starts_with(char::is_whitespace))
    };
    std::iter::once(0).chain((1..tokens.len().saturating_sub(1)).filter(ends)).take(most).collect()
}

/// The steps of each of `count` responses with their values: the means of what could be scored of `scores`, which has one
/// for each response of the branches. A step that nobody could score is part of the one before; a response whose beginning
/// has no value has no steps.
pub(super) fn steps_of(
    branches: &[Branch],
    scores: &[Option<f32>],
    count: usize,
    group: usize,
) -> Vec<Vec<ValuedStep>> {
    let mut steps = vec![Vec::new(); count];
    let mut rest = scores;
    for branch in branches {
        let (own, others) = rest.split_at(branch.responses.len());
        rest = others;
        let own: Vec<f32> = own.iter().copied().flatten().collect();
        if own.is_empty() {
            continue;
        }
        let step = ValuedStep { start: branch.start, value: own.iter().sum::<f32>() / own.len() as f32 };
        if branch.start == 0 {
            let of_group = branch.prompt * group..(branch.prompt + 1) * group;
            steps[of_group].iter_mut().for_each(|steps| steps.push(step));
        } else if !steps[branch.response].is_empty() {
            steps[branch.response].push(step);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use elenchus_lm::{CpuExecutor, CpuSettings, Weights, testing::TinyModel};

    use super::{super::rollout::respond, *};

    #[test]
    fn steps_begin_behind_sentences() {
        let words = ["Yes", ".", " I", " have", " 3", ".", "5", " of", " them", "!\"", " Why", "?", "<end>"];
        let text = |ids: &[u32]| ids.iter().map(|&id| words[id as usize]).collect::<String>();
        let tokens: Vec<u32> = (0..words.len() as u32).collect();
        assert_eq!(step_starts(&tokens, 9, text), [0, 2, 10], "what ends the response begins nothing");
        assert_eq!(step_starts(&tokens, 2, text), [0, 2]);
        assert_eq!(step_starts(&tokens[..1], 9, text), [0]);
    }

    /// A branch is what the policy would have said from there: by the same draws as a prompt that ends there.
    #[test]
    fn branches_are_responses_to_what_was_said_so_far() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let executor = CpuExecutor::new(&Weights::open(&path, &mut |_| {}).unwrap(), CpuSettings::default()).unwrap();
        let prompts: [&[u32]; 2] = [&[40, 41, 42, 43], &[40, 41, 50]];
        let is_end = |id: u32| id.is_multiple_of(11);
        let sampling =
            |max_tokens, seed| Sampling { executor: &executor, adapter: None, max_tokens, seed, is_end: &is_end };
        let responses = respond(sampling(12, 5), &prompts, 2).unwrap();
        let tree = Tree {
            executor: &executor,
            adapter: None,
            prompts: &prompts,
            group: 2,
            responses: &responses,
            max_tokens: 12,
        };
        // Every third token ends a sentence.
        let text =
            |tokens: &[u32]| (0..tokens.len()).map(|at| if at % 3 == 2 { " x." } else { " y" }).collect::<String>();
        let rerolls = Rerolls { count: 3, most_steps: 3 };
        let branches = tree.branches(rerolls, 7, text, is_end).unwrap();
        assert!(branches.iter().any(|branch| branch.start == 3), "{responses:?}");
        for branch in &branches {
            let said = &responses[branch.response].tokens[..branch.start];
            let prompt = [prompts[branch.prompt], said].concat();
            let seed = mixed(mixed(7, branch.response as u64), branch.start as u64);
            let alone = respond(sampling(12 - branch.start, seed), &[&prompt], 3).unwrap();
            let whole: Vec<Vec<u32>> = alone.iter().map(|of| [said, &of.tokens].concat()).collect();
            let ours: Vec<Vec<u32>> = branch.responses.iter().map(|of| of.tokens.clone()).collect();
            assert_eq!(ours, whole, "after {} tokens of response {}", branch.start, branch.response);
            assert_eq!(branch.new_tokens, alone.iter().map(|of| of.tokens.len()).sum::<usize>());
        }
        assert_eq!(branches.iter().filter(|branch| branch.start == 0).count(), 2, "a group shares its empty beginning");
    }

    #[test]
    fn values_are_means_of_what_could_be_scored() {
        let branch = |response: usize, start: usize| Branch {
            response,
            prompt: response / 2,
            start,
            responses: vec![Response { tokens: vec![1], is_ended: true, logprobs: Vec::new() }; 2],
            new_tokens: 2,
        };
        let branches = [branch(0, 0), branch(0, 3), branch(1, 2), branch(2, 0), branch(3, 4)];
        let scores = [1.0, 0.0, 2.0, f32::NAN, f32::NAN, f32::NAN, f32::NAN, f32::NAN, 1.0, 1.0];
        let scores: Vec<Option<f32>> = scores.iter().map(|&score| (!score.is_nan()).then_some(score)).collect();
        let step = |start: usize, value: f32| ValuedStep { start, value };
        let expected = [vec![step(0, 0.5), step(3, 2.0)], vec![step(0, 0.5)], vec![], vec![]];
        assert_eq!(steps_of(&branches, &scores, 4, 2), expected);
    }

    /// A coin: half of what is said from a beginning is worth 1. With 9 of them a value's standard error is 1/6.
    #[test]
    fn values_are_unbiased_and_their_error_is_that_of_a_mean() {
        let mut rng = elenchus_lm::Rng::from_seed(3);
        let values: Vec<f64> = (0..4000)
            .map(|_| {
                let responses = vec![Response { tokens: vec![1], is_ended: true, logprobs: Vec::new() }; 9];
                let branch = Branch { response: 0, prompt: 0, start: 0, responses, new_tokens: 9 };
                let scores: Vec<Option<f32>> = (0..9)
                    .map(|_| {
                        let (token, _) = elenchus_lm::sample_softmax(&[0.0, 0.0], &mut rng).unwrap();
                        Some(token as f32)
                    })
                    .collect();
                f64::from(steps_of(&[branch], &scores, 1, 1)[0][0].value)
            })
            .collect();
        let mean = values.iter().sum::<f64>() / 4000.0;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 3999.0;
        // Four standard errors of the mean of 4,000; the deviation's own is about .0019.
        assert!((mean - 0.5).abs() < 4.0 / 6.0 / 4000f64.sqrt(), "{mean}");
        assert!((variance.sqrt() - 1.0 / 6.0).abs() < 0.008, "{}", variance.sqrt());
    }
}
