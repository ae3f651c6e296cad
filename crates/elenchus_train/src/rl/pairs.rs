//! Responses to one query, two by two: what methods have in common whose loss is over pairs.

use std::cmp::Ordering;

use candle_core::Tensor;

use super::{
    experience::{Rollout, sums},
    method::{MiniBatch, PolicyOutput},
};
use crate::Result;

/// The numbers of an iteration's responses that pairs are made of.
pub struct Responses {
    queries: Vec<usize>,
    lengths: Vec<usize>,
    /// What a response is compared by: its score, or its reward.
    pub rewards: Vec<f32>,
    /// Summed over a response, under the policy that said it.
    pub old_logprobs: Vec<f32>,
    /// The same under the reference.
    pub ref_logprobs: Vec<f32>,
}

impl Responses {
    /// The responses of some rollouts, with what each is compared by.
    pub fn new(rollouts: &[Rollout], rewards: Vec<f32>) -> Self {
        Self {
            queries: rollouts.iter().map(|rollout| rollout.query).collect(),
            lengths: rollouts.iter().map(|rollout| rollout.logprobs.len()).collect(),
            rewards,
            old_logprobs: rollouts.iter().map(|rollout| rollout.logprobs.iter().sum()).collect(),
            ref_logprobs: rollouts.iter().map(|rollout| rollout.ref_logprobs.iter().sum()).collect(),
        }
    }

    /// Tokens of each response.
    pub fn lengths(&self) -> Vec<f32> {
        self.lengths.iter().map(|&length| length as f32).collect()
    }

    /// Each response's log-probability, (responses); differentiable.
    pub fn logprobs(&self, responses: &[usize], policy: &PolicyOutput) -> Result<Tensor> {
        sums(&policy.logprobs, responses.iter().map(|&at| self.lengths[at]))
    }

    /// All pairs of some whole groups; `order` says which of two responses is the first, and leaves a pair out where they
    /// are equal. A pair's weight makes a loss the mean over groups, by their size, of the mean over a group's pairs.
    pub fn pairs(&self, responses: &[usize], of: MiniBatch, order: impl Fn(usize, usize) -> Ordering) -> Pairs {
        let mut pairs = Pairs::default();
        let mut start = 0;
        for group in responses.chunk_by(|&a, &b| self.queries[a] == self.queries[b]) {
            let before = pairs.first.len();
            for (i, &one) in group.iter().enumerate() {
                for (j, &other) in group.iter().enumerate().skip(i + 1) {
                    let (first, second) = match order(one, other) {
                        Ordering::Greater => (i, j),
                        Ordering::Less => (j, i),
                        Ordering::Equal => continue,
                    };
                    pairs.first.push((start + first) as u32);
                    pairs.second.push((start + second) as u32);
                }
            }
            let count = pairs.first.len() - before;
            let weight = group.len() as f32 / (count.max(1) * of.responses) as f32;
            pairs.weights.resize(pairs.first.len(), weight);
            start += group.len();
        }
        pairs
    }

    /// The same in order of rewards: the better one first, ties left out.
    pub fn preferred(&self, responses: &[usize], of: MiniBatch) -> Pairs {
        self.pairs(responses, of, |one, other| self.rewards[one].total_cmp(&self.rewards[other]))
    }
}

/// Pairs of responses, as places within a part of a mini-batch.
#[derive(Default)]
pub struct Pairs {
    /// The first of each pair.
    pub first: Vec<u32>,
    /// The second.
    pub second: Vec<u32>,
    /// What each pair counts.
    pub weights: Vec<f32>,
}

impl Pairs {
    /// The first's less the second's, of one number a response, (pairs); differentiable.
    pub fn differences(&self, of: &Tensor) -> Result<Tensor> {
        let (first, second) = self.both(of)?;
        Ok((first - second)?)
    }

    /// The first's and the second's together.
    pub fn sums(&self, of: &Tensor) -> Result<Tensor> {
        let (first, second) = self.both(of)?;
        Ok((first + second)?)
    }

    fn both(&self, of: &Tensor) -> Result<(Tensor, Tensor)> {
        let pick = |places: &[u32]| of.index_select(&Tensor::new(places, of.device())?, 0);
        Ok((pick(&self.first)?, pick(&self.second)?))
    }

    /// The weighted sum of `loss`, which is made of (pairs); without pairs 0, along which nothing moves.
    pub fn mean(&self, logprobs: &Tensor, loss: impl Fn() -> Result<Tensor>) -> Result<Tensor> {
        if self.first.is_empty() {
            return Ok((logprobs.sum_all()? * 0.0)?);
        }
        let weights = Tensor::new(self.weights.as_slice(), logprobs.device())?;
        Ok((loss()? * weights)?.sum_all()?)
    }

    /// The weighted sum of a number of each pair.
    pub fn stat(&self, numbers: &Tensor, of: fn(f32) -> f32) -> Result<f64> {
        let numbers = numbers.to_vec1::<f32>()?;
        Ok(numbers.iter().zip(&self.weights).map(|(&x, &weight)| f64::from(of(x) * weight)).sum())
    }
}

/// The loss of a method for one pair: chosen -10 in 5 tokens and rejected -12 in 6 under the policy, -11 and -11.5 under
/// the reference.
#[cfg(any(test, feature = "testing"))]
pub fn loss_of_one_pair(method: &mut dyn super::Method) -> f32 {
    let rollout = |score: f32, logprob: f32, reference: f32, tokens: usize| Rollout {
        score,
        logprobs: vec![logprob / tokens as f32; tokens],
        ref_logprobs: vec![reference / tokens as f32; tokens],
        ..Rollout::default()
    };
    let rollouts = vec![rollout(1.0, -10.0, -11.0, 5), rollout(-1.0, -12.0, -11.5, 6)];
    let now: Vec<f32> = rollouts.iter().flat_map(|rollout| rollout.logprobs.clone()).collect();
    let (objective, _) = method.objective(&super::Experience { rollouts, ..super::Experience::default() }).unwrap();
    let policy = PolicyOutput { logprobs: Tensor::new(now, &candle_core::Device::Cpu).unwrap(), values: None };
    let loss = objective.loss(&[0, 1], MiniBatch { responses: 2, tokens: 11 }, &policy).unwrap();
    loss.total.to_scalar::<f32>().unwrap()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn pairs_are_of_one_query_and_weigh_their_group_evenly() {
        let rollouts: Vec<Rollout> = [0, 0, 0, 4, 4, 7]
            .iter()
            .map(|&query| Rollout { query, logprobs: vec![-1.0], ref_logprobs: vec![-1.0], ..Rollout::default() })
            .collect();
        let responses = Responses::new(&rollouts, vec![1.0, 3.0, 1.0, 5.0, 6.0, 9.0]);
        let of = MiniBatch { responses: 6, tokens: 6 };
        let all: Vec<usize> = (0..6).collect();
        let pairs = responses.pairs(&all, of, |_, _| Ordering::Greater);
        assert_eq!((&pairs.first[..], &pairs.second[..]), (&[0, 0, 1, 3][..], &[1, 2, 2, 4][..]));
        assert_eq!(pairs.weights, [1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 3.0]);
        let pairs = responses.preferred(&all, of);
        assert_eq!((&pairs.first[..], &pairs.second[..]), (&[1, 1, 4][..], &[0, 2, 3][..]), "a tie says nothing");
        assert_eq!(pairs.weights, [0.25, 0.25, 1.0 / 3.0]);
        // A part of a mini-batch: places are within the part.
        let pairs = responses.preferred(&[3, 4, 5], of);
        assert_eq!((&pairs.first[..], &pairs.second[..], &pairs.weights[..]), (&[1][..], &[0][..], &[1.0 / 3.0][..]));
        let logprobs = Tensor::new(&[-1.0f32], &Device::Cpu).unwrap();
        let none = responses.preferred(&[5], of);
        assert_eq!(none.mean(&logprobs, || unreachable!()).unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }
}
