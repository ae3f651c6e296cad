//! AdamW over named variables, with a state that a checkpoint can hold: a run resumes bit for bit.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Tensor, Var, backprop::GradStore};

use crate::{Error, Result};

/// What stays the same over a run; the learning rate is the schedule's.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWSettings {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Keeps the division finite.
    pub eps: f64,
    /// Decoupled: each step shrinks a weight by this share of the learning rate.
    pub weight_decay: f64,
}

impl AdamWSettings {
    /// torch's defaults.
    pub(crate) const DEFAULT: Self = Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Loshchilov & Hutter, "Decoupled Weight Decay Regularization", in the order of operations of `torch.optim.AdamW`.
pub struct AdamW {
    settings: AdamWSettings,
    step: u64,
    moments: BTreeMap<String, Moments>,
}

struct Moments {
    var: Var,
    /// Times the learning rate.
    rate: f64,
    mean: Tensor,
    square: Tensor,
}

impl AdamW {
    /// An optimiser of these variables, which has taken no step.
    pub fn new(vars: impl IntoIterator<Item = (String, Var)>, settings: AdamWSettings) -> Result<Self> {
        let moments = vars.into_iter().map(|(name, var)| {
            let zeros = || var.zeros_like();
            Ok((name, Moments { rate: 1.0, mean: zeros()?, square: zeros()?, var }))
        });
        Ok(Self { settings, step: 0, moments: moments.collect::<Result<_>>()? })
    }

    /// The same with another learning rate for the variables whose names begin so: `factor` times everybody's.
    pub(crate) fn with_rate(mut self, prefix: &str, factor: f64) -> Self {
        for (_, of) in self.moments.iter_mut().filter(|(name, _)| name.starts_with(prefix)) {
            of.rate = factor;
        }
        self
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One step down the gradients, each multiplied by `scale` first (1, or less to clip their global norm). A variable
    /// without a gradient is an error: it would never learn.
    pub fn step(&mut self, grads: &GradStore, scale: f64, learning_rate: f64) -> Result<()> {
        let AdamWSettings { beta1, beta2, eps, weight_decay } = self.settings;
        if let Some(name) = self.moments.iter().find(|(_, of)| grads.get(&of.var).is_none()).map(|(name, _)| name) {
            return Err(Error::NoGradient(name.clone()));
        }
        self.step += 1;
        let correction = |beta: f64| 1.0 - beta.powf(self.step as f64);
        let (correction1, root) = (correction(beta1), correction(beta2).sqrt());
        for of in self.moments.values_mut() {
            let Some(grad) = grads.get(&of.var) else { continue };
            let learning_rate = learning_rate * of.rate;
            let step_size = learning_rate / correction1;
            let grad = (grad.detach() * scale)?;
            of.mean = ((&of.mean * beta1)? + (&grad * (1.0 - beta1))?)?.detach();
            of.square = ((&of.square * beta2)? + (grad.sqr()? * (1.0 - beta2))?)?.detach();
            let update = (&of.mean / ((of.square.sqrt()? / root)? + eps)?)?;
            let decayed = (of.var.as_tensor().detach() * (1.0 - learning_rate * weight_decay))?;
            of.var.set(&(decayed - (update * step_size)?)?)?;
        }
        Ok(())
    }

    /// A step by gradients that are scaled to a global norm of at most `max_grad_norm`; their norm before that.
    pub(crate) fn clipped_step(&mut self, grads: &GradStore, max_grad_norm: f64, learning_rate: f64) -> Result<f64> {
        let grad_norm = self.grad_norm(grads)?;
        self.step(grads, (max_grad_norm / grad_norm.max(1e-12)).min(1.0), learning_rate)?;
        Ok(grad_norm)
    }

    /// The global norm of the gradients of this optimiser's variables.
    pub fn grad_norm(&self, grads: &GradStore) -> Result<f64> {
        let squares = self.moments.values().filter_map(|of| grads.get(&of.var)).map(|grad| {
            let square = grad.sqr()?.sum_all()?.to_scalar::<f32>()?;
            Ok(f64::from(square))
        });
        Ok(squares.sum::<Result<f64>>()?.sqrt())
    }

    /// Everything a resumed run needs besides the variables: `NAME.mean` and `NAME.square`, f32, and the steps taken.
    pub fn state(&self) -> (u64, HashMap<String, Tensor>) {
        let tensors = self.moments.iter().flat_map(|(name, of)| {
            [(format!("{name}.mean"), of.mean.clone()), (format!("{name}.square"), of.square.clone())]
        });
        (self.step, tensors.collect())
    }

    /// Resumes from a [`Self::state`]; an error names a tensor that is missing or of another shape, and changes nothing.
    pub fn restore(&mut self, steps: u64, state: &HashMap<String, Tensor>) -> Result<()> {
        let of_var = |name: &str, part: &str, like: &Tensor| {
            let key = format!("{name}.{part}");
            let tensor = state.get(&key).ok_or_else(|| Error::OptimiserState(format!("`{key}` is missing")))?;
            if tensor.dims() != like.dims() {
                let (is, expected) = (tensor.dims(), like.dims());
                return Err(Error::OptimiserState(format!("`{key}` has shape {is:?}, expected {expected:?}")));
            }
            Ok(tensor.to_device(like.device())?)
        };
        let mut restored = Vec::new();
        for (name, of) in &self.moments {
            restored.push((of_var(name, "mean", &of.mean)?, of_var(name, "square", &of.square)?));
        }
        for (of, (mean, square)) in self.moments.values_mut().zip(restored) {
            (of.mean, of.square) = (mean, square);
        }
        self.step = steps;
        Ok(())
    }
}

/// Adds the gradients of some variables from another pass.
pub(crate) fn add_gradients(vars: &[(String, Var)], all: &mut GradStore, more: &GradStore) -> Result<()> {
    for (_, var) in vars {
        if let Some(grad) = more.get(var) {
            let grad = match all.get(var) {
                Some(known) => (known + grad)?.detach(),
                None => grad.clone(),
            };
            all.insert(var, grad);
        }
    }
    Ok(())
}

/// Sets variables to the tensors that have their names after `prefix`.
pub(crate) fn set_vars(vars: &[(String, Var)], tensors: &HashMap<String, Tensor>, prefix: &str) -> Result<()> {
    for (name, var) in vars {
        let key = format!("{prefix}{name}");
        let tensor = tensors.get(&key).ok_or_else(|| Error::OptimiserState(format!("`{key}` is missing")))?;
        var.set(&tensor.to_device(var.device())?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn var(values: &[f32]) -> Var {
        Var::from_tensor(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap()
    }

    fn values(var: &Var) -> Vec<f32> {
        var.to_vec1().unwrap()
    }

    /// `loss = sum(w * x)`, so the gradient is `w`.
    fn gradients(var: &Var, w: &[f32]) -> GradStore {
        (var.as_tensor() * Tensor::new(w, &Device::Cpu).unwrap()).unwrap().sum_all().unwrap().backward().unwrap()
    }

    // The recursion of `torch.optim.AdamW` in Python's doubles; `tests/shared_peft.rs` holds a whole adapter to torch itself.
    //
    // p *= 1 - lr * wd; m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g * g
    // p -= lr / (1 - b1**t) * m / (sqrt(v) / sqrt(1 - b2**t) + eps)
    // with lr 0.1, betas (0.9, 0.99), eps 1e-8, wd 0.1 and p = [1, -2, 0.5]
    #[test]
    fn three_steps_equal_the_recursion() {
        let var = var(&[1.0, -2.0, 0.5]);
        let settings = AdamWSettings { beta2: 0.99, weight_decay: 0.1, ..AdamWSettings::default() };
        let mut optimiser = AdamW::new([("p".to_owned(), var.clone())], settings).unwrap();
        for (grad, expected) in STEPS {
            optimiser.step(&gradients(&var, &grad), 1.0, 0.1).unwrap();
            for (ours, theirs) in values(&var).iter().zip(expected) {
                assert!((ours - theirs).abs() < 1e-6, "{:?} instead of {expected:?}", values(&var));
            }
        }
    }

    #[test]
    fn a_restored_optimiser_goes_on_bit_for_bit() {
        let run = |interrupted: bool| {
            let var = var(&[1.0, -2.0, 0.5]);
            let fresh = || AdamW::new([("p".to_owned(), var.clone())], AdamWSettings::default()).unwrap();
            let mut optimiser = fresh();
            for (step, (grad, _)) in STEPS.iter().enumerate() {
                if interrupted && step == 2 {
                    let (steps, state) = optimiser.state();
                    optimiser = fresh();
                    optimiser.restore(steps, &state).unwrap();
                }
                optimiser.step(&gradients(&var, grad), 0.7, 0.01).unwrap();
            }
            values(&var)
        };
        assert_eq!(run(true), run(false));
    }

    #[test]
    fn lost_gradients_and_foreign_states_are_errors() {
        let (p, q) = (var(&[1.0]), var(&[2.0, 3.0]));
        let vars = [("p".to_owned(), p.clone()), ("q".to_owned(), q)];
        let mut optimiser = AdamW::new(vars, AdamWSettings::default()).unwrap();
        let error = optimiser.step(&gradients(&p, &[1.0]), 1.0, 0.1).unwrap_err().to_string();
        assert!(error.contains("`q`"), "{error}");
        assert_eq!((values(&p), optimiser.steps()), (vec![1.0], 0));
        let error = optimiser.restore(3, &HashMap::new()).unwrap_err().to_string();
        assert!(error.contains("p.mean"), "{error}");
        let other = AdamW::new([("p".to_owned(), var(&[1.0, 2.0]))], AdamWSettings::default()).unwrap();
        let error = optimiser.restore(3, &other.state().1).unwrap_err().to_string();
        assert!(error.contains("shape [2]") && optimiser.steps() == 0, "{error}");
    }

    #[test]
    fn the_norm_is_over_all_variables() {
        let (p, q) = (var(&[1.0]), var(&[2.0, 3.0]));
        let vars = [("p".to_owned(), p.clone()), ("q".to_owned(), q.clone())];
        let optimiser = AdamW::new(vars, AdamWSettings::default()).unwrap();
        let loss = ((p.as_tensor().sum_all().unwrap() * 2.0).unwrap() + q.as_tensor().sum_all().unwrap()).unwrap();
        let norm = optimiser.grad_norm(&loss.backward().unwrap()).unwrap();
        assert!((norm - 6f64.sqrt()).abs() < 1e-6);
    }

    /// Gradients and the parameters after each step.
    const STEPS: [([f32; 3], [f32; 3]); 3] = [
        ([0.5, -1.0, 0.0], [0.89, -1.88, 0.495]),
        ([0.25, 3.0, 0.001], [0.787_755_2, -1.910_529_8, 0.415_805_1]),
        ([-2.0, 0.1, 5.0], [0.821_858_8, -1.931_645_2, 0.348_041_6]),
    ];
}
