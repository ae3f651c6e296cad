//! Values out of preferences, the first stage of DVPO (Huang et al. 2025): before each token, what the reply is coming to.

use candle_core::Tensor;

use crate::{Example, Result, numeric::gae};

/// What a reply is worth at its end: chosen, and rejected.
pub(super) const WORTH: [f32; 2] = [1.0, -1.0];

/// `0.5 sum (v - return)^2` over the tokens of pairs, chosen and rejected in turn; returns by GAE from the values as they are
/// (gamma 1), with the reply's worth on its last token.
pub(super) fn value_loss(values: &Tensor, examples: &[&Example], lam: f32) -> Result<Tensor> {
    let numbers = values.to_vec1::<f32>()?;
    let mut returns = Vec::with_capacity(numbers.len());
    for (at, example) in examples.iter().enumerate() {
        let tokens = reply_tokens(example);
        let values = &numbers[returns.len()..returns.len() + tokens];
        let mut rewards = vec![0.0; tokens];
        rewards[tokens - 1] = WORTH[at % 2];
        returns.extend(gae(&rewards, values, 1.0, lam).1);
    }
    let returns = Tensor::new(returns, values.device())?;
    Ok(((values - returns)?.sqr()?.sum_all()? * 0.5)?)
}

/// What is expected of each reply before its last token: all of its words are said.
pub(super) fn last_values(values: &Tensor, examples: &[&Example]) -> Result<Vec<f32>> {
    let numbers = values.to_vec1::<f32>()?;
    let mut end = 0;
    let last = examples.iter().map(|example| {
        end += reply_tokens(example);
        numbers[end - 1]
    });
    Ok(last.collect())
}

pub(super) fn reply_tokens(example: &Example) -> usize {
    example.tokens.len() - example.reply_start
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    /// numpy: values [.1, .2, .3] chosen and [.4, -.2] rejected, lambda .95; returns by the recursion of GAE.
    #[test]
    fn values_are_drawn_to_what_a_reply_comes_to() {
        let example =
            |tokens: usize| Example { tokens: vec![1; tokens + 2], reply_start: 2, is_ended: true, weight: 1.0 };
        let (chosen, rejected) = (example(3), example(2));
        let examples = [&chosen, &rejected];
        let of = |lam: f32| {
            let values = Var::new(&[0.1f32, 0.2, 0.3, 0.4, -0.2], &Device::Cpu).unwrap();
            let loss = value_loss(values.as_tensor(), &examples, lam).unwrap();
            // The gradient of a value is its distance from the return, which is no variable.
            let grads = loss.backward().unwrap();
            grads.get(&values).unwrap().to_vec1::<f32>().unwrap()
        };
        // Chosen: deltas [.1, .1, .7]; advantages [.1 + .95 * (.1 + .95 * .7), .1 + .95 * .7, .7].
        let expected = [0.826_75, 0.765, 0.7, -0.6 - 0.95 * 0.8, -0.8].map(|advantage: f32| -advantage);
        assert!(of(0.95).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", of(0.95));
        let expected = [-0.9, -0.8, -0.7, 1.4, 0.8];
        assert!(of(1.0).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", of(1.0));
        let values = Tensor::new(&[0.1f32, 0.2, 0.3, 0.4, -0.2], &Device::Cpu).unwrap();
        assert_eq!(last_values(&values, &examples).unwrap(), [0.3, -0.2]);
    }
}
