//! The head and the log-softmax at target positions, in chunks: logits of a whole batch never exist at once.
//!
//! The gradient for the hidden states is computed together with the value, while a chunk's logits are at hand, so the
//! head runs once in each direction and nothing of the vocabulary's width is kept.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, InplaceOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{super::matrix::Matrix, exp, host, largest, soft_cap_slope, soft_capped, with_host};

/// Positions whose logits are held at once: enough that a product pays for packing the head's weights, few enough that the
/// logits (50 MB for 49,152 tokens) are a small part of a pass.
const CHUNK: usize = 256;

/// The last matrix, and the cap of what it gives.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub matrix: &'a Matrix,
    pub logit_cap: Option<f32>,
}

/// `log softmax(head(x))[target]` for each row of `x` `(rows, hidden_size)`; (rows). With `gradient`, the result can be
/// differentiated by `x`.
pub(crate) fn token_logprobs(x: &Tensor, head: Head<'_>, targets: &[u32], gradient: bool) -> Result<Tensor> {
    let rows = x.dim(0)?;
    if rows != targets.len() {
        bail!("token logprobs: {rows} positions, but {} targets", targets.len())
    }
    let (detached, mut logprobs, mut gradients) = (x.detach(), Vec::with_capacity(rows), Vec::new());
    for (start, targets) in (0..rows).step_by(CHUNK).zip(targets.chunks(CHUNK)) {
        let logits = head.matrix.forward(&detached.narrow(0, start, targets.len())?)?;
        let vocab_size = logits.dim(1)?;
        if let Some(target) = targets.iter().find(|target| **target as usize >= vocab_size) {
            bail!("token logprobs: target {target} is outside the vocabulary of {vocab_size}")
        }
        let logits = logits.to_device(&candle_core::Device::Cpu)?;
        let values = Mutex::new(Vec::new());
        logits.inplace_op1(&ToGradient { targets, logit_cap: head.logit_cap, logprobs: &values })?;
        logprobs.extend(values.into_inner().unwrap_or_else(PoisonError::into_inner));
        if gradient {
            gradients.push(head.matrix.backward(&logits.to_device(x.device())?)?);
        }
    }
    let logprobs = Tensor::from_vec(logprobs, rows, x.device())?;
    if !gradient {
        return Ok(logprobs);
    }
    // (rows, hidden_size): how each logprob changes with its own row, nothing else.
    let jacobian = Tensor::cat(&gradients, 0)?;
    if x.device().is_cpu() {
        x.apply_op1(TokenLogprobs { logprobs, jacobian })
    } else {
        // A value plus a term that is zero and has the right slope.
        let slope = (x * &jacobian)?.sum(1)?;
        logprobs + (&slope - slope.detach())?
    }
}

/// Turns a row's logits into the gradient of its target's logprob, `onehot - softmax`, and returns the logprob.
#[inline(always)]
fn to_gradient(logits: &mut [f32], target: usize) -> f32 {
    let largest = largest(logits);
    let at_target = logits[target] - largest;
    let mut lanes = [0f32; 16];
    let (chunks, tail) = logits.as_chunks_mut::<16>();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *logit = exp(*logit - largest);
            *lane += *logit;
        }
    }
    for (lane, logit) in lanes.iter_mut().zip(tail) {
        *logit = exp(*logit - largest);
        *lane += *logit;
    }
    let total = super::sum_lanes(lanes);
    let normalise = -1.0 / total;
    for logit in logits.iter_mut() {
        *logit *= normalise;
    }
    logits[target] += 1.0;
    at_target - total.ln()
}

/// The same for logits that are capped: the gradient for those that the head gave.
#[inline(always)]
fn to_gradient_through_cap(logits: &mut [f32], target: usize, cap: f32) -> f32 {
    logits.iter_mut().for_each(|logit| *logit = soft_capped(*logit, cap));
    let slopes: Vec<f32> = logits.iter().map(|capped| soft_cap_slope(*capped, cap)).collect();
    let logprob = to_gradient(logits, target);
    logits.iter_mut().zip(&slopes).for_each(|(gradient, slope)| *gradient *= slope);
    logprob
}

/// Turns the rows of `(targets, vocab_size)` in place.
struct ToGradient<'a> {
    targets: &'a [u32],
    logit_cap: Option<f32>,
    /// The place for the rows' logprobs.
    logprobs: &'a Mutex<Vec<f32>>,
}

impl InplaceOp1 for ToGradient<'_> {
    fn name(&self) -> &'static str {
        "token-logprobs-gradient"
    }

    fn cpu_fwd(&self, logits: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(logits), Some((start, end))) = (logits, layout.contiguous_offsets()) else {
            bail!("token logprobs: expected contiguous f32 logits, got {layout:?}")
        };
        let rows = logits[start..end].par_chunks_exact_mut(layout.dims()[1]).zip(self.targets);
        let row = |(logits, target): (&mut [f32], &u32)| match self.logit_cap {
            None => vectorised!(to_gradient(logits, *target as usize)),
            Some(cap) => vectorised!(to_gradient_through_cap(logits, *target as usize, cap)),
        };
        let values = rows.map(row).collect();
        *self.logprobs.lock().unwrap_or_else(PoisonError::into_inner) = values;
        Ok(())
    }
}

struct TokenLogprobs {
    logprobs: Tensor,
    jacobian: Tensor,
}

impl CustomOp1 for TokenLogprobs {
    fn name(&self) -> &'static str {
        "token-logprobs"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_l: &Layout) -> Result<(CpuStorage, Shape)> {
        host(x, x_l)?;
        let logprobs = with_host(&self.logprobs, <[f32]>::to_vec)?;
        Ok((CpuStorage::F32(logprobs), self.logprobs.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.jacobian.broadcast_mul(&grad.unsqueeze(1)?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};

    #[test]
    fn value_and_gradient_over_several_chunks() {
        let matrix = Matrix::Dense(random(1, &[37, 8]));
        let targets: Vec<u32> = (0..CHUNK as u32 + 3).map(|at| at * 5 % 37).collect();
        let x = random(2, &[targets.len(), 8]);
        let logits = matrix.forward(&x).unwrap().to_vec2::<f32>().unwrap();
        for logit_cap in [None, Some(3.0)] {
            let head = Head { matrix: &matrix, logit_cap };
            let capped = |logit: f32| logit_cap.map_or(f64::from(logit), |cap| 3.0 * f64::from(logit / cap).tanh());
            let ours: Vec<f32> = token_logprobs(&x, head, &targets, false).unwrap().to_vec1().unwrap();
            for ((logits, target), ours) in logits.iter().zip(&targets).zip(ours) {
                let total: f64 = logits.iter().map(|&logit| capped(logit).exp()).sum();
                assert!((f64::from(ours) - (capped(logits[*target as usize]) - total.ln())).abs() < 1e-5);
            }
            let short = x.narrow(0, CHUNK - 2, 5).unwrap().contiguous().unwrap();
            check_gradient(&[short], |inputs| token_logprobs(&inputs[0], head, &targets[CHUNK - 2..], true).unwrap());
            assert!(token_logprobs(&x, head, &[0], true).is_err());
            assert!(token_logprobs(&x.narrow(0, 0, 1).unwrap(), head, &[37], true).is_err());
        }
    }
}
